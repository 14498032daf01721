"""The files in events/ match the events of API Gateway, the schedule, queues and the stream."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rushes.adapters.dynamodb.items import clip_of_image
from rushes.domain import delivery, inbox_message
from rushes.domain.clip import Status
from rushes.services.import_requests import RequestLocation, locate_request_file

FOLDER = Path(__file__).resolve().parents[2] / "events"
EVENTS = sorted(path for path in FOLDER.glob("*.json") if path.stem.startswith(("poll", "submit", "tasks", "webhook")))
CONTEXT = {
    "accountId", "apiId", "domainName", "domainPrefix", "http", "requestId", "routeKey", "stage", "time", "timeEpoch",
}  # fmt: skip


def routes(resources: dict[str, Any]) -> set[str]:
    events = (event for resource in resources.values() for event in resource["Properties"].get("Events", {}).values())
    http = (event["Properties"] for event in events if event["Type"] == "HttpApi")
    return {f"{each['Method']} {each['Path']}" for each in http}


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_an_event_is_complete_and_consistent(path: Path, resources: dict[str, Any]) -> None:
    """Every HTTP event has all fields of payload format 2.0, and repeated values are equal."""
    event = json.loads(path.read_text())
    context, headers = event["requestContext"], event["headers"]
    method, _, route = event["routeKey"].partition(" ")
    filled = route.format_map(event.get("pathParameters", {}))

    assert event["version"] == "2.0"
    assert set(context) == CONTEXT
    assert event["routeKey"] == context["routeKey"]
    assert event["routeKey"] in routes(resources)
    assert event["rawPath"] == context["http"]["path"] == filled
    assert context["http"]["method"] == method
    query = "&".join(f"{name}={value}" for name, value in event.get("queryStringParameters", {}).items())
    assert event["rawQueryString"] == query
    assert headers == {name.lower(): value for name, value in headers.items()}
    assert headers["host"] == context["domainName"]
    assert headers["user-agent"] == context["http"]["userAgent"]
    assert event["isBase64Encoded"] is False
    assert int(headers.get("content-length", 0)) == len(event.get("body", "").encode())
    when = datetime.fromtimestamp(context["timeEpoch"] / 1000, UTC)
    assert context["time"] == when.strftime("%d/%b/%Y:%H:%M:%S +0000")


def test_every_body_but_one_is_json() -> None:
    """Exactly one event has a body that is not JSON, the one for that case."""
    broken = []
    for path in EVENTS:
        try:
            json.loads(json.loads(path.read_text()).get("body", "{}"))
        except ValueError:
            broken.append(path.stem)
    assert broken == ["submit-invalid-not-json"]


def test_each_invalid_event_differs_from_the_valid_one_in_its_own_fields() -> None:
    """Each invalid event differs from the valid one in a single group of fields, so that its refusal has one cause."""
    tasks = {path.stem: json.loads(path.read_text())["body"] for path in EVENTS if path.stem.startswith("submit")}
    (valid,) = json.loads(tasks.pop("submit-valid"))
    del tasks["submit-invalid-not-json"]
    changed = {}
    for name, body in tasks.items():
        (task,) = json.loads(body)
        assert valid.keys() <= task.keys()
        changed[name.removeprefix("submit-invalid-")] = {key for key in task if task[key] != valid.get(key)}
    assert changed == {
        "cfg": {"CFGScale"},
        "delivery": {"deliveryMethod"},
        "duration": {"duration"},
        "frame-image": {"inputs"},
        "output": {"outputType", "outputFormat", "outputQuality"},
        "prompt": {"positivePrompt"},
        "results": {"numberResults"},
        "safety": {"safety"},
        "size": {"width", "height"},
        "ttl": {"ttl"},
        "unknown-parameter": {"seed"},
        "uuid": {"taskUUID"},
    }


def test_the_upload_is_that_of_the_webhooks_clip() -> None:
    """The message about an upload is complete and names the object of the other events' clip."""
    (record,) = json.loads((FOLDER / "object-created.json").read_text())["Records"]
    about = json.loads((FOLDER / "webhook-success-flat.json").read_text())["pathParameters"]
    event = json.loads(record["body"])
    assert record["md5OfBody"] == hashlib.md5(record["body"].encode()).hexdigest()
    assert (event["source"], event["detail-type"]) == ("aws.s3", "Object Created")
    assert event["detail"]["object"]["key"].startswith(f"videos/{about['caller']}/")
    assert event["detail"]["object"]["key"].endswith(f"/{about['taskUUID']}-{about['clip']}.mp4")


def test_the_change_is_that_of_the_webhooks_clip() -> None:
    """The stream's record is about the other events' clip, and its images are clips in their stored form."""
    (record,) = json.loads((FOLDER / "clip-changed.json").read_text())["Records"]
    about = json.loads((FOLDER / "webhook-success-flat.json").read_text())["pathParameters"]
    upload = json.loads(json.loads((FOLDER / "object-created.json").read_text())["Records"][0]["body"])["detail"]
    before, after = (clip_of_image(record["dynamodb"][image]) for image in ("OldImage", "NewImage"))
    for clip in (before, after):
        assert (clip.caller, clip.task_uuid) == (about["caller"], about["taskUUID"])
        assert clip.object_key == upload["object"]["key"]
        image = record["dynamodb"]["Keys"]
        assert image == {"pk": {"S": f"task#{clip.caller}#{clip.task_uuid}"}, "sk": {"S": f"clip#{clip.index}"}}
    assert (before.status, after.status, after.version) == (Status.RUNNING, Status.STORED, before.version + 1)
    assert after.copy is not None
    assert after.copy[0] == upload["object"]["version-id"]


@pytest.mark.parametrize("name", ["request-dropped", "video-requested", "inbox-message", "delivery"])
def test_a_message_is_complete(name: str) -> None:
    """A message has the fields of the upload's, a correct checksum, and the other events' caller and task."""
    (record,) = json.loads((FOLDER / f"{name}.json").read_text())["Records"]
    (example,) = json.loads((FOLDER / "object-created.json").read_text())["Records"]
    about = json.loads((FOLDER / "webhook-success-flat.json").read_text())["pathParameters"]
    body = json.loads(record["body"])
    assert record.keys() == example.keys()
    assert record["md5OfBody"] == hashlib.md5(record["body"].encode()).hexdigest()
    match name:
        case "request-dropped":
            assert (body["source"], body["detail-type"]) == ("aws.s3", "Object Created")
            assert isinstance(locate_request_file("bucket", body["detail"]["object"]["key"], "v1"), RequestLocation)
        case "video-requested":
            event = body["event"]
            assert (body.keys(), body["caller"]) == ({"caller", "event"}, about["caller"])
            assert event.keys() == json.loads(example["body"]).keys()
            assert (event["detail-type"], event["detail"]["taskUUID"]) == ("Video Requested", about["taskUUID"])
        case "inbox-message":
            message = inbox_message.read(record["body"])
            assert (message.caller, message.task["taskUUID"]) == (about["caller"], about["taskUUID"])
        case "delivery":
            attempt = delivery.read(record["body"])
            assert (attempt.caller, attempt.task_uuid) == (about["caller"], about["taskUUID"])


def test_every_file_is_of_a_known_kind() -> None:
    """Every file is checked by one of these tests or listed here."""
    others = {path.stem for path in FOLDER.glob("*.json")} - {path.stem for path in EVENTS}
    assert others == {
        "clip-changed", "delivery", "inbox-message", "object-created", "request-dropped", "schedule", "video-requested",
    }  # fmt: skip
