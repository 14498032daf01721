"""A table on another server with DynamoDB's API, or in an AWS account, in place of moto's.

Forwards the requests to DynamoDB and its streams and signs them with that server's credentials, which neither the
functions nor the tests get. All other services stay on this machine, and so do the injected faults.
"""

import json
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from rushes_local.aws.error_response import AwsError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_PASSED_ON = ("content-type", "x-amz-crc32", "x-amzn-requestid")
_WRITES = ("BatchWriteItem", "DeleteItem", "PutItem", "TransactWriteItems", "UpdateItem")
_TIMEOUT = 30.0  # seconds


class RemoteTable:
    """A WSGI application for the table `name`. `dynamodb` and `streams` are the URLs of the two services.

    `index_lag` is the longest time in seconds that an index of that server is behind its table: a read of an index
    waits so long after the last write.
    """

    def __init__(
        self,
        name: str,
        *,
        dynamodb: str,
        streams: str,
        region: str,
        credentials: Credentials,
        index_lag: float = 0.0,
        http: httpx.Client | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self._urls = {"DynamoDB": dynamodb, "DynamoDBStreams": streams}
        self._region, self._credentials, self._index_lag = region, credentials, index_lag
        self._http = http or httpx.Client(timeout=_TIMEOUT)
        self._clock, self._sleep = clock, sleep
        self._indexed_at = 0.0

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        target = environ["HTTP_X_AMZ_TARGET"]
        operation = target.partition(".")[2]
        if self._index_lag and operation in ("Query", "Scan") and "IndexName" in json.loads(body):
            self._sleep(max(0.0, self._indexed_at - self._clock()))
        try:
            response = self._send(target, body)
        except httpx.HTTPError as error:
            raise AwsError("ServiceUnavailable", 503, f"no answer from the table's server: {error}") from None
        if operation in _WRITES:
            self._indexed_at = self._clock() + self._index_lag
        headers = [(name, response.headers[name]) for name in _PASSED_ON if name in response.headers]
        content = response.content
        start_response(f"{response.status_code} {response.reason_phrase or 'Status'}", [*headers, _length(content)])
        return [content]

    def _send(self, target: str, body: bytes) -> httpx.Response:
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": target}
        url = self._urls[target.partition("_")[0]]
        request = AWSRequest("POST", f"{url.rstrip('/')}/", headers=headers, data=body)
        SigV4Auth(self._credentials.get_frozen_credentials(), "dynamodb", self._region).add_auth(request)
        # Uncompressed: the server's checksum is that of the bytes as they were sent.
        return self._http.post(
            str(request.url), content=body, headers={**request.headers, "Accept-Encoding": "identity"}
        )


def _length(content: bytes) -> tuple[str, str]:
    return "content-length", str(len(content))
