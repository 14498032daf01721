"""The addresses to which deliveries may be sent: the form of a receiver's URL, and the allowed IP addresses.

A URL comes from a caller, so it must not make the service send requests into a private network. The URL is checked
when a task is submitted, and every address of its host again at each attempt, when the connection is made. Pure.
"""

import ipaddress
import re
from urllib.parse import urlsplit

MAX_URL_LENGTH = 2048  # characters
_VISIBLE = re.compile(r"[!-~]+")
# Ranges that embed or translate IPv4 addresses, private ones included.
_TRANSLATED = [ipaddress.IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


def url_fault(url: str, *, loopback: bool) -> str | None:
    """Returns the rest of a sentence about the fault of a receiver's URL, or None for a valid one.

    `loopback` allows receivers on the same machine, also by http.
    """
    if len(url) > MAX_URL_LENGTH:
        return f"must not be longer than {MAX_URL_LENGTH} characters"
    if not _VISIBLE.fullmatch(url) or "\\" in url:
        return "must be a URL of ASCII characters without spaces; encode other characters"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "must be a URL with a valid host and port"
    if parts.scheme != "https" and not (loopback and parts.scheme == "http" and _is_loopback(host or "")):
        return "must begin with https://"
    if not host or port == 0:
        return "must be a URL with a valid host and port"
    if "@" in parts.netloc:
        return "must not contain a user name or password; put a token into the path or query"
    if parts.fragment or url.endswith("#"):
        return "must not have a fragment (#)"
    if not _is_allowed_host(host, loopback=loopback):
        return "must not be an address of a private or reserved network"
    return None


def is_allowed_address(text: str, *, loopback: bool) -> bool:
    """True if a delivery may be sent to this IP address: a public unicast address, or with `loopback` a local one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:  # such as one with a scope: fe80::1%eth0
        return False
    if loopback and address.is_loopback:
        return True
    if isinstance(address, ipaddress.IPv6Address) and (
        address not in _GLOBAL_UNICAST or any(address in network for network in _TRANSLATED)
    ):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def origin(url: str) -> str:
    """Returns scheme, host and port of a valid URL: the part that may be shown, without tokens."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _is_allowed_host(host: str, *, loopback: bool) -> bool:
    """True for an allowed address, and for any name that does not stand for this machine: names are resolved later."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return loopback or not _is_loopback(host)
    return is_allowed_address(host, loopback=loopback)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        name = host.rstrip(".").lower()
        return name == "localhost" or name.endswith(".localhost")
