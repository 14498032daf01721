"""The API as an OpenAPI 3.1 document: `python -m rushes_local.openapi` writes docs/openapi.json.

Powertools' resolver makes the document, from typed twins of the deployed routes. The deployed ones stay untyped: a task
is validated by itself, so that a bad one leaves the others bought, and what describes an API costs a cold start. A test
holds twins and template together, another one the document and real answers.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypeAlias

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver
from aws_lambda_powertools.event_handler.openapi import params
from aws_lambda_powertools.event_handler.openapi.models import APIKey, APIKeyIn, HTTPBearer
from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from rushes.reading import MOST_COSTS, MOST_TASKS, USUAL_TASKS
from rushes.runware.kling import KLING_2_1_MASTER
from rushes.runware.models import request_type
from rushes.runware.wire import UUID4_SCHEMA
from rushes.submitting import MOST_CLIPS
from rushes.submitting import MOST_TASKS as MOST_IN_ONE

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"

Json: TypeAlias = dict[str, Any]
Uuid = Annotated[str, Field(json_schema_extra=UUID4_SCHEMA)]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", description="ISO 8601, UTC")]
Dollars = Annotated[float, Field(description="US dollars")]
Link = Annotated[str, Field(description="presigned, good for an hour or the task's own ttl if that is shorter")]
TaskStatus = Literal["running", "review", "succeeded", "failed", "partial"]
ClipStatus = Literal["pending", "running", "rendered", "stored", "failed", "review"]
Witness = Literal["submission", "webhook", "poll", "bucket", "clock", "operator"]

_closed = with_config(ConfigDict(extra="forbid"))  # so that an answer with a field more than these fails its test

# ----------------------------------------------------------------------------------------------------------------------
# What is sent
# ----------------------------------------------------------------------------------------------------------------------

VideoInference: Any = request_type(KLING_2_1_MASTER)


@_closed
class GetResponse(TypedDict):
    """Asks what became of a task. Cumulative, as at Runware."""

    taskType: Literal["getResponse"]
    taskUUID: Uuid


@_closed
class Authentication(TypedDict):
    """The API key, where no header carries it: the first task of an array, and not counted among the others."""

    taskType: Literal["authentication"]
    apiKey: Annotated[str, Field(json_schema_extra={"writeOnly": True})]


Sent: Any = Annotated[VideoInference | GetResponse | Authentication, Field(discriminator="taskType")]

# ----------------------------------------------------------------------------------------------------------------------
# What is answered
# ----------------------------------------------------------------------------------------------------------------------


@_closed
class Error(TypedDict):
    """One thing that is wrong. `code` is for programs, `message` for people."""

    code: str
    message: str
    parameter: NotRequired[str | list[str]]
    type: NotRequired[str]
    documentation: NotRequired[str]
    min: NotRequired[float]
    max: NotRequired[float]
    multiplier: NotRequired[float]
    allowedValues: NotRequired[list[str | int | float]]
    responseContent: NotRequired[Annotated[str, Field(description="what the provider behind Runware said")]]
    status: NotRequired[Annotated[Literal["error"], Field(description="of a task that was accepted and failed")]]
    taskUUID: NotRequired[str]
    taskType: NotRequired[str]


@_closed
class Item(TypedDict):
    """One item of `data`: an acknowledgement, a price (`dryRun`), progress (`processing`) or a stored clip."""

    taskType: Literal["videoInference", "getResponse"]
    taskUUID: str
    dryRun: NotRequired[bool]
    status: NotRequired[Literal["processing", "success"]]
    videoUUID: NotRequired[str]
    videoURL: NotRequired[Link]
    seed: NotRequired[int]
    NSFWContent: NotRequired[bool]
    cost: NotRequired[Dollars]


@_closed
class Envelope(TypedDict):
    """Runware's envelope. There is no `errors` unless something is wrong, and never for a task that `data` accepts."""

    data: list[Item]
    errors: NotRequired[list[Error]]


@_closed
class Errors(TypedDict):
    """Everything that is wrong. `data` is an empty list on `POST /v1`, as at Runware, and absent elsewhere."""

    data: NotRequired[Annotated[list[Item], Field(max_length=0)]]
    errors: Annotated[list[Error], Field(min_length=1)]


@_closed
class Message(TypedDict):
    """What API Gateway answers by itself, and all that the provider's callback is told."""

    message: str


@_closed
class ClipError(TypedDict):
    """Why a clip is not stored."""

    code: str
    message: str


@_closed
class Entry(TypedDict):
    """One fact, as one witness learned it."""

    at: Time
    fact: str
    key: NotRequired[Annotated[str, Field(description="tells apart what may be true several times")]]
    witness: Witness
    fields: NotRequired[dict[str, Any]]


@_closed
class Clip(TypedDict):
    """One of a task's results."""

    clip: int
    status: ClipStatus
    open: Annotated[bool, Field(description="whether anything more can be learned by looking")]
    cost: Dollars
    objectKey: str
    clipUUID: Annotated[str, Field(description="the UUID under which the clip is bought from Runware")]
    updatedAt: NotRequired[Time]
    nextCheckAt: NotRequired[Time]
    videoUUID: NotRequired[str]
    seed: NotRequired[int]
    NSFWContent: NotRequired[bool]
    size: NotRequired[Annotated[int, Field(description="bytes")]]
    container: NotRequired[
        Annotated[str, Field(description="mp4, mov or webm: what the copy is, which may not be what was ordered")]
    ]
    versionId: NotRequired[str]
    videoURL: NotRequired[Link]
    manifestURL: NotRequired[Link]
    error: NotRequired[ClipError]
    maybeSentAt: NotRequired[Annotated[Time, Field(description="the first attempt that may have bought the clip")]]
    timeline: NotRequired[Annotated[list[Entry], Field(description="in the order learned; only of a single task")]]


@_closed
class Task(TypedDict):
    """What a caller asked for, and what became of it."""

    taskUUID: str
    status: TaskStatus
    createdAt: Time
    request: Annotated[dict[str, Any], Field(description="as it was sent; empty once it is no longer kept")]
    cost: Dollars
    clips: list[Clip]


@_closed
class Page(TypedDict):
    """Some of a caller's tasks, newest first. A page may be short, even empty, and still have a cursor."""

    tasks: list[Task]
    cursor: NotRequired[Annotated[str, Field(description="where the next page begins; absent at the end")]]


@_closed
class Cost(TypedDict):
    """What one clip counts: Runware's own cost or, until that is known, the estimate."""

    taskUUID: str
    clip: int
    createdAt: Time
    cost: Dollars
    model: NotRequired[str]
    tags: NotRequired[Annotated[dict[str, str], Field(description="until the task is forgotten")]]


@_closed
class Costs(TypedDict):
    """What some of a caller's clips count, newest first. A page may be short and still have a cursor."""

    costs: list[Cost]
    cursor: NotRequired[Annotated[str, Field(description="where the next page begins; absent at the end")]]


@_closed
class Budget(TypedDict):
    """What a caller has spent in a calendar month (UTC)."""

    month: Annotated[str, Field(pattern=r"^\d{4}-\d\d$")]
    spent: Dollars
    limit: Dollars
    left: Dollars


Responses: TypeAlias = dict[int, OpenAPIResponse]


def _answers(success: Any, text: str, errors: dict[int, str], of: Any = Errors) -> Responses:
    """A route's responses, with what API Gateway may answer on any."""
    gateway = {
        429: "Too many requests at once.",
        500: "The function failed in a way that nobody foresaw.",
        503: "Busy, not configured, or out of time: send the same again later.",
    }
    either = Message if of is Message else of | Message
    return {
        200: _answer(success, text),
        **{status: _answer(of, description) for status, description in errors.items()},
        **{status: _answer(either if status == 503 else Message, each) for status, each in gateway.items()},
    }


def _answer(model: Any, description: str, media: str = "application/json") -> OpenAPIResponse:
    return {"description": description, "content": {media: {"model": model}}}


_KEY: list[dict[str, list[str]]] = [{"ApiKey": []}]
_NO_KEY = "No valid API key."

twins = APIGatewayHttpResolver(enable_validation=False)


@twins.post(
    "/v1",
    operation_id="submit",
    summary="Buy clips, or ask what became of them, in Runware's own format",
    description=(
        f"Up to {MOST_IN_ONE} tasks and {MOST_CLIPS} clips. Each task is judged by itself: a bad one is answered in "
        "`errors` and leaves the others bought. `taskUUID` is the idempotency key. `width` and `height` go together, "
        "as 1920x1080, 1080x1080 or 1080x1920. With `X-Runware-Dry-Run: 1` tasks are validated and priced, and nothing "
        "is recorded or bought. The key may come as a first task `authentication` in place of the header, not beside "
        "it."
    ),
    security=_KEY,
    responses=_answers(
        Envelope,
        "At least one task is accepted or told of.",
        {
            400: "The body or every task is wrong; every fault is listed.",
            401: _NO_KEY,
            402: "`budgetExceeded`: the month's limit cannot hold it. Nothing was bought.",
            404: "Asked for nothing but tasks that the caller does not have, or that are no longer kept.",
        },
    )
    | {413: _answer(Message, "More than 6 MB.")},
)
def submit(
    tasks: Annotated[
        Annotated[list[Sent], Field(min_length=1, max_length=MOST_IN_ONE + 1)] | Sent,
        params.Body(description="An array of tasks. A bare task counts as an array of one."),
    ],
    dry_run: Annotated[
        Literal["1"] | None, params.Header(alias="X-Runware-Dry-Run", description="validate and price only")
    ] = None,
) -> None:
    """`POST /v1`."""


@twins.get(
    "/tasks",
    operation_id="tasks",
    summary="The caller's tasks, newest first",
    security=_KEY,
    responses=_answers(Page, "A page.", {400: "A parameter is wrong.", 401: _NO_KEY}),
)
def tasks(
    limit: Annotated[
        int, params.Query(ge=1, le=MOST_TASKS, description="how many tasks a page may hold")
    ] = USUAL_TASKS,
    cursor: Annotated[str | None, params.Query(description="the cursor of the page before")] = None,
    status: Annotated[TaskStatus | None, params.Query(description="only tasks of this status, within the page")] = None,
    day: Annotated[
        str | None,
        params.Query(pattern=r"^\d{4}-\d\d-\d\d$", description="only tasks of this day (UTC)"),
    ] = None,
    tag: Annotated[
        str | None, params.Query(pattern="^[^:]+:", description="`name:value`: only tasks so tagged, within the page")
    ] = None,
) -> None:
    """`GET /tasks`."""


@twins.get(
    "/tasks/<taskUUID>",
    operation_id="task",
    summary="One of the caller's tasks, with the timeline of each clip",
    security=_KEY,
    responses=_answers(Task, "The task.", {401: _NO_KEY, 404: "The caller has no such task."}),
)
def task(taskUUID: Annotated[str, params.Path(json_schema_extra=UUID4_SCHEMA)]) -> None:
    """`GET /tasks/{taskUUID}`."""


@twins.get(
    "/costs",
    operation_id="costs",
    summary="What the caller's clips of some days count, a line each",
    security=_KEY,
    responses=_answers(Costs, "A page.", {400: "A parameter is wrong.", 401: _NO_KEY}),
)
def costs(
    since: Annotated[
        str | None,
        params.Query(pattern=r"^\d{4}-\d\d-\d\d$", description="from this day (UTC) on; else from the month's first"),
    ] = None,
    until: Annotated[
        str | None, params.Query(pattern=r"^\d{4}-\d\d-\d\d$", description="to this day (UTC), included; else today")
    ] = None,
    limit: Annotated[int, params.Query(ge=1, le=MOST_COSTS, description="how many clips a page may hold")] = MOST_COSTS,
    cursor: Annotated[str | None, params.Query(description="the cursor of the page before")] = None,
) -> None:
    """`GET /costs`."""


@twins.get(
    "/budget",
    operation_id="budget",
    summary="What the caller has spent this month",
    security=_KEY,
    responses=_answers(Budget, "The budget.", {401: _NO_KEY}),
)
def budget() -> None:
    """`GET /budget`."""


@twins.get(
    "/",
    operation_id="page",
    summary="The gallery: one static page that uses the routes above",
    responses=_answers(str, "The page.", {}) | {200: _answer(str, "The page.", "text/html")},
)
def page() -> None:
    """`GET /`."""


@twins.post(
    "/webhooks/runware/<caller>/<taskUUID>/<clip>",
    operation_id="callback",
    summary="Runware's callback; on an API of its own",
    description=(
        "Called by Runware, with the URL that each purchase names. The token comes first: without a valid one for this "
        "very clip nothing is read. The body is Runware's, in any shape that it has been seen in."
    ),
    security=[{"WebhookToken": []}],
    responses=_answers(
        Message,
        "Learned, or known already.",
        {400: "Says nothing about this clip.", 401: "Whatever is wrong with the token.", 404: "No such clip."},
        of=Message,
    )
    | {413: _answer(Message, "More than 6 MB.")},
)
def callback(caller: str, taskUUID: str, clip: str, body: Annotated[Json, params.Body()]) -> None:
    """The webhook, which has no resolver of its own."""


def describe(*, closed: bool = False) -> Json:
    """The document. Clients have to expect new fields in answers; `closed` says of each that it has no other."""
    text = twins.get_openapi_json_schema(
        title="Rushes",
        version="1.0.0",
        summary="Video requests in, clips in your own S3 bucket out, each bought at most once.",
        security_schemes={
            "ApiKey": HTTPBearer(description="`make key` makes one"),
            "WebhookToken": APIKey(name="token", in_=APIKeyIn.query, description="made for one clip"),
        },
    )
    document: Json = _tidied(json.loads(text))
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ResponseValidationError", "ValidationError"):  # no route here answers them
        schemas.pop(unused)
    for name in schemas.keys() & _ANSWERS if not closed else ():
        schemas[name].pop("additionalProperties")
    operations = {each["operationId"]: each for path in document["paths"].values() for each in path.values()}
    for source, name, target, parameters in _LINKS:
        link = {"operationId": target, "parameters": parameters}
        operations[source]["responses"]["200"].setdefault("links", {})[name] = link
    return document


_ANSWERS = {
    each.__name__
    for each in (Budget, Clip, ClipError, Cost, Costs, Entry, Envelope, Error, Errors, Item, Message, Page, Task)
}
_LINKS: list[tuple[str, str, str, dict[str, str]]] = [
    ("submit", "task", "task", {"taskUUID": "$response.body#/data/0/taskUUID"}),
    ("tasks", "newest", "task", {"taskUUID": "$response.body#/tasks/0/taskUUID"}),
    ("tasks", "next", "tasks", {"cursor": "$response.body#/cursor"}),
    ("costs", "next", "costs", {"cursor": "$response.body#/cursor"}),
    ("costs", "newest", "task", {"taskUUID": "$response.body#/costs/0/taskUUID"}),
]
"""What leads from one answer to the next question: operation, name, operation, its parameters."""


def _tidied(node: Any, parent: str = "") -> Any:
    """Without what the generator says of itself: titles made of names, and defaults that are none."""
    if isinstance(node, list):
        return [_tidied(each) for each in node]
    if not isinstance(node, dict):
        return node
    named = parent in ("properties", "schemas")  # here the keys are names, not keywords
    kept = {
        name: _tidied(value, name)
        for name, value in node.items()
        if named or not ((name == "title" and parent != "info") or (name == "default" and value is None))
    }
    options = kept.get("anyOf", [])
    if {"type": "null"} in options and not named:  # a parameter that may be left out cannot be null
        (only,) = [each for each in options if each != {"type": "null"}]
        kept.pop("anyOf")
        kept |= only
    return kept


def render() -> str:
    """The document as the file holds it."""
    return json.dumps(describe(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(render(), encoding="utf-8")
