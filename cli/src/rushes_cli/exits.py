"""The exit statuses of the command, which are stable for scripts, and the errors that cause them."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit statuses. 130 and 143 have their usual meaning: ended by Ctrl-C and by SIGTERM."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TIMED_OUT = 3
    UNAVAILABLE = 4
    NOT_ALLOWED = 5
    NOT_CONFIRMED = 6


MEANINGS = {
    Exit.OK: "success",
    Exit.FAILED: "failure: a task was refused or not found, a clip failed or is in review, or there are findings",
    Exit.USAGE: "invalid arguments, file or configuration; nothing was sent",
    Exit.TIMED_OUT: "timeout; the clips are still in progress",
    Exit.UNAVAILABLE: "the service or AWS is unavailable or busy; the same command, without --new, repeats safely",
    Exit.NOT_ALLOWED: "missing or rejected credentials or URL, or no Rushes service at the URL",
    Exit.NOT_CONFIRMED: "not confirmed; nothing was bought or removed",
}


class CommandError(Exception):
    """Ends the command with one line on standard error. The text is for users and contains no secret."""

    def __init__(self, message: str, status: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(CommandError):
    """The caller has no such task."""


class UsageError(CommandError):
    """An argument, a file or the configuration is invalid."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.USAGE)


class UnavailableError(CommandError):
    """The service gave no final answer. If `sent`, it may have received the request."""

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message, Exit.UNAVAILABLE)
        self.sent = sent


class NotAllowedError(CommandError):
    """The credentials or the URL are missing or were rejected, or the URL is not that of a Rushes service."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.NOT_ALLOWED)
