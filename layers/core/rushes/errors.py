"""What can go wrong, as types. Handlers turn these into HTTP answers in one place each; nobody matches on text.

RushesError
├── SettingsError            a setting is missing or makes no sense; the function cannot work
├── MissingSecretError       a secret exists but holds no value yet
├── SecretsError             Secrets Manager did not answer, and no value is recent enough to do without
├── BadTokenError            a callback's token is not ours, not for this clip, or too old
├── UnreadableError          bytes from outside that are not what they should be
├── UnknownClipError         a callback names a clip that is not in the table, though its token is ours
├── ProviderError            Runware did not answer a question properly; what it knows is unknown
├── BatchError               not one record of a batch could be worked on
├── RescueError              a render's bytes could not be brought into the bucket
│   ├── OriginRefusedError   the render lies at an origin that is not allowed
│   └── UnusableRenderError  what lies at the address is no copy and never will be
├── BucketError              S3 did not answer; whether the object is there is unknown
├── BusError                 the event bus did not take an event; nobody was told
├── InboxError               the inbox did not take a message; whether it did is unknown
├── PostponedError           a message of the inbox cannot be served now; it has to come back
└── StoreError
    ├── StaleError           the clip moved on since it was read; read again
    ├── UnreadableClipError  a clip of the table that this version cannot read
    └── BusyError            the table stayed contended or away through every bounded retry; a write may have
                             taken effect only where the error says so
"""


class RushesError(Exception):
    """The root of everything this package raises on purpose."""


class SettingsError(RushesError):
    """A setting is missing or invalid. The message names the environment variable."""


class MissingSecretError(RushesError):
    """The secret has no usable value: the service is deployed but not configured."""


class SecretsError(RushesError):
    """Secrets Manager could not say. The message is its own error code."""


class BadTokenError(RushesError):
    """The one answer to every fault of a token, so that a forger learns nothing from the difference."""


class UnreadableError(RushesError):
    """Outside input of the wrong shape. The message is safe to show: it never repeats the input."""


class UnknownClipError(RushesError):
    """No such clip is recorded, so nothing can be learned about it."""


class ProviderError(RushesError):
    """Runware could not say: no connection, a server error, or a body that is not its envelope."""


class BatchError(RushesError):
    """Every record of a batch failed; each was noted by itself. The message holds the errors' types alone."""


class RescueError(RushesError):
    """Why a render's bytes could not be had. The message holds no URL."""


class OriginRefusedError(RescueError):
    """The address is of another origin than those allowed. `origin` is its scheme, host and port alone."""

    def __init__(self, origin: str) -> None:
        super().__init__(f"{origin} is not an allowed origin")
        self.origin = origin


class UnusableRenderError(RescueError):
    """The address answered properly, with something that is no video or too large: it will answer so again."""


class BucketError(RushesError):
    """S3 could not say. The message is S3's own error code."""


class BusError(RushesError):
    """EventBridge did not take an event. The message is its own error code."""


class InboxError(RushesError):
    """The inbox could not be given a message. The message is SQS's own error code."""


class PostponedError(RushesError):
    """Not now: no money, no time or no table. Nothing was bought for this message, and it is kept for later."""


class StoreError(RushesError):
    """The table could not do what was asked."""


class StaleError(StoreError):
    """A version condition failed: somebody else saved this clip first."""


class UnreadableClipError(StoreError):
    """The table holds this clip in a form that this version cannot read: a later version's, or a person's work."""


class BusyError(StoreError):
    """The table could not be used: contention, throttling or an outage outlasted the retries, or access is denied.

    `possibly_written`: the answer to a write was lost, which may have taken effect. Otherwise nothing was written.
    """

    def __init__(self, reason: str = "", *, possibly_written: bool = False) -> None:
        super().__init__(reason)
        self.possibly_written = possibly_written
