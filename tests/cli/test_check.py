"""`rushes check` finds every kind of corruption that can be planted, and nothing else.

Each is planted at a caller of its own, all in one table and bucket, so that whatever is told beside it shows.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest

from rushes.adapters.s3 import S3_CONFIG, S3Bucket
from rushes.domain.budget import ALL_CALLERS, Reservation
from rushes.domain.caller import hash_key
from rushes.domain.clip import Clip, Fact, FactRecord, FactSource, Kind, defer_budget, merge_all, refresh_derived
from rushes.domain.task import Task
from rushes_cli.operator import erase
from rushes_cli.operator.consistency import MEANINGS, CheckOptions, Flaw, check, manifest_key
from rushes_cli.operator.review import clock
from rushes_local.stack import Stack
from tests.cli.conftest import Run
from tests.conftest import client, http
from tests.fakes.builders import MP4, PRICE, TIMES, WEBM, uuid4

HOUR = 3_600_000
DAY = 24 * HOUR
MONTH = "2026-11"
NOW = clock()

Found = set[tuple[Flaw, str]]


@dataclass
class Case:
    """A caller with one task of one clip, in good order, and the means to spoil it."""

    stack: Stack
    caller: str
    task_uuid: str

    @property
    def clip(self) -> Clip:
        """The clip, as it is in the table."""
        (clip,) = self.stack.store.clips(self.caller, self.task_uuid)
        return clip

    @property
    def task(self) -> str:
        return f"{self.caller}/{self.task_uuid}"

    @property
    def name(self) -> str:
        return f"{self.task}-0"

    @property
    def key(self) -> str:
        return f"videos/{self.caller}/x/{self.task_uuid}-0.mp4"

    @property
    def manifest(self) -> str:
        return manifest_key(self.clip)

    @property
    def version(self) -> str:
        """The version on record."""
        copy = self.clip.copy
        assert copy is not None
        return copy[0]

    def order(self) -> None:
        """The task under way, as `submit` leaves it."""
        clip = Clip(
            caller=self.caller,
            task_uuid=self.task_uuid,
            index=0,
            clip_uuid=self.task_uuid,
            object_key=self.key,
            estimate=PRICE,
            month=MONTH,
            created_at=NOW,
            budgeted=PRICE,
        )
        task = Task(
            caller=self.caller,
            task_uuid=self.task_uuid,
            request={"positivePrompt": "x"},
            fingerprint="f",
            clips=1,
            created_at=NOW,
        )
        limit = 1000 * PRICE
        reservations = [Reservation(scope, MONTH, PRICE, limit) for scope in clip.scopes]
        self.stack.store.record(task, [refresh_derived(clip, NOW, TIMES)], reservations)

    def learn(self, *facts: tuple[Kind, str, dict[str, Any]]) -> None:
        """Saves what was learned, as every witness does."""
        clip = self.clip
        told = [Fact(kind=kind, key=key, at=NOW, source=FactSource.POLL, fields=fields) for kind, key, fields in facts]
        self.stack.store.save(clip, refresh_derived(merge_all(clip, told), NOW, TIMES))

    def store(self) -> None:
        """The task finished, its object and its manifest where they should be."""
        version = self.put(self.key, MP4)
        self.learn((Kind.RENDERED, "v", {"cost": PRICE}), (Kind.STORED, version, {"size": len(MP4)}))
        self.describe()

    def fail(self) -> None:
        """The task failed for good."""
        self.learn((Kind.FAILED, "timeoutProvider", {}), (Kind.LAST_LOOK, "", {}))

    def forget(self) -> None:
        self.store()
        s3 = client(self.stack, "s3")
        erase.forget(self.stack.store, s3, self.stack.bucket_name, self.caller, self.task_uuid)

    def put(self, key: str, body: bytes) -> str:
        """Puts an object, as Runware does, and returns its version."""
        link = signer(self.stack).upload_link(key, 60)
        answer = http().put(link, content=body)
        assert answer.status_code == 200
        return answer.headers["x-amz-version-id"]

    def get(self, key: str) -> bytes:
        s3 = client(self.stack, "s3")
        content: bytes = s3.get_object(Bucket=self.stack.bucket_name, Key=key)["Body"].read()
        return content

    def delete(self, key: str, version: str | None = None) -> None:
        """Removes a version for good, or puts a delete marker over all of them."""
        of = {"VersionId": version} if version else {}
        client(self.stack, "s3").delete_object(Bucket=self.stack.bucket_name, Key=key, **of)

    def describe(self, **changes: Any) -> None:
        """Writes the clip's manifest, which is right but for the changes."""
        content = self.get(self.key)
        manifest = {
            "taskUUID": self.task_uuid,
            "clip": 0,
            "caller": self.caller,
            "objectKey": self.key,
            "versionId": self.version,
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            **changes,
        }
        self.put(self.manifest, json.dumps(manifest).encode())

    def record(self, **changes: Any) -> None:
        """Saves the clip with changes that no rule would make."""
        clip = self.clip
        self.stack.store.save(clip, replace(clip, **changes))

    def pin(self, version: str, size: int) -> None:
        """Records the copy as this version of this size."""
        clip = self.clip
        ((_, known),) = clip.of(Kind.STORED).items()
        facts = {name: each for name, each in clip.facts.items() if name[0] != Kind.STORED}
        self.record(
            facts={**facts, (Kind.STORED, version): FactRecord.of_all(known.seen, {**known.fields, "size": size})}
        )

    def swap(self, body: bytes) -> None:
        """Lets other bytes be the version on record, which S3 itself would never do; size and manifest follow."""
        old, sha256 = self.version, hashlib.sha256(self.get(self.key)).hexdigest()
        new = self.put(self.key, body)
        self.delete(self.key, old)
        self.pin(new, len(body))
        self.describe(sha256=sha256)

    def drop(self, *sks: str) -> None:
        """Removes items of the task."""
        for sk in sks:
            client(self.stack, "dynamodb").delete_item(**self.item(f"task#{self.caller}#{self.task_uuid}", sk))

    def item(self, pk: str, sk: str) -> dict[str, Any]:
        return {"TableName": self.stack.table_name, "Key": {"pk": {"S": pk}, "sk": {"S": sk}}}

    def update(self, pk: str, sk: str, expression: str, **values: Any) -> None:
        more = {"ExpressionAttributeValues": {f":{name}": value for name, value in values.items()}} if values else {}
        client(self.stack, "dynamodb").update_item(**self.item(pk, sk), UpdateExpression=expression, **more)


@cache
def signer(stack: Stack) -> S3Bucket:
    """What signs upload links, made once."""
    return S3Bucket(stack.client("s3", config=S3_CONFIG), stack.bucket_name)


def gone(case: Case) -> None:
    """The clip's item, and the money with it: the task alone is left."""
    case.record(budgeted=0)
    case.drop("clip#0")


def no_trace(case: Case) -> None:
    """The request and what was to outlive it."""
    case.drop("request")
    case.update(f"task#{case.caller}#{case.task_uuid}", "clip#0", "REMOVE fingerprint")


def swapped_for_text(case: Case) -> None:
    case.swap(b"<html>")
    case.describe()


def swapped_for_another_kind(case: Case) -> None:
    case.swap(WEBM)
    case.describe()


def strange(case: Case) -> None:
    table = client(case.stack, "dynamodb")
    table.put_item(TableName=case.stack.table_name, Item=case.item(f"odd#{case.caller}", "x")["Key"])


def no_limit(case: Case) -> None:
    case.stack.create_key(case.caller)
    client(case.stack, "dynamodb").delete_item(**case.item(f"caller#{case.caller}", "caller"))


def key_of(case: Case) -> str:
    """A caller's only key, as findings name it."""
    return next(
        key_hash[:12] for key_hash, (caller, _) in case.stack.store.snapshot().listed.items() if caller == case.caller
    )


def unlisted(case: Case) -> None:
    """A key that works, and that its caller's list shows as revoked."""
    key_hash = hash_key(case.stack.create_key(case.caller))
    case.update(f"caller#{case.caller}", f"key#{key_hash}", "SET revokedAt = :n", n={"N": "1"})


def budget(scope: str, amount: int) -> Callable[[Case], None]:
    """Money in a budget that no clip accounts for."""

    def add(case: Case) -> None:
        pk = f"budget#{scope or case.caller}"
        case.update(pk, f"{MONTH}#00", "ADD counted :n", n={"N": str(amount)})

    return add


# What is in order, what is done to it, and all that the check may say to that.
PLANTED: dict[str, tuple[Callable[[Case], None] | None, Callable[[Case], object], Flaw, Callable[[Case], str]]] = {
    "the object is gone": (Case.store, lambda c: c.delete(c.key, c.version), Flaw.MISSING, lambda c: c.name),
    "a delete marker": (Case.store, lambda c: c.delete(c.key), Flaw.HIDDEN, lambda c: c.name),
    "overwritten": (Case.store, lambda c: c.put(c.key, MP4 + b"?"), Flaw.OVERWRITTEN, lambda c: c.name),
    "another size": (Case.store, lambda c: c.pin(c.version, 3), Flaw.WRONG_SIZE, lambda c: c.name),
    "empty": (Case.store, lambda c: c.swap(b""), Flaw.EMPTY, lambda c: c.name),
    "another kind": (Case.store, swapped_for_another_kind, Flaw.WRONG_CONTAINER, lambda c: c.name),
    "no video": (Case.store, swapped_for_text, Flaw.WRONG_CONTAINER, lambda c: c.name),
    "other bytes": (Case.store, lambda c: c.swap(MP4[:-1] + b"?"), Flaw.HASH_DIFFERS, lambda c: c.name),
    "another hash": (Case.store, lambda c: c.describe(sha256="0" * 64), Flaw.HASH_DIFFERS, lambda c: c.name),
    "of nobody": (None, lambda c: c.put("videos/x.mp4", MP4), Flaw.ORPHANED, lambda c: "videos/x.mp4"),
    "of a failure": (Case.fail, lambda c: c.put(c.manifest, b"{}"), Flaw.ORPHANED, lambda c: c.manifest),
    "not recorded": (Case.fail, lambda c: c.put(c.key, MP4), Flaw.UNRECORDED, lambda c: c.key),
    "not erased": (Case.forget, lambda c: c.put(c.key, MP4), Flaw.NOT_ERASED, lambda c: c.key),
    "no manifest": (Case.store, lambda c: c.delete(c.manifest), Flaw.MANIFEST_MISSING, lambda c: c.name),
    "no JSON": (Case.store, lambda c: c.put(c.manifest, b"{"), Flaw.MANIFEST_UNREADABLE, lambda c: c.name),
    "a stale one": (Case.store, lambda c: c.describe(versionId="old"), Flaw.MANIFEST_DIFFERS, lambda c: c.name),
    "a budget": (Case.store, budget("", 1), Flaw.BUDGET_DIFFERS, lambda c: f"{c.caller} {MONTH}"),
    "all budgets": (Case.store, budget(ALL_CALLERS, -1), Flaw.BUDGET_DIFFERS, lambda c: f"{ALL_CALLERS} {MONTH}"),
    "another amount": (Case.store, lambda c: c.record(budgeted=1), Flaw.AMOUNT_DIFFERS, lambda c: c.name),
    "miscounted for long": (
        Case.store,
        lambda c: c.record(budgeted=1, next_check_at=NOW - 2 * HOUR),
        Flaw.AMOUNT_DIFFERS,
        lambda c: c.name,
    ),
    "no request": (Case.fail, no_trace, Flaw.REQUEST_MISSING, lambda c: c.task),
    "no clip": (Case.fail, gone, Flaw.CLIPS_MISSING, lambda c: c.task),
    "no next check": (None, lambda c: c.record(next_check_at=None), Flaw.UNSCHEDULED, lambda c: c.name),
    "overdue": (None, lambda c: c.record(next_check_at=NOW - 2 * HOUR), Flaw.OVERDUE, lambda c: c.name),
    "unrecognized": (None, strange, Flaw.UNRECOGNIZED, lambda c: f"odd#{c.caller} x"),
    "two opinions": (None, unlisted, Flaw.KEY_DIFFERS, lambda c: f"{c.caller} {key_of(c)}"),
    "a lost limit": (None, no_limit, Flaw.KEY_WITHOUT_CALLER, lambda c: f"{c.caller} {key_of(c)}"),
}


def healthy(stack: Stack, *names: str) -> dict[str, Case]:
    """A case in good order for everything of these names that can be planted."""
    s3 = client(stack, "s3")
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=stack.bucket_name, Prefix="videos/"):
        for each in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:  # of other tests' tasks
            s3.delete_object(Bucket=stack.bucket_name, Key=each["Key"], VersionId=each["VersionId"])
    cases = {}
    for number, name in enumerate(names):
        prepare = PLANTED[name][0]
        case = cases[name] = Case(stack, f"caller-{number}", uuid4(number))
        case.order()
        if prepare:
            prepare(case)
    return cases


def findings(stack: Stack, **terms: Any) -> Found:
    """What the check tells, without how it shows."""
    given = {"now": NOW, "grace": 0, "deep": True, **terms}
    found = check(stack.store, client(stack, "s3"), stack.bucket_name, CheckOptions(**given))
    return {(finding.flaw, finding.subject) for finding in found}


def test_what_is_planted_is_found_and_nothing_else(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clean stack reports nothing; one that is spoiled in many ways reports exactly those, each with a meaning."""
    cases = healthy(stack, *PLANTED)
    assert findings(stack) == set()
    for name, (_, spoil, _, _) in PLANTED.items():
        spoil(cases[name])
    expected = {(flaw, subject(cases[name])) for name, (_, _, flaw, subject) in PLANTED.items()}
    assert {flaw for flaw, _ in expected} == set(Flaw) == set(MEANINGS)
    # What needs every byte is not told without being asked for.
    assert findings(stack, deep=False) == {each for each in expected if each[0] != Flaw.HASH_DIFFERS}

    for name, value in {"AWS_ENDPOINT_URL": stack.aws_url, "TABLE_NAME": stack.table_name}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("BUCKET_NAME", stack.bucket_name)
    ran = run("check", "--grace", "0", "--deep", "--json")
    assert ran.status == 1
    assert {(each["flaw"], each["subject"]) for each in ran.json["findings"]} == expected
    assert set(ran.json["findings"][0]) == {"flaw", "subject", "detail"}


def test_what_is_in_good_order_is_no_finding(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not yet a manifest, objects whose time is over, an expired request, a passing difference: nothing is wrong."""
    cases = healthy(stack, "empty", "no next check", "of a failure", "not erased")
    case = cases["empty"]
    case.delete(case.manifest)
    assert findings(stack, grace=HOUR) == set()
    case.delete(case.key, case.version)
    overdue = {(Flaw.OVERDUE, cases["no next check"].name)}
    assert findings(stack, now=NOW + DAY, retention=DAY) == overdue
    case.drop("request")
    assert findings(stack) == set()
    failed = cases["of a failure"].clip  # its money is to follow at the next look
    cases["of a failure"].record(
        facts={name: known for name, known in failed.facts.items() if name[0] != Kind.LAST_LOOK}, next_check_at=NOW
    )
    assert findings(stack) == set()
    later = defer_budget(failed, NOW, TIMES)
    cases["of a failure"].record(facts=later.facts, next_check_at=later.next_check_at)
    assert findings(stack) == set()

    genuine, looks = stack.store.snapshot, []

    def snapshot() -> Any:
        looks.append(1)
        found = genuine()
        if len(looks) == 1:
            found.budgets[ALL_CALLERS, MONTH] += 1
        return found

    monkeypatch.setattr(stack.store, "snapshot", snapshot)
    assert findings(stack) == set()
    assert len(looks) == 2
