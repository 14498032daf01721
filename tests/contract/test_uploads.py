"""The bucket: presigned uploads as S3 takes them, and what a probe says; the probe also of the simulation's fake."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import boto3
import httpx
import pytest

from rushes import uploads
from rushes.errors import BucketError
from rushes.media import Probed
from rushes.uploads import Bucket
from rushes_local.stack import Stack
from tests.conftest import http
from tests.simulation.fakes import FakeBucket
from tests.simulation.world import World

KEY = "videos/ann/2026/09/21/e613fb01-17f4-4dbf-85bd-05ea4a15aa2c-0.mp4"
MP4 = b"\x00\x00\x00\x18ftypisom" + bytes(100)
MOV = b"\x00\x00\x00\x14ftypqt  " + bytes(100)
WEBM = b"\x1aE\xdf\xa3" + bytes(100)
WEEK = 7 * 24 * 3600


@cache
def as_deployed(stack: Stack) -> Any:
    return stack.client("s3", config=uploads.CONFIG)


@pytest.fixture
def s3(stack: Stack) -> Any:
    """A client with the settings that the functions have."""
    return as_deployed(stack)


@pytest.fixture
def name(s3: Any) -> str:
    """An empty bucket that keeps versions, as the template's does."""
    name = f"clips-{uuid.uuid4()}"
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@pytest.fixture
def bucket(s3: Any, name: str) -> Bucket:
    return Bucket(s3, name)


def put(url: str, content: bytes = MP4, headers: Mapping[str, str] | None = None) -> httpx.Response:
    return http().put(url, content=content, headers=headers)


def query(url: str) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}


# ----------------------------------------------------------------------------------------------------------------------
# The link
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [None, "video/mp4", "application/octet-stream", "text/html; charset=utf-8"])
def test_any_content_type_may_come(bucket: Bucket, s3: Any, name: str, content_type: str | None) -> None:
    """Whatever Content-Type the PUT has, or none, it is taken and the bytes are there unchanged."""
    headers = {"Content-Type": content_type} if content_type else {}
    assert put(bucket.upload_link(KEY, 60), headers=headers).status_code == 200
    assert s3.get_object(Bucket=name, Key=KEY)["Body"].read() == MP4


def test_other_headers_may_come(bucket: Bucket) -> None:
    """Headers that nobody foresaw do not break the signature."""
    more = {"User-Agent": "runware", "Accept": "*/*", "X-Whatever": "1", "Cache-Control": "no-cache"}
    assert put(bucket.upload_link(KEY, 60), headers=more).status_code == 200


@pytest.mark.parametrize("region", ["eu-central-1", "us-east-1", "us-west-2"])
def test_only_the_host_is_signed(region: str) -> None:
    """On AWS the link names the bucket's regional virtual host, is signed with SigV4, and binds no header but host."""
    client = boto3.client(
        "s3",
        region_name=region,
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        aws_session_token="session",
        config=uploads.CONFIG,
    )
    url = Bucket(client, "clips-of-ann").upload_link(KEY, 7200)
    parts, asked = urlsplit(url), query(url)
    assert (parts.scheme, parts.netloc, parts.path) == ("https", f"clips-of-ann.s3.{region}.amazonaws.com", f"/{KEY}")
    assert asked["X-Amz-SignedHeaders"] == "host"
    assert asked["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert asked["X-Amz-Credential"].split("/")[2:] == [region, "s3", "aws4_request"]
    assert asked["X-Amz-Expires"] == "7200"
    named = {"Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Security-Token", "Signature"}
    assert asked.keys() == {f"X-Amz-{each}" for each in named}


@pytest.mark.parametrize(("seconds", "valid"), [(0, 1), (-5, 1), (1, 1), (WEEK, WEEK), (WEEK + 1, WEEK)])
def test_the_link_lives_as_long_as_it_can(bucket: Bucket, seconds: int, valid: int) -> None:
    """A link lives as long as asked, within what SigV4 allows."""
    assert query(bucket.upload_link(KEY, seconds))["X-Amz-Expires"] == str(valid)


def test_an_expired_link(bucket: Bucket, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time the link stores nothing."""
    url = bucket.upload_link(KEY, 60)
    monkeypatch.setattr(stack.aws, "_clock", lambda: time.time() + 62)
    answer = put(url)
    assert (answer.status_code, ElementTree.fromstring(answer.content).findtext("Code")) == (403, "AccessDenied")
    assert bucket.probe(KEY) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("X-Amz-Signature=", "X-Amz-Signature=0"),
        ("X-Amz-Expires=60", "X-Amz-Expires=61"),
        ("-0.mp4", "-1.mp4"),
        ("videos/ann", "videos/bob"),
    ],
)
def test_a_forged_link(bucket: Bucket, old: str, new: str) -> None:
    """A link for another object, a longer time or with another signature stores nothing."""
    url = bucket.upload_link(KEY, 60)
    assert old in url
    assert put(url.replace(old, new, 1)).status_code == 403
    for key in (KEY, KEY.replace("-0", "-1"), KEY.replace("ann", "bob")):
        assert bucket.probe(key) is None


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD"])
def test_the_link_only_puts(bucket: Bucket, method: str) -> None:
    """Who holds the link can neither read nor delete with it."""
    url = bucket.upload_link(KEY, 60)
    assert put(url).status_code == 200
    assert httpx.request(method, url, trust_env=False).status_code == 403
    assert bucket.probe(KEY) is not None


# ----------------------------------------------------------------------------------------------------------------------
# The probe
# ----------------------------------------------------------------------------------------------------------------------

Put = Callable[[str, bytes], str]


@pytest.fixture(params=["real", "fake"])
def probed(request: pytest.FixtureRequest) -> Iterator[tuple[Callable[[str], Probed | None], Put]]:
    """How to probe and how to put, in a real bucket and in the fake one."""
    if request.param == "fake":
        fake = FakeBucket(World())
        yield fake.probe, fake.put
        return
    bucket: Bucket = request.getfixturevalue("bucket")
    yield bucket.probe, lambda key, body: put(bucket.upload_link(key, 60), body).headers["x-amz-version-id"]


Both = tuple[Callable[[str], Probed | None], Put]


def test_nothing_is_there(probed: Both) -> None:
    """A key without an object is None, also when its neighbour has one."""
    probe, put = probed
    put(f"{KEY}.other", MP4)
    assert probe(KEY) is None


@pytest.mark.parametrize(
    ("content", "container"),
    [
        (MP4, "mp4"),
        (MOV, "mov"),
        (WEBM, "webm"),
        (MP4[:12], "mp4"),
        (MP4 + bytes(100_000), "mp4"),
        (b"<html>not a video</html>" * 50, None),
        (b"x", None),
    ],
    ids=["mp4", "mov", "webm", "a short one", "a long one", "garbage", "one byte"],
)
def test_something_is_there(probed: Both, content: bytes, container: str | None) -> None:
    """An object is told by its whole size, its version and the container that its first bytes announce."""
    probe, put = probed
    version = put(KEY, content)
    found = probe(KEY)
    assert found is not None
    assert (found.size, found.version, found.container) == (len(content), version, container)
    assert found.etag
    assert '"' not in found.etag


def test_an_empty_object(probed: Both) -> None:
    """An empty object is there, with nothing in it: it must not pass for a missing one nor for a video."""
    probe, put = probed
    put(KEY, b"")
    found = probe(KEY)
    assert found is not None
    assert (found.size, found.container) == (0, None)


def test_the_latest_version(probed: Both) -> None:
    """The probe tells of the latest version; every upload makes another one."""
    probe, put = probed
    versions = [put(KEY, MP4), put(KEY, WEBM), put(KEY, b"garbage")]
    found = probe(KEY)
    assert found is not None
    assert (found.version, found.container, found.size) == (versions[-1], None, 7)
    assert len(set(versions)) == 3


def test_an_upload_is_found_with_its_version(bucket: Bucket) -> None:
    """What was PUT through a link is what the probe finds, version included."""
    answer = put(bucket.upload_link(KEY, 60))
    found = bucket.probe(KEY)
    assert found == Probed(answer.headers["x-amz-version-id"], len(MP4), answer.headers["etag"].strip('"'), "mp4")


@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
def test_a_bucket_that_cannot_say(bucket: Bucket, s3: Any, name: str, stack: Stack, code: str) -> None:
    """Trouble of S3's is not an absence: it is raised, with S3's own code, after a second try."""
    s3.put_object(Bucket=name, Key=KEY, Body=MP4)
    stack.aws.faults.fail("s3", code, times=1)
    assert bucket.probe(KEY) is not None
    stack.aws.faults.fail("s3", code)
    with pytest.raises(BucketError, match=code):
        bucket.probe(KEY)


def test_the_fake_cannot_say_either() -> None:
    """The fake bucket raises the same error when it is made to lose its voice."""
    fake = FakeBucket(World())
    fake.put(KEY, MP4)
    fake.lost = lambda: True
    with pytest.raises(BucketError):
        fake.probe(KEY)


def test_a_bucket_that_is_not_there(s3: Any) -> None:
    """A missing bucket is trouble, not the absence of a clip."""
    with pytest.raises(BucketError, match="NoSuchBucket"):
        Bucket(s3, "no-such-bucket").probe(KEY)
