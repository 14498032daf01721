"""The emulator's own validation of a task, with its errors."""

import base64
import io
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rushes_local.runware.validation import video_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.conftest import EmulatorService


def picture(width: int, height: int, kind: str = "PNG") -> str:
    target = io.BytesIO()
    Image.new("RGB", (width, height)).save(target, kind)
    return base64.b64encode(target.getvalue()).decode()


def frames(*images: Any) -> dict[str, Any]:
    return {"inputs": {"frameImages": list(images)}}


URL = "https://images.test/first.jpg"

ACCEPTED: list[dict[str, Any]] = [
    {"positivePrompt": "ab", "negativePrompt": "x" * 2500},
    {"positivePrompt": "\U0001f30a" * 2500},
    {"width": 1920, "height": 1080},
    {"width": 1080, "height": 1080},
    {"width": 1080, "height": 1920},
    {"duration": 10.0},
    *({"CFGScale": value} for value in (0, 1, 1.0, 0.5, 0.29, 0.57, 0.07)),
    {"outputQuality": 20},
    {"outputQuality": 99},
    {"ttl": 60},
    {"deliveryMethod": "async", "outputType": "URL", "outputFormat": "WEBM"},
    {"safety": {}},
    {"safety": {"checkContent": False, "mode": "full"}},
    {"inputs": {}},
    frames(),
    frames(URL),
    frames("aac49721-1964-481a-ae78-8a4e29b91402"),
    frames({"image": URL}),
    frames({"image": URL, "frame": "first"}),
    frames({"image": URL, "frame": 0}),
    frames("data:image/png;base64," + picture(300, 2048)),
    frames(picture(400, 400, "WEBP")),
]

REFUSED: list[tuple[dict[str, Any], str, Any]] = [
    ({"taskUUID": ...}, "invalidTaskUUID", "taskUUID"),
    ({"taskUUID": "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}, "invalidTaskUUID", "taskUUID"),
    ({"taskUUID": "e613fb0117f44dbf85bd05ea4a15aa2c"}, "invalidTaskUUID", "taskUUID"),
    ({"taskUUID": None}, "invalidTaskUUID", "taskUUID"),
    ({"model": ...}, "missingModel", "model"),
    ({"model": "klingai:5@2"}, "invalidModel", "model"),
    ({"positivePrompt": ...}, "missingPositivePrompt", "positivePrompt"),
    ({"positivePrompt": 5}, "invalidPositivePrompt", "positivePrompt"),
    ({"positivePrompt": "a"}, "invalidPositivePromptLength", "positivePrompt"),
    ({"positivePrompt": "a" * 2501}, "invalidPositivePromptLength", "positivePrompt"),
    ({"negativePrompt": ""}, "invalidNegativePromptLength", "negativePrompt"),
    ({"width": 1920}, "incompatibleParameters", ["width", "height"]),
    ({"width": 1080, "height": 720}, "unsupportedDimensions", ["width", "height"]),
    ({"width": 1920.0, "height": 1080}, "invalidWidth", "width"),
    ({"duration": 6}, "unsupportedDuration", "duration"),
    ({"duration": "5"}, "invalidDuration", "duration"),
    ({"duration": True}, "invalidDuration", "duration"),
    ({"duration": None}, "invalidDuration", "duration"),
    ({"CFGScale": 0.575}, "invalidCFGScale", "CFGScale"),
    ({"CFGScale": 1.01}, "invalidCFGScale", "CFGScale"),
    ({"CFGScale": -0.01}, "invalidCFGScale", "CFGScale"),
    ({"CFGScale": True}, "invalidCFGScale", "CFGScale"),
    ({"outputType": ["URL"]}, "invalidOutputType", "outputType"),
    ({"outputType": "base64Data"}, "invalidOutputType", "outputType"),
    ({"outputFormat": "GIF"}, "invalidOutputFormat", "outputFormat"),
    ({"outputFormat": "mp4"}, "invalidOutputFormat", "outputFormat"),
    ({"outputQuality": 100}, "invalidOutputQuality", "outputQuality"),
    ({"outputQuality": 95.0}, "invalidOutputQuality", "outputQuality"),
    ({"numberResults": 0}, "invalidNumberResults", "numberResults"),
    ({"numberResults": 5}, "invalidNumberResults", "numberResults"),
    ({"numberResults": True}, "invalidNumberResults", "numberResults"),
    ({"deliveryMethod": "sync"}, "invalidDeliveryMethod", "deliveryMethod"),
    ({"webhookURL": "ftp://receiver.test"}, "invalidWebhookURL", "webhookURL"),
    ({"webhookURL": "https://["}, "invalidWebhookURL", "webhookURL"),
    ({"webhookURL": "https://receiver.test/h\u00f6rer"}, "invalidWebhookURL", "webhookURL"),
    ({"uploadEndpoint": "receiver.test/put"}, "invalidUploadEndpoint", "uploadEndpoint"),
    ({"ttl": 59}, "invalidTtl", "ttl"),
    ({"includeCost": 1}, "invalidIncludeCost", "includeCost"),
    ({"safety": True}, "invalidSafety", "safety"),
    ({"safety": {"mode": "loud"}}, "invalidSafetyMode", "safety.mode"),
    ({"safety": {"level": 1}}, "unsupportedParameter", "safety.level"),
    ({"inputs": {"referenceImages": []}}, "unsupportedParameter", "inputs.referenceImages"),
    ({"inputs": {"frameImages": URL}}, "invalidInputsFrameImages", "inputs.frameImages"),
    (frames(URL, URL), "invalidInputsFrameImages", "inputs.frameImages"),
    (frames({"frame": "first"}), "missingInputsFrameImagesImage", "inputs.frameImages.image"),
    (frames({"image": URL, "frame": "last"}), "invalidInputsFrameImagesFrame", "inputs.frameImages.frame"),
    (frames({"image": URL, "frame": False}), "invalidInputsFrameImagesFrame", "inputs.frameImages.frame"),
    (frames({"image": URL, "weight": 1}), "unsupportedParameter", "inputs.frameImages.weight"),
    (frames(5), "invalidInputsFrameImages", "inputs.frameImages"),
    (frames("not an image"), "invalidValueUploadFailed", "inputs.frameImages"),
    (frames("data:image/png;base64,AAAA"), "invalidValueUploadFailed", "inputs.frameImages"),
    (frames(picture(400, 400, "GIF")), "invalidValueUploadFailed", "inputs.frameImages"),
    (frames(picture(299, 400)), "invalidFrameImageWidth", "inputs.frameImages"),
    (frames({"image": picture(400, 2049)}), "invalidFrameImageHeight", "inputs.frameImages.image"),
    ({"seed": 1}, "unsupportedParameter", "seed"),
    ({"fps": 24}, "unsupportedParameter", "fps"),
]


PARAMETERS = sorted({name for changes in [*ACCEPTED, *(refused for refused, *_ in REFUSED)] for name in changes})


@pytest.mark.parametrize("changes", ACCEPTED, ids=lambda changes: str(changes)[:40])
def test_documented_values_are_accepted(stepped: "EmulatorService", changes: dict[str, Any]) -> None:
    """Every allowed value is accepted, at its exact limit."""
    answer = stepped.post(stepped.task(**changes))
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(("changes", "code", "parameter"), REFUSED, ids=lambda value: str(value)[:40])
def test_undocumented_values_are_refused(
    stepped: "EmulatorService", changes: dict[str, Any], code: str, parameter: str | list[str]
) -> None:
    """Every forbidden value is a 400 with one error about code, parameter and documentation, and buys nothing."""
    answer = stepped.post(stepped.task(**changes))
    assert answer.status_code == 400
    (error,) = answer.json()["errors"]
    assert (error["code"], error["parameter"]) == (code, parameter)
    assert error["documentation"].startswith("https://runware.ai/docs/models/klingai-2-1-master#request-")
    assert error["message"]
    assert not stepped.emulator.finish_all()


def test_all_faults_of_a_task_are_reported_at_once(stepped: "EmulatorService") -> None:
    """Several faults of one task are several errors, each with the task's UUID."""
    task = stepped.task(duration=6, ttl=1, seed=1, positivePrompt=...)
    errors = stepped.post(task).json()["errors"]
    assert {error["parameter"] for error in errors} == {"duration", "ttl", "seed", "positivePrompt"}
    assert {error["taskUUID"] for error in errors} == {task["taskUUID"]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from([*PARAMETERS, "", "x"]), JSON, min_size=1))
def test_no_value_crashes_the_validation(task: dict[str, Any]) -> None:
    """For any JSON in any parameter the answer is a list of errors with a code and a parameter."""
    errors = video_errors(task)
    assert errors
    assert all(error["code"] and error["message"] for error in errors)


LOCAL = ["http://127.0.0.1:1/a.png", "http://localhost/a.png", "http://[::1]:8/a.png?X-Amz-Signature=x"]


@pytest.mark.parametrize(
    ("status", "content", "code"),
    [
        (200, picture(300, 2048), None),
        (200, picture(299, 400), "invalidFrameImageWidth"),
        (200, "", "invalidValueUploadFailed"),
        (200, "R0lGODlh", "invalidValueUploadFailed"),
        (403, picture(300, 300), "invalidValueUploadFailed"),
        (302, picture(300, 300), "invalidValueUploadFailed"),
        (None, "", "invalidValueUploadFailed"),
    ],
    ids=["fine", "too narrow", "empty", "no image", "forbidden", "moved", "no connection"],
)
def test_an_image_on_this_machine_is_fetched(
    start: "Callable[..., EmulatorService]", status: int | None, content: str, code: str | None
) -> None:
    """A local image is validated like an inline one, or refused if it cannot be fetched; no other host is contacted."""
    requested: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requested.append(str(request.url))
        if status is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(status, content=base64.b64decode(content))

    service = start(http=httpx.Client(transport=httpx.MockTransport(answer)), render_seconds=None)
    for url in LOCAL:
        errors = service.post(service.task(**frames(url))).json().get("errors", [])
        assert [error["code"] for error in errors] == ([code] if code else [])
        assert all(error["parameter"] == "inputs.frameImages" for error in errors)
    assert service.post(service.task(**frames({"image": URL}))).status_code == 200
    assert len(requested) == len(LOCAL)
