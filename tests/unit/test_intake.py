"""Drops and events into messages and reports, on fakes."""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes import intake
from rushes.callers import Caller
from rushes.intake import LIMITS, MOST_ERRORS, MOST_LISTED, Intake, Origin, Place, origin_of_event, place_of
from rushes.lines import Limits
from rushes.observability import Metric
from rushes.runware.wire import UUID4, WireError
from tests.unit.fakes import TASK_UUID, Telemetry, one_after_another, request, uuid4

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
KEPT = "https://kept.example/image.png"
FINE, SMALL = (f"data:image/png;base64,{base64.b64encode(PNG + mark).decode()}" for mark in (b"fin", b"sma"))


@dataclass
class Drop:
    """An object in memory, handed out in chunks of a few bytes."""

    content: bytes
    metadata: Mapping[str, str] = field(default_factory=dict)
    encoding: str = ""
    hidden_metadata: int = 0
    chunk: int = 7

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self.content), self.chunk):
            yield self.content[start : start + self.chunk]


@dataclass
class Door:
    """The use case on fakes. What is sent and put is kept."""

    drops: dict[str, Drop] = field(default_factory=dict)
    sent: list[dict[str, Any]] = field(default_factory=list)
    reports: dict[str, bytes] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    telemetry: Telemetry = field(default_factory=Telemetry)
    limits: Limits = LIMITS

    def open(self, key: str, version: str) -> Drop | None:
        assert version == "v1"
        return self.drops.get(key)

    def send(self, texts: Iterable[str]) -> None:
        self.sent += [json.loads(text) for text in texts]

    def put(self, key: str, content: bytes) -> None:
        self.reports[key] = content

    def take_in(self, task: Mapping[str, Any], caller: Caller) -> Mapping[str, Any] | list[WireError]:
        (image,) = task["inputs"]["frameImages"]
        self.images.append(f"{caller.name}: {image}")
        if image.endswith(SMALL):
            return [{"code": "invalidImage", "message": "too small"}]
        return {**task, "inputs": {"frameImages": [KEPT]}}

    @property
    def intake(self) -> Intake:
        return Intake(
            bucket="bucket",
            drops=self,
            inbox=self,
            reports=self,
            take_in=self.take_in,
            telemetry=self.telemetry,
            events_caller="events",
            side_by_side=one_after_another,
            limits=self.limits,
        )

    def drop(self, name: str, content: bytes, **more: Any) -> dict[str, Any]:
        """Lets ann drop something and returns its report."""
        self.drops[f"requests/ann/{name}"] = Drop(content, **more)
        self.intake.dropped(f"requests/ann/{name}", "v1")
        report: dict[str, Any] = json.loads(self.reports[f"reports/ann/{name}.v1.json"])
        return report


def lines(*tasks: Any) -> bytes:
    """A .jsonl file; texts stay as they are."""
    return b"\n".join(task.encode() if isinstance(task, str) else json.dumps(task).encode() for task in tasks)


def codes(report: Mapping[str, Any]) -> dict[int, list[str]]:
    """The errors' codes by line."""
    return {line["line"]: [error["code"] for error in line["errors"]] for line in report["lines"] if "errors" in line}


def test_each_valid_line_becomes_a_message() -> None:
    """Good lines are sent with their caller and report, bad ones are reported, and none stops another."""
    door = Door()
    named = request(taskUUID=uuid4(5))
    content = lines(
        named, "", "{", request(taskUUID=..., duration=7), request(taskType=..., taskUUID=...), "[1, 2]", "5"
    )
    report = door.drop("a/b.jsonl", content)
    origin = Origin("ann", ("bucket", "requests/ann/a/b.jsonl", "v1"), "")
    derived = origin.uuid_at(5)
    assert door.sent == [
        {"caller": "ann", "task": named, "report": "reports/ann/a/b.jsonl.v1"},
        {"caller": "ann", "task": request(taskUUID=derived), "report": "reports/ann/a/b.jsonl.v1"},
    ]
    assert (report["object"], report["versionId"]) == ("s3://bucket/requests/ann/a/b.jsonl", "v1")
    assert (report["accepted"], report["refused"]) == (2, 4)
    assert [line["line"] for line in report["lines"]] == [1, 3, 4, 5, 6, 7]
    assert report["lines"][0] == {"line": 1, "taskUUID": uuid4(5), "accepted": True}
    assert report["lines"][3] == {"line": 5, "taskUUID": derived, "accepted": True}
    assert codes(report) == {
        3: ["invalidTask"],
        4: ["unsupportedDuration"],
        6: ["invalidTask"],
        7: ["invalidTask"],
    }
    assert door.telemetry.counted == {Metric.TASKS_TAKEN_IN: 2, Metric.TASKS_REFUSED: 4}


def test_a_repeat_sends_and_writes_the_same() -> None:
    """The same drop again gives the same messages and the same bytes of the report."""
    door = Door()
    content = lines(request(taskUUID=...), "{", request(taskUUID=...))
    door.drop("a.jsonl", content)
    before = door.sent, dict(door.reports)
    door.sent = []
    door.drop("a.jsonl", content, chunk=1)
    assert (door.sent, door.reports) == before


def test_two_lines_under_one_uuid_are_both_refused() -> None:
    """Wherever they stand in the file, in whatever letters, neither is sent; a third line is."""
    door = Door()
    content = lines(
        request(), *[request(taskUUID=uuid4(number)) for number in range(120)], request(taskUUID=TASK_UUID.upper())
    )
    report = door.drop("a.jsonl", content)
    assert codes(report) == {1: ["duplicateTaskUUID"], 122: ["duplicateTaskUUID"]}
    assert len(door.sent) == report["accepted"] == 120


@pytest.mark.parametrize("content", [lines(request()), lines([request()]), b"\n" + lines(request()) + b"\n"])
def test_a_json_file_holds_one_task(content: bytes) -> None:
    """An object, or an array of exactly one, over as many lines as it likes."""
    door = Door()
    assert door.drop("a.JSON", content)["accepted"] == 1
    assert [message["task"] for message in door.sent] == [request()]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"{", "must be JSON"),
        (b"[]", "array must hold"),
        (lines([request(), request(taskUUID=uuid4(2))]), "must hold one task"),
        (b'{"taskUUID": "\xff"}', "must be JSON in UTF-8"),
        (b'{"positivePrompt": "\x00"}', "must be JSON"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"\x1f\x8b\x08\x00", "compressed"),
        (b'{"CFGScale": NaN}', "without NaN"),
        (b'{"positivePrompt": "\\ud800"}', "must be JSON in UTF-8"),
        (b"[" * 100_000, "must be JSON"),
        (b" " * (LIMITS.line + 1), "must not be larger"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_a_json_file_that_cannot_be_read_is_reported(content: bytes, says: str) -> None:
    """What is wrong with the file as a whole stands in its report, and nothing is sent."""
    door = Door()
    report = door.drop("a.json", content, chunk=64 * 1024)
    assert [error["code"] for error in report["errors"]] == ["invalidFile"]
    assert says in report["errors"][0]["message"]
    assert (report["accepted"], report["lines"], door.sent) == (0, [], [])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "holds no task"),
        (b"\n \r\n\n", "holds no task"),
        (b"\xff\xfe{\x00}\x00", "UTF-16"),
        (b"\x1f\x8b\x08", "compressed"),
        (lines(*[request(taskUUID=...)] * 6), "more than 5 lines"),
        (lines(request(), "x" * 2000), "larger than 1500 bytes"),
    ],
)
def test_a_lines_file_with_a_fault_of_its_own_buys_nothing(content: bytes, says: str) -> None:
    """Even if the fault is at its end: what was valid before it is not sent either."""
    door = Door(limits=Limits(size=1500, lines=5, line=400))
    report = door.drop("a.jsonl", content)
    assert says in report["errors"][0]["message"]
    assert (report["accepted"], report["lines"], door.sent) == (0, [], [])


def test_a_broken_line_leaves_the_others() -> None:
    """Bytes that are no UTF-8, a NUL and a line that is too long are that line's own trouble."""
    door = Door(limits=replace(LIMITS, line=400))
    content = b"\n".join([b'{"a": "\xff"}', b"\x00", b"x" * 401, lines(request())])
    report = door.drop("a.jsonl", content)
    assert codes(report) == {1: ["invalidTask"], 2: ["invalidTask"], 3: ["invalidTask"]}
    assert report["accepted"] == 1


@pytest.mark.parametrize("encoding", ["gzip", "br", "utf-8", "aws-chunked,gzip"])
def test_an_encoded_object_is_reported_unread(encoding: str) -> None:
    """A Content-Encoding is refused, so that nothing is unpacked here."""
    report = Door().drop("a.jsonl", lines(request()), encoding=encoding)
    assert "Content-Encoding" in report["errors"][0]["message"]


def test_an_upload_in_chunks_is_not_encoded() -> None:
    """What some clients leave of their transfer in the header says nothing about the content."""
    assert Door().drop("a.jsonl", lines(request()), encoding="aws-chunked")["accepted"] == 1


def test_a_report_is_bounded() -> None:
    """Every refused line is counted; reasons are given for the first of them, and only so many each."""
    door = Door(limits=Limits(size=10_000_000, lines=2000, line=2000))
    worst = json.dumps({f"x{number}": 1 for number in range(MOST_ERRORS + 5)})
    report = door.drop("a.jsonl", lines(*[worst] * (MOST_LISTED + 3), request()), chunk=64 * 1024)
    assert (report["accepted"], report["refused"], report["refusedUnlisted"]) == (1, MOST_LISTED + 3, 3)
    assert len(codes(report)) == MOST_LISTED
    assert {len(found) for found in codes(report).values()} == {MOST_ERRORS}


def test_get_response_is_not_for_files() -> None:
    """A file orders; it has nobody to answer to."""
    report = Door().drop("a.json", lines({"taskType": "getResponse", "taskUUID": TASK_UUID}))
    assert codes(report) == {1: ["unsupportedTaskType"]}


def test_an_image_becomes_the_first_frame() -> None:
    """Its metadata is the request, and the image itself goes through the port that checks and keeps images."""
    door = Door()
    report = door.drop("scene 1.JPG", PNG, metadata={"prompt": "a lighthouse", "duration": "10"})
    (message,) = door.sent
    assert message["task"] == {
        "taskType": "videoInference",
        "taskUUID": report["lines"][0]["taskUUID"],
        "model": "klingai:5@3",
        "positivePrompt": "a lighthouse",
        "duration": 10,
        "inputs": {"frameImages": [KEPT]},
    }
    assert door.images[0].startswith("ann: iVBORw0KGgo")


@pytest.mark.parametrize(
    ("metadata", "more", "expected"),
    [
        ({}, {}, {1: ["missingPositivePrompt"]}),
        ({"prompt": "a lighthouse", "duration": "soon"}, {}, {1: ["invalidDuration"]}),
        ({"prompt": "a lighthouse", "mood": "dark"}, {}, {1: ["unsupportedParameter"]}),
        ({"prompt": "a lighthouse", "tag-a=b": "c"}, {}, {1: ["invalidTags"]}),
        ({"prompt": "=?utf-8?q?=00=00?="}, {}, {1: ["invalidPositivePrompt"]}),
        ({"prompt": "a lighthouse"}, {"hidden_metadata": 1}, {}),
    ],
)
def test_an_image_without_a_valid_request_is_reported(
    metadata: dict[str, str], more: dict[str, Any], expected: dict[int, list[str]]
) -> None:
    """Missing, wrong and unknown parameters are faults as in any request; what S3 hides is one of the file."""
    door = Door()
    report = door.drop("a.png", PNG, metadata=metadata, **more)
    assert codes(report) == expected
    assert bool(expected) is ("errors" not in report)
    assert door.sent == []


def test_an_image_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No image beyond Runware's limit is held."""
    monkeypatch.setattr(intake, "LARGEST_IMAGE", len(PNG) - 1)
    report = Door().drop("a.webp", PNG, metadata={"prompt": "a lighthouse"})
    assert "The image must not be larger" in report["errors"][0]["message"]


def test_images_in_a_file_are_kept_and_addresses_in_the_bucket_left_alone() -> None:
    """What may be an inline image goes through the port; whether an s3:// address may be used, intake cannot know."""
    door = Door()
    s3 = "s3://bucket/inputs/ann/x.png"
    tasks = [request(taskUUID=uuid4(n), inputs={"frameImages": [image]}) for n, image in enumerate([FINE, SMALL, s3])]
    report = door.drop("a.jsonl", lines(*tasks))
    assert door.images == [f"ann: {FINE}", f"ann: {SMALL}"]
    assert door.sent[0]["task"]["inputs"] == {"frameImages": [KEPT]}
    assert codes(report)[2] == ["invalidImage"]


def test_a_task_too_large_for_the_inbox_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that SQS would refuse is a fault of its line."""
    monkeypatch.setattr(intake, "LARGEST_MESSAGE", 1000)
    report = Door().drop("a.jsonl", lines(request(), request(taskUUID=uuid4(2), positivePrompt="x" * 1000)))
    assert codes(report) == {2: ["valueTooLarge"]}


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("requests/a.json", "not a caller's name"),
        ("requests/Ann/a.json", "not a caller's name"),
        ("requests/all/a.json", "not a caller's name"),
        ("requests//a.json", "not a caller's name"),
        ("videos/ann/a.json", "not a caller's name"),
        ("requests/ann/", "is a folder"),
        ("requests/ann/a.json/", "is a folder"),
        ("requests/ann/../bob/a.json", "empty or made of dots"),
        ("requests/ann/./a.json", "empty or made of dots"),
        ("requests/ann/b//a.json", "empty or made of dots"),
        ("requests/ann/a\n.json", "control character"),
        ("requests/ann/\x7f.json", "control character"),
        ("requests/ann/a.txt", "nothing that is known"),
        ("requests/ann/json", "nothing that is known"),
        ("requests/ann/a.jsonl.gz", "nothing that is known"),
    ],
)
def test_what_is_no_request_is_a_line_in_the_log(key: str, why: str) -> None:
    """Nobody can be told of such an object but the operator, and it is done with."""
    door = Door()
    door.intake.dropped(key, "v1")
    ((message, warn, details),) = door.telemetry.notes
    assert (message, warn, details["key"]) == ("an object that is no request", True, key)
    assert why in str(details["why"])
    assert (door.sent, door.reports) == ([], {})


def test_a_drop_that_is_gone_is_a_line_in_the_log() -> None:
    """A version that was deleted before it was read leaves no report."""
    door = Door()
    door.intake.dropped("requests/ann/a.json", "v1")
    assert door.telemetry.notes[0][:2] == ("a request that is gone", True)
    assert door.reports == {}


def test_an_event_is_one_task() -> None:
    """What is valid is sent for the bus's caller, without a report."""
    door = Door()
    door.intake.requested("event-1", request(taskUUID=...))
    derived = origin_of_event("events", "event-1").uuid_at(1)
    assert door.sent == [{"caller": "events", "task": request(taskUUID=derived), "report": "reports/events/event-1"}]
    assert door.reports == {}


@pytest.mark.parametrize(
    "detail", [{}, None, [], [request(), request()], request(duration=7), {"CFGScale": float("nan")}]
)
def test_an_event_that_is_no_task_is_reported(detail: Any) -> None:
    """A refusal is put under the event's id."""
    door = Door()
    door.intake.requested("event-1", detail)
    report = json.loads(door.reports["reports/events/event-1.json"])
    assert (report["event"], report["accepted"], report["refused"]) == ("event-1", 0, 1)
    assert door.sent == []


names = st.text(min_size=1, max_size=30)


@given(st.tuples(names, names, names, st.integers(1, 10_000)), st.tuples(names, names, names, st.integers(1, 10_000)))
def test_a_derived_uuid_follows_from_the_place_alone(
    one: tuple[str, str, str, int], other: tuple[str, str, str, int]
) -> None:
    """It has the shape of a v4, is the same each time, and another place has another one."""
    first, second = (Origin("ann", place[:3], "").uuid_at(place[3]) for place in (one, other))
    assert UUID4.fullmatch(first)
    assert (first == second) is (one == other)
    assert first == Origin("bob", one[:3], "elsewhere").uuid_at(one[3])


def test_derived_uuids_are_for_ever() -> None:
    """They are what keeps a repeat from buying again, so no release may change them."""
    place = place_of("bucket", "requests/ann/a.jsonl", "v1")
    assert isinstance(place, Place)
    assert place.origin.uuid_at(7) == "3ae28e54-62cd-4448-bb40-6a12ba13cee6"
    assert origin_of_event("events", "event-1").uuid_at(1) == "f6fe6f69-7fdd-43c8-8a45-376675d6af56"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=990))
def test_whatever_is_put_fits_into_a_key(name: str) -> None:
    """For any object that there can be, report and refusals have keys that S3 takes, in the caller's folder."""
    key = f"requests/ann/{name}.json"
    place = place_of("bucket", key, "x" * 32)
    if isinstance(place, Place) and len(key.encode()) <= 1024:
        assert place.origin.report.startswith("reports/ann/")
        assert len(f"{place.origin.report}.{TASK_UUID}.json".encode()) <= 1024
