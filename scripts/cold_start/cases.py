"""The measured event of each function, and its goals. A new function needs one more `Case`.

The functions and their environments are read from template.yaml.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rushes.adapters.dynamodb.admin import AdminTable
from rushes.config import read_timings
from rushes.domain import webhook_token
from rushes.domain.caller import Caller, hash_key
from rushes.domain.clip import Clip, Fact, FactSource, Kind, merge
from rushes.domain.task import Task
from rushes.domain.timings import Timings
from rushes_local.template import DeclaredFunction, Template
from scripts.cold_start.packages import ROOT

EVENTS = ROOT / "events"
CALLER = "alice"
KEY = "rushes_example-key-of-the-events-folder"
TASK_UUID = "4f0c8a52-7d1e-4b53-9a06-2c8e5d1f7b90"
CLIP_UUID = "b7c1d2e3-5a64-4f08-8e19-3d2f6a7b8c90"
_SIGNING_KEY = "k" * 64
SECRETS = {"RunwareSecret": "runware-key", "WebhookSecret": json.dumps({"current": _SIGNING_KEY, "previous": ""})}

# Variables whose values come from the account of a deployment; all others have a value or a parameter's default.
_VALUES = {
    "RUNWARE_SECRET": "RunwareSecret",
    "WEBHOOK_SECRET": "WebhookSecret",
    "WEBHOOK_BASE_URL": "https://hooks.example.com",
    "AWS_ENDPOINT_URL": "",
    "POWERTOOLS_SERVICE_NAME": "bench",
}
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLEEX",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "session",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
}


def _file(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    return event


def _webhook() -> dict[str, Any]:
    """A finished clip, with a token signed now."""
    event, subject = _file("webhook-success-flat"), webhook_token.subject(CALLER, TASK_UUID, 0)
    token = webhook_token.sign(subject, [_SIGNING_KEY], int(time.time() * 1000))
    return event | {"rawQueryString": f"token={token}", "queryStringParameters": {"token": token}}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One function. Goals are maximum ratios: of a cold start to the floor and to the usual stack, of warm events to a
    handler that makes the same calls (`references/<same>.py`). `status` is the expected HTTP status.
    """

    event: Callable[[], dict[str, Any]]
    status: int | None = None
    cold: float
    usual: float | None = None
    warm: float | None = None
    same: str | None = None


CASES: Mapping[str, Case] = {
    "submit": Case(event=lambda: _file("submit-valid"), status=200, cold=1.75, warm=2.0, same="bare_submit"),
    "intake": Case(event=lambda: _file("video-requested"), cold=1.5),
    "webhook": Case(event=_webhook, status=200, cold=1.25, usual=0.65, warm=1.5, same="bare_webhook"),
    "reconcile": Case(event=lambda: _file("schedule"), cold=1.5),
    "publish": Case(event=lambda: _file("clip-changed"), cold=1.1),
    "deliver": Case(event=lambda: _file("delivery"), cold=1.5),
    "tasks": Case(event=lambda: _file("tasks-one"), status=200, cold=1.1),
}


def functions() -> list[DeclaredFunction]:
    """The functions of the template; raises `KeyError` if one has no case."""
    declared = Template(ROOT / "template.yaml").functions()
    for function in declared:
        CASES[function.name]
    return declared


def environment(function: DeclaredFunction, runware_url: str) -> dict[str, str]:
    """A function's environment variables, with the parameters' defaults."""
    defaults = Template(ROOT / "template.yaml").defaults()

    def value(name: str, declared: Any) -> str:
        if name in _VALUES:
            return _VALUES[name]
        if not isinstance(declared, dict):
            return str(declared)
        named = declared.get("Ref", name)
        return str(defaults.get(named, named))

    declared = {name: value(name, given) for name, given in function.variables.items()}
    return {**_CREDENTIALS, **declared, "RUNWARE_BASE_URL": runware_url}


def items() -> list[dict[str, Any]]:
    """The table's items: a caller, its key, and its task with one clip that is being rendered."""
    written = _Written()
    store = AdminTable(written, "table")  # type: ignore[arg-type]
    store.add_key(hash_key(KEY), Caller(CALLER, 50_000_000), "bench", 0)
    now = int(time.time() * 1000) - 240_000
    (request,) = json.loads(_file("submit-valid")["body"])
    task = Task(caller=CALLER, task_uuid=TASK_UUID, request=request, fingerprint="f" * 64, clips=1, created_at=now)
    clip = Clip(
        caller=CALLER,
        task_uuid=TASK_UUID,
        index=0,
        clip_uuid=CLIP_UUID,
        object_key=f"videos/{CALLER}/2026/11/24/{TASK_UUID}-0.mp4",
        estimate=924_000,
        month="2026-11",
        created_at=now,
        budgeted=924_000,
        next_check_at=now + 240_000,
    )
    accepted = Fact(kind=Kind.ACCEPTED, key="acknowledged", at=now + 900, source=FactSource.SUBMISSION)
    store.record(task, [merge(clip, accepted)], [])
    return written.items


class _Written:
    """A DynamoDB client that keeps the items it is given to write."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []

    def update_item(
        self, *, Key: dict[str, Any], UpdateExpression: str, ExpressionAttributeValues: dict[str, Any], **_: Any
    ) -> None:
        """Supports only updates that set attributes of a new item."""
        pairs = (each.split(" = ") for each in UpdateExpression.removeprefix("SET ").split(", "))
        self.items.append({**Key, **{name: ExpressionAttributeValues[value] for name, value in pairs}})

    def transact_write_items(self, *, TransactItems: list[dict[str, Any]], **_: Any) -> None:
        self.items += [write["Put"]["Item"] for write in TransactItems]


def timings() -> Timings:
    """The service's times with the parameters' defaults."""
    (reconcile,) = (function for function in functions() if function.name == "reconcile")
    return read_timings(environment(reconcile, ""))
