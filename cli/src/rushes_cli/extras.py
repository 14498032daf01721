"""Checks for the optional parts of the command, with instructions to install them."""

from importlib.util import find_spec

from rushes_cli.exits import UsageError

# The packages of the extra `operator`; `rushes` is part of this package's own wheel.
OPERATOR_PACKAGES = ("boto3", "imagesize", "itsdangerous", "rushes")


def require_operator(verb: str) -> None:
    """Raises `UsageError` with installation instructions if the extra `operator` is not installed."""
    if any(find_spec(name) is None for name in OPERATOR_PACKAGES):
        raise UsageError(
            f"{verb} is for operators: install it with `pipx install --force './cli[operator]'`, or with pip, in a "
            "checkout of Rushes."
        )


def refuse_local(verb: str) -> None:
    """Raises `UsageError` with instructions to install the local stack, which has this verb."""
    raise UsageError(f"{verb} needs the local stack: run `make demo` in a checkout of Rushes, which installs it.")
