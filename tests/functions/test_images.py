"""Images of requests through `POST /v1`: stored, validated, signed for Runware and fetched by it, or refused."""

import hashlib
import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from rushes.domain.caller import Caller
from rushes.domain.clip import Status
from rushes_local.runware.emulator import OneShot
from rushes_local.stack import Stack
from tests.conftest import Json, User, client, http, order, submissions, whole_bucket, whole_table
from tests.functions.test_submit import errors, nothing_happens
from tests.object_keys import OBJECT_NAMES, longest
from tests.unit.pictures import base64_of, data_uri, padded, picture

PHOTOS = "photos-of-callers"
PNG, JPEG = picture(), picture(kind="JPEG")


def framed(image: str, **changes: Any) -> Json:
    return order(inputs={"frameImages": [image]}, **changes)


def key_of(user: User, content: bytes, extension: str = "png") -> str:
    return f"inputs/{user.name}/{hashlib.sha256(content).hexdigest()}.{extension}"


def image_of(task: Json) -> str:
    """The only image of a task sent to Runware or recorded."""
    (image,) = task["inputs"]["frameImages"]
    return str(image["image"] if isinstance(image, dict) else image)


def recorded(user: User, task: Json) -> Json:
    """A task's request in the table."""
    found = user.stack.store.task(user.name, task["taskUUID"])
    assert found is not None
    return dict(found.request)


def inputs_of(user: User) -> list[str]:
    """The keys in the caller's folder, one for each version."""
    return [key for key, _ in whole_bucket(user.stack) if key.startswith(f"inputs/{user.name}/")]


@pytest.fixture
def photos(stack: Stack) -> Any:
    """Puts objects into a bucket outside the stack."""
    s3 = client(stack, "s3")
    s3.create_bucket(Bucket=PHOTOS)
    return lambda key, content: s3.put_object(Bucket=PHOTOS, Key=key, Body=content)


def allow(user: User, *sources: str) -> None:
    """Allows a caller images from these sources, before its first request, since functions cache keys."""
    user.stack.store.set_caller(Caller(user.name, 50_000_000, sources))


def test_an_address_is_the_key_itself(user: User, photos: Any) -> None:
    """An address has its object's key without any encoding, and Runware's link leads to the same object."""
    keys = [*(f"ann/{name}.png" for name in OBJECT_NAMES.values()), longest("ann/%20 .png"), "ann//b/", " ", "..."]
    for number, key in enumerate(keys):
        photos(key, PNG + bytes(number))
    allow(user, f"{PHOTOS}/")
    tasks = {key: framed(f"s3://{PHOTOS}/{key}") for key in keys}
    for at in range(0, len(keys), 8):
        assert "errors" not in user.post(*list(tasks.values())[at : at + 8]).json()
    for number, (key, task) in enumerate(tasks.items()):
        (clip,) = user.clips(task)
        assert clip.status == Status.RUNNING
        assert image_of(recorded(user, task)) == f"s3://{PHOTOS}/{key}"
        (sent,) = user.sent(clip)
        link = urlsplit(image_of(sent))
        assert unquote(link.path).endswith(f"/{key}")
        assert http().get(link.geturl()).content == PNG + bytes(number)


@pytest.mark.parametrize("placed", [False, True])
def test_an_inline_image(user: User, placed: bool) -> None:
    """An inline image is stored once with its type and recorded as an address; Runware fetches it by its own link."""
    image = data_uri(PNG)
    task = order(inputs={"frameImages": [{"image": image, "frame": "first"} if placed else image]})
    assert user.post(task).json() == {"data": [{"taskType": "videoInference", "taskUUID": task["taskUUID"]}]}
    (clip,) = user.clips(task)
    assert clip.status == Status.RUNNING  # the emulator has fetched the image and judged it
    key = key_of(user, PNG)
    found = client(user.stack, "s3").get_object(Bucket=user.stack.bucket_name, Key=key)
    assert (found["Body"].read(), found["ContentType"]) == (PNG, "image/png")
    address = f"s3://{user.stack.bucket_name}/{key}"
    assert image_of(recorded(user, task)) == address
    (sent,) = user.sent(clip)
    link = urlsplit(image_of(sent))
    assert link.path.endswith(f"/{key}")
    assert parse_qs(link.query)["X-Amz-Expires"] == ["7200"]
    assert http().get(link.geturl()).content == PNG
    assert http().put(link.geturl(), content=b"x").status_code == 403
    assert recorded(user, task) == {**task, "inputs": recorded(user, task)["inputs"]}


def test_a_megabyte_of_image(user: User) -> None:
    """An image too large for the table or a queue is bought normally, for each of the task's clips."""
    content = padded(JPEG, 1_000_000)
    task = framed(base64_of(content), numberResults=2)
    assert user.post(task).status_code == 200
    assert [clip.status for clip in user.clips(task)] == [Status.RUNNING] * 2
    assert len(json.dumps(recorded(user, task))) < 1000
    assert inputs_of(user) == [key_of(user, content, "jpg")]


def test_one_image_in_many_tasks_is_stored_once(user: User) -> None:
    """Tasks with the same image share one object, and no version is added."""
    assert user.post(framed(data_uri(PNG))).status_code == 200
    tasks = [framed(image) for image in (data_uri(PNG), base64_of(PNG), data_uri(PNG))]
    assert len(user.post(*tasks).json()["data"]) == 3
    assert inputs_of(user) == [key_of(user, PNG)]


def test_a_repeat_needs_no_image(user: User) -> None:
    """A repeat is acknowledged without its image and without S3; another request under its UUID conflicts."""
    task = framed(data_uri(PNG))
    first = user.post(task).json()
    client(user.stack, "s3").delete_object(Bucket=user.stack.bucket_name, Key=key_of(user, PNG))
    client(user.stack, "dynamodb").delete_item(  # as after the request's expiry
        TableName=user.stack.table_name,
        Key={"pk": {"S": f"task#{user.name}#{task['taskUUID']}"}, "sk": {"S": "request"}},
    )
    user.stack.aws.faults.fail("s3", "SlowDown")
    with nothing_happens(user.stack):
        assert user.post(task).json() == first
        other = {**task, "inputs": {"frameImages": [data_uri(JPEG, "image/jpeg")]}}
        (error,) = errors(user.post(other))
    assert (error["code"], error["taskUUID"]) == ("conflictTaskUUID", task["taskUUID"])
    # The same picture in another encoding is another request, since the request is compared as it was sent.
    (error,) = errors(user.post({**task, "inputs": {"frameImages": [base64_of(PNG)]}}))
    assert error["code"] == "conflictTaskUUID"


def test_s3_is_unavailable(user: User) -> None:
    """No task is recorded or bought while its image cannot be stored; a later repeat is bought once."""
    task, text = framed(data_uri(PNG)), order()
    user.stack.aws.faults.fail("s3", "SlowDown")
    answer = user.post(task, text)
    user.stack.aws.faults.clear()
    (error,) = answer.json()["errors"]
    assert (error["code"], error["taskUUID"]) == ("serviceUnavailable", task["taskUUID"])
    assert [item["taskUUID"] for item in answer.json()["data"]] == [text["taskUUID"]]
    assert (user.clips(task), inputs_of(user)) == ([], [])
    user.stack.aws.faults.fail("s3", "InternalError")
    assert user.post(task).status_code == 503
    user.stack.aws.faults.clear()
    assert user.post(task).status_code == 200
    assert len(submissions(user.stack)) == 2


def test_an_image_in_a_bucket_of_the_callers(user: User, photos: Any) -> None:
    """An image in an allowed bucket is not copied, and Runware fetches it from there."""
    allow(user, f"{PHOTOS}/ann/")
    photos("ann/a b+ä?.png", PNG)
    address = f"s3://{PHOTOS}/ann/a b+ä?.png"
    task = framed(address)
    assert user.post(task).status_code == 200
    (clip,) = user.clips(task)
    assert clip.status == Status.RUNNING
    assert image_of(recorded(user, task)) == address
    (sent,) = user.sent(clip)
    assert http().get(image_of(sent)).content == PNG
    assert inputs_of(user) == []


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (f"s3://{PHOTOS}/ann/missing.png", "invalidFrameImageSource"),
        ("s3://no-such-bucket/a.png", "invalidFrameImageSource"),
        (f"s3://{PHOTOS}/bob/there.png", "invalidFrameImageSource"),
        (f"s3://{PHOTOS}/ann/text.png", "invalidFrameImageFormat"),
        (f"s3://{PHOTOS}/ann/small.png", "invalidFrameImageWidth"),
        (base64_of(picture(2049, 300)), "invalidFrameImageWidth"),
    ],
)
def test_an_image_that_cannot_be_used(user: User, photos: Any, image: str, code: str) -> None:
    """An unusable image is refused under its parameter, in a dry run too; nothing is stored or bought."""
    allow(user, f"{PHOTOS}/ann/", "no-such-bucket/")
    photos("bob/there.png", PNG)
    photos("ann/text.png", b"<html>")
    photos("ann/small.png", picture(299, 300))
    task = framed(image)
    with nothing_happens(user.stack):
        for headers in ({}, {"X-Runware-Dry-Run": "1"}):
            answer = user.post(task, **headers)
            assert answer.status_code == 400
            (error,) = errors(answer)
            assert (error["code"], error["parameter"]) == (code, "inputs.frameImages")
            assert (error["taskUUID"], error["taskType"]) == (task["taskUUID"], "videoInference")
    assert inputs_of(user) == []


def test_a_dry_run_stores_no_image(user: User) -> None:
    """A dry run validates and prices, and stores nothing."""
    with nothing_happens(user.stack):
        answer = user.post(framed(data_uri(PNG)), **{"X-Runware-Dry-Run": "1"})
    assert [item["cost"] for item in answer.json()["data"]] == [0.924]
    assert inputs_of(user) == []


def test_another_callers_image_is_refused(user: User) -> None:
    """An address in another caller's folder is refused, although the object exists."""
    user.post(framed(data_uri(PNG)))
    address = f"s3://{user.stack.bucket_name}/{key_of(user, PNG)}"
    assert user.post(framed(address)).status_code == 200
    (error,) = errors(User(user.stack).post(framed(address)))
    assert error["code"] == "invalidFrameImageSource"


def test_links_are_signed_for_every_attempt(user: User) -> None:
    """The reconciler sends the recorded address with a new link, by which Runware can fetch the image."""
    task = framed(data_uri(PNG))
    user.stack.emulator.faults.next_submissions.append(OneShot(submit_status=429))
    user.post(task)
    (clip,) = user.clips(task)
    assert clip.status == Status.PENDING
    user.stack.store.save(clip, replace(clip, next_check_at=1))
    assert user.stack.functions["reconcile"].invoke({}).payload == {"taken": 1}
    assert user.now(clip).status == Status.RUNNING
    links = [urlsplit(image_of(sent)) for sent in user.sent(clip)]
    assert len(links) == 2
    assert len({link.path for link in links}) == 1
    assert http().get(links[1].geturl()).content == PNG


def test_nothing_signed_is_in_the_table(user: User) -> None:
    """A refusal that repeats the image's link leaves no signature in the records or the answer."""
    task = framed(data_uri(PNG))
    user.stack.emulator.faults.next_submissions.append(OneShot(fetches_images=False, submit_status=400))
    answer = user.post(task)
    assert answer.status_code == 400
    assert "X-Amz" not in json.dumps(whole_table(user.stack)) + answer.text


def test_runware_cannot_use_it(user: User, photos: Any) -> None:
    """An image that Runware rejects is reported to the caller as Runware's refusal and costs nothing."""
    allow(user, f"{PHOTOS}/")
    photos("a.png", PNG[:40])  # the dimensions without any pixels
    task = framed(f"s3://{PHOTOS}/a.png")
    (error,) = errors(user.post(task))
    assert (error["code"], error["taskUUID"]) == ("invalidValueUploadFailed", task["taskUUID"])
    (clip,) = user.clips(task)
    assert (clip.status, user.counted(clip)) == (Status.FAILED, 0)
