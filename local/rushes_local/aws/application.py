"""AWS on this machine: moto's server application with the strictness of AWS.

Hides moto and corrects its deviations: it accepts forged and expired presigned URLs and unsigned requests, behind
waitress it decodes the keys of objects twice, and it stores uploads with the content type of a form as empty objects.
Under threads its transactions and conditional uploads are not atomic, and it loses messages of queues and versions of
objects. Also injects faults for tests, and behaves as unkindly as AWS under an `AwsBehavior`.
"""

import io
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from rushes_local.aws.behavior import AS_MOTO, AwsBehavior, Chance
from rushes_local.aws.bucket_settings import correct_buckets
from rushes_local.aws.dynamodb_requests import DynamoDb
from rushes_local.aws.error_response import AwsError, Service
from rushes_local.aws.event_buses import name_event_buses
from rushes_local.aws.fair_queues import make_queues_fair
from rushes_local.aws.growing_costs import reduce_costs
from rushes_local.aws.message_delivery import deliver, leave_visible
from rushes_local.aws.policy_simulation import simulate_policies
from rushes_local.aws.queue_locks import lock_queues
from rushes_local.aws.stream_records import correct_streams
from rushes_local.aws.transactions import roll_back_by_item

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# The credentials of every component on this machine. They are valid nowhere else.
CREDENTIALS = Credentials("local-access-key", "local-secret-key")

_MAX_EXPIRY = 7 * 24 * 3600
_CLOCK_SKEW = timedelta(minutes=15)
_DATE_FORMAT = "%Y%m%dT%H%M%SZ"
_SIGNED_FOR = re.compile(r"/([a-z0-9-]+)/aws4_request")


FAULTS = {
    "InternalServerError": (500, "The request processing has failed because of an unknown error"),
    "ThrottlingException": (400, "Rate of requests exceeds the allowed throughput"),
    "ProvisionedThroughputExceededException": (400, "The level of configured throughput was exceeded"),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "SlowDown": (503, "Please reduce your request rate."),
}
"""Status and message of each fault, by its code: the first three are DynamoDB's, the last two S3's."""

# From the API reference of DynamoDB: "Your request rate is too high. The AWS SDKs for DynamoDB automatically retry
# requests that receive this exception." From S3's error codes: "503 Slow Down: Please reduce your request rate."
_THROTTLING: dict[Service, tuple[str, ...]] = {
    "dynamodb": ("ThrottlingException", "ProvisionedThroughputExceededException"),
    "s3": ("SlowDown",),
}


@dataclass
class _Fault:
    code: str
    times: int | None
    fraction: float
    after: bool

    def error(self) -> AwsError:
        return AwsError(self.code, *FAULTS[self.code])


class AwsFaults:
    """Injected errors. The same seed selects the same requests if they arrive in the same order."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._active: dict[Service, _Fault] = {}
        self._throttled = 0.0
        self._lock = threading.Lock()

    def fail(
        self, service: Service, code: str, *, times: int | None = None, fraction: float = 1.0, after: bool = False
    ) -> None:
        """Answer this fraction of a service's requests with `code`, a key of FAULTS, `times` times or until `clear`.

        With `after` the request takes effect first, and only its response is lost. Raises ValueError for another code.
        """
        if code not in FAULTS:
            raise ValueError(f"{code} is not a fault: use one of {', '.join(FAULTS)}")
        with self._lock:
            self._active[service] = _Fault(code, times, fraction, after)

    def throttle(self, fraction: float) -> None:
        """Throttle this fraction of DynamoDB's and S3's requests while no other fault is active, also after `clear`."""
        with self._lock:
            self._throttled = fraction

    def clear(self) -> None:
        """Remove every fault."""
        with self._lock:
            self._active.clear()

    def take(self, service: Service) -> _Fault | None:
        """The fault for a service's next request, or None. Counts it as used."""
        with self._lock:
            fault = self._active.get(service) or self._throttling(service)
            if fault is None or fault.times == 0 or self._random.random() >= fault.fraction:
                return None
            if fault.times is not None:
                fault.times -= 1
            return fault

    def _throttling(self, service: Service) -> _Fault | None:
        if not self._throttled or service not in _THROTTLING:
            return None
        return _Fault(self._random.choice(_THROTTLING[service]), None, self._throttled, after=False)


@dataclass(frozen=True)
class Access:
    """A request and its response. AWS's names of service and operation; S3's operations by their HTTP method."""

    service: str
    operation: str
    request: bytes
    status: int
    response_size: int


class Aws:
    """A WSGI application. Its state is moto's, which is global to the process; `load` clears it.

    The `observer` is called with every request after its response, in the thread of the request. `behavior` is in
    force from `load`; `behave` replaces it. A `remote_table` answers the requests to DynamoDB and its streams in place
    of moto.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        fault_seed: int = 0,
        behavior: AwsBehavior = AS_MOTO,
        remote_table: "WSGIApplication | None" = None,
    ) -> None:
        self.faults = AwsFaults(fault_seed)
        self.observer: Callable[[Access], object] | None = None
        self._clock = clock
        self._application: WSGIApplication | None = None
        self._dynamodb = DynamoDb(clock, sleep)
        # moto reads an object's versions, and later writes them with a new one: of two uploads at once, one was lost.
        self._bucket_lock = threading.Lock()
        self._behavior, self._chance = behavior, Chance(behavior.seed)
        self._remote_table = remote_table

    def load(self) -> None:
        """Import moto and clear its state. Not at the top, because the import takes a second or two."""
        from moto.moto_api._internal.models import moto_api_backend
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        roll_back_by_item()
        correct_streams()
        name_event_buses()
        reduce_costs()
        correct_buckets()
        simulate_policies()
        make_queues_fair()
        lock_queues()
        moto_api_backend.reset()
        self._application = DomainDispatcherApplication(create_backend_app)
        self.behave(self._behavior)

    def behave(self, behavior: AwsBehavior) -> None:
        """Behave so from the next request on. Needs `load`. Raises ValueError for a remote table, which is as it is."""
        if self._remote_table is not None and behavior != AS_MOTO:
            raise ValueError("a remote table behaves as its server does")
        self._behavior, self._chance = behavior, Chance(behavior.seed)
        self.faults.throttle(behavior.throttled)
        self._dynamodb.behave(behavior, self._chance)
        deliver(behavior, self._chance)

    def catch_up(self) -> None:
        """Make all writes to DynamoDB up to now visible to every read."""
        self._dynamodb.catch_up()

    @property
    def effects(self) -> Counter[str]:
        """The number of times that each behavior had an effect, since `behave`."""
        return self._chance.counts

    def repeats_batch(self) -> bool:
        """A decision: True if Lambda processes a batch of a stream again."""
        return self._chance.happens(self._behavior.repeated_batches, "batch repeated")

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        observer = self.observer  # may be replaced during the request
        if observer is None:
            return self._respond(environ, start_response)
        request = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(request)
        statuses: list[str] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
            statuses.append(status)
            return start_response(status, headers, exc_info)

        response = b"".join(self._respond(environ, start))
        observer(Access(*_operation(environ), request, int(statuses[-1].partition(" ")[0]), len(response)))
        return [response]

    def _respond(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        service = _service(environ)
        try:
            check_signature(environ, self._clock())
            return self._answer(service, environ, start_response)
        except AwsError as error:
            content_type, body = error.body(service)
            headers = [("content-type", content_type), ("content-length", str(len(body)))]
            start_response(f"{error.status} {error.code}", headers)
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, service: Service, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        fault = self.faults.take(service)
        if fault and not fault.after:
            raise fault.error()
        if fault:
            self._forward(service, environ, _discard_response)
            raise fault.error()
        return self._forward(service, environ, start_response)

    def _lapse(self, environ: "WSGIEnvironment") -> None:
        """Let the messages of a batch stay visible, at the fraction of the behavior."""
        if self._chance.happens(self._behavior.lapsed_receipts, "receive left visible"):
            request = leave_visible(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
            environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(request), str(len(request))

    def _forward(
        self, service: Service, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        if self._application is None:
            raise AwsError("ServiceUnavailable", 503, "moto is being imported")
        # The undecoded path, which moto reads under another name than waitress's; without it moto decodes a key twice.
        if "REQUEST_URI" in environ:
            environ["RAW_URI"] = environ["REQUEST_URI"]
        # moto would read an upload of this type, which curl and urllib set, as a form and store an empty object.
        if environ["REQUEST_METHOD"] == "PUT" and environ.get("CONTENT_TYPE") == "application/x-www-form-urlencoded":
            environ["CONTENT_TYPE"] = "binary/octet-stream"  # the type that S3 gives an upload without one
        if self._remote_table is not None and (service == "dynamodb" or _is_about_a_stream(environ)):
            return self._remote_table(environ, start_response)
        if service == "dynamodb":
            return self._dynamodb.answer(self._application, environ, start_response)
        if _is_about_a_stream(environ):
            with self._dynamodb.lock:
                return list(self._application(environ, start_response))
        if service == "s3" and environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            with self._bucket_lock:
                return list(self._application(environ, start_response))
        if _operation(environ) == ("sqs", "ReceiveMessage"):
            self._lapse(environ)
        return self._application(environ, start_response)


def _discard_response(
    _status: str, _headers: list[tuple[str, str]], _exc_info: Any = None, /
) -> Callable[[bytes], object]:
    return lambda _: None


def _service(environ: "WSGIEnvironment") -> Service:
    if environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB_"):
        return "dynamodb"
    scope = environ.get("HTTP_AUTHORIZATION", "").partition(",")[0]
    return "s3" if not scope or scope.endswith("/s3/aws4_request") else "other"


def _is_about_a_stream(environ: "WSGIEnvironment") -> bool:
    # Not part of the service `dynamodb`: Lambda reads the streams, and faults are for requests of functions.
    return bool(environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDBStreams_"))


def _operation(environ: "WSGIEnvironment") -> tuple[str, str]:
    """The service and operation of a request. A request without an Authorization header is presigned, for S3."""
    signed_for = _SIGNED_FOR.search(environ.get("HTTP_AUTHORIZATION", ""))
    operation = environ.get("HTTP_X_AMZ_TARGET", "").partition(".")[2] or environ["REQUEST_METHOD"]
    return signed_for[1] if signed_for else "s3", operation


def check_signature(environ: "WSGIEnvironment", now: float) -> None:
    """Check a request as S3 does: it must be signed in its header, or presigned correctly and not expired.

    `now` is in Unix seconds. Signatures in headers are not checked, because only boto3 creates them here. Raises
    AwsError.
    """
    if environ.get("HTTP_AUTHORIZATION"):
        return
    query = parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    parameters = dict(query)
    if "X-Amz-Signature" not in parameters:
        raise AwsError("AccessDenied", 403, "Access Denied")
    try:
        _check_time(parameters["X-Amz-Date"], int(parameters["X-Amz-Expires"]), datetime.fromtimestamp(now, UTC))
        expected = _sign(environ, query, parameters)
    except (KeyError, ValueError):
        raise AwsError("AuthorizationQueryParametersError", 400, "The query parameters are not valid") from None
    if parameters["X-Amz-Signature"] != expected:
        text = "The request signature we calculated does not match the signature you provided."
        raise AwsError("SignatureDoesNotMatch", 403, text)


def _check_time(date: str, expires: int, now: datetime) -> None:
    signed_at = datetime.strptime(date, _DATE_FORMAT).replace(tzinfo=UTC)
    if not 1 <= expires <= _MAX_EXPIRY:
        raise ValueError(f"expires in {expires} s")
    if now > signed_at + timedelta(seconds=expires):
        raise AwsError("AccessDenied", 403, "Request has expired")
    if signed_at > now + _CLOCK_SKEW:
        raise AwsError("AccessDenied", 403, "Request is not valid yet")


def _sign(environ: "WSGIEnvironment", query: list[tuple[str, str]], parameters: dict[str, str]) -> str:
    """The correct signature of the request, from botocore's signer."""
    access_key, _, region, _, _ = parameters["X-Amz-Credential"].split("/")
    if access_key != CREDENTIALS.access_key:
        raise AwsError("InvalidAccessKeyId", 403, "The access key does not exist in our records.")
    # S3 signs the canonical encoding of path and query, which may differ from the client's.
    path = quote(environ["PATH_INFO"].encode("latin-1"), safe="/-_.~")
    pairs = (
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query if name != "X-Amz-Signature"
    )
    headers = {name: _header(environ, name) for name in parameters["X-Amz-SignedHeaders"].split(";")}
    url = f"http://{environ['HTTP_HOST']}{path}?{'&'.join(pairs)}"
    request = AWSRequest(method=environ["REQUEST_METHOD"], url=url, headers=headers)
    request.context["timestamp"] = parameters["X-Amz-Date"]
    signer = S3SigV4QueryAuth(CREDENTIALS, "s3", region)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(text, request))


def _header(environ: "WSGIEnvironment", name: str) -> str:
    key = name.upper().replace("-", "_")
    return str(environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"])
