"""The request: every parameter at its limits, every fault in Runware's shape, and the provider's error codes."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.failure import Category
from rushes.runware import models
from rushes.runware.error_codes import categorise
from rushes.runware.request import Order, WireError, check
from tests.fakes.builders import PRICE, TASK_UUID, request
from tests.object_keys import OBJECT_NAMES, longest

DOCUMENTED = sorted((Path(__file__).parents[1] / "contract" / "documented").glob("*.json"))
PAGE = "https://runware.ai/docs/models/klingai-2-1-master"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(30)).decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(30)).decode()
WEBP = base64.b64encode(b"RIFF\x00\x00\x00\x00WEBPVP8 ").decode()
GIF = base64.b64encode(b"GIF89a" + bytes(30)).decode()
IMAGE_UUID = "aac49721-1964-481a-ae78-8a4e29b91402"


def faults(**changes: Any) -> list[WireError]:
    """The faults of a request with these changes, which must have some."""
    checked = check(request(**changes))
    assert isinstance(checked, list), "the request is valid"
    return checked


def order(**changes: Any) -> Order:
    """The order of a request with these changes, which must be valid."""
    checked = check(request(**changes))
    assert isinstance(checked, Order), checked
    return checked


def framed(*images: object) -> dict[str, Any]:
    return {"inputs": {"frameImages": list(images)}}


@pytest.mark.parametrize("path", DOCUMENTED, ids=lambda path: path.stem)
def test_the_documented_examples_are_valid_as_they_are(path: Path) -> None:
    """Each example of the model's page is an order of one clip at the documented price."""
    example = json.loads(path.read_text())
    checked = check(example["request"])
    assert isinstance(checked, Order)
    assert checked.request == example["request"]
    assert (checked.clips, checked.price, checked.extension) == (1, round(example["response"]["cost"] * 10**6), "mp4")


def test_all_documented_examples_are_there() -> None:
    """The page has five examples."""
    assert len(DOCUMENTED) == 5


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"positivePrompt": "ab"},
        {"positivePrompt": "a" * 2500},
        {"positivePrompt": "\U0001f3ac" * 2500},
        {"positivePrompt": "a lighthouse\r\n\tat dusk\n"},
        {"positivePrompt": " ?"},
        {"positivePrompt": "\u706f\u53f0"},
        {"positivePrompt": "\U0001f3ac\ufe0f"},
        {"positivePrompt": "\u2014\u200b"},
        {"negativePrompt": "ab"},
        {"negativePrompt": "a" * 2500},
        {"width": 1920, "height": 1080},
        {"width": 1080, "height": 1080},
        {"width": 1080, "height": 1920},
        {"duration": 5},
        {"duration": 5.0},
        {"duration": 10},
        {"duration": 10.0},
        {"CFGScale": 0},
        {"CFGScale": 0.0},
        {"CFGScale": 1},
        {"CFGScale": 1.0},
        {"CFGScale": 0.57},
        {"CFGScale": 0.29},
        {"CFGScale": 1e-2},
        {"outputType": "URL"},
        {"outputQuality": 20},
        {"outputQuality": 99},
        {"numberResults": 1},
        {"numberResults": 4},
        {"deliveryMethod": "async"},
        {"safety": {}},
        {"safety": {"checkContent": True}},
        {"safety": {"checkContent": False, "mode": "full"}},
        {"safety": {"checkContent": True, "mode": "none"}},
        {"safety": {"mode": "fast"}},
        {"ttl": 60},
        {"ttl": 365 * 86_400},
        {"includeCost": True},
        {"includeCost": False},
        {"inputs": {}},
        framed(),
        framed(IMAGE_UUID),
        framed(IMAGE_UUID.upper()),
        framed("https://assets.runware.ai/inputs/a.jpg"),
        framed("HTTP://example.com"),
        framed("https://example.com?x=1"),
        framed(f"data:image/png;base64,{PNG}"),
        framed(f"data:image/jpeg;base64,{JPEG}"),
        framed(f"data:image/jpg;base64,{JPEG}"),
        framed(f"data:image/webp;base64,{WEBP}"),
        framed(PNG),
        framed(JPEG),
        framed(WEBP),
        *(
            framed(address)
            for address in (
                "s3://bucket/key",
                "s3://my.bucket-1/a b/\u00e4?#%2e.png",
                "s3://bucket//a//b/",
                "s3://bucket/..a/b../...",
                *(f"s3://bucket/{name}" for name in OBJECT_NAMES.values()),
                "s3://bucket/" + longest("\u00e4"),
                "s3://bucket/" + "a" * 1024,
            )
        ),
        framed({"image": "s3://bucket/key", "frame": "first"}),
        framed({"image": IMAGE_UUID}),
        framed({"image": IMAGE_UUID, "frame": "first"}),
        framed({"image": "https://example.com/a.png", "frame": 0}),
        {"destination": "a"},
        {"destination": "film-1/scene_2/take.3"},
        {"destination": "..a/.b/..."},
        {"destination": "a" * 200},
        {"tags": {}},
        {"tags": {"project": "x", "k" * 64: "v" * 256}},
        {"tags": {str(number): "" for number in range(20)}},
        {"tags": {"a b-c/d": "x:y=z, \u00e4"}},
    ],
    ids=lambda changes: json.dumps(changes)[:60],
)
def test_documented_values_are_allowed(changes: dict[str, Any]) -> None:
    """Every parameter is accepted up to its limits, and the request is kept as it was sent."""
    assert order(**changes).request == request(**changes)


@pytest.mark.parametrize("hundredths", range(101))
def test_every_step_of_the_guidance_scale_is_allowed(hundredths: int) -> None:
    """Every hundredth from 0 to 1 is allowed, however a binary float represents it; half a step is not."""
    assert order(CFGScale=float(f"{hundredths / 100:.2f}"))
    assert order(CFGScale=hundredths / 100)
    if hundredths < 100:
        (fault,) = faults(CFGScale=float(f"{hundredths / 100 + 0.005:.3f}"))
        assert fault["code"] == "invalidCFGScale"


PROMPT = {"type": "string", "min": 2, "max": 2500}
CFG = {"type": "float", "min": 0, "max": 1}
QUALITY = {"type": "integer", "min": 20, "max": 99}
RESULTS = {"type": "integer", "min": 1, "max": 4}
TTL = {"type": "integer", "min": 60, "max": 31_536_000}
IMAGES = {"type": "array", "max": 1}
FORMATS = {"type": "string", "allowedValues": ["MP4", "WEBM", "MOV"]}
MODES = {"type": "string", "allowedValues": ["none", "fast", "full"]}
FIRST = {"type": "string", "allowedValues": ["first", 0]}
MODELS = {"type": "string", "allowedValues": list(models.identifiers())}
FIVE_OR_TEN = {"type": "float", "allowedValues": [5, 10]}
UNKNOWN = "unsupportedParameter"
FRAMES, PLACED = "inputs.frameImages", "inputs.frameImages.image"


@pytest.mark.parametrize(
    ("changes", "code", "parameter", "details"),
    [
        ({"taskType": ...}, "missingTaskType", "taskType", {"type": "string"}),
        ({"taskType": 1}, "unsupportedTaskType", "taskType", {"type": "string", "allowedValues": ["videoInference"]}),
        ({"taskUUID": ...}, "missingTaskUUID", "taskUUID", {"type": "string"}),
        ({"taskUUID": None}, "invalidTaskUUID", "taskUUID", {"type": "string"}),
        ({"taskUUID": 5}, "invalidTaskUUID", "taskUUID", {"type": "string"}),
        ({"taskUUID": ""}, "invalidTaskUUID", "taskUUID", {"type": "string"}),
        ({"taskUUID": "c232ab00-9414-11ec-b3c8-9f6bdeced846"}, "invalidTaskUUID", "taskUUID", {"type": "string"}),
        ({"taskUUID": TASK_UUID.replace("-", "")}, "invalidTaskUUID", "taskUUID", {"type": "string"}),
        ({"taskUUID": TASK_UUID + "\n"}, "invalidTaskUUID", "taskUUID", {"type": "string"}),
        ({"taskUUID": "{" + TASK_UUID + "}"}, "invalidTaskUUID", "taskUUID", {"type": "string"}),
        ({"model": ...}, "missingModel", "model", {"type": "string"}),
        ({"model": "klingai:5@2"}, "invalidModel", "model", MODELS),
        ({"model": 5}, "invalidModel", "model", MODELS),
        ({"model": ["klingai:5@3"]}, "invalidModel", "model", MODELS),
        ({"positivePrompt": ...}, "missingPositivePrompt", "positivePrompt", PROMPT),
        ({"positivePrompt": None}, "invalidPositivePrompt", "positivePrompt", PROMPT),
        ({"positivePrompt": 5}, "invalidPositivePrompt", "positivePrompt", PROMPT),
        ({"positivePrompt": "a"}, "invalidPositivePromptLength", "positivePrompt", PROMPT),
        ({"positivePrompt": "a" * 2501}, "invalidPositivePromptLength", "positivePrompt", PROMPT),
        ({"positivePrompt": "\ud800 a"}, "invalidPositivePrompt", "positivePrompt", PROMPT),
        *(
            ({name: blank}, f"invalid{name[0].upper()}{name[1:]}", name, PROMPT)
            for name in ("positivePrompt", "negativePrompt")
            for blank in (
                "  ",
                "\n\n",
                "\u00a0\u3000",
                "\u200b\u200b",
                "\ufeff \u2060",
                "\u3164\u2800",
                "\u0301\u0301",
                "\ue000\ue000",
                "\x00\x00",
                "a\x00b",
                "a\x1b[31m",
                "ab\x7f",
                "ab\x85",
            )
        ),
        ({"negativePrompt": "a"}, "invalidNegativePromptLength", "negativePrompt", PROMPT),
        ({"negativePrompt": "a" * 2501}, "invalidNegativePromptLength", "negativePrompt", PROMPT),
        ({"negativePrompt": None}, "invalidNegativePrompt", "negativePrompt", PROMPT),
        ({"width": 1920}, "missingHeight", "height", {"type": "integer"}),
        ({"height": 1080}, "missingWidth", "width", {"type": "integer"}),
        ({"width": "1920", "height": 1080}, "invalidWidth", "width", {"type": "integer"}),
        ({"width": 1920, "height": True}, "invalidHeight", "height", {"type": "integer"}),
        ({"width": 1920.0, "height": 1080}, "invalidWidth", "width", {"type": "integer"}),
        ({"width": None, "height": 1080}, "invalidWidth", "width", {"type": "integer"}),
        ({"duration": "5"}, "invalidDuration", "duration", {"type": "float"}),
        ({"duration": True}, "invalidDuration", "duration", {"type": "float"}),
        ({"duration": None}, "invalidDuration", "duration", {"type": "float"}),
        ({"duration": 7}, "unsupportedDuration", "duration", FIVE_OR_TEN),
        ({"duration": 5.001}, "unsupportedDuration", "duration", FIVE_OR_TEN),
        ({"duration": 0}, "unsupportedDuration", "duration", FIVE_OR_TEN),
        ({"CFGScale": "0.5"}, "invalidCFGScale", "CFGScale", CFG),
        ({"CFGScale": True}, "invalidCFGScale", "CFGScale", CFG),
        ({"CFGScale": None}, "invalidCFGScale", "CFGScale", CFG),
        ({"CFGScale": 0.575}, "invalidCFGScale", "CFGScale", CFG),
        ({"CFGScale": 1.01}, "invalidCFGScale", "CFGScale", CFG),
        ({"CFGScale": -0.01}, "invalidCFGScale", "CFGScale", CFG),
        ({"CFGScale": 1e-9}, "invalidCFGScale", "CFGScale", CFG),
        ({"CFGScale": float("nan")}, "invalidCFGScale", "CFGScale", CFG),
        ({"outputType": "base64Data"}, "unsupportedOutputType", "outputType", {"allowedValues": ["URL"]}),
        ({"outputFormat": "mp4"}, "unsupportedOutputFormat", "outputFormat", FORMATS),
        ({"outputFormat": None}, "unsupportedOutputFormat", "outputFormat", FORMATS),
        ({"outputQuality": 19}, "invalidOutputQuality", "outputQuality", QUALITY),
        ({"outputQuality": 100}, "invalidOutputQuality", "outputQuality", QUALITY),
        ({"outputQuality": 95.0}, "invalidOutputQuality", "outputQuality", QUALITY),
        ({"outputQuality": "95"}, "invalidOutputQuality", "outputQuality", QUALITY),
        ({"numberResults": 0}, "invalidNumberResults", "numberResults", RESULTS),
        ({"numberResults": 5}, "invalidNumberResults", "numberResults", RESULTS),
        ({"numberResults": True}, "invalidNumberResults", "numberResults", RESULTS),
        ({"deliveryMethod": "sync"}, "unsupportedDeliveryMethod", "deliveryMethod", {"allowedValues": ["async"]}),
        ({"safety": None}, "invalidSafety", "safety", {"type": "object"}),
        ({"safety": True}, "invalidSafety", "safety", {"type": "object"}),
        ({"safety": {"checkContent": 1}}, "invalidCheckContent", "safety.checkContent", {"type": "boolean"}),
        ({"safety": {"mode": "slow"}}, "unsupportedMode", "safety.mode", MODES),
        ({"safety": {"mode": None}}, "unsupportedMode", "safety.mode", MODES),
        ({"ttl": 59}, "invalidTtl", "ttl", TTL),
        ({"ttl": 365 * 86_400 + 1}, "invalidTtl", "ttl", TTL),
        ({"ttl": 10**31}, "invalidTtl", "ttl", TTL),
        ({"ttl": "60"}, "invalidTtl", "ttl", TTL),
        ({"ttl": True}, "invalidTtl", "ttl", TTL),
        ({"includeCost": 1}, "invalidIncludeCost", "includeCost", {"type": "boolean"}),
        ({"includeCost": "true"}, "invalidIncludeCost", "includeCost", {"type": "boolean"}),
        ({"inputs": []}, "invalidInputs", "inputs", {"type": "object"}),
        ({"inputs": {"frameImages": IMAGE_UUID}}, "invalidFrameImages", FRAMES, IMAGES),
        (framed(IMAGE_UUID, IMAGE_UUID), "invalidFrameImages", FRAMES, IMAGES),
        (framed(None), "invalidFrameImages", FRAMES, IMAGES),
        (framed(5), "invalidFrameImages", FRAMES, IMAGES),
        (framed(""), "invalidFrameImages", FRAMES, IMAGES),
        *(
            (framed(address), "invalidFrameImages", FRAMES, IMAGES)
            for address in (
                "s3://bucket",
                "s3://bucket/",
                "s3:///key",
                "s3://bu/key",
                "s3://BUCKET/key",
                "s3://-bucket/key",
                "s3://arn:aws:s3:::bucket/key",
                "S3://bucket/key",
                " s3://bucket/key",
                "s3://bucket/../key",
                "s3://bucket/a/../b",
                "s3://bucket/a/.",
                "s3://bucket/..",
                "s3://bucket/a\nb",
                "s3://bucket/a\x7f",
                "s3://bucket/" + "a" * 1025,
                "s3://bucket/" + "\u00e4" * 513,
            )
        ),
        (framed("https://"), "invalidFrameImages", FRAMES, IMAGES),
        (framed("https://example.com/a b"), "invalidFrameImages", FRAMES, IMAGES),
        (framed("https://example.com/" + "a" * 4096), "invalidFrameImages", FRAMES, IMAGES),
        (framed(GIF), "invalidFrameImages", FRAMES, IMAGES),
        (framed(f"data:image/gif;base64,{GIF}"), "invalidFrameImages", FRAMES, IMAGES),
        (framed("data:image/png;base64,%%%"), "invalidFrameImages", FRAMES, IMAGES),
        (framed({"frame": "first"}), "missingImage", PLACED, {"type": "string"}),
        (framed({"image": 5}), "invalidImage", PLACED, {"type": "string"}),
        (framed({"image": "x"}), "invalidImage", PLACED, {"type": "string"}),
        (framed({"image": IMAGE_UUID, "frame": "last"}), "unsupportedFrame", FRAMES + ".frame", FIRST),
        (framed({"image": IMAGE_UUID, "frame": 1}), "unsupportedFrame", FRAMES + ".frame", FIRST),
        (framed({"image": IMAGE_UUID, "frame": False}), "unsupportedFrame", FRAMES + ".frame", FIRST),
        (framed({"image": IMAGE_UUID, "frame": "0"}), "unsupportedFrame", FRAMES + ".frame", FIRST),
        (framed({"image": IMAGE_UUID, "frame": None}), "unsupportedFrame", FRAMES + ".frame", FIRST),
        (framed({"image": IMAGE_UUID, "x": 1}), UNKNOWN, FRAMES + ".x", {}),
        ({"inputs": {"image": IMAGE_UUID}}, UNKNOWN, "inputs.image", {}),
        ({"inputs": {"placed": 1}}, UNKNOWN, "inputs.placed", {}),
        ({"destination": ""}, "invalidDestination", "destination", {"type": "string"}),
        ({"destination": "/a"}, "invalidDestination", "destination", {"type": "string"}),
        ({"destination": "a/"}, "invalidDestination", "destination", {"type": "string"}),
        ({"destination": "a//b"}, "invalidDestination", "destination", {"type": "string"}),
        ({"destination": "a/../b"}, "invalidDestination", "destination", {"type": "string"}),
        ({"destination": "."}, "invalidDestination", "destination", {"type": "string"}),
        ({"destination": "a/.."}, "invalidDestination", "destination", {"type": "string"}),
        ({"destination": "ä"}, "invalidDestination", "destination", {"type": "string"}),
        ({"destination": "a\n"}, "invalidDestination", "destination", {"type": "string"}),
        ({"destination": "a" * 201}, "invalidDestination", "destination", {"type": "string"}),
        ({"tags": {"a": 1}}, "invalidTags", "tags", {"type": "object"}),
        ({"tags": {"": "a"}}, "invalidTags", "tags", {"type": "object"}),
        ({"tags": {"k" * 65: "a"}}, "invalidTags", "tags", {"type": "object"}),
        ({"tags": {"a": "v" * 257}}, "invalidTags", "tags", {"type": "object"}),
        ({"tags": {str(number): "" for number in range(21)}}, "invalidTags", "tags", {"type": "object"}),
        *(
            ({"tags": tags}, "invalidTags", "tags", {"type": "object"})
            for tags in (
                {"a:b": "c"},
                {"a=b": "c"},
                {":": ""},
                {"a\nb": "c"},
                {" a": "b"},
                {"a ": "b"},
                {"a": "b\nc:d"},
                {"a": " b"},
                {"a": "b\u00a0"},
                {"a": "\x7f"},
            )
        ),
        ({"tags": []}, "invalidTags", "tags", {"type": "object"}),
        ({"seed": 1}, UNKNOWN, "seed", {}),
        ({"fps": 24}, UNKNOWN, "fps", {}),
        ({"": 1}, UNKNOWN, "", {}),
        ({"image": 1}, UNKNOWN, "image", {}),
        ({"placed": 1}, UNKNOWN, "placed", {}),
        ({"cfgScale": 0.5}, UNKNOWN, "cfgScale", {}),
    ],
    ids=lambda value: json.dumps(value, default=str)[:60],
)
def test_each_fault_is_named(changes: dict[str, Any], code: str, parameter: str, details: dict[str, Any]) -> None:
    """One fault gives exactly one error, with its code, parameter, type, limits and a message about it."""
    (fault,) = faults(**changes)
    assert (fault["code"], fault["parameter"]) == (code, parameter)
    assert {name: fault[name] for name in details} == details
    assert {"min", "max", "allowedValues"} & fault.keys() <= details.keys()
    assert fault["message"].startswith((parameter, "width and height must be used together"))
    documented = code != UNKNOWN and parameter not in ("destination", "tags")
    assert ("documentation" in fault) is documented
    assert fault.get("documentation", PAGE).startswith(PAGE)


@pytest.mark.parametrize("key", ["../a.png", "a/../b", ".", "a\tb", "a" * 1025, ""])
def test_an_unusable_key_is_named(key: str) -> None:
    """The message for an `s3://` address has the rule for its key, not the other forms of an image."""
    (fault,) = faults(**framed(f"s3://bucket/{key}"))
    assert (fault["code"], fault["parameter"]) == ("invalidFrameImages", FRAMES)
    assert "at most 1,024 bytes" in fault["message"]
    assert "no part that is . or .." in fault["message"]


@pytest.mark.parametrize("size", [(1920, 1081), (1080, 1079), (1920, 1920), (0, 0), (-1920, 1080), (10**5, 1080)])
def test_unsupported_sizes_name_both_parameters(size: tuple[int, int]) -> None:
    """A size is one value in two parameters, so the fault has both, with the three allowed sizes."""
    (fault,) = faults(width=size[0], height=size[1])
    assert fault["code"] == "unsupportedDimensions"
    assert fault["parameter"] == ["width", "height"]
    assert fault["allowedValues"] == ["1920x1080", "1080x1080", "1080x1920"]


def test_the_upload_endpoint_is_refused_with_a_reason() -> None:
    """A caller that sends the service's own upload address gets the reason and the alternative."""
    (fault,) = faults(uploadEndpoint="https://example.com")
    assert (fault["code"], fault["parameter"]) == (UNKNOWN, "uploadEndpoint")
    assert "set by the service" in fault["message"]
    assert "destination" in fault["message"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (7, "string"),
        ("", "URL"),
        ("hooks.example", "https://"),
        ("http://hooks.example/", "https://"),
        ("ftp://hooks.example/", "https://"),
        ("http://127.0.0.1/", "https://"),
        ("https://ann:secret@hooks.example/", "password"),
        ("https://hooks.example:0/", "port"),
        ("https://hooks.example:70000/", "port"),
        ("https://", "host"),
        ("https://hooks.example/#part", "fragment"),
        ("https://hooks.example/a b", "spaces"),
        ("https://10.0.0.1/", "private"),
        ("https://localhost/", "private"),
        ("https://[::1]/", "private"),
        ("https://hooks.example/" + "x" * 2048, "2048"),
    ],
)
def test_an_invalid_webhook_url_is_named(url: Any, reason: str) -> None:
    """A receiver's URL that could not be used, or must not be, is a fault of `webhookURL` with its reason."""
    (fault,) = faults(webhookURL=url)
    assert (fault["code"], fault["parameter"]) == ("invalidWebhookURL", "webhookURL")
    assert reason in fault["message"]
    assert "documentation" not in fault


@pytest.mark.parametrize("url", ["https://hooks.example/runware?token=1", "https://[2606:4700::1111]:8443/"])
def test_a_public_https_webhook_url_is_accepted(url: str) -> None:
    """A public receiver is part of the order."""
    checked = check(request(webhookURL=url))
    assert isinstance(checked, Order)
    assert checked.webhook_url == url


def test_a_local_receiver_needs_permission() -> None:
    """A receiver on the same machine, also by http, is accepted only where the operator has allowed it."""
    checked = check(request(webhookURL="http://127.0.0.1:8000/"), loopback=True)
    assert isinstance(checked, Order)
    assert isinstance(check(request(webhookURL="http://10.0.0.1/"), loopback=True), list)


@pytest.mark.parametrize(
    ("changes", "parameter", "words"),
    [
        ({"outputFormat": "mp4"}, "outputFormat", "must be MP4, WEBM or MOV"),
        ({"outputType": "dataURI"}, "outputType", "must be URL"),
        ({"duration": 8}, "duration", "must be 5 or 10"),
        (
            {"frameImages": [{"inputImage": IMAGE_UUID, "frame": "first"}]},
            "frameImages",
            'use inputs: {"frameImages": [{"image": …, "frame": "first"}]} instead',
        ),
        ({"seed": 42}, "seed", "takes none"),
        ({"positivePrompt": "a\x00b"}, "positivePrompt", "character 2 is U+0000"),
        ({"positivePrompt": "\U0001f3ac\x9f"}, "positivePrompt", "character 2 is U+009F"),
        ({"positivePrompt": "\u200b\u200b"}, "positivePrompt", "visible character"),
        ({"tags": {"a:b": "c"}}, "tags", "names without : and ="),
    ],
)
def test_a_fault_names_the_correct_form(changes: dict[str, Any], parameter: str, words: str) -> None:
    """Forms of the provider's older pages and invisible characters get a message with the correct form."""
    (fault,) = faults(**changes)
    assert fault["parameter"] == parameter
    assert words in fault["message"]


def test_the_older_name_of_an_image_is_refused_with_the_new_one() -> None:
    """The error about the older name inside an entry has the new name."""
    found = {fault["parameter"]: fault["message"] for fault in faults(**framed({"inputImage": IMAGE_UUID}))}
    assert found.keys() == {"inputs.frameImages.image", "inputs.frameImages.inputImage"}
    assert "use image instead" in found["inputs.frameImages.inputImage"]


def test_all_faults_are_reported_at_once() -> None:
    """A request with many faults gets them all in one answer."""
    found = faults(
        taskUUID="x", positivePrompt=..., width=1, duration=7, CFGScale=2, outputFormat="AVI", safety={"mode": 1}, a=1
    )
    parameters_at_fault = {fault["parameter"] for fault in found}
    assert parameters_at_fault == {
        "taskUUID", "positivePrompt", "height", "duration", "CFGScale", "outputFormat", "safety.mode", "a",
    }  # fmt: skip


def test_the_number_of_faults_is_bounded() -> None:
    """The answer to a request with very many faults stays small."""
    assert len(faults(**{f"x{number}": 1 for number in range(1000)})) <= 51


def test_capitals_in_the_uuid_are_normalised() -> None:
    """The same UUID in capitals is the same task."""
    assert order(taskUUID=TASK_UUID.upper()).task_uuid == TASK_UUID


@pytest.mark.parametrize(
    ("changes", "price", "clips", "extension"),
    [
        ({}, PRICE, 1, "mp4"),
        ({"duration": 10, "numberResults": 4, "outputFormat": "MOV"}, 2 * PRICE, 4, "mov"),
        ({"duration": 5.0, "outputFormat": "WEBM"}, PRICE, 1, "webm"),
    ],
)
def test_an_order_has_its_price_and_its_clips(changes: dict[str, Any], price: int, clips: int, extension: str) -> None:
    """The price is of one clip, by its seconds; the extension is the format's."""
    ordered = order(**changes)
    assert (ordered.price, ordered.clips, ordered.extension) == (price, clips, extension)


def test_a_destination_is_read() -> None:
    """The order has the destination, a parameter of this service."""
    assert (order(destination="a/b").destination, order().destination) == ("a/b", None)


def test_the_model_is_one_piece_of_data() -> None:
    """The model's price per second is the page's."""
    assert [price.per_second for price in models.get(models.DEFAULT).prices] == [184_800]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
parameters = st.sampled_from(
    [
        "taskType",
        "taskUUID",
        "model",
        "positivePrompt",
        "width",
        "height",
        "duration",
        "CFGScale",
        "inputs",
        "outputType",
        "outputQuality",
        "safety",
        "ttl",
        "numberResults",
        "tags",
        "destination",
        "image",
        "placed",
    ]
)
good_values = st.sampled_from([5, 10, 0.57, 1, 4, 60, 1920, 1080, True, "MP4", "URL", "async", "first", 0])
near_misses = st.sampled_from([framed(IMAGE_UUID)["inputs"], framed({"image": PNG})["inputs"], {"checkContent": True}])
values = json_values | good_values | near_misses


@given(st.dictionaries(parameters | st.text(max_size=8), values, max_size=6))
def test_any_request_is_an_order_or_a_list_of_faults(changes: dict[str, Any]) -> None:
    """Any request is either an order with a price or a list of faults."""
    checked = check(request(**changes))
    if isinstance(checked, Order):
        assert checked.price in (PRICE, 2 * PRICE)
        assert 1 <= checked.clips <= 4
    else:
        assert checked
        assert all(fault["code"] and fault["message"] and "parameter" in fault for fault in checked)


@pytest.mark.parametrize(
    ("code", "category"),
    [
        ("conflictTaskUUID", Category.CONFLICT),
        ("uploadFailed", Category.DELIVERY),
        ("webhookTimeout", Category.DELIVERY),
        ("mediaStorageFileCouldNotBeMoved", Category.DELIVERY),
        ("insufficientCredits", Category.QUOTA),
        ("thirdPartyInsufficientCredits", Category.QUOTA),
        ("paymentRequired", Category.QUOTA),
        ("rateLimitExceeded", Category.RATE_LIMIT),
        ("inferenceRateLimitRequestTooLarge", Category.RATE_LIMIT),
        ("invalidProviderContent", Category.SAFETY),
        ("promptBlocked", Category.SAFETY),
        ("invalidApiKey", Category.AUTH),
        ("forbidden", Category.AUTH),
        ("accessTokenExpired", Category.AUTH),
        ("accountSuspended", Category.AUTH),
        ("modelDisabled", Category.PROVIDER),
        ("timeoutProvider", Category.TIMEOUT),
        ("providerGatewayTimeout", Category.TIMEOUT),
        ("requestTimeout", Category.TIMEOUT),
        ("taskNotFound", Category.NOT_FOUND),
        ("taskFailedOrNotFound", Category.NOT_FOUND),
        ("taskExpired", Category.NOT_FOUND),
        ("taskCancelled", Category.NOT_FOUND),
        ("internalServerError", Category.SERVER),
        ("undefinedError", Category.SERVER),
        ("inferenceError", Category.PROVIDER),
        ("providerSomethingNew", Category.PROVIDER),
        ("unsupportedParameter", Category.VALIDATION),
        ("invalidTaskUUID", Category.VALIDATION),
        ("missingPositivePrompt", Category.VALIDATION),
        ("valueTooLarge", Category.VALIDATION),
        ("arrayTooSmall", Category.VALIDATION),
        ("mismatchProviderSettingsProvider", Category.VALIDATION),
        ("somethingElse", Category.UNKNOWN),
        ("", Category.UNKNOWN),
    ],
)
def test_each_code_has_its_category(code: str, category: Category) -> None:
    """Codes have the category of the official clients, except for two corrections."""
    assert categorise(code) == category


@given(st.text())
def test_an_unknown_code_has_a_category(code: str) -> None:
    """No code raises an error."""
    assert categorise(code) in Category
