"""The official client, unchanged but for its base URL, gets its videos from our bucket."""

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from runware import Runware
from runware.errors import RunwareError

from rushes.domain.clip import Clip, Fact, FactSource, Kind, merge, refresh_derived
from rushes_cli.operator import erase
from rushes_local.runware.emulator import OneShot
from tests.conftest import User, client, http, submissions
from tests.fakes.builders import TIMES

PRICE = 924_000


@pytest.fixture
def run(user: User, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """The client's `run`. During its pauses, a twentieth as long, Runware finishes and failures get their last look."""
    original_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        user.stack.emulator.finish_all()
        close_failures(user)
        await original_sleep(seconds / 20)

    monkeypatch.setattr(asyncio, "sleep", sleep)

    def call(api_key: str = user.key, **changes: Any) -> list[dict[str, Any]]:
        task = {
            "taskType": "videoInference",
            "model": "klingai:5@3",
            "positivePrompt": "a lighthouse at dusk",
            "duration": 5,
            **changes,
        }

        async def session() -> list[dict[str, Any]]:
            async with Runware(
                api_key=api_key, transport="rest", http_base_url=f"{user.stack.url}/v1", poll_timeout=20_000
            ) as runware:
                items: list[dict[str, Any]] = await runware.run(task)
                return items

        return asyncio.run(session())

    return call


def close_failures(user: User) -> None:
    """Adds the last look of a later sweep: until then a failure is not final and the client waits."""
    now = int(time.time() * 1000)
    last_look = Fact(kind=Kind.LAST_LOOK, at=now, source=FactSource.CLOCK)
    for found in user.stack.store.page(user.name, 10).found:
        for clip in found.clips:
            if clip.open and clip.decisive == Kind.FAILED:
                user.stack.store.save(clip, refresh_derived(merge(clip, last_look), now, TIMES))


def stored(user: User, clip: Clip) -> bytes:
    """The content of a clip's pinned version, read from the bucket."""
    assert clip.copy is not None
    s3 = client(user.stack, "s3")
    answer = s3.get_object(Bucket=user.stack.bucket_name, Key=clip.object_key, VersionId=clip.copy[0])
    content: bytes = answer["Body"].read()
    return content


@pytest.mark.parametrize("number", [1, 3])
def test_the_client_gets_its_videos_from_our_bucket(run: Callable[..., Any], user: User, number: int) -> None:
    """Each ordered result is distinct and bought once, and its link gives the bytes in the bucket."""
    task_uuid = str(uuid.uuid4())
    items = run(taskUUID=task_uuid, numberResults=number, includeCost=True)
    clips = user.clips({"taskUUID": task_uuid})
    assert len(clips) == len(user.stack.emulator.ledger()) == number
    assert {item["videoUUID"] for item in items} == {key for clip in clips for key in clip.of(Kind.RENDERED)}
    assert len(items) == number
    links = [item["videoURL"] for item in items]
    assert all(link.startswith(user.stack.aws_url) for link in links)
    assert sorted(http().get(link).content for link in links) == sorted(stored(user, clip) for clip in clips)
    assert [(item["taskUUID"], item["cost"]) for item in items] == [(task_uuid, 0.924)] * number
    assert user.counted(clips[0]) == PRICE * number


@pytest.mark.parametrize(
    ("changes", "dollars"),
    [
        ({"model": "klingai:6@1", "duration": 10, "width": 1280, "height": 720, "CFGScale": 0.5}, 0.7),
        (
            {
                "model": "google:3@0",
                "duration": 8,
                "resolution": "720p",
                "providerSettings": {"google": {"generateAudio": True}},
            },
            3.2,
        ),
    ],
    ids=["klingai:6@1", "google:3@0"],
)
def test_the_client_buys_from_other_models(
    run: Callable[..., Any], user: User, changes: dict[str, Any], dollars: float
) -> None:
    """The request reaches Runware unchanged; the charge, the record and the client's item have the page's price."""
    task_uuid = str(uuid.uuid4())
    (item,) = run(taskUUID=task_uuid, includeCost=True, **changes)
    (clip,) = user.clips({"taskUUID": task_uuid})
    (sent,) = submissions(user.stack)
    (charge,) = user.stack.emulator.ledger()
    assert sent.items() >= changes.items()
    assert (item["cost"], clip.estimate, charge.micro_dollars) == (dollars, round(dollars * 1e6), round(dollars * 1e6))
    assert http().get(item["videoURL"]).content == stored(user, clip)
    assert user.counted(clip) == round(dollars * 1e6)


def test_image_to_video(run: Callable[..., Any], user: User) -> None:
    """A first frame by URL reaches Runware unchanged, and the clip is served from our bucket."""
    image = "https://example.com/lighthouse.png"
    (item,) = run(inputs={"frameImages": [{"image": image, "frame": "first"}]}, width=1920, height=1080)
    (sent,) = submissions(user.stack)
    assert sent["inputs"] == {"frameImages": [{"image": image, "frame": "first"}]}
    assert http().get(item["videoURL"]).content[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("changes", "parameter"),
    [
        ({"duration": 7}, "duration"),
        ({"fps": 24}, "fps"),
        ({"positivePrompt": "x"}, "positivePrompt"),
        ({"webhookURL": "https://10.0.0.1/hook"}, "webhookURL"),
        ({"width": 1920}, "height"),
    ],
)
def test_a_refused_request(run: Callable[..., Any], user: User, changes: dict[str, Any], parameter: str) -> None:
    """A refusal of this service is the same validation error as Runware's, and buys nothing."""
    task_uuid = str(uuid.uuid4())
    with pytest.raises(RunwareError) as refusal:
        run(taskUUID=task_uuid, **changes)
    error = refusal.value
    assert (error.code, error.status_code, error.retryable) == ("validation", 400, False)
    assert (error.parameter, error.task_uuid) == (parameter, task_uuid)
    assert user.stack.emulator.requests() == []


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("invalidProviderContent", "safety"), ("providerTimeout", "timeout"), ("taskFailed", "provider")],
)
def test_a_failure_at_the_provider(run: Callable[..., Any], user: User, fault: str, kind: str) -> None:
    """A render that fails raises the same class as with Runware itself."""
    user.stack.emulator.faults.failure = fault
    task_uuid = str(uuid.uuid4())
    with pytest.raises(RunwareError) as failure:
        run(taskUUID=task_uuid, numberResults=2)
    assert (failure.value.code, failure.value.task_uuid) == (kind, task_uuid)
    assert user.stack.emulator.ledger() == []


def test_a_wrong_key(run: Callable[..., Any]) -> None:
    """A wrong key raises the class auth, and the client does not retry."""
    with pytest.raises(RunwareError) as refusal:
        run(api_key="rushes_nobody")
    assert (refusal.value.code, refusal.value.status_code, refusal.value.retryable) == ("auth", 401, False)


def test_a_spent_budget(run: Callable[..., Any], user: User) -> None:
    """A task beyond the month's budget raises a request error, not a network error, and is not retried."""
    task_uuid = str(uuid.uuid4())
    user.stack.create_key(user.name, 0.5)
    with pytest.raises(RunwareError) as refusal:
        run(taskUUID=task_uuid)
    assert (refusal.value.status_code, refusal.value.retryable, refusal.value.task_uuid) == (402, False, task_uuid)


def test_an_erased_task_ends_the_clients_wait(run: Callable[..., Any], user: User) -> None:
    """The client that orders an erased task again gets an error that it does not retry, and nothing is bought."""
    task_uuid = str(uuid.uuid4())
    run(taskUUID=task_uuid)
    stack = user.stack
    erase.forget(stack.store, client(stack, "s3"), stack.bucket_name, user.name, task_uuid, int(time.time() * 1000))
    with pytest.raises(RunwareError, match="was erased") as ended:
        run(taskUUID=task_uuid)
    assert (ended.value.status_code, ended.value.retryable, ended.value.task_uuid) == (404, False, task_uuid)
    assert len(user.stack.emulator.ledger()) == 1


def test_an_uncertain_purchase_is_no_error(run: Callable[..., Any], user: User) -> None:
    """After a lost answer of Runware, a conflict for its own clients, the clip is bought once and delivered."""
    user.stack.emulator.faults.next_submissions.append(OneShot(submit_cut="after"))
    (item,) = run()
    assert item["videoURL"]
    assert len(user.stack.emulator.ledger()) == 1
