"""Table, bucket and Runware as effects of a simulated world: each call can be stopped, lost or made to fail.

tests/contract runs one suite against these and against moto and the emulator. Runware's answers are built as bytes and
parsed by the real code, so that a schedule covers the parsing as well.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rushes.domain.clip import Clip
from rushes.domain.media import Head, ProbeResult, container
from rushes.domain.task import TaskWithClips
from rushes.errors import BucketError, BusyError, ProviderError, RescueError
from rushes.runware.outcome import Accepted, Ambiguous, NeverArrived, Outcome, read_answer
from rushes.runware.response import LookupResponse, read_lookup
from tests.fakes.models import PRICES
from tests.fakes.table import FakeTable, Name
from tests.simulation.world import World

T = TypeVar("T")

WRITES = ("record", "save", "fall_over")
MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41\x00\x00\x00\x48mdat" + bytes(64)
RESCUED = MP4 + b"\x00\x00\x00\x0ffreerescued"
AGAIN = MP4 + b"\x00\x00\x00\x0dfreeagain"


class SimulatedTable(FakeTable):
    """The table. Every call is an effect; writes fail while `busy_now` or `contended_now` returns True.

    The index of open clips lags by `lag` milliseconds.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.busy_now: Callable[[str], bool] = lambda _: False
        self.contended_now: Callable[[], bool] = lambda: False
        self.refused = 0  # writes that failed and had no effect
        self.lag = 0
        self._listed: dict[Name, tuple[int, Clip | None]] = {}  # time of a row's change, and the row before it

    def get_task_with_clips(self, caller: str, task_uuid: str) -> TaskWithClips | None:
        """A task with its clips, for checks from outside the simulation; this read is not an effect."""
        task = self.tasks.get((caller, task_uuid))
        return TaskWithClips(task, tuple(self.clips_of(caller, task_uuid)), "") if task else None

    def call(self, name: str, act: Callable[[], T]) -> T:
        """An effect whose answer may be lost. The store then retries, and either gets that answer or gives up."""

        def attempt() -> T:
            if name in WRITES and self.busy_now(name):
                self.refused += 1
                raise BusyError("made busy")
            return act()

        def lost_answer(manner: str) -> T:
            if manner == "again":
                return attempt()
            raise BusyError("the answer was lost", possibly_written=name in WRITES)

        return self._world.effect(name, attempt, lost_answer)

    def check_contention(self) -> None:
        """Lets the time of the store's retries pass before it raises."""
        if self.contended_now():
            self._world.move_to(self._world.now + 1_000)
            raise BusyError("the budgets are contended")

    def before_change(self, name: Name, before: Clip | None) -> None:
        """Keeps the row that the index lists until the index has caught up."""
        if before is None or self._world.now >= self._listed[name][0] + self.lag:
            self._listed[name] = self._world.now, before

    def indexed_row(self, name: Name, row: Clip) -> Clip | None:
        """A row as the index lists it; a change appears there `lag` milliseconds later."""
        if not self.lag:
            return row
        at, before = self._listed[name]
        return before if self._world.now < at + self.lag else row


class SimulatedBucket:
    """The bucket, with object versions. S3 is unavailable while `lost` returns True."""

    name = "bucket"

    def __init__(self, world: World) -> None:
        self._world = world
        self.objects: dict[str, list[bytes]] = {}
        self.lost: Callable[[], bool] = lambda: False
        self.found_nothing: Callable[[str], None] = lambda _: None

    def upload_link(self, key: str, seconds: int) -> str:
        return f"https://bucket.example/{key}?X-Amz-Expires={seconds}"

    def image_link(self, bucket: str, key: str, seconds: int) -> str:
        return f"https://{bucket}.example/{key}?X-Amz-Expires={seconds}"

    def download_link(self, key: str, seconds: int, version: str | None = None, container: str = "") -> str:
        del seconds, container
        return f"https://bucket.example/{key}?versionId={version}"

    def put_if_absent(self, key: str, content: bytes, content_type: str) -> None:
        del content_type
        self._world.effect("keep image", lambda: self._keep(key, content))

    def head(self, bucket: str, key: str, length: int) -> Head | None:
        return self._world.effect("head", lambda: self._head(bucket, key, length))

    def put(self, key: str, content: bytes) -> str:
        """Puts an object as an upload would; returns its version."""
        versions = self.objects.setdefault(key, [])
        versions.append(content)
        return str(len(versions))

    def probe(self, key: str, version: str | None = None) -> ProbeResult | None:
        return self._world.effect("probe", lambda: self._probe(key, version))

    def _keep(self, key: str, content: bytes) -> None:
        if self.lost():
            raise BucketError("made unavailable")
        if key not in self.objects:
            self.put(key, content)

    def _head(self, bucket: str, key: str, length: int) -> Head | None:
        if self.lost():
            raise BucketError("made unavailable")
        versions = self.objects.get(key) if bucket == self.name else None
        return Head(len(versions[-1]), versions[-1][:length]) if versions else None

    def _probe(self, key: str, version: str | None) -> ProbeResult | None:
        if self.lost():
            raise BucketError("made unavailable")
        versions = self.objects.get(key)
        if not versions:
            self.found_nothing(key)
            return None
        number = int(version or len(versions))
        if number > len(versions):
            return None
        content = versions[number - 1]
        return ProbeResult(str(number), len(content), f"etag-{number}", container(content, len(content)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """The open questions about Runware, which must not matter. Defaults are the best case; times in milliseconds."""

    render: int = 240_000
    finished_uuid_refused: bool = True
    poll_finds_running: bool = True
    poll_finds_finished_for: int | None = None  # None: permanently
    details: str = "known"  # known, missing, or never (the task type does not exist)
    polls_fail: bool = False
    polls_all_or_nothing: bool = False  # one unknown task of several makes the poll an error without the others
    max_polled: int = 1000  # a poll for more is refused
    forgotten: int = 0  # the number of first renders that no lookup finds any more
    lookup_refusal: str = ""  # the refusal of every lookup, a key of LOOKUP_REFUSALS
    webhook: str = "enveloped"  # enveloped, flat, array, or lost
    failures_call: bool = True
    webhook_tries: int = 4
    webhook_twice: bool = False
    upload: str = "before"  # before, after, late, never, garbage, empty, spoiled (then empty), twice
    conflict_status: int = 400
    render_fails: str = ""  # an error code
    fails_then_succeeds: bool = False
    succeeds_after: int = 30_000  # after the failure
    fails_only: str = ""  # the only model whose renders fail; empty: all
    url: bool = True
    inline: bool = False
    cost: bool = True
    nsfw: bool = False
    url_works: bool = True
    second_render: bool = False  # made and charged a minute later, for the same purchase


@dataclass(slots=True)
class Execution:
    """One execution at the fake Runware: a charge unless it failed."""

    uuid: str
    request: Mapping[str, Any]
    accepted_at: int
    done_at: int
    video_uuid: str
    charge: int
    failed: bool = False
    finished: bool = False
    failed_at: int | None = None  # also if it succeeded afterwards
    succeeded_at: int | None = None
    second: str = ""  # the second render's videoUUID, once there is one

    @property
    def is_rendered(self) -> bool:
        return self.finished and not self.failed


UNANSWERED: Mapping[str, Outcome] = {
    "refused connection": NeverArrived("ConnectError"),
    "lost": Ambiguous("ReadTimeout"),
}
"""Fates of a submission that never arrived."""

REFUSALS: Mapping[str, tuple[int, str]] = {
    "500": (500, '{"errors": [{"code": "internalServerError"}]}'),
    "503": (503, '{"errors": [{"code": "serverUnavailable"}]}'),
    "bare 429": (429, "slow down"),
    "429": (429, '{"errors": [{"code": "rateLimitExceeded"}]}'),
    "no": (400, '{"data": [], "errors": [{"code": "invalidPositivePrompt", "message": "no", "taskUUID": "UUID"}]}'),
    "no account": (402, '{"errors": [{"code": "insufficientCredits"}]}'),
}
"""Fates of a submission that arrived and was not accepted."""

AFTERWARDS: Mapping[str, tuple[int, bytes] | None] = {
    "cut after": None,
    "500 after": (500, b'{"errors": [{"code": "internalServerError"}]}'),
    "503 after": (503, b'{"errors": [{"code": "serverUnavailable"}]}'),
    "garbled after": (200, b"<html>"),
}
"""Fates of a submission that was accepted, with an answer that does not confirm it."""

LOOKUP_REFUSALS: Mapping[str, tuple[int, bytes]] = {
    "no key": (401, b'{"errors": [{"code": "authenticationFailed", "message": "no"}]}'),
    "no money": (402, b'{"errors": [{"code": "insufficientCredits", "message": "no"}]}'),
    "no money, in a 400": (400, b'{"data": [], "errors": [{"code": "insufficientCredits", "message": "no"}]}'),
    "no such question": (400, b'{"data": [], "errors": [{"code": "unsupportedParameter", "message": "no"}]}'),
}
"""Answers to a lookup about the account or the form of the lookup, not about any task."""

DEFINITE = {"refused connection", "429", "no", "no account"}
"""Fates whose answer, once received, proves that the attempt bought nothing."""


@dataclass(slots=True)
class Supervisor:
    """Checks each send: a broken promise is recorded even if Runware's behaviour makes it harmless.

    A clip may be sent again only under a policy that allows it, while its last possible attempt is young, if every
    source has confirmed its absence since then, no other buyer is sending it and no fact shows a purchase. A resend is
    decided within the `window` and sent before its lease is over, by clocks that are up to `skew` apart.
    """

    lease: int
    window: int
    allows_resending: bool
    skew: int = 0
    possible_sends: dict[str, list[int]] = field(default_factory=dict)
    absences: dict[str, dict[str, int]] = field(default_factory=dict)
    in_flight: set[str] = field(default_factory=set)
    doubts: set[str] = field(default_factory=set)  # clips with an attempt that may have arrived, without an answer
    keys: dict[str, str] = field(default_factory=dict)  # object key -> clipUUID
    violations: list[str] = field(default_factory=list)

    def record_send(self, uuid: str, now: int) -> None:
        """Records that a buyer is about to send this clip."""
        if uuid in self.in_flight:
            self.violations.append("two buyers of one clip at once")
        for at in self.possible_sends.get(uuid, ()):
            absences = self.absences.get(uuid, {})
            if not self.allows_resending:
                self.violations.append("sent again although the policy is review")
            if any(absences.get(source, -1) < at for source in ("bucket", "poll", "details")):
                self.violations.append("sent again although a source had not confirmed its absence")
            if now >= at + self.window + self.lease + self.skew:
                self.violations.append("sent again after the resend window")

    def record_absence(self, uuid: str, source: str, now: int) -> None:
        """Records that a source has answered properly without this clip."""
        self.absences.setdefault(uuid, {})[source] = now


@dataclass(slots=True)
class SimulatedRunware:
    """Runware: accepts, renders, uploads, sends webhooks, answers lookups, and keeps the ledger that tests compare.

    `fates` are the outcomes of the next submissions, one each; later ones succeed. `deliver` passes a webhook to the
    service and returns True if it was answered with 2xx; `on_upload` is called with every object.
    """

    world: World
    bucket: SimulatedBucket
    switches: Switches = field(default_factory=Switches)
    fates: list[str] = field(default_factory=list)
    deliver: Callable[[Mapping[str, Any], bytes], bool] = lambda _request, _body: True
    on_upload: Callable[[str, str], None] = lambda _key, _version: None
    down: Callable[[], bool] = lambda: False
    executions: list[Execution] = field(default_factory=list)
    supervisor: Supervisor = field(default_factory=lambda: Supervisor(60_000, 120_000, True))
    on_fetch: Callable[[str], None] = lambda _key: None
    last_polls: dict[str, tuple[int, bool]] = field(
        default_factory=dict
    )  # last poll for this clip alone: its time, and True if it had the render
    failures_in_a_row: int = 0  # counted by the process at work
    max_failures_in_a_row: int | None = None  # None: the process at work may go on

    def charged(self, clip_uuid: str) -> int:
        """The number of charges for a clip."""
        return sum(1 for task in self.executions if task.uuid == clip_uuid and task.charge)

    def ledger(self) -> int:
        """The sum of all charges, in micro-dollars."""
        return sum(task.charge for task in self.executions)

    def submit(self, task: Mapping[str, Any], key: str) -> Outcome:
        del key
        uuid, at, possibly_sent = task["taskUUID"], self.world.now, True
        self.supervisor.keys[_object_key(task)] = uuid
        fate = "refused connection" if self.down() else (self.fates[0] if self.fates else "well")
        sent: list[str] = []
        outcome = None
        try:
            outcome = self.world.effect("submit", lambda: sent.append(uuid) or self._submit(task))
            possibly_sent = fate not in DEFINITE
            self._count_failure(failed=isinstance(outcome, Ambiguous | NeverArrived))
            return outcome
        finally:
            self.supervisor.in_flight.discard(uuid)
            if sent and possibly_sent:
                self.supervisor.possible_sends.setdefault(uuid, []).append(at)
                if not isinstance(outcome, Accepted):
                    self.supervisor.doubts.add(uuid)

    def poll(self, task_uuids: Sequence[str], key: str) -> LookupResponse:
        del key
        return self._lookup("poll", lambda: self._poll(task_uuids))

    def details(self, task_uuid: str, key: str) -> LookupResponse:
        del key
        return self._lookup("details", lambda: self._details(task_uuid))

    def _lookup(self, name: str, ask: Callable[[], LookupResponse]) -> LookupResponse:
        try:
            report = self.world.effect(name, ask)
        except ProviderError:
            self._count_failure(failed=True)
            raise
        self._count_failure(failed=False)
        return report

    def _count_failure(self, failed: bool) -> None:
        self.failures_in_a_row = self.failures_in_a_row + 1 if failed else 0
        if self.max_failures_in_a_row is not None and self.failures_in_a_row > self.max_failures_in_a_row:
            self.supervisor.violations.append("lookups went on after too many failures in a row")

    def fetch(self, url: str, key: str, ends_at: int) -> ProbeResult:
        del ends_at
        self.on_fetch(key)
        return self.world.effect("fetch", lambda: self._fetch(url, key))

    def save_inline(self, data: str, key: str) -> ProbeResult:
        del data
        return self.world.effect("keep", lambda: self._stored(key))

    def _submit(self, task: Mapping[str, Any]) -> Outcome:
        self.supervisor.record_send(task["taskUUID"], self.world.now)
        self.supervisor.in_flight.add(task["taskUUID"])
        fate = self.fates.pop(0) if self.fates else "well"
        if self.down():
            fate = "refused connection"
        if fate in UNANSWERED:
            return UNANSWERED[fate]
        if fate == "late":
            # It takes effect before the lease is over, or never: assumption A4.
            self.world.at(self.world.now + 50_000, lambda: self._accept(task) and None)
            return Ambiguous("ReadTimeout")
        if fate in REFUSALS:
            status, text = REFUSALS[fate]
            return read_answer(status, text.replace("UUID", task["taskUUID"]).encode(), task["taskUUID"])
        status, body = self._accept(task)
        if fate in AFTERWARDS:
            lost = AFTERWARDS[fate]
            return read_answer(*lost, task["taskUUID"]) if lost else Ambiguous("RemoteProtocolError")
        return read_answer(status, json.dumps(body).encode(), task["taskUUID"])

    def _accept(self, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        uuid = request["taskUUID"]
        earlier = [task for task in self.executions if task.uuid == uuid]
        if earlier and (self.switches.finished_uuid_refused or not all(task.finished for task in earlier)):
            error = {"code": "conflictTaskUUID", "message": "known", "taskUUID": uuid}
            return self.switches.conflict_status, {"data": [], "errors": [error]}
        number = len(self.executions) + 1
        failing = bool(self.switches.render_fails) and self.switches.fails_only in ("", request["model"])
        task = Execution(
            uuid=uuid,
            request=request,
            accepted_at=self.world.now,
            done_at=self.world.now + self.switches.render,
            video_uuid=f"00000000-0000-4000-8000-{number:012d}",
            charge=0 if failing else PRICES[request["model"]],
            failed=failing,
        )
        self.executions.append(task)
        self.world.at(task.done_at, lambda: self.finish(task))
        return 200, {"data": [{"taskType": "videoInference", "taskUUID": uuid}]}

    def finish(self, task: Execution) -> None:
        """Ends a render once, however often it is called."""
        if task.finished:
            return
        task.finished = True
        if task.failed:
            task.failed_at = self.world.now
            if self.switches.failures_call:
                self._call(task, self._error(task))
            if self.switches.fails_then_succeeds:
                self.world.at(self.world.now + self.switches.succeeds_after, lambda: self._succeed(task))
            return
        self._succeed(task)

    def _succeed(self, task: Execution) -> None:
        task.failed, task.charge, task.succeeded_at = False, PRICES[task.request["model"]], self.world.now
        now, upload = self.world.now, self.switches.upload
        if upload in ("before", "garbage", "empty", "spoiled", "twice"):
            self._upload(task)
        self.world.at(now + 500, lambda: self._call(task, {"data": [self._item(task)]}))
        if self.switches.second_render:
            self.world.at(now + 60_000, lambda: self._render_again(task))
        if self.switches.webhook_twice:
            self.world.at(now + 90_000, lambda: self._call(task, {"data": [self._item(task)]}))
        if upload in ("after", "late"):
            self.world.at(now + (2_000 if upload == "after" else 400_000), lambda: self._upload(task))

    def _render_again(self, task: Execution) -> None:
        task.second, task.charge = (
            task.video_uuid.replace("00000000", "11111111"),
            task.charge + PRICES[task.request["model"]],
        )
        self._call(task, {"data": [self._item(task) | {"videoUUID": task.second}]})

    def _upload(self, task: Execution) -> None:
        key = _object_key(task.request)
        content = {"garbage": b"<html>not a video</html>", "empty": b""}.get(self.switches.upload, MP4)
        self.on_upload(key, self.bucket.put(key, content))
        if self.switches.upload == "spoiled":
            self.on_upload(key, self.bucket.put(key, b""))
        if self.switches.upload == "twice":
            self.on_upload(key, self.bucket.put(key, AGAIN))

    def _call(self, task: Execution, body: Mapping[str, Any], attempt: int = 1) -> None:
        """Delivers one webhook, with a bounded number of retries until it is answered with 2xx."""
        shape = self.switches.webhook
        if shape == "lost":
            return
        items = body.get("data") or body.get("errors") or []
        sent: Any = {"flat": items[0], "array": items}.get(shape, body)
        if not self.deliver(task.request, json.dumps(sent).encode()) and attempt < self.switches.webhook_tries:
            self.world.at(self.world.now + 250 * 2**attempt, lambda: self._call(task, body, attempt + 1))

    def _item(self, task: Execution) -> dict[str, Any]:
        found: dict[str, Any] = {
            "taskType": "videoInference",
            "taskUUID": task.uuid,
            "status": "success",
            "videoUUID": task.video_uuid,
            "seed": 7,
        }
        if self.switches.url:
            found["videoURL"] = f"https://vm.runware.ai/{task.video_uuid}.mp4"
        if self.switches.inline:
            found["videoBase64Data"] = "AAAAGGZ0eXBpc29t"
        if self.switches.cost:
            found["cost"] = PRICES[task.request["model"]] / 1_000_000
        if self.switches.nsfw:
            found["NSFWContent"] = True
        return found

    def _items(self, task: Execution) -> list[dict[str, Any]]:
        """The items of a poll for a task that has not failed."""
        if not task.finished:
            return [{"taskType": "videoInference", "taskUUID": task.uuid, "status": "processing"}]
        second = [self._item(task) | {"videoUUID": task.second}] if task.second else []
        return [self._item(task), *second]

    def _error(self, task: Execution) -> dict[str, Any]:
        code = self.switches.render_fails
        return {"errors": [{"code": code, "message": "failed", "status": "error", "taskUUID": task.uuid}]}

    def _poll(self, task_uuids: Sequence[str]) -> LookupResponse:
        self._must_answer()
        report = self._poll_answer(task_uuids)
        if len(task_uuids) == 1 and report.answers(task_uuids[0]):
            (uuid,) = task_uuids
            has_render = any(task.uuid == uuid and task.is_rendered for task in self._findable())
            self.last_polls[uuid] = self.world.now, has_render
        return report

    def _findable(self) -> list[Execution]:
        return [task for task in self.executions[self.switches.forgotten :] if self._is_findable(task)]

    def _poll_answer(self, task_uuids: Sequence[str]) -> LookupResponse:
        if self.switches.lookup_refusal:
            return read_lookup(*LOOKUP_REFUSALS[self.switches.lookup_refusal])
        if len(task_uuids) > self.switches.max_polled:
            return read_lookup(400, b'{"errors": [{"code": "tooManyTasks", "message": "too many"}]}')
        if self.switches.polls_all_or_nothing and (
            unknown := set(task_uuids) - {task.uuid for task in self._findable()}
        ):
            missing = [{"code": "taskNotFound", "message": "unknown", "taskUUID": uuid} for uuid in sorted(unknown)]
            return read_lookup(404, json.dumps({"errors": missing}).encode())
        data: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for task in self._findable():
            if task.uuid in task_uuids and task.finished and task.failed:
                errors += self._error(task)["errors"]
            elif task.uuid in task_uuids:
                data += self._items(task)
        if not errors:
            found = {item["taskUUID"] for item in data}
            for uuid in set(task_uuids) - found:
                self.supervisor.record_absence(uuid, "poll", self.world.now)
        body = {"data": data, **({"errors": errors} if errors else {})}
        return read_lookup(400 if errors and not data else 200, json.dumps(body).encode())

    def _details(self, task_uuid: str) -> LookupResponse:
        self._must_answer()
        if self.switches.lookup_refusal:
            return read_lookup(*LOOKUP_REFUSALS[self.switches.lookup_refusal])
        if self.switches.details == "never":
            return read_lookup(400, b'{"errors": [{"code": "unsupportedTaskType", "message": "unknown"}]}')
        data = []
        for task in self.executions[self.switches.forgotten :] if self.switches.details == "known" else []:
            if task.uuid == task_uuid:
                last = [self._item(task)] if task.finished and not task.failed else [{"taskUUID": task.uuid}]
                data.append({"taskType": "getTaskDetails", "taskUUID": task.uuid, "response": {"data": last}})
        if not data:
            self.supervisor.record_absence(task_uuid, "details", self.world.now)
        return read_lookup(200, json.dumps({"data": data}).encode())

    def _must_answer(self) -> None:
        if self.switches.polls_fail or self.down():
            raise ProviderError("HTTP 503")

    def _is_findable(self, task: Execution) -> bool:
        if not task.finished:
            return self.switches.poll_finds_running
        kept = self.switches.poll_finds_finished_for
        return kept is None or self.world.now < task.done_at + kept

    def _fetch(self, url: str, key: str) -> ProbeResult:
        if not self.switches.url_works or self.down():
            raise RescueError("HTTP 404")
        del url
        return self._stored(key)

    def _stored(self, key: str) -> ProbeResult:
        content = RESCUED  # the rescued bytes differ from the uploaded ones, as they may in reality
        version = self.bucket.put(key, content)
        self.on_upload(key, version)
        return ProbeResult(version, len(content), f"etag-{version}", "mp4")


def _object_key(request: Mapping[str, Any]) -> str:
    return str(request["uploadEndpoint"]).removeprefix("https://bucket.example/").partition("?")[0]
