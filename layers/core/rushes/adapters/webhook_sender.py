"""POSTs deliveries to callers' receivers, whose URLs and responses are untrusted.

One deadline for the whole exchange, no redirects, no connection to an address that is not allowed, and a bounded read
of the response. No exception leaves `post`: every fault of a receiver is a `Reply`.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial

import httpx

from rushes.adapters.bounded_http import ADDRESS_REFUSED, bounded_transport
from rushes.domain.delivery import Reply
from rushes.domain.receiver_url import is_allowed_address
from rushes.domain.redaction import Redactor, secrets_in

_MAX_ANSWER_BYTES = 4096  # bytes of a response's body that are read
_MAX_EXCERPT = 300  # characters of it that are recorded


class WebhookSender:
    """Sends deliveries over HTTPS within `timeout` seconds each. `clock` gives milliseconds.

    `loopback` allows receivers on the same machine.
    """

    def __init__(self, timeout: float, clock: Callable[[], int], *, loopback: bool) -> None:
        transport = bounded_transport(partial(is_allowed_address, loopback=loopback))
        self._http = httpx.Client(timeout=timeout, transport=transport, follow_redirects=False, trust_env=False)
        self._http.headers.clear()
        self._clock = clock

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Sends one attempt and returns the receiver's response, or the reason why there is none."""
        began, status, retry_after, failure = time.monotonic(), None, None, ""
        answer = bytearray()
        try:
            fixed = {"Content-Type": "application/json", "User-Agent": "rushes", "Accept-Encoding": "identity"}
            with self._http.stream("POST", url, content=body, headers={**fixed, **headers}) as response:
                status = response.status_code
                retry_after = _retry_after(response.headers.get("Retry-After", ""), self._clock())
                for chunk in response.iter_raw():
                    answer += chunk
                    if len(answer) >= _MAX_ANSWER_BYTES:
                        break
        except httpx.TimeoutException:
            failure = "timeout"
        except httpx.ConnectError as error:
            failure = "address not allowed" if ADDRESS_REFUSED in str(error) else "connection failed"
        except Exception as error:  # of any kind: the receiver's answer is hostile input
            failure = type(error).__name__
        duration = round((time.monotonic() - began) * 1000)
        excerpt = Redactor(secrets_in(url)).text(bytes(answer).decode(errors="replace"))[:_MAX_EXCERPT]
        return Reply(status, duration, excerpt, retry_after, failure)


def _retry_after(text: str, now: int) -> int | None:
    """The pause of a `Retry-After` header in milliseconds, given in seconds or as a date; None without a valid one."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return int(text[:9]) * 1000
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0, round((at - datetime.fromtimestamp(now / 1000, UTC)).total_seconds() * 1000))
