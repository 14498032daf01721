"""Request files and events as messages and reports, on fakes."""

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.caller import Caller
from rushes.domain.formats import UUID4
from rushes.domain.jsonl import Limits
from rushes.runware.wire import WireError
from rushes.services import import_requests
from rushes.services.import_requests import (
    LIMITS,
    MAX_ERRORS,
    MAX_LISTED,
    ImportService,
    Origin,
    RequestLocation,
    locate_request_file,
)
from rushes.services.metric import Metric
from tests.fakes.builders import START, TASK_UUID, request, uuid4
from tests.fakes.telemetry import FakeClock, FakeTelemetry
from tests.fakes.use_cases import sequential_map

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
LASTS = 270_000  # milliseconds that a function has
HOUR = 3_600_000
STORED_IMAGE = "https://kept.example/image.png"
FINE, SMALL = (f"data:image/png;base64,{base64.b64encode(PNG + mark).decode()}" for mark in (b"fin", b"sma"))


@dataclass
class RequestObject:
    """An object in memory, read in chunks of a few bytes."""

    content: bytes
    metadata: Mapping[str, str] = field(default_factory=dict)
    encoding: str = ""
    hidden_metadata: int = 0
    chunk: int = 7
    etag: str = ""
    put_at: int = START
    version: str = "v1"

    @property
    def size(self) -> int:
        return len(self.content)

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self.content), self.chunk):
            yield self.content[start : start + self.chunk]


@dataclass
class Importer:
    """The use case on fakes; keeps the messages, reports and images."""

    request_files: dict[str, RequestObject] = field(default_factory=dict)
    sent: list[dict[str, Any]] = field(default_factory=list)
    reports: dict[str, bytes] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    disallowed: set[str] = field(default_factory=set)
    signs_webhooks: bool = True
    telemetry: FakeTelemetry = field(default_factory=FakeTelemetry)
    limits: Limits = LIMITS
    clock: FakeClock = field(default_factory=FakeClock)
    pace: int = 0  # milliseconds that each reading of the clock takes
    earlier_versions: dict[str, list[RequestObject]] = field(default_factory=dict)  # by key, oldest first

    def open(self, key: str, version: str) -> RequestObject | None:
        if version == "v1":
            return self.request_files.get(key)
        return next((each for each in self.earlier_versions[key] if each.version == version), None)

    def head(self, key: str, version: str) -> RequestObject | None:
        return self.open(key, version)

    def before(self, key: str, version: str) -> str | None:
        versions = [each.version for each in self.earlier_versions.get(key, ())]
        found = versions[: versions.index(version)] if version in versions else versions
        return found[-1] if found else None

    def caller_named(self, name: str) -> Caller | None:
        return None if name in self.disallowed else Caller(name, 0, signs_webhooks=self.signs_webhooks)

    def now(self) -> int:
        self.clock.now += self.pace
        return self.clock.now

    def send(self, texts: Iterable[str]) -> None:
        self.sent += [json.loads(text) for text in texts]

    def put(self, key: str, content: bytes) -> None:
        self.reports[key] = content

    def store_images(self, task: Mapping[str, Any], caller: Caller) -> Mapping[str, Any] | list[WireError]:
        (image,) = task["inputs"]["frameImages"]
        self.images.append(f"{caller.name}: {image}")
        if image.endswith(SMALL):
            return [{"code": "invalidImage", "message": "too small"}]
        return {**task, "inputs": {"frameImages": [STORED_IMAGE]}}

    @property
    def intake(self) -> ImportService:
        return ImportService(
            bucket="bucket",
            request_files=self,
            inbox=self,
            reports=self,
            store_images=self.store_images,
            caller_named=self.caller_named,
            telemetry=self.telemetry,
            concurrent_map=sequential_map,
            clock=self.now,
            limits=self.limits,
        )

    def import_file(self, name: str, content: bytes, **attributes: Any) -> dict[str, Any]:
        """Puts an object for ann, imports it and returns its report."""
        self.request_files[f"requests/ann/{name}"] = RequestObject(content, **attributes)
        self.intake.import_file(f"requests/ann/{name}", "v1", START + LASTS)
        report: dict[str, Any] = json.loads(self.reports[f"reports/ann/{name}.v1.json"])
        return report

    def request(self, detail: Any, **more: Any) -> None:
        """Imports an event for the caller of the bus."""
        self.intake.import_event(
            "events", {"detail-type": "Video Requested", "id": "event-1", "detail": detail, **more}
        )


def lines(*tasks: Any) -> bytes:
    """A .jsonl file; texts and bytes are used as they are."""
    texts = (task if isinstance(task, (str, bytes)) else json.dumps(task) for task in tasks)
    return b"\n".join(text.encode() if isinstance(text, str) else text for text in texts)


def codes(report: Mapping[str, Any]) -> dict[int, list[str]]:
    """The error codes by line."""
    return {line["line"]: [error["code"] for error in line["errors"]] for line in report["lines"] if "errors" in line}


def test_each_valid_line_becomes_a_message() -> None:
    """Valid lines are sent with their caller and report, others are reported, and none affects another."""
    importer = Importer()
    valid = request(taskUUID=uuid4(5))
    content = lines(
        valid, "", "{", request(taskUUID=..., duration=7), request(taskType=..., taskUUID=...), "[1, 2]", "5"
    )
    report = importer.import_file("a/b.jsonl", content)
    origin = Origin("ann", ("bucket", "requests/ann/a/b.jsonl", "v1"), "")
    derived = origin.uuid_at(5)
    assert importer.sent == [
        {"caller": "ann", "task": valid, "report": "reports/ann/a/b.jsonl.v1"},
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
    assert importer.telemetry.counted == {Metric.TASKS_IMPORTED: 2, Metric.TASKS_REFUSED: 4}


def test_a_repeat_sends_and_writes_the_same() -> None:
    """The same object again gives the same messages and the same bytes of the report."""
    importer = Importer()
    content = lines(request(taskUUID=...), "{", request(taskUUID=...))
    importer.import_file("a.jsonl", content)
    before = importer.sent, dict(importer.reports)
    importer.sent = []
    importer.import_file("a.jsonl", content, chunk=1)
    assert (importer.sent, importer.reports) == before


def test_two_lines_under_one_uuid_are_both_refused() -> None:
    """Two lines under one UUID, in any place and case, are not sent; other lines are."""
    importer = Importer()
    content = lines(
        request(), *[request(taskUUID=uuid4(number)) for number in range(120)], request(taskUUID=TASK_UUID.upper())
    )
    report = importer.import_file("a.jsonl", content)
    assert codes(report) == {1: ["duplicateTaskUUID"], 122: ["duplicateTaskUUID"]}
    assert len(importer.sent) == report["accepted"] == 120


@pytest.mark.parametrize("content", [lines(request()), lines([request()]), b"\n" + lines(request()) + b"\n"])
def test_a_json_file_holds_one_task(content: bytes) -> None:
    """A .json file is an object, or an array of exactly one, over any number of lines."""
    importer = Importer()
    assert importer.import_file("a.JSON", content)["accepted"] == 1
    assert [message["task"] for message in importer.sent] == [request()]


@pytest.mark.parametrize(
    ("content", "words"),
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
        (b"[" * 1000, "must be JSON"),
        (b"[" * 100_000, "more than 2000 values"),
        (b" " * (LIMITS.line + 1), "must not be larger"),
    ],
    ids=lambda value: str(value[:20]),
)
def test_a_json_file_that_cannot_be_read_is_reported(content: bytes, words: str) -> None:
    """A fault of the whole file is in its report, and nothing is sent."""
    importer = Importer()
    report = importer.import_file("a.json", content, chunk=64 * 1024)
    assert [error["code"] for error in report["errors"]] == ["invalidFile"]
    assert words in report["errors"][0]["message"]
    assert (report["accepted"], report["lines"], importer.sent) == (0, [], [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no task"),
        (b"\n \r\n\n", "holds no task"),
        (b"\xff\xfe{\x00}\x00", "UTF-16"),
        (b"\x1f\x8b\x08", "compressed"),
        (lines(*[request(taskUUID=...)] * 6), "more than 5 lines"),
        (lines(request(), "x" * 2000), "larger than 1500 bytes"),
    ],
)
def test_a_fault_of_a_whole_jsonl_file_buys_nothing(content: bytes, words: str) -> None:
    """Even if the fault is at the end of the file, the valid lines before it are not sent."""
    importer = Importer(limits=Limits(size=1500, lines=5, line=400))
    report = importer.import_file("a.jsonl", content)
    assert words in report["errors"][0]["message"]
    assert (report["accepted"], report["lines"], importer.sent) == (0, [], [])


def test_a_receiver_in_a_file_is_part_of_its_order() -> None:
    """A line may name a receiver; one with an address that may not be used is reported."""
    importer = Importer()
    good, bad = (
        request(taskUUID=uuid4(number), webhookURL=url)
        for number, url in enumerate(("https://hooks.example/a", "http://127.0.0.1/a"))
    )
    report = importer.import_file("a.jsonl", lines(good, bad))
    assert [sent["task"]["webhookURL"] for sent in importer.sent] == ["https://hooks.example/a"]
    assert codes(report) == {2: ["invalidWebhookURL"]}


def test_a_receiver_without_a_secret_is_reported_with_its_line() -> None:
    """A line that can never be bought is in the file's report, as one by `POST /v1` is in the answer."""
    importer = Importer(signs_webhooks=False)
    plain, signed = request(taskUUID=uuid4(0)), request(taskUUID=uuid4(1), webhookURL="https://hooks.example/a")
    report = importer.import_file("a.jsonl", lines(plain, signed))
    assert [sent["task"]["taskUUID"] for sent in importer.sent] == [uuid4(0)]
    assert codes(report) == {2: ["missingWebhookSecret"]}


def test_a_faulty_line_affects_no_other() -> None:
    """Invalid UTF-8, a NUL or a line that is too long is a fault of that line alone."""
    importer = Importer(limits=LIMITS._replace(line=400))
    content = b"\n".join([b'{"a": "\xff"}', b"\x00", b"x" * 401, lines(request())])
    report = importer.import_file("a.jsonl", content)
    assert codes(report) == {1: ["invalidTask"], 2: ["invalidTask"], 3: ["invalidTask"]}
    assert report["accepted"] == 1


@pytest.mark.parametrize("encoding", ["gzip", "br", "utf-8", "aws-chunked,gzip"])
def test_an_object_with_an_encoding_is_refused(encoding: str) -> None:
    """A Content-Encoding is refused, so that nothing is decompressed here."""
    report = Importer().import_file("a.jsonl", lines(request()), encoding=encoding)
    assert "Content-Encoding" in report["errors"][0]["message"]


def test_aws_chunked_is_no_encoding() -> None:
    """Some clients leave `aws-chunked` in the header, which does not describe the content."""
    assert Importer().import_file("a.jsonl", lines(request()), encoding="aws-chunked")["accepted"] == 1


def test_a_report_is_bounded() -> None:
    """Every refused line is counted; a limited number of them has reasons, and a limited number of each."""
    importer = Importer(limits=Limits(size=10_000_000, lines=2000, line=2000))
    faulty_line = json.dumps({f"x{number}": 1 for number in range(MAX_ERRORS + 5)})
    report = importer.import_file("a.jsonl", lines(*[faulty_line] * (MAX_LISTED + 3), request()), chunk=64 * 1024)
    assert (report["accepted"], report["refused"], report["refusedUnlisted"]) == (1, MAX_LISTED + 3, 3)
    assert len(codes(report)) == MAX_LISTED
    assert {len(found) for found in codes(report).values()} == {MAX_ERRORS}


def test_getresponse_in_a_file_is_refused() -> None:
    """A file can only order, since it has no response."""
    report = Importer().import_file("a.json", lines({"taskType": "getResponse", "taskUUID": TASK_UUID}))
    assert codes(report) == {1: ["unsupportedTaskType"]}


def test_an_image_becomes_the_first_frame() -> None:
    """An image's metadata is the request, and the image is passed to the port that checks and stores images."""
    importer = Importer()
    report = importer.import_file("scene 1.JPG", PNG, metadata={"prompt": "a lighthouse", "duration": "10"})
    (message,) = importer.sent
    assert message["task"] == {
        "taskType": "videoInference",
        "taskUUID": report["lines"][0]["taskUUID"],
        "model": "klingai:5@3",
        "positivePrompt": "a lighthouse",
        "duration": 10,
        "inputs": {"frameImages": [STORED_IMAGE]},
    }
    assert importer.images[0].startswith("ann: iVBORw0KGgo")


@pytest.mark.parametrize(
    ("metadata", "attributes", "expected"),
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
    metadata: dict[str, str], attributes: dict[str, Any], expected: dict[int, list[str]]
) -> None:
    """Missing, wrong and unknown parameters are faults as in any request; hidden metadata is a fault of the file."""
    importer = Importer()
    report = importer.import_file("a.png", PNG, metadata=metadata, **attributes)
    assert codes(report) == expected
    assert bool(expected) is ("errors" not in report)
    assert importer.sent == []


def test_an_image_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image beyond Runware's limit is refused."""
    monkeypatch.setattr(import_requests, "MAX_IMAGE_BYTES", len(PNG) - 1)
    report = Importer().import_file("a.webp", PNG, metadata={"prompt": "a lighthouse"})
    assert "The image must not be larger" in report["errors"][0]["message"]


def test_inline_images_are_stored_and_addresses_left_alone() -> None:
    """Inline images are passed to the port; s3:// addresses are checked only when the order is bought."""
    importer = Importer()
    s3 = "s3://bucket/inputs/ann/x.png"
    tasks = [request(taskUUID=uuid4(n), inputs={"frameImages": [image]}) for n, image in enumerate([FINE, SMALL, s3])]
    report = importer.import_file("a.jsonl", lines(*tasks))
    assert importer.images == [f"ann: {FINE}", f"ann: {SMALL}"]
    assert importer.sent[0]["task"]["inputs"] == {"frameImages": [STORED_IMAGE]}
    assert codes(report)[2] == ["invalidImage"]


def test_a_task_too_large_for_the_inbox_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that SQS would refuse is a fault of its line."""
    monkeypatch.setattr(import_requests, "MAX_MESSAGE_BYTES", 1000)
    report = Importer().import_file("a.jsonl", lines(request(), request(taskUUID=uuid4(2), positivePrompt="x" * 1000)))
    assert codes(report) == {2: ["valueTooLarge"]}


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("requests/a.json", "not in a caller's folder"),
        ("requests//a.json", "not in a caller's folder"),
        ("requests/../a.json", "not in a caller's folder"),
        ("requests/\ud800/a.json", "not in a caller's folder"),
        ("videos/ann/a.json", "not in a caller's folder"),
        ("requests/ann/", "is a folder"),
        ("requests/ann/a.json/", "is a folder"),
    ],
)
def test_an_object_that_is_no_request_file_is_logged(key: str, reason: str) -> None:
    """An object outside all callers' folders has no report; it is logged, counted and not retried."""
    importer = Importer()
    importer.intake.import_file(key, "v1", START)
    ((message, warn, details),) = importer.telemetry.logs
    assert (message, warn, details["key"]) == ("object is not a request file", True, key)
    assert reason in str(details["reason"])
    assert (importer.sent, importer.reports) == ([], {})
    assert importer.telemetry.counted == {Metric.TASKS_REFUSED: 1}


@pytest.mark.parametrize(
    ("key", "report", "reason"),
    [
        ("Ann/a.json", "Ann/a.json.v1", "must be a caller's name"),
        ("H3A/a.json", "H3A/a.json.v1", "must be a caller's name"),
        ("all/a.json", "all/a.json.v1", "must be a caller's name"),
        ("ann/../bob/a.json", "ann/HASH.v1", "a part `.` or `..`"),
        ("ann/x/../a.jsonl", "ann/HASH.v1", "a part `.` or `..`"),
        ("ann/./a.json", "ann/HASH.v1", "a part `.` or `..`"),
        ("ann/b//a.json", "ann/HASH.v1", "empty"),
        ("ann//a.jsonl", "ann/HASH.v1", "empty"),
        ("ann/a\n.json", "ann/HASH.v1", "control character"),
        ("ann/\x7f.json", "ann/HASH.v1", "control character"),
        ("ann/\udfff.json", "ann/HASH.v1", "control character"),
        ("ann/a.txt", "ann/a.txt.v1", "must end with"),
        ("ann/scene.heic", "ann/scene.heic.v1", "must end with"),
        ("ann/json", "ann/json.v1", "must end with"),
        ("ann/a.jsonl.gz", "ann/a.jsonl.gz.v1", "must end with"),
        (f"ann/{'ü' * 490}.txt", "ann/HASH.v1", "must end with"),
    ],
)
def test_a_file_with_an_invalid_name_is_reported(key: str, report: str, reason: str) -> None:
    """The report is in the caller's folder, under the file's name, or its hash where the name is not plain."""
    importer = Importer()
    importer.intake.import_file(f"requests/{key}", "v1", START)
    ((put, content),) = importer.reports.items()
    name = hashlib.sha256(key.partition("/")[2].encode(errors="surrogatepass")).hexdigest()
    assert put == f"reports/{report.replace('HASH', name)}.json"
    (error,) = json.loads(content)["errors"]
    assert error["code"] == "invalidFile"
    assert reason in error["message"]
    assert importer.sent == []
    assert importer.telemetry.counted == {Metric.TASKS_REFUSED: 1}


def test_a_version_cannot_lead_out_of_the_folder() -> None:
    """No part of a report's key leads out of its caller's folder."""
    place = locate_request_file("bucket", "requests/ann/a.json", "x/../../../bob/y")
    assert isinstance(place, RequestLocation)
    assert ".." not in place.origin.report


def test_ndjson_is_jsonl() -> None:
    """Both endings are for one task a line."""
    assert Importer().import_file("a.NDJSON", lines(request(), request(taskUUID=uuid4(2))))["accepted"] == 2


def import_after(
    now: RequestObject, *earlier_versions: RequestObject, name: str = "a.jsonl"
) -> tuple[Importer, dict[str, Any]]:
    """Imports a version that was put after others under the same key; returns its report, too."""
    importer = Importer(earlier_versions={f"requests/ann/{name}": list(earlier_versions)})
    values = {"metadata": now.metadata, "etag": now.etag, "put_at": now.put_at}
    return importer, importer.import_file(name, now.content, **values)


ORDER = lines(request(taskUUID=...))


@pytest.mark.parametrize(
    "now",
    [
        RequestObject(ORDER, etag="e", put_at=START + 1000),
        RequestObject(ORDER, etag="e", put_at=START + HOUR),
        RequestObject(ORDER, etag="e", put_at=START - 1000),  # an upload in parts is as old as its beginning
        RequestObject(ORDER, etag="another under a KMS key", put_at=START + 1000),
        RequestObject(ORDER, etag="e", put_at=START + 1000, metadata={"mtime": "5"}),
    ],
    ids=["soon", "within the hour", "before", "etag", "metadata"],
)
def test_the_same_file_again_is_a_repeat(now: RequestObject) -> None:
    """A client without an answer may put a file again: the second version is reported, and nothing of it is sent."""
    importer, report = import_after(
        now, RequestObject(b"else", version="v-1"), RequestObject(ORDER, etag="e", version="v0")
    )
    (error,) = report["errors"]
    assert (error["code"], error["repeatOf"]) == ("repeatedFile", "v0")
    assert (report["accepted"], report["lines"], importer.sent) == (0, [], [])
    assert importer.telemetry.counted == {Metric.TASKS_REFUSED: 1}


@pytest.mark.parametrize(
    "now",
    [
        RequestObject(ORDER, etag="e", put_at=START + HOUR + 1),
        RequestObject(ORDER, etag="e", put_at=START - HOUR - 1),
        RequestObject(ORDER + b" ", etag="f"),
        RequestObject(ORDER.replace(b"dusk", b"dawn"), etag="f"),
        RequestObject(ORDER, etag="e", metadata={"Again": "2"}),
    ],
    ids=["an hour later", "an hour before", "size", "bytes", "again"],
)
def test_another_file_under_the_same_key_is_an_order(now: RequestObject) -> None:
    """Other bytes, an hour, or another `again` in the metadata make it a new order."""
    importer, report = import_after(now, RequestObject(ORDER, etag="e", version="v0"))
    assert "errors" not in report
    assert len(importer.sent) == 1


def test_a_repeat_is_of_the_version_directly_before() -> None:
    """A version between two equal ones makes the later a new order; in a chain of repeats only the first is one."""
    same = RequestObject(ORDER, etag="e", version="v-1")
    importer, _ = import_after(RequestObject(ORDER, etag="e"), same, RequestObject(b"else", etag="f", version="v0"))
    assert len(importer.sent) == 1
    importer, report = import_after(
        RequestObject(ORDER, etag="e", put_at=START + 2 * HOUR), same, replace(same, version="v0", put_at=START + HOUR)
    )
    assert report["errors"][0]["repeatOf"] == "v0"
    importer.intake.import_file("requests/ann/a.jsonl", "v0", START + LASTS)
    assert importer.sent == []
    importer.intake.import_file("requests/ann/a.jsonl", "v-1", START + LASTS)
    assert len(importer.sent) == 1


def test_the_same_value_of_again_is_a_repeat() -> None:
    """A client repeats the metadata as well, so `again` needs a new value for each order."""
    for value, sent in (("2", 0), ("3", 1)):
        now, before = (
            RequestObject(ORDER, etag="e", metadata={"again": value}),
            RequestObject(ORDER, etag="e", metadata={"again": "2"}, version="v0"),
        )
        assert len(import_after(now, before)[0].sent) == sent


def test_an_image_with_another_prompt_is_another_order() -> None:
    """An image's metadata is the request: with the same it is a repeat; `again` is no parameter."""
    before = RequestObject(PNG, etag="e", metadata={"prompt": "a lighthouse"}, version="v0")
    for metadata, sent in (
        ({"prompt": "a lighthouse"}, 0),
        ({"prompt": "a windmill"}, 1),
        ({"prompt": "a lighthouse", "again": "2"}, 1),
    ):
        importer, _ = import_after(RequestObject(PNG, etag="e", metadata=metadata), before, name="a.png")
        assert len(importer.sent) == sent


def test_a_disallowed_caller_gets_one_report() -> None:
    """Nothing is sent or stored for a disallowed caller, whatever the number of lines."""
    importer = Importer(disallowed={"ann", "events"})
    report = importer.import_file("a.jsonl", lines(*[request(taskUUID=...)] * 10))
    importer.request(request())
    event = json.loads(importer.reports["reports/events/event-1.json"])
    assert [error["code"] for error in (*report["errors"], *event["errors"])] == ["callerNotAllowed"] * 2
    assert (report["lines"], importer.sent, importer.images) == ([], [], [])


@pytest.mark.parametrize(("pace", "sent"), [(LASTS, 0), (LASTS // 600, 150)])
def test_a_slow_import_ends_with_a_report(pace: int, sent: int) -> None:
    """At the end of the time the report has the last imported line; its accepted tasks are in the inbox."""
    importer = Importer(pace=pace)
    report = importer.import_file("a.jsonl", lines(*[request(taskUUID=...)] * 450), chunk=64 * 1024)
    (error,) = report["errors"]
    assert error["code"] == "fileTooSlow"
    assert f"first {sent} tasks" in error["message"]
    assert len(importer.sent) == report["accepted"] == len(report["lines"]) == sent


def test_a_line_of_empty_arrays_is_refused_unparsed() -> None:
    """Values are counted before parsing, so that a line that would take seconds to parse takes milliseconds."""
    began = time.process_time()
    report = Importer().import_file(
        "a.jsonl", lines(*[b'{"x":[' + b"[]," * 350_000 + b"1]}"] * 5, request()), chunk=64 * 1024
    )
    assert codes(report) == {number: ["invalidTask"] for number in range(1, 6)}
    assert report["accepted"] == 1
    assert time.process_time() - began < 3


def test_a_deleted_file_is_logged() -> None:
    """A version that was deleted before it was read has no report."""
    importer = Importer()
    importer.intake.import_file("requests/ann/a.json", "v1", START + LASTS)
    assert importer.telemetry.logs[0][:2] == ("request file was deleted", True)
    assert importer.reports == {}


def test_an_event_is_one_task() -> None:
    """A valid event is sent for its caller, without a report; its own UUID identifies a repeat."""
    importer = Importer()
    importer.request(request(taskType=...))
    assert importer.sent == [{"caller": "events", "task": request(), "report": "reports/events/event-1"}]
    assert importer.reports == {}


def test_an_event_without_a_uuid_is_refused() -> None:
    """A client without an answer puts an event again under another id, so only a UUID identifies a repeat."""
    importer = Importer()
    importer.request(request(taskUUID=...))
    (line,) = json.loads(importer.reports["reports/events/event-1.json"])["lines"]
    assert [error["code"] for error in line["errors"]] == ["missingTaskUUID"]
    assert "retry" in line["errors"][0]["message"]
    assert importer.sent == []


@pytest.mark.parametrize(
    "detail",
    [{}, None, 5, "text", [], [request(), request()], request(duration=7), {"CFGScale": float("nan")}, {"\ud800": 1}],
)
def test_an_event_that_is_no_task_is_reported(detail: Any) -> None:
    """The refusal's report is under the event's id."""
    importer = Importer()
    importer.request(detail)
    report = json.loads(importer.reports["reports/events/event-1.json"])
    assert (report["event"], report["accepted"], report["refused"]) == ("event-1", 0, 1)
    assert importer.sent == []


@pytest.mark.parametrize("event_id", ["../../bob/x", "..", "", "a\ud800", 5, None, "x" * 65, "a/b"])
def test_an_invalid_event_id_is_hashed_in_the_report(event_id: Any) -> None:
    """The report stays in its caller's folder whatever the id is, and a valid task is sent all the same."""
    importer = Importer()
    importer.request(request(duration=7), id=event_id)
    (key,) = importer.reports
    assert re.fullmatch(r"reports/events/[0-9a-f]{64}\.json", key)
    importer.request(request(), id=event_id)
    assert [message["report"] for message in importer.sent] != [key]
    assert len(importer.sent) == 1


names = st.text(min_size=1, max_size=30)


@given(st.tuples(names, names, names, st.integers(1, 10_000)), st.tuples(names, names, names, st.integers(1, 10_000)))
def test_a_derived_uuid_follows_from_the_place_alone(
    one: tuple[str, str, str, int], other: tuple[str, str, str, int]
) -> None:
    """A derived UUID has the shape of a v4, is the same each time, and differs for every other place."""
    first, second = (Origin("ann", place[:3], "").uuid_at(place[3]) for place in (one, other))
    assert UUID4.fullmatch(first)
    assert (first == second) is (one == other)
    assert first == Origin("bob", one[:3], "elsewhere").uuid_at(one[3])


def test_derived_uuids_never_change() -> None:
    """Derived UUIDs prevent a repeat from buying again, so no release may change them."""
    place = locate_request_file("bucket", "requests/ann/a.jsonl", "v1")
    assert isinstance(place, RequestLocation)
    assert place.origin.uuid_at(7) == "3ae28e54-62cd-4448-bb40-6a12ba13cee6"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=990))
def test_every_report_has_a_valid_key(name: str) -> None:
    """For any object name, the reports' keys are valid in S3 and stay in the caller's folder."""
    key = f"requests/ann/{name}.json"
    place = locate_request_file("bucket", key, "x" * 32)
    if isinstance(place, RequestLocation) and len(key.encode()) <= 1024:
        assert not {"", ".", ".."} & set(place.origin.report.split("/"))
        assert place.origin.report.startswith("reports/ann/")
        assert len(f"{place.origin.report}.{TASK_UUID}.json".encode()) <= 1024
