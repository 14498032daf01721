"""How a run of the command ends: exit statuses that scripts can trust, and the errors that lead to them."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit statuses. 130 and 143, as ever, mean ended by Ctrl-C and by SIGTERM."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TIMED_OUT = 3
    UNAVAILABLE = 4
    NOT_ALLOWED = 5
    NOT_CONFIRMED = 6


MEANINGS = {
    Exit.OK: "everything that was asked for is so",
    Exit.FAILED: "done, and something is not as asked for: refused, failed, in review, not found, or a check's finding",
    Exit.USAGE: "the command line, a file or the configuration makes no sense; nothing was sent",
    Exit.TIMED_OUT: "the time to wait ran out; the clips are still on their way",
    Exit.UNAVAILABLE: "the service did not answer, or is busy; the same command may be given again",
    Exit.NOT_ALLOWED: "no address or no key is configured, or the service or AWS does not accept it",
    Exit.NOT_CONFIRMED: "the purchase was not confirmed; nothing was bought",
}


class CommandError(Exception):
    """Ends the command with one line on standard error. The text is meant for people and holds no secret."""

    def __init__(self, message: str, status: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.status = status


class UsageError(CommandError):
    """What was typed, or what lies in a file, makes no sense."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.USAGE)


class UnavailableError(CommandError):
    """The service could not be asked; whatever was sent may have arrived."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.UNAVAILABLE)


class NotAllowedError(CommandError):
    """Nobody lets us in, or nobody said where."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.NOT_ALLOWED)
