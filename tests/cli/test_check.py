"""`rushes check` finds every kind of corruption, and nothing else.

Each kind is planted for a caller of its own, all in one table and bucket, so that a false finding is noticed.
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
from rushes.domain.views import manifest_key
from rushes_cli.operator import erase
from rushes_cli.operator.consistency import MEANINGS, CheckOptions, Flaw, check
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
    """A caller with one task of one clip, in good order, and methods that corrupt it."""

    stack: Stack
    caller: str
    task_uuid: str

    @property
    def clip(self) -> Clip:
        """The clip's current record in the table."""
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
        """The recorded object version."""
        copy = self.clip.copy
        assert copy is not None
        return copy[0]

    def order(self) -> None:
        """Records the task as `submit` does, still in progress."""
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

    def add_facts(self, *facts: tuple[Kind, str, dict[str, Any]]) -> None:
        """Saves these facts with the poll as their source."""
        clip = self.clip
        added = [Fact(kind=kind, key=key, at=NOW, source=FactSource.POLL, fields=fields) for kind, key, fields in facts]
        self.stack.store.save(clip, refresh_derived(merge_all(clip, added), NOW, TIMES))

    def store(self) -> None:
        """Finishes the task, with its object and its manifest in place."""
        version = self.put(self.key, MP4)
        self.add_facts((Kind.RENDERED, "v", {"cost": PRICE}), (Kind.STORED, version, {"size": len(MP4)}))
        self.write_manifest()

    def fail(self) -> None:
        """Records that the task failed permanently."""
        self.add_facts((Kind.FAILED, "timeoutProvider", {}), (Kind.LAST_LOOK, "", {}))

    def forget(self) -> None:
        self.store()
        s3 = client(self.stack, "s3")
        erase.forget(self.stack.store, s3, self.stack.bucket_name, self.caller, self.task_uuid, NOW)

    def restore_request(self) -> None:
        """Restores the request, as if the erasure had stopped before it."""
        item = self.item(f"task#{self.caller}#{self.task_uuid}", "request")
        client(self.stack, "dynamodb").update_item(
            **item,
            UpdateExpression="SET #request = :request",
            ExpressionAttributeNames={"#request": "request"},
            ExpressionAttributeValues={":request": {"S": '{"positivePrompt": "x"}'}},
        )

    def put(self, key: str, body: bytes) -> str:
        """Puts an object through an upload link, as Runware does, and returns its version."""
        link = signer(self.stack).upload_link(key, 60)
        answer = http().put(link, content=body)
        assert answer.status_code == 200
        return answer.headers["x-amz-version-id"]

    def get(self, key: str) -> bytes:
        s3 = client(self.stack, "s3")
        content: bytes = s3.get_object(Bucket=self.stack.bucket_name, Key=key)["Body"].read()
        return content

    def delete(self, key: str, version: str | None = None) -> None:
        """Deletes a version permanently, or all of them with a delete marker."""
        of = {"VersionId": version} if version else {}
        client(self.stack, "s3").delete_object(Bucket=self.stack.bucket_name, Key=key, **of)

    def write_manifest(self, **changes: Any) -> None:
        """Writes the clip's manifest, correct except for the changes."""
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
        """Saves the clip with changes that no rule makes."""
        clip = self.clip
        self.stack.store.save(clip, replace(clip, **changes))

    def pin(self, version: str, size: int) -> None:
        """Records this version and this size as the copy."""
        clip = self.clip
        ((_, record),) = clip.of(Kind.STORED).items()
        facts = {name: each for name, each in clip.facts.items() if name[0] != Kind.STORED}
        self.record(
            facts={**facts, (Kind.STORED, version): FactRecord.of_all(record.seen, {**record.fields, "size": size})}
        )

    def swap(self, body: bytes) -> None:
        """Replaces the bytes of the recorded version, which S3 never does; size and manifest follow."""
        old, sha256 = self.version, hashlib.sha256(self.get(self.key)).hexdigest()
        new = self.put(self.key, body)
        self.delete(self.key, old)
        self.pin(new, len(body))
        self.write_manifest(sha256=sha256)

    def drop(self, *sks: str) -> None:
        """Deletes items of the task."""
        for sk in sks:
            client(self.stack, "dynamodb").delete_item(**self.item(f"task#{self.caller}#{self.task_uuid}", sk))

    def item(self, pk: str, sk: str) -> dict[str, Any]:
        return {"TableName": self.stack.table_name, "Key": {"pk": {"S": pk}, "sk": {"S": sk}}}

    def update(self, pk: str, sk: str, expression: str, **values: Any) -> None:
        more = {"ExpressionAttributeValues": {f":{name}": value for name, value in values.items()}} if values else {}
        client(self.stack, "dynamodb").update_item(**self.item(pk, sk), UpdateExpression=expression, **more)


@cache
def signer(stack: Stack) -> S3Bucket:
    """The bucket that signs upload links, made once."""
    return S3Bucket(stack.client("s3", config=S3_CONFIG), stack.bucket_name)


def clip_item_lost(case: Case) -> None:
    """Deletes the clip's item and its money, so that only the task is left."""
    case.record(budgeted=0)
    case.drop("clip#0")


def request_lost(case: Case) -> None:
    """Deletes the request and the fingerprint that should outlive it."""
    case.drop("request")
    case.update(f"task#{case.caller}#{case.task_uuid}", "clip#0", "REMOVE fingerprint")


def swapped_for_text(case: Case) -> None:
    case.swap(b"<html>")
    case.write_manifest()


def swapped_for_another_kind(case: Case) -> None:
    case.swap(WEBM)
    case.write_manifest()


def unknown_item(case: Case) -> None:
    table = client(case.stack, "dynamodb")
    table.put_item(TableName=case.stack.table_name, Item=case.item(f"odd#{case.caller}", "x")["Key"])


def caller_lost(case: Case) -> None:
    case.stack.create_key(case.caller)
    client(case.stack, "dynamodb").delete_item(**case.item(f"caller#{case.caller}", "caller"))


def key_of(case: Case) -> str:
    """The caller's only key, as findings name it."""
    return next(
        key_hash[:12] for key_hash, (caller, _) in case.stack.store.snapshot().listed.items() if caller == case.caller
    )


def listed_as_revoked(case: Case) -> None:
    """Creates a valid key that its caller's list shows as revoked."""
    key_hash = hash_key(case.stack.create_key(case.caller))
    case.update(f"caller#{case.caller}", f"key#{key_hash}", "SET revokedAt = :n", n={"N": "1"})


def budget(scope: str, amount: int) -> Callable[[Case], None]:
    """Adds money that no clip accounts for to a budget."""

    def add(case: Case) -> None:
        pk = f"budget#{scope or case.caller}"
        case.update(pk, f"{MONTH}#00", "ADD counted :n", n={"N": str(amount)})

    return add


# For each kind of corruption: the preparation, the corruption, and the only finding with its subject.
PLANTED: dict[str, tuple[Callable[[Case], None] | None, Callable[[Case], object], Flaw, Callable[[Case], str]]] = {
    "the object is gone": (Case.store, lambda c: c.delete(c.key, c.version), Flaw.MISSING, lambda c: c.name),
    "a delete marker": (Case.store, lambda c: c.delete(c.key), Flaw.HIDDEN, lambda c: c.name),
    "overwritten": (Case.store, lambda c: c.put(c.key, MP4 + b"?"), Flaw.OVERWRITTEN, lambda c: c.name),
    "another size": (Case.store, lambda c: c.pin(c.version, 3), Flaw.WRONG_SIZE, lambda c: c.name),
    "empty": (Case.store, lambda c: c.swap(b""), Flaw.EMPTY, lambda c: c.name),
    "another kind": (Case.store, swapped_for_another_kind, Flaw.WRONG_CONTAINER, lambda c: c.name),
    "no video": (Case.store, swapped_for_text, Flaw.WRONG_CONTAINER, lambda c: c.name),
    "other bytes": (Case.store, lambda c: c.swap(MP4[:-1] + b"?"), Flaw.HASH_DIFFERS, lambda c: c.name),
    "another hash": (Case.store, lambda c: c.write_manifest(sha256="0" * 64), Flaw.HASH_DIFFERS, lambda c: c.name),
    "unknown object": (None, lambda c: c.put("videos/x.mp4", MP4), Flaw.ORPHANED, lambda c: "videos/x.mp4"),
    "manifest of a failure": (Case.fail, lambda c: c.put(c.manifest, b"{}"), Flaw.ORPHANED, lambda c: c.manifest),
    "not recorded": (Case.fail, lambda c: c.put(c.key, MP4), Flaw.UNRECORDED, lambda c: c.key),
    "not erased": (Case.forget, lambda c: c.put(c.key, MP4), Flaw.NOT_ERASED, lambda c: c.key),
    "half erased": (Case.forget, lambda c: c.restore_request(), Flaw.HALF_ERASED, lambda c: c.task),
    "no clip erased": (
        Case.store,
        lambda c: c.stack.store.forget(c.caller, c.task_uuid),
        Flaw.HALF_ERASED,
        lambda c: c.task,
    ),
    "no manifest": (Case.store, lambda c: c.delete(c.manifest), Flaw.MANIFEST_MISSING, lambda c: c.name),
    "no JSON": (Case.store, lambda c: c.put(c.manifest, b"{"), Flaw.MANIFEST_UNREADABLE, lambda c: c.name),
    "stale manifest": (
        Case.store,
        lambda c: c.write_manifest(versionId="old"),
        Flaw.MANIFEST_DIFFERS,
        lambda c: c.name,
    ),
    "a budget": (Case.store, budget("", 1), Flaw.BUDGET_DIFFERS, lambda c: f"{c.caller} {MONTH}"),
    "all budgets": (Case.store, budget(ALL_CALLERS, -1), Flaw.BUDGET_DIFFERS, lambda c: f"{ALL_CALLERS} {MONTH}"),
    "another amount": (Case.store, lambda c: c.record(budgeted=1), Flaw.AMOUNT_DIFFERS, lambda c: c.name),
    "another amount, overdue": (
        Case.store,
        lambda c: c.record(budgeted=1, next_check_at=NOW - 2 * HOUR),
        Flaw.AMOUNT_DIFFERS,
        lambda c: c.name,
    ),
    "no request": (Case.fail, request_lost, Flaw.REQUEST_MISSING, lambda c: c.task),
    "no clip": (Case.fail, clip_item_lost, Flaw.CLIPS_MISSING, lambda c: c.task),
    "no next check": (None, lambda c: c.record(next_check_at=None), Flaw.UNSCHEDULED, lambda c: c.name),
    "overdue": (None, lambda c: c.record(next_check_at=NOW - 2 * HOUR), Flaw.OVERDUE, lambda c: c.name),
    "unrecognized": (None, unknown_item, Flaw.UNRECOGNIZED, lambda c: f"odd#{c.caller} x"),
    "key listed as revoked": (None, listed_as_revoked, Flaw.KEY_DIFFERS, lambda c: f"{c.caller} {key_of(c)}"),
    "key without a caller": (None, caller_lost, Flaw.KEY_WITHOUT_CALLER, lambda c: f"{c.caller} {key_of(c)}"),
}


def healthy(stack: Stack, *names: str) -> dict[str, Case]:
    """One case in good order for each of these kinds of corruption."""
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
    """The check's findings, without their details."""
    given = {"now": NOW, "grace": 0, "deep": True, **terms}
    found = check(stack.store, client(stack, "s3"), stack.bucket_name, CheckOptions(**given))
    return {(finding.flaw, finding.subject) for finding in found}


def test_each_corruption_is_found_and_nothing_else(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clean stack has no findings; a corrupted one has exactly one for each corruption, each with a meaning."""
    cases = healthy(stack, *PLANTED)
    assert findings(stack) == set()
    for name, (_, spoil, _, _) in PLANTED.items():
        spoil(cases[name])
    expected = {(flaw, subject(cases[name])) for name, (_, _, flaw, subject) in PLANTED.items()}
    assert {flaw for flaw, _ in expected} == set(Flaw) == set(MEANINGS)
    # A finding that needs every byte is reported only by a deep check.
    assert findings(stack, deep=False) == {each for each in expected if each[0] != Flaw.HASH_DIFFERS}

    for name, value in {"AWS_ENDPOINT_URL": stack.aws_url, "TABLE_NAME": stack.table_name}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("BUCKET_NAME", stack.bucket_name)
    result = run("check", "--grace", "0", "--deep", "--json")
    assert result.status == 1
    assert {(each["flaw"], each["subject"]) for each in result.json["findings"]} == expected
    assert set(result.json["findings"][0]) == {"flaw", "subject", "detail"}


def test_a_temporary_state_is_no_finding(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest not yet written, expired objects and requests, and a transient difference are no findings."""
    cases = healthy(stack, "empty", "no next check", "manifest of a failure", "not erased")
    case = cases["empty"]
    case.delete(case.manifest)
    assert findings(stack, grace=HOUR) == set()
    case.delete(case.key, case.version)
    overdue = {(Flaw.OVERDUE, cases["no next check"].name)}
    assert findings(stack, now=NOW + DAY, retention=DAY) == overdue
    case.drop("request")
    assert findings(stack) == set()
    failed = cases["manifest of a failure"].clip  # its budget follows at the next check
    cases["manifest of a failure"].record(
        facts={name: record for name, record in failed.facts.items() if name[0] != Kind.LAST_LOOK}, next_check_at=NOW
    )
    assert findings(stack) == set()
    later = defer_budget(failed, NOW, TIMES)
    cases["manifest of a failure"].record(facts=later.facts, next_check_at=later.next_check_at)
    assert findings(stack) == set()

    original, snapshots = stack.store.snapshot, []

    def snapshot() -> Any:
        snapshots.append(1)
        found = original()
        if len(snapshots) == 1:
            found.budgets[ALL_CALLERS, MONTH] += 1
        return found

    monkeypatch.setattr(stack.store, "snapshot", snapshot)
    assert findings(stack) == set()
    assert len(snapshots) == 2
