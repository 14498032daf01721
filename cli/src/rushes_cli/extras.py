"""What is installed beside the callers' verbs, and how to install what is not."""

from importlib.util import find_spec

from rushes_cli.exits import UsageError

# What the extra `operator` brings; `rushes` lies in this package's own wheel.
OPERATOR_PACKAGES = ("boto3", "imagesize", "rushes")


def require_operator(verb: str) -> None:
    """Raises `UsageError` with the way to install an operator's verb, where that has not been done."""
    if any(find_spec(name) is None for name in OPERATOR_PACKAGES):
        raise UsageError(
            f"{verb} is for operators: install it with `pipx install --force './cli[operator]'`, or with pip, in a "
            "checkout of Rushes."
        )


def refuse_local(verb: str) -> None:
    """Raises `UsageError` with the way to install a verb of the local stack."""
    raise UsageError(f"{verb} needs the local stack: run `make demo` in a checkout of Rushes, which installs it.")
