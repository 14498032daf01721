"""Images of requests on the fake bucket: allowed ones, refused ones with the reason, and stored ones."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.caller import Caller
from rushes.errors import BucketError
from rushes.runware.request import Order, WireError, check
from rushes.services.input_images import ReadOnlyImageStore, images_of, linked, needs_storing, store_images
from tests.fakes.builders import request
from tests.fakes.models import FIRST, more_models
from tests.fakes.use_cases import FakeBucket
from tests.unit.pictures import base64_of, data_uri, padded, picture

ANN = Caller("ann", 0, ("photos/ann/", "film", "stills/a"))
UUID = "aac49721-1964-481a-ae78-8a4e29b91402"
MAX_BYTES = 20 * 1024 * 1024
PNG, JPEG, WEBP = (picture(kind=kind) for kind in ("PNG", "JPEG", "WEBP"))


@pytest.fixture
def bucket() -> FakeBucket:
    return FakeBucket()


def framed(image: object) -> dict[str, Any]:
    return request(inputs={"frameImages": [image]})


def stored(image: object, bucket: FakeBucket) -> Mapping[str, Any]:
    """The task with this image after storing, which must find no faults."""
    found = store_images(framed(image), ANN, bucket)
    assert not isinstance(found, list), found
    return found


def faults(image: object, bucket: FakeBucket) -> list[WireError]:
    """The faults of this image: at least one, each complete; nothing may have been stored."""
    found = store_images(framed(image), ANN, bucket)
    assert isinstance(found, list), found
    assert bucket.calls["keep"] == 0
    assert {fault["parameter"] for fault in found} == {"inputs.frameImages"}
    assert all(fault["message"] and fault["documentation"] for fault in found)
    return found


def codes(image: object, bucket: FakeBucket) -> list[str]:
    return [fault["code"].removeprefix("invalidFrameImage") for fault in faults(image, bucket)]


# ----------------------------------------------------------------------------------------------------------------------
# Unchanged images


@pytest.mark.parametrize(
    "image",
    [UUID, UUID.upper(), "https://example.com/a.png", "HTTP://example.com", "https://example.com?image=s3://a/b"],
)
@pytest.mark.parametrize("placed", [False, True])
def test_images_that_runware_can_fetch_are_left_alone(bucket: FakeBucket, image: str, placed: bool) -> None:
    """UUIDs and web addresses stay as they are, without a request to S3."""
    task = framed({"image": image, "frame": 0} if placed else image)
    assert isinstance(check(task), Order)
    assert store_images(task, ANN, bucket) == task
    assert not needs_storing(task)
    assert bucket.calls == {}


@pytest.mark.parametrize("changes", [{}, {"inputs": {}}, {"inputs": {"frameImages": []}}])
def test_a_task_without_images_is_left_alone(bucket: FakeBucket, changes: dict[str, Any]) -> None:
    """A task without images is unchanged."""
    task = request(**changes)
    assert store_images(task, ANN, bucket) == task == linked(task, lambda *_: "never")
    assert not needs_storing(task)


# ----------------------------------------------------------------------------------------------------------------------
# Inline images
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "declared", "extension", "mime_type"),
    [
        (PNG, "image/png", "png", "image/png"),
        (JPEG, "image/jpeg", "jpg", "image/jpeg"),
        (JPEG, "image/jpg", "jpg", "image/jpeg"),
        (WEBP, "image/webp", "webp", "image/webp"),
        (WEBP, "IMAGE/WEBP", "webp", "image/webp"),
        (PNG, None, "png", "image/png"),
        (JPEG, None, "jpg", "image/jpeg"),
        (WEBP, None, "webp", "image/webp"),
    ],
)
@pytest.mark.parametrize("placed", [False, True])
def test_an_inline_image_is_stored_under_its_hash(
    bucket: FakeBucket, content: bytes, declared: str | None, extension: str, mime_type: str, placed: bool
) -> None:
    """An image's bytes are in the caller's folder with their type, and its address replaces it in the task."""
    image = data_uri(content, declared) if declared else base64_of(content)
    task = framed({"image": image, "frame": "first"} if placed else image)
    assert isinstance(check(task), Order)
    assert needs_storing(task)
    key = f"inputs/ann/{hashlib.sha256(content).hexdigest()}.{extension}"
    address = f"s3://clips/{key}"
    expected = {"image": address, "frame": "first"} if placed else address
    assert store_images(task, ANN, bucket) == {**task, "inputs": {"frameImages": [expected]}}
    assert bucket.objects == {key: content}
    assert bucket.types == {key: mime_type}


def test_storing_an_image_again_changes_nothing(bucket: FakeBucket) -> None:
    """The same image gets the same address, and the resulting task is valid and unchanged by storing it again."""
    once = stored(data_uri(PNG), bucket)
    assert stored(base64_of(PNG), bucket) == once
    assert len(bucket.objects) == 1
    assert isinstance(check(once), Order)
    assert store_images(once, ANN, bucket) == once


def test_only_the_image_is_changed(bucket: FakeBucket) -> None:
    """The given task is not modified, and every other parameter stays as it was."""
    task = framed(data_uri(PNG)) | {"tags": {"a": "b"}, "duration": 10}
    before = repr(task)
    found = store_images(task, ANN, bucket)
    assert isinstance(found, dict)
    assert repr(task) == before
    assert {**found, "inputs": None} == {**task, "inputs": None}


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (300, 300, []),
        (2048, 2048, []),
        (300, 2048, []),
        (299, 300, ["Width"]),
        (300, 299, ["Height"]),
        (2049, 2048, ["Width"]),
        (2048, 2049, ["Height"]),
        (299, 2049, ["Width", "Height"]),
        (1, 1, ["Width", "Height"]),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_sides_have_limits(bucket: FakeBucket, kind: str, width: int, height: int, expected: list[str]) -> None:
    """300 to 2048 pixels a side, both inclusive; every wrong side is a fault with the limits."""
    content = picture(width, height, kind)
    if not expected:
        stored(base64_of(content), bucket)
        return
    assert codes(base64_of(content), bucket) == expected
    assert all((fault["min"], fault["max"]) == (300, 2048) for fault in faults(base64_of(content), bucket))


def riff(chunk: bytes, payload: bytes) -> bytes:
    body = b"WEBP" + chunk + len(payload).to_bytes(4, "little") + payload
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def canvas(width: int, height: int) -> bytes:
    return riff(b"VP8X", bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))


def lossless(width: int, height: int) -> bytes:
    return riff(b"VP8L", b"\x2f" + ((width - 1) | (height - 1) << 14).to_bytes(4, "little") + bytes(8))


def lossy(width: int, height: int) -> bytes:
    return riff(b"VP8 ", b"\x00\x00\x00\x9d\x01\x2a" + width.to_bytes(2, "little") + height.to_bytes(2, "little"))


@pytest.mark.parametrize("make", [canvas, lossless, lossy])
def test_the_sides_are_read_from_every_kind_of_webp(bucket: FakeBucket, make: Any) -> None:
    """Lossy, lossless and extended WEBP have their sides in different places; all are read, at the limits too."""
    stored(base64_of(make(300, 2048)), bucket)
    bucket.calls.clear()
    assert codes(base64_of(make(299, 2049)), bucket) == ["Width", "Height"]


@pytest.mark.parametrize(
    "image",
    [
        data_uri(JPEG, "image/png"),
        data_uri(PNG, "image/jpeg"),
        data_uri(PNG, "image/webp"),
        data_uri(WEBP, "image/jpg"),
        data_uri(PNG, "application/octet-stream"),
        data_uri(PNG, "text/plain;charset=utf-8"),
        data_uri(JPEG, ""),
    ],
)
def test_an_image_is_judged_by_its_bytes(bucket: FakeBucket, image: str) -> None:
    """A file's type follows from its name at many senders, so the declared type is ignored."""
    assert isinstance(check(framed(image)), Order)
    assert not isinstance(store_images(framed(image), ANN, bucket), list)
    ((key, content),) = bucket.objects.items()
    assert key.rpartition(".")[2] == {PNG: "png", JPEG: "jpg", WEBP: "webp"}[content]


@pytest.mark.parametrize("content", [PNG, JPEG, WEBP], ids=["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_refused(bucket: FakeBucket, content: bytes) -> None:
    """An image is refused exactly while its bytes end before its sides."""
    lengths = [
        length
        for length in range(3, len(content))
        if isinstance(store_images(_cut(content, length), ANN, bucket), list)
    ]
    first_accepted = max(lengths) + 1
    assert lengths == list(range(3, first_accepted))
    assert first_accepted < 700


def _cut(content: bytes, length: int) -> dict[str, Any]:
    return framed(base64_of(content[:length]))


@pytest.mark.parametrize(
    "image",
    [
        base64_of(PNG)[:-1],
        base64_of(PNG) + "\n",
        base64_of(PNG)[:76] + "\r\n" + base64_of(PNG)[76:],
        base64_of(PNG) + "====",
        base64_of(PNG)[:80] + "%%%%",
        base64_of(PNG)[:80] + "\u00e4",
        data_uri(PNG) + "#",
        data_uri(PNG)[:100] + "data:image/png;base64,",
    ],
)
def test_base64_must_be_valid_to_its_end(bucket: FakeBucket, image: str) -> None:
    """The validation of the request checks only the beginning; the rest is checked here."""
    assert isinstance(check(framed(image)), Order)
    assert codes(image, bucket) == ["Format"]


@pytest.mark.parametrize(
    "content",
    [
        b"GIF89a" + PNG,
        b"<svg xmlns='http://www.w3.org/2000/svg' width='400' height='400'/>",
        b"BM" + bytes(60),
        b"%PDF-1.7" + PNG,
        b"PK\x03\x04" + PNG,
        b"\x00\x00\x00\x18ftypheic" + bytes(60),
        b"MM\x00*" + bytes(60),
        b"RIFF\x00\x00\x00\x00WAVE" + bytes(60),
        b"\x89PNG\r\n\x1a\r" + PNG[8:],
        b" " + PNG,
    ],
    ids=lambda content: content[:12],
)
def test_other_formats_are_refused(bucket: FakeBucket, content: bytes) -> None:
    """Only a signature at the very beginning of the bytes counts, whatever else they contain."""
    assert codes(base64_of(content), bucket) == ["Format"]


@pytest.mark.parametrize("tail", [b"<html><script>", b"PK\x05\x06" + bytes(18), JPEG, b"%PDF-1.7"])
def test_an_image_with_another_file_behind_it_is_an_image(bucket: FakeBucket, tail: bytes) -> None:
    """Bytes behind an image are stored with it, under an image's name and type."""
    stored(base64_of(PNG + tail), bucket)
    assert set(bucket.types.values()) == {"image/png"}


@pytest.mark.parametrize(("size", "fits"), [(MAX_BYTES, True), (MAX_BYTES + 1, False), (2 * MAX_BYTES, False)])
def test_an_image_has_at_most_twenty_megabytes(bucket: FakeBucket, size: int, fits: bool) -> None:
    """The limit is inclusive, and a fault has the limit."""
    image = base64_of(PNG.ljust(size, b"\0"))
    if fits:
        stored(image, bucket)
        return
    (fault,) = faults(image, bucket)
    assert (fault["code"], fault["max"]) == ("invalidFrameImageSize", MAX_BYTES)


def test_a_far_too_large_image_is_not_decoded(bucket: FakeBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A huge text is not copied."""
    monkeypatch.setattr("rushes.services.input_images.base64.b64decode", lambda *_, **__: pytest.fail("decoded"))
    assert codes(base64_of(PNG[:30]) + "A" * 40_000_000, bucket) == ["Size"]


def test_a_jpeg_may_have_its_sides_behind_metadata(bucket: FakeBucket) -> None:
    """Up to a megabyte of metadata may come first."""
    stored(base64_of(padded(JPEG, 1_000_000)), bucket)
    bucket.calls.clear()
    assert codes(base64_of(padded(JPEG, 1_100_000)), bucket) == ["Format"]


def test_an_error_of_s3_is_no_fault(bucket: FakeBucket) -> None:
    """An outage while storing or reading is never reported as the caller's fault."""
    bucket.down = True
    for image in (data_uri(PNG), "s3://photos/ann/a.png"):
        with pytest.raises(BucketError):
            store_images(framed(image), ANN, bucket)


def test_a_dry_run_stores_nothing(bucket: FakeBucket) -> None:
    """Every image is checked all the same, inline or in a bucket."""
    bucket.others["photos", "ann/a.png"] = picture(299, 300)
    read_only = ReadOnlyImageStore(bucket)
    assert isinstance(store_images(framed(data_uri(PNG)), ANN, read_only), dict)
    assert isinstance(store_images(framed(data_uri(picture(299, 300))), ANN, read_only), list)
    assert isinstance(store_images(framed("s3://photos/ann/a.png"), ANN, read_only), list)
    assert (bucket.objects, bucket.calls) == ({}, {"head": 1})


# ----------------------------------------------------------------------------------------------------------------------
# Images in buckets
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bucket_name", "key"),
    [("photos", "ann/a.png"), ("photos", "ann//b/c d?.png"), ("film", "a"), ("stills", "a"), ("stills", "abc/d")],
)
def test_an_image_in_an_allowed_place_stays_there(bucket: FakeBucket, bucket_name: str, key: str) -> None:
    """The image is checked, and its address stays as it is."""
    bucket.others[bucket_name, key] = PNG
    address = f"s3://{bucket_name}/{key}"
    assert stored(address, bucket) == framed(address)
    assert needs_storing(framed(address))
    assert bucket.calls == {"head": 1}


def test_the_callers_own_folder_is_allowed(bucket: FakeBucket) -> None:
    """The caller's own folder in our bucket is always allowed."""
    bucket.objects["inputs/ann/made/by/hand"] = JPEG
    stored("s3://clips/inputs/ann/made/by/hand", bucket)


@pytest.mark.parametrize(
    "address",
    [
        "s3://photos/bob/a.png",
        "s3://photos/ann",
        "s3://photos/ann.png",
        "s3://photos-of-bob/ann/a.png",
        "s3://films/a.png",
        "s3://stills/b",
        "s3://clips/inputs/bob/a.png",
        "s3://clips/inputs/ann",
        "s3://clips/inputs/annabel/a.png",
        "s3://clips/videos/ann/a.mp4",
        "s3://clips/a.png",
    ],
)
def test_other_places_are_refused_without_a_request(bucket: FakeBucket, address: str) -> None:
    """S3 is not asked and existence not revealed: bucket names must match whole, prefixes literally."""
    assert codes(address, bucket) == ["Source"]
    assert bucket.calls == {}


def test_a_key_is_taken_literally(bucket: FakeBucket) -> None:
    """S3 decodes nothing in a key, so neither do the rules: `%2e%2e` is a name and leads out of no folder."""
    key = "inputs/ann/%2e%2e/bob/a.png"
    bucket.objects["inputs/bob/a.png"] = PNG
    assert codes(f"s3://clips/{key}", bucket) == ["Source"]
    assert codes("s3://clips/inputs/%61nn/a.png", bucket) == ["Source"]
    bucket.objects[key] = PNG
    address = f"s3://clips/{key}"
    assert stored(address, bucket) == framed(address)
    linked(framed(address), lambda *found: str(found == ("clips", key) or pytest.fail(f"changed to {found}")))


def test_our_bucket_cannot_be_allowed_as_a_source(bucket: FakeBucket) -> None:
    """Whatever an operator allows, a caller reads only its own folder in our bucket."""
    bucket.objects["inputs/bob/a.png"] = bucket.objects["videos/ann/a"] = PNG
    greedy = Caller("ann", 0, ("clips/", "clips/inputs/bob/"))
    for key in bucket.objects:
        assert isinstance(store_images(framed(f"s3://clips/{key}"), greedy, bucket), list)
    assert bucket.calls == {}


def test_a_caller_without_sources_has_none(bucket: FakeBucket) -> None:
    """Without permission a caller reads from no other bucket."""
    bucket.others["photos", "ann/a.png"] = PNG
    assert isinstance(store_images(framed("s3://photos/ann/a.png"), Caller("ann", 0), bucket), list)
    assert bucket.calls == {}


def test_a_missing_image_is_the_callers_fault(bucket: FakeBucket) -> None:
    """Missing and forbidden objects are indistinguishable and have one message."""
    (fault,) = faults("s3://photos/ann/a.png", bucket)
    assert fault["code"] == "invalidFrameImageSource"
    assert "does not exist" in fault["message"]
    assert "may not read" in fault["message"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ["Format"]),
        (b"GIF89a" + bytes(60), ["Format"]),
        (PNG[:20], ["Format"]),
        (JPEG[:50], ["Format"]),
        (picture(299, 2049), ["Width", "Height"]),
        (PNG.ljust(MAX_BYTES + 1, b"\0"), ["Size"]),
    ],
    ids=["empty", "GIF", "cut PNG", "cut JPEG", "sides", "size"],
)
def test_stored_images_have_the_limits_of_inline_ones(bucket: FakeBucket, content: bytes, expected: list[str]) -> None:
    """Signature, size and sides are checked as for inline images."""
    bucket.others["photos", "ann/a.png"] = content
    assert codes("s3://photos/ann/a.png", bucket) == expected
    assert bucket.calls == {"head": 1}


@pytest.mark.parametrize(
    ("before", "reads", "fits"), [(0, 1, True), (65_000, 1, True), (70_000, 2, True), (1_100_000, 2, False)]
)
def test_a_late_frame_header_costs_one_longer_read(bucket: FakeBucket, before: int, reads: int, fits: bool) -> None:
    """A JPEG whose sides are beyond the first bytes is read once more, further in, and then no more."""
    bucket.others["photos", "ann/a.jpg"] = padded(JPEG, before)
    found = store_images(framed("s3://photos/ann/a.jpg"), ANN, bucket)
    assert isinstance(found, dict) is fits
    assert bucket.calls == {"head": reads}


# ----------------------------------------------------------------------------------------------------------------------
# Links
# ----------------------------------------------------------------------------------------------------------------------


def test_only_addresses_in_buckets_become_links() -> None:
    """Each `s3://` address becomes a link, in either form of an image; other addresses stay as they are."""
    link = "https://link.example/{}/{}".format
    assert linked(framed("s3://photos/a/b.png"), link) == framed("https://link.example/photos/a/b.png")
    placed = {"image": "s3://photos/a", "frame": 0}
    assert linked(framed(placed), link) == framed({"image": "https://link.example/photos/a", "frame": 0})
    for image in (UUID, "https://example.com/s3://a/b"):
        assert linked(framed(image), link) == framed(image)


# ----------------------------------------------------------------------------------------------------------------------
# Arbitrary input

SIGNATURES = [
    b"\x89PNG\r\n\x1a\n",
    PNG[:16],
    b"\xff\xd8\xff",
    JPEG[:20],
    *(riff(c, b"")[:16] for c in (b"VP8 ", b"VP8L", b"VP8X")),
]


@given(st.sampled_from(SIGNATURES), st.binary(max_size=400), st.booleans())
def test_any_bytes_are_an_image_or_a_fault(signature: bytes, rest: bytes, inline: bool) -> None:
    """Any bytes behind a signature are accepted or refused with a fault; nothing else can happen."""
    bucket = FakeBucket()
    bucket.others["photos", "ann/a"] = signature + rest
    found = store_images(framed(base64_of(signature + rest) if inline else "s3://photos/ann/a"), ANN, bucket)
    assert found
    if isinstance(found, list):
        assert all(fault["code"].startswith("invalidFrameImage") for fault in found)
    else:
        assert isinstance(check(found), Order)


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\xff\xd0", b"\xff\xe1\x00\x02", b"\xff\xc0\x00\x02"])
def test_garbage_behind_a_signature_is_refused_in_bounded_time(bucket: FakeBucket, fill: bytes) -> None:
    """A JPEG without end or header is given up after the longest head, whatever follows its signature."""
    bucket.others["photos", "ann/a.jpg"] = (b"\xff\xd8\xff\xe0\x00\x02" + fill * (2**21 // len(fill)))[: 2**21]
    assert codes("s3://photos/ann/a.jpg", bucket) in (["Format"], ["Width", "Height"])
    assert bucket.calls == {"head": 2} or fill == b"\xff\xc0\x00\x02"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["image", "frameImages", "x"]), inner),
    max_leaves=8,
)


@given(json_values)
def test_images_are_found_in_any_task(inputs: object) -> None:
    """Unvalidated tasks are searched without an error."""
    assert all(isinstance(image, str) for image in images_of({"inputs": inputs}))


@pytest.mark.parametrize(("width", "named"), [(400, True), (200, False)])
def test_an_image_has_to_suit_every_model_of_a_fallback(bucket: FakeBucket, width: int, named: bool) -> None:
    """A fault that only a later model has names it; one of all models is reported once. Nothing is stored."""
    larger = replace(FIRST, air="test:larger@1", image_sides=replace(FIRST.image_sides, minimum=500))
    task = {**framed(data_uri(picture(width, 600))), "fallback": [larger.air]}
    with more_models(larger):
        found = store_images(task, ANN, bucket)
    assert isinstance(found, list)
    assert [(fault["code"], fault.get("model")) for fault in found] == [
        ("invalidFrameImageWidth", larger.air if named else None)
    ]
    assert bucket.objects == {}
    with more_models(larger):
        assert not isinstance(store_images({**task, **framed(data_uri(picture(600, 600)))}, ANN, bucket), list)
    assert len(bucket.objects) == 1
