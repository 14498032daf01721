"""The short road into moto's DynamoDB: from the WSGI request to its handler.

Hides what the long road is: moto guesses the service from the signature and the host, and has Flask look for the one
view that DynamoDB has, in contexts made for each request. Here the same handler gets the same request without them, so
whatever it answers stays as it is. What is not plainly a DynamoDB request goes the long way.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def shortened(long_road: "WSGIApplication") -> "WSGIApplication":
    """moto's server application, which `long_road` is, with the short road for DynamoDB. Imports moto."""
    from moto.dynamodb.responses import DynamoHandler
    from moto.moto_server.werkzeug_app import BackendRequest
    from werkzeug.exceptions import HTTPException
    from werkzeug.wrappers import Response

    handle: Callable[[Any, str, dict[str, str]], tuple[int, dict[str, str], str]] = DynamoHandler.dispatch

    def answer(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if not _is_short(environ):
            return long_road(environ, start_response)
        request = BackendRequest(environ)
        try:
            status, headers, body = handle(request, request.raw_url, dict(request.headers))
        except HTTPException as error:
            return error(environ, start_response)
        return Response(body, status, headers)(environ, start_response)

    return answer


def _is_short(environ: "WSGIEnvironment") -> bool:
    target: str = environ.get("HTTP_X_AMZ_TARGET", "")
    scope: str = environ.get("HTTP_AUTHORIZATION", "").partition(",")[0]
    to_dynamodb = target.startswith("DynamoDB_20120810.") and scope.endswith("/dynamodb/aws4_request")
    return to_dynamodb and (environ["REQUEST_METHOD"], environ["PATH_INFO"]) == ("POST", "/")
