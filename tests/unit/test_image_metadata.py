"""An image's metadata as a task."""

import base64
from email.header import Header

import pytest

from rushes.services.image_metadata import task_of

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
TEXT = "ein Leuchtturm in der Dämmerung, 夕暮れ"


def test_every_parameter_has_its_name_and_type() -> None:
    """Lower-case names become the API's, numbers become numbers, tags become tags, and the image the first frame."""
    metadata = {
        "prompt": "a lighthouse",
        "negative-prompt": "people",
        "duration": "10",
        "width": "1920",
        "height": "1080",
        "cfgscale": "0.5",
        "numberresults": "2",
        "outputformat": "WEBM",
        "outputquality": "80",
        "ttl": "3600",
        "includecost": "True",
        "destination": "campaign/autumn",
        "taskuuid": "e613fb01-17f4-4dbf-85bd-05ea4a15aa2c",
        "tag-project": "lighthouse",
        "tag-shot-no": "4",
    }
    assert task_of(metadata, PNG) == {
        "model": "klingai:5@3",
        "positivePrompt": "a lighthouse",
        "negativePrompt": "people",
        "duration": 10,
        "width": 1920,
        "height": 1080,
        "CFGScale": 0.5,
        "numberResults": 2,
        "outputFormat": "WEBM",
        "outputQuality": 80,
        "ttl": 3600,
        "includeCost": True,
        "destination": "campaign/autumn",
        "taskUUID": "e613fb01-17f4-4dbf-85bd-05ea4a15aa2c",
        "tags": {"project": "lighthouse", "shot-no": "4"},
        "inputs": {"frameImages": [base64.b64encode(PNG).decode()]},
    }


@pytest.mark.parametrize(
    "encoded",
    [
        Header(TEXT, "utf-8", maxlinelen=1000).encode(),
        Header(TEXT, "utf-8", maxlinelen=40).encode(linesep=""),
        f"=?UTF-8?B?{base64.b64encode(TEXT.encode()).decode()}?=",
    ],
)
def test_encoded_words_are_read(encoded: str) -> None:
    """A prompt beyond ASCII is encoded as in RFC 2047, in one word or several."""
    assert encoded.isascii()
    task = task_of({"positiveprompt": encoded}, PNG)
    assert isinstance(task, dict)
    assert task["positivePrompt"] == TEXT


@pytest.mark.parametrize("value", ["five", "", "1e3", "٣", "0x10", "1_0", "9" * 5000, "-", "nan"])
def test_invalid_numbers_are_kept_as_texts(value: str) -> None:
    """The text stays as it is and is refused by the validation of every task."""
    task = task_of({"duration": value}, PNG)
    assert isinstance(task, dict)
    assert task["duration"] == value


@pytest.mark.parametrize(
    ("metadata", "code", "parameter"),
    [
        ({"seed": "5"}, "unsupportedParameter", "seed"),
        ({"webhookurl": "https://elsewhere.example"}, "unsupportedParameter", "webhookurl"),
        ({"x" * 2000: "5"}, "unsupportedParameter", "x" * 100),
        ({"prompt": "a", "positiveprompt": "b"}, "invalidMetadata", "positivePrompt"),
        ({"prompt": "=?utf-8?b?////?="}, "invalidMetadata", "prompt"),
        ({"prompt": "=?utf-8?b?x?="}, "invalidMetadata", "prompt"),
        ({"prompt": "=?klingon?q?x?="}, "invalidMetadata", "prompt"),
        ({"prompt": "=?hex?q?00?="}, "invalidMetadata", "prompt"),
        ({"prompt": "=?utf-7?q?+2AA-?="}, "invalidMetadata", "prompt"),
    ],
)
def test_unreadable_metadata_is_a_fault(metadata: dict[str, str], code: str, parameter: str) -> None:
    """An unknown name, a parameter given twice, and a wrongly encoded value are faults with their parameter."""
    faults = task_of(metadata, PNG)
    assert isinstance(faults, list)
    assert [(fault["code"], fault["parameter"]) for fault in faults] == [(code, parameter)]
