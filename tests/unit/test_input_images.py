"""Images of requests: what is let through, what is refused and why, and what is kept, on the fake bucket."""

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes.domain.caller import Caller
from rushes.errors import BucketError
from rushes.runware.request import Order, WireError, check
from rushes.services.input_images import ReadOnlyImageStore, images_of, linked, needs_storing, store_images
from tests.fakes.builders import request
from tests.fakes.use_cases import FakeBucket
from tests.unit.pictures import base64_of, data_uri, padded, picture

ANN = Caller("ann", 0, ("photos/ann/", "film", "stills/a"))
UUID = "aac49721-1964-481a-ae78-8a4e29b91402"
MOST = 20 * 1024 * 1024
PNG, JPEG, WEBP = (picture(kind=kind) for kind in ("PNG", "JPEG", "WEBP"))


@pytest.fixture
def bucket() -> FakeBucket:
    return FakeBucket()


def framed(image: object) -> dict[str, Any]:
    return request(inputs={"frameImages": [image]})


def taken(image: object, bucket: FakeBucket) -> Mapping[str, Any]:
    """The task of this image, taken in; it must be without faults."""
    found = store_images(framed(image), ANN, bucket)
    assert not isinstance(found, list), found
    return found


def faults(image: object, bucket: FakeBucket) -> list[WireError]:
    """The faults of this image; it must have some, all of them whole, and nothing may have been kept."""
    found = store_images(framed(image), ANN, bucket)
    assert isinstance(found, list), found
    assert bucket.calls["keep"] == 0
    assert {fault["parameter"] for fault in found} == {"inputs.frameImages"}
    assert all(fault["message"] and fault["documentation"] for fault in found)
    return found


def codes(image: object, bucket: FakeBucket) -> list[str]:
    return [fault["code"].removeprefix("invalidFrameImage") for fault in faults(image, bucket)]


# ----------------------------------------------------------------------------------------------------------------------
# What passes through
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [UUID, UUID.upper(), "https://example.com/a.png", "HTTP://example.com", "https://example.com?image=s3://a/b"],
)
@pytest.mark.parametrize("placed", [False, True])
def test_what_runware_can_fetch_itself_is_left_alone(bucket: FakeBucket, image: str, placed: bool) -> None:
    """UUIDs and web addresses go as they came, and S3 is not asked."""
    task = framed({"image": image, "frame": 0} if placed else image)
    assert isinstance(check(task), Order)
    assert store_images(task, ANN, bucket) == task
    assert not needs_storing(task)
    assert bucket.calls == {}


@pytest.mark.parametrize("changes", [{}, {"inputs": {}}, {"inputs": {"frameImages": []}}])
def test_a_task_without_images_is_left_alone(bucket: FakeBucket, changes: dict[str, Any]) -> None:
    """There is nothing to do for text."""
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
def test_an_inline_image_is_kept_under_its_hash(
    bucket: FakeBucket, content: bytes, declared: str | None, extension: str, mime_type: str, placed: bool
) -> None:
    """Its bytes lie in the caller's folder with their type, and its address stands where the image was."""
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


def test_taking_in_again_changes_nothing(bucket: FakeBucket) -> None:
    """The same image gets the same address, and what was taken in is a valid task that can be taken in as well."""
    once = taken(data_uri(PNG), bucket)
    assert taken(base64_of(PNG), bucket) == once
    assert len(bucket.objects) == 1
    assert isinstance(check(once), Order)
    assert store_images(once, ANN, bucket) == once


def test_nothing_but_the_image_is_changed(bucket: FakeBucket) -> None:
    """The task that came in is not touched, and every other parameter is as it was."""
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
    """300 to 2048 pixels a side, both inclusive; every side that is wrong is named with the limits."""
    content = picture(width, height, kind)
    if not expected:
        taken(base64_of(content), bucket)
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
def test_every_kind_of_webp_says_its_sides(bucket: FakeBucket, make: Any) -> None:
    """Lossy, lossless and extended WEBP hold their sides in different places; all are read, at the edges too."""
    taken(base64_of(make(300, 2048)), bucket)
    bucket.calls.clear()
    assert codes(base64_of(make(299, 2049)), bucket) == ["Width", "Height"]


@pytest.mark.parametrize(
    "image",
    [
        data_uri(JPEG, "image/png"),
        data_uri(PNG, "image/jpeg"),
        data_uri(PNG, "image/webp"),
        data_uri(WEBP, "image/jpg"),
    ],
)
def test_a_data_uri_tells_its_type_truly(bucket: FakeBucket, image: str) -> None:
    """What is declared and what the bytes are must be the same."""
    (fault,) = faults(image, bucket)
    assert fault["code"] == "invalidFrameImageFormat"
    assert "is declared as image/" in fault["message"]


@pytest.mark.parametrize("content", [PNG, JPEG, WEBP], ids=["PNG", "JPEG", "WEBP"])
def test_a_head_that_is_cut_off_is_refused(bucket: FakeBucket, content: bytes) -> None:
    """However few bytes there are, as long as they do not say the sides the image is refused; then it is taken."""
    lengths = [
        length
        for length in range(3, len(content))
        if isinstance(store_images(_cut(content, length), ANN, bucket), list)
    ]
    first_enough = max(lengths) + 1
    assert lengths == list(range(3, first_enough))
    assert first_enough < 700


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
def test_what_is_not_base64_to_its_end_is_refused(bucket: FakeBucket, image: str) -> None:
    """The check of the request looks at the beginning only; the rest is judged here."""
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
    """Whatever else the bytes may be to somebody, only a signature at their very beginning counts."""
    assert codes(base64_of(content), bucket) == ["Format"]


@pytest.mark.parametrize("tail", [b"<html><script>", b"PK\x05\x06" + bytes(18), JPEG, b"%PDF-1.7"])
def test_an_image_that_is_also_something_else_is_an_image(bucket: FakeBucket, tail: bytes) -> None:
    """What hangs behind an image is kept with it, under an image's name and type and no other."""
    taken(base64_of(PNG + tail), bucket)
    assert set(bucket.types.values()) == {"image/png"}


@pytest.mark.parametrize(("size", "fits"), [(MOST, True), (MOST + 1, False), (2 * MOST, False)])
def test_twenty_megabytes_are_the_most(bucket: FakeBucket, size: int, fits: bool) -> None:
    """The limit is inclusive, and what is larger is refused with it."""
    image = base64_of(PNG.ljust(size, b"\0"))
    if fits:
        taken(image, bucket)
        return
    (fault,) = faults(image, bucket)
    assert (fault["code"], fault["max"]) == ("invalidFrameImageSize", MOST)


def test_what_is_far_too_large_is_not_even_decoded(bucket: FakeBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gigantic text costs no copy of it."""
    monkeypatch.setattr("rushes.services.input_images.base64.b64decode", lambda *_, **__: pytest.fail("decoded"))
    assert codes(base64_of(PNG[:30]) + "A" * 40_000_000, bucket) == ["Size"]


def test_a_jpeg_may_say_its_sides_late(bucket: FakeBucket) -> None:
    """Metadata of up to a megabyte may come first."""
    taken(base64_of(padded(JPEG, 1_000_000)), bucket)
    bucket.calls.clear()
    assert codes(base64_of(padded(JPEG, 1_100_000)), bucket) == ["Format"]


def test_trouble_with_s3_is_no_fault(bucket: FakeBucket) -> None:
    """Neither keeping nor looking turns an outage into something that the caller did wrong."""
    bucket.down = True
    for image in (data_uri(PNG), "s3://photos/ann/a.png"):
        with pytest.raises(BucketError):
            store_images(framed(image), ANN, bucket)


def test_a_dry_run_keeps_nothing(bucket: FakeBucket) -> None:
    """An image is judged all the same, wherever it is."""
    bucket.others["photos", "ann/a.png"] = picture(299, 300)
    looking = ReadOnlyImageStore(bucket)
    assert isinstance(store_images(framed(data_uri(PNG)), ANN, looking), dict)
    assert isinstance(store_images(framed(data_uri(PNG, "image/webp")), ANN, looking), list)
    assert isinstance(store_images(framed("s3://photos/ann/a.png"), ANN, looking), list)
    assert (bucket.objects, bucket.calls) == ({}, {"head": 1})


# ----------------------------------------------------------------------------------------------------------------------
# Images in buckets
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bucket_name", "key"),
    [("photos", "ann/a.png"), ("photos", "ann//b/c d?.png"), ("film", "a"), ("stills", "a"), ("stills", "abc/d")],
)
def test_an_image_in_an_allowed_place_stays_there(bucket: FakeBucket, bucket_name: str, key: str) -> None:
    """It is looked at, and its address goes on as it is."""
    bucket.others[bucket_name, key] = PNG
    address = f"s3://{bucket_name}/{key}"
    assert taken(address, bucket) == framed(address)
    assert needs_storing(framed(address))
    assert bucket.calls == {"head": 1}


def test_what_was_kept_for_the_caller_may_be_named_again(bucket: FakeBucket) -> None:
    """The caller's own folder in our bucket is always allowed."""
    bucket.objects["inputs/ann/made/by/hand"] = JPEG
    taken("s3://clips/inputs/ann/made/by/hand", bucket)


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
def test_other_places_are_refused_without_a_look(bucket: FakeBucket, address: str) -> None:
    """Whether anything is there is not told, and not even asked: bucket names are whole, prefixes are literal."""
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
    assert taken(address, bucket) == framed(address)
    linked(framed(address), lambda *found: str(found == ("clips", key) or pytest.fail(f"changed to {found}")))


def test_our_bucket_is_no_source_like_others(bucket: FakeBucket) -> None:
    """Whatever an operator allows, in our own bucket a caller reads its own folder only."""
    bucket.objects["inputs/bob/a.png"] = bucket.objects["videos/ann/a"] = PNG
    greedy = Caller("ann", 0, ("clips/", "clips/inputs/bob/"))
    for key in bucket.objects:
        assert isinstance(store_images(framed(f"s3://clips/{key}"), greedy, bucket), list)
    assert bucket.calls == {}


def test_a_caller_without_sources_has_none(bucket: FakeBucket) -> None:
    """Nobody reads from other buckets unless somebody has allowed it."""
    bucket.others["photos", "ann/a.png"] = PNG
    assert isinstance(store_images(framed("s3://photos/ann/a.png"), Caller("ann", 0), bucket), list)
    assert bucket.calls == {}


def test_an_image_that_is_not_there_is_the_callers_fault(bucket: FakeBucket) -> None:
    """Missing and forbidden look the same to us, and are told as one."""
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
        (PNG.ljust(MOST + 1, b"\0"), ["Size"]),
    ],
    ids=["empty", "GIF", "cut PNG", "cut JPEG", "sides", "size"],
)
def test_what_lies_there_is_judged_alike(bucket: FakeBucket, content: bytes, expected: list[str]) -> None:
    """Signature, size and sides have the limits that inline images have."""
    bucket.others["photos", "ann/a.png"] = content
    assert codes("s3://photos/ann/a.png", bucket) == expected
    assert bucket.calls == {"head": 1}


@pytest.mark.parametrize(
    ("before", "reads", "fits"), [(0, 1, True), (65_000, 1, True), (70_000, 2, True), (1_100_000, 2, False)]
)
def test_a_late_frame_header_is_worth_one_longer_look(bucket: FakeBucket, before: int, reads: int, fits: bool) -> None:
    """A JPEG whose sides lie beyond the first bytes is read once more, further in, and then no more."""
    bucket.others["photos", "ann/a.jpg"] = padded(JPEG, before)
    found = store_images(framed("s3://photos/ann/a.jpg"), ANN, bucket)
    assert isinstance(found, dict) is fits
    assert bucket.calls == {"head": reads}


# ----------------------------------------------------------------------------------------------------------------------
# Links
# ----------------------------------------------------------------------------------------------------------------------


def test_only_addresses_in_buckets_become_links() -> None:
    """Each gets its own link, wherever it stands; everything else is as it was."""
    link = "https://link.example/{}/{}".format
    assert linked(framed("s3://photos/a/b.png"), link) == framed("https://link.example/photos/a/b.png")
    placed = {"image": "s3://photos/a", "frame": 0}
    assert linked(framed(placed), link) == framed({"image": "https://link.example/photos/a", "frame": 0})
    for image in (UUID, "https://example.com/s3://a/b"):
        assert linked(framed(image), link) == framed(image)


# ----------------------------------------------------------------------------------------------------------------------
# Anything
# ----------------------------------------------------------------------------------------------------------------------

SIGNATURES = [
    b"\x89PNG\r\n\x1a\n",
    PNG[:16],
    b"\xff\xd8\xff",
    JPEG[:20],
    *(riff(c, b"")[:16] for c in (b"VP8 ", b"VP8L", b"VP8X")),
]


@given(st.sampled_from(SIGNATURES), st.binary(max_size=400), st.booleans())
def test_any_bytes_are_an_image_or_a_fault(signature: bytes, rest: bytes, inline: bool) -> None:
    """Whatever follows a signature, it is taken or refused with a fault, quickly; nothing else can happen."""
    bucket = FakeBucket()
    bucket.others["photos", "ann/a"] = signature + rest
    found = store_images(framed(base64_of(signature + rest) if inline else "s3://photos/ann/a"), ANN, bucket)
    assert found
    if isinstance(found, list):
        assert all(fault["code"].startswith("invalidFrameImage") for fault in found)
    else:
        assert isinstance(check(found), Order)


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\xff\xd0", b"\xff\xe1\x00\x02", b"\xff\xc0\x00\x02"])
def test_garbage_behind_a_signature_ends(bucket: FakeBucket, fill: bytes) -> None:
    """A JPEG without end or header is given up after the longest head, whatever it is filled with."""
    bucket.others["photos", "ann/a.jpg"] = (b"\xff\xd8\xff\xe0\x00\x02" + fill * (2**21 // len(fill)))[: 2**21]
    assert codes("s3://photos/ann/a.jpg", bucket) in (["Format"], ["Width", "Height"])
    assert bucket.calls == {"head": 2} or fill == b"\xff\xc0\x00\x02"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["image", "frameImages", "x"]), inner),
    max_leaves=8,
)


@given(json_values)
def test_images_can_be_looked_for_in_anything(inputs: object) -> None:
    """Tasks that nobody has checked are looked through as well."""
    assert all(isinstance(image, str) for image in images_of({"inputs": inputs}))
