"""The errors of the service, as types. Each handler maps them to HTTP responses in one place, never by their text.

RushesError
├── SettingsError            a setting is missing or invalid; the function cannot work
├── MissingSecretError       a secret exists but has no value yet
├── SecretsError             Secrets Manager is unavailable, and no cached value is recent enough
├── BadTokenError            a callback's token is forged, of another clip, or too old
├── UnreadableError          input from outside has the wrong shape
├── UnknownClipError         a callback with a valid token is about a clip that is not in the table
├── ProviderError            Runware did not answer a poll properly; the state of the clip is unknown
├── BatchError               all records of a batch failed
├── RescueError              a render could not be copied into the bucket
│   ├── OriginRefusedError   the origin of the render is not allowed
│   └── UnusableRenderError  the content at the URL is permanently unusable
├── BucketError              S3 is unavailable; the state of the object is unknown
├── BusError                 the event bus did not accept an event; it is not published
├── InboxError               sending to the inbox failed; the message may have been sent
├── QueueError               sending to the queue of deliveries failed; the message may have been sent
├── PostponedError           a message of the inbox cannot be processed now; it has to be retried
└── StoreError
    ├── StaleError           the clip changed since it was read; read it again
    ├── UnreadableClipError  a clip's record in the table is invalid or of a later version
    └── BusyError            the table was contended or unavailable in all retries; a write may have taken
                             effect only with `possibly_written`
"""


class RushesError(Exception):
    """The base class of all errors of this package."""


class SettingsError(RushesError):
    """A setting is missing or invalid. The message names the environment variable."""


class MissingSecretError(RushesError):
    """The secret has no usable value: the service is deployed, but not configured."""


class SecretsError(RushesError):
    """Secrets Manager is unavailable. The message is its error code."""


class BadTokenError(RushesError):
    """The only error for all faults of a token, so that a forger cannot distinguish them."""


class UnreadableError(RushesError):
    """Input from outside has the wrong shape. The message is safe to show: it never repeats the input."""


class UnknownClipError(RushesError):
    """The clip is not recorded, so no fact can be added."""


class ProviderError(RushesError):
    """Runware is unavailable: no connection, a server error, or a body without its envelope."""


class BatchError(RushesError):
    """All records of a batch failed; each is logged by itself. The message has only the types of the errors."""


class RescueError(RushesError):
    """A render could not be copied. The message has the reason, without a URL."""


class OriginRefusedError(RescueError):
    """The URL's origin is not an allowed one. `origin` is its scheme, host and port."""

    def __init__(self, origin: str) -> None:
        super().__init__(f"{origin} is not an allowed origin")
        self.origin = origin


class UnusableRenderError(RescueError):
    """The URL's content is not a video, or too large. A retry would not help."""


class BucketError(RushesError):
    """S3 is unavailable. The message is its error code."""


class BusError(RushesError):
    """EventBridge did not accept an event. The message is its error code."""


class InboxError(RushesError):
    """A message could not be sent to the inbox. The error's message is the code from SQS."""


class QueueError(RushesError):
    """A delivery could not be queued. The message is the code from SQS."""


class PostponedError(RushesError):
    """No budget, time or table at present. Nothing was bought for this message; a retry may succeed."""


class StoreError(RushesError):
    """The base class of the table's errors."""


class StaleError(StoreError):
    """A version condition failed: another process saved this clip first."""


class UnreadableClipError(StoreError):
    """This version cannot read the clip's record: a later version or a person wrote it."""


class BusyError(StoreError):
    """The table is unavailable: contention, throttling or an outage outlasted the retries, or access is denied.

    `possibly_written` is True if the response to a write was lost, so that it may have taken effect.
    """

    def __init__(self, reason: str = "", *, possibly_written: bool = False) -> None:
        super().__init__(reason)
        self.possibly_written = possibly_written
