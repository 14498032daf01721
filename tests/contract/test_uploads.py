"""The bucket: presigned links as S3 accepts them, probes and images; probes and images also with the fake."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen
from xml.etree import ElementTree

import boto3
import botocore.auth
import httpx
import pytest
from botocore.stub import Stubber

from rushes.adapters.s3 import S3_CONFIG, S3Bucket, S3Manifests, S3RequestFiles
from rushes.domain.media import Head, ProbeResult
from rushes.errors import BucketError
from rushes_local.stack import Stack
from tests.conftest import http
from tests.contract.s3_servers import S3Server
from tests.fakes.simulated import SimulatedBucket
from tests.object_keys import OBJECT_NAMES, longest
from tests.simulation.world import World

KEY = "videos/ann/2026/09/21/e613fb01-17f4-4dbf-85bd-05ea4a15aa2c-0.mp4"
MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41\x00\x00\x00\x6cmdat" + bytes(100)
MOV = b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00qt  \x00\x00\x00\x6cmdat" + bytes(100)
WEBM = b"\x1aE\xdf\xa3\x87\x42\x82\x84webm\x18\x53\x80\x67" + bytes(100)
WEEK = 7 * 24 * 3600


@pytest.fixture
def s3(s3_server: S3Server) -> Any:
    """A client with the settings of the functions."""
    return s3_server.client


@pytest.fixture
def name(s3_server: S3Server) -> str:
    """An empty bucket with versioning, as in the template."""
    return s3_server.new_bucket()


@pytest.fixture
def bucket(s3: Any, name: str) -> S3Bucket:
    return S3Bucket(s3, name)


def put(url: str, content: bytes = MP4, headers: Mapping[str, str] | None = None) -> httpx.Response:
    return http().put(url, content=content, headers=headers)


def query(url: str) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}


# ----------------------------------------------------------------------------------------------------------------------
# The upload link
# ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [None, "video/mp4", "application/octet-stream", "text/html; charset=utf-8"])
def test_any_content_type_is_accepted(bucket: S3Bucket, s3: Any, name: str, content_type: str | None) -> None:
    """A PUT with any Content-Type, or none, is accepted and stored unchanged."""
    headers = {"Content-Type": content_type} if content_type else {}
    assert put(bucket.upload_link(KEY, 60), headers=headers).status_code == 200
    assert s3.get_object(Bucket=name, Key=KEY)["Body"].read() == MP4


def test_other_headers_are_accepted(bucket: S3Bucket) -> None:
    """Headers that are not signed do not break the signature."""
    more = {"User-Agent": "runware", "Accept": "*/*", "X-Whatever": "1", "Cache-Control": "no-cache"}
    assert put(bucket.upload_link(KEY, 60), headers=more).status_code == 200


def urllib_put(url: str, content: bytes) -> int:
    return int(urlopen(Request(url, content, method="PUT"), timeout=30).status)


def expecting_put(url: str, content: bytes) -> int:
    return put(url, content, {"Expect": "100-continue"}).status_code


@pytest.mark.parametrize("client", [urllib_put, expecting_put])
@pytest.mark.parametrize("size", [0, 300_000])
def test_other_clients(bucket: S3Bucket, client: Callable[[str, bytes], int], size: int) -> None:
    """An upload by another client is stored, also an empty one and one that asks before it sends its content."""
    assert client(bucket.upload_link(KEY, 60), MP4[:size] + bytes(size)[len(MP4) :]) == 200
    found = bucket.probe(KEY)
    assert found is not None
    assert (found.size, found.container) == (size, "mp4" if size else None)


@pytest.mark.parametrize(
    "key",
    [*(f"videos/{name}.mp4" for name in OBJECT_NAMES.values()), longest("videos/%20 .mp4")],
    ids=[*OBJECT_NAMES, "1,024 bytes"],
)
def test_a_key_is_literal(bucket: S3Bucket, s3: Any, name: str, key: str) -> None:
    """A link of any key stores and returns the object that the listing and the other calls have under this key."""
    version = put(bucket.upload_link(key, 60)).headers["x-amz-version-id"]
    assert [(each["Key"], each["VersionId"]) for each in s3.list_object_versions(Bucket=name)["Versions"]] == [
        (key, version)
    ]
    assert http().get(bucket.download_link(key, 60, version)).content == MP4
    assert http().get(bucket.image_link(name, key, 60)).content == MP4
    found = bucket.probe(key)
    assert found is not None
    assert found.version == version


@pytest.mark.parametrize("region", ["eu-central-1", "us-east-1", "us-west-2"])
@pytest.mark.parametrize("link", ["upload", "image"])
def test_only_the_host_is_signed(region: str, link: str) -> None:
    """On AWS a link has the bucket's regional virtual host, a SigV4 signature, and no signed header but host."""
    client = boto3.client(
        "s3",
        region_name=region,
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        aws_session_token="session",
        config=S3_CONFIG,
    )
    ours = S3Bucket(client, "clips-of-ann" if link == "upload" else "ours")
    url = ours.upload_link(KEY, 7200) if link == "upload" else ours.image_link("clips-of-ann", KEY, 7200)
    parts, parameters = urlsplit(url), query(url)
    assert (parts.scheme, parts.netloc, parts.path) == ("https", f"clips-of-ann.s3.{region}.amazonaws.com", f"/{KEY}")
    assert parameters["X-Amz-SignedHeaders"] == "host"
    assert parameters["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert parameters["X-Amz-Credential"].split("/")[2:] == [region, "s3", "aws4_request"]
    assert parameters["X-Amz-Expires"] == "7200"
    expected = {"Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Security-Token", "Signature"}
    assert parameters.keys() == {f"X-Amz-{each}" for each in expected}


@pytest.mark.parametrize(("seconds", "valid"), [(0, 1), (-5, 1), (1, 1), (WEEK, WEEK), (WEEK + 1, WEEK)])
def test_the_link_lives_as_long_as_it_can(bucket: S3Bucket, seconds: int, valid: int) -> None:
    """A link is valid for the requested seconds, within SigV4's limits."""
    assert query(bucket.upload_link(KEY, seconds))["X-Amz-Expires"] == str(valid)


def test_an_expired_link(bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """An expired link stores nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: datetime.now(UTC) - timedelta(seconds=62))
        url = bucket.upload_link(KEY, 60)
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
def test_a_forged_link(bucket: S3Bucket, old: str, new: str) -> None:
    """A link changed to another object, a longer time or another signature stores nothing."""
    url = bucket.upload_link(KEY, 60)
    assert old in url
    assert put(url.replace(old, new, 1)).status_code == 403
    for key in (KEY, KEY.replace("-0", "-1"), KEY.replace("ann", "bob")):
        assert bucket.probe(key) is None


@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD"])
def test_the_link_only_puts(bucket: S3Bucket, method: str) -> None:
    """An upload link allows neither reading nor deleting."""
    url = bucket.upload_link(KEY, 60)
    assert put(url).status_code == 200
    assert httpx.request(method, url, trust_env=False).status_code == 403
    assert bucket.probe(KEY) is not None


# ----------------------------------------------------------------------------------------------------------------------
# The download link
# ----------------------------------------------------------------------------------------------------------------------


def test_a_link_gives_the_version_it_names(bucket: S3Bucket, s3: Any, name: str) -> None:
    """A link gives the pinned version of an overwritten object, as a video, whatever type it was uploaded with."""
    first = s3.put_object(Bucket=name, Key=KEY, Body=MP4, ContentType="binary/octet-stream")["VersionId"]
    s3.put_object(Bucket=name, Key=KEY, Body=b"something else")
    answer = http().get(bucket.download_link(KEY, 60, first))
    assert (answer.status_code, answer.content) == (200, MP4)
    assert answer.headers["content-type"] == "video/mp4"
    assert http().get(bucket.download_link(KEY, 60)).content == b"something else"


def test_a_link_gives_a_range(bucket: S3Bucket) -> None:
    """A player may read parts of a video, and a resumed download its rest."""
    put(bucket.upload_link(KEY, 60))
    link = bucket.download_link(KEY, 60)
    answers = [http().get(link, headers={"Range": f"bytes={part}"}) for part in ("4-7", f"{len(MP4) - 3}-", "-2")]
    assert [answer.status_code for answer in answers] == [206] * 3
    assert [answer.content for answer in answers] == [b"ftyp", MP4[-3:], MP4[-2:]]
    assert answers[0].headers["content-range"] == f"bytes 4-7/{len(MP4)}"
    assert http().get(link, headers={"Range": f"bytes={len(MP4)}-"}).status_code == 416


@pytest.mark.parametrize(
    ("ending", "kind"),
    [("mp4", "video/mp4"), ("mov", "video/quicktime"), ("webm", "video/webm"), ("json", "application/json")],
)
def test_a_link_sets_the_content_type(bucket: S3Bucket, ending: str, kind: str) -> None:
    """The content type follows from the key's suffix, since the object may have none."""
    link = query(bucket.download_link(f"videos/ann/x.{ending}", 60, "v1"))
    assert (link["response-content-type"], link["versionId"], link["X-Amz-Expires"]) == (kind, "v1", "60")


@pytest.mark.parametrize(
    ("ordered", "container", "ending", "kind"),
    [
        ("webm", "mp4", "mp4", "video/mp4"),
        ("mov", "webm", "webm", "video/webm"),
        ("mp4", "mov", None, "video/mp4"),
        ("mp4", "", None, "video/mp4"),
    ],
)
def test_a_link_to_another_format(
    bucket: S3Bucket, ordered: str, container: str, ending: str | None, kind: str
) -> None:
    """A video in another format than ordered has its own type and file name; MP4 and MOV count as one."""
    parameters = query(bucket.download_link(f"videos/ann/a/x-0.{ordered}", 60, "v1", container))
    assert parameters["response-content-type"] == kind
    expected = f'inline; filename="x-0.{ending}"' if ending else None
    assert parameters.get("response-content-disposition") == expected


@pytest.mark.parametrize("change", ["versionId=other", "response-content-type=text%2Fhtml"])
def test_a_link_cannot_be_changed(bucket: S3Bucket, s3: Any, name: str, change: str) -> None:
    """A link with another version or another type is refused."""
    version = s3.put_object(Bucket=name, Key=KEY, Body=MP4)["VersionId"]
    parameter = change.partition("=")[0]
    parts = [part for part in bucket.download_link(KEY, 60, version).split("&") if not part.startswith(parameter)]
    changed = "&".join([*(part.replace(f"versionId={version}", change) for part in parts), change])
    assert http().get(changed).status_code == 403


def test_all_links_have_one_origin(bucket: S3Bucket) -> None:
    """All links start with the bucket's origin, from which the page may load clips."""
    origin = bucket.origin
    assert bucket.download_link(KEY, 60).startswith(f"{origin}/")
    assert bucket.upload_link(KEY, 60).startswith(f"{origin}/")
    assert origin.count("/") == 2


# ----------------------------------------------------------------------------------------------------------------------
# The probe
# ----------------------------------------------------------------------------------------------------------------------

Put = Callable[[str, bytes], str]


@pytest.fixture(params=["real", "fake"])
def probe_and_put(request: pytest.FixtureRequest) -> "Iterator[ProbeAndPut]":
    """The probe and the put of a real bucket and of the fake."""
    if request.param == "fake":
        fake = SimulatedBucket(World())
        yield fake.probe, fake.put
        return
    bucket: S3Bucket = request.getfixturevalue("bucket")
    yield bucket.probe, lambda key, body: put(bucket.upload_link(key, 60), body).headers["x-amz-version-id"]


ProbeAndPut = tuple[Callable[..., ProbeResult | None], Put]


def test_a_missing_object(probe_and_put: ProbeAndPut) -> None:
    """A key without an object is None, also if an object has it as a prefix."""
    probe, put = probe_and_put
    put(f"{KEY}.other", MP4)
    assert probe(KEY) is None


@pytest.mark.parametrize(
    ("content", "container"),
    [
        (MP4, "mp4"),
        (MOV, "mov"),
        (WEBM, "webm"),
        (MP4[:12], None),
        (MP4 + bytes(100_000), "mp4"),
        (b"<html>not a video</html>" * 50, None),
        (b"x", None),
    ],
    ids=["mp4", "mov", "webm", "its beginning alone", "a long one", "garbage", "one byte"],
)
def test_an_object(probe_and_put: ProbeAndPut, content: bytes, container: str | None) -> None:
    """A probe has the object's size, its version, and the container of its first bytes."""
    probe, put = probe_and_put
    version = put(KEY, content)
    found = probe(KEY)
    assert found is not None
    assert (found.size, found.version, found.container) == (len(content), version, container)
    assert found.etag
    assert '"' not in found.etag


def test_an_empty_object(probe_and_put: ProbeAndPut) -> None:
    """An empty object exists with size 0: it is neither missing nor a video."""
    probe, put = probe_and_put
    put(KEY, b"")
    found = probe(KEY)
    assert found is not None
    assert (found.size, found.container) == (0, None)


def test_the_latest_version(probe_and_put: ProbeAndPut) -> None:
    """The probe reads the latest version; every upload creates one."""
    probe, put = probe_and_put
    versions = [put(KEY, MP4), put(KEY, WEBM), put(KEY, b"garbage")]
    found = probe(KEY)
    assert found is not None
    assert (found.version, found.container, found.size) == (versions[-1], None, 7)
    assert len(set(versions)) == 3


def test_a_version_by_its_name(probe_and_put: ProbeAndPut) -> None:
    """An overwritten version is probed unchanged, and the one over it as empty."""
    probe, put = probe_and_put
    first, second = put(KEY, MP4), put(KEY, b"")
    found, empty = probe(KEY, first), probe(KEY, second)
    assert found is not None
    assert (found.version, found.container, found.size) == (first, "mp4", len(MP4))
    assert empty is not None
    assert (empty.container, empty.size) == (None, 0)


def test_an_erased_version(bucket: S3Bucket, s3: Any, name: str) -> None:
    """An erased version is None, and the others remain."""
    versions = [put(bucket.upload_link(KEY, 60)).headers["x-amz-version-id"] for _ in range(2)]
    s3.delete_object(Bucket=name, Key=KEY, VersionId=versions[0])
    assert bucket.probe(KEY, versions[0]) is None
    assert bucket.probe(KEY, versions[1]) is not None


def test_an_upload_is_found_with_its_version(bucket: S3Bucket) -> None:
    """The probe finds the object that was uploaded through a link, with its version."""
    answer = put(bucket.upload_link(KEY, 60))
    found = bucket.probe(KEY)
    assert found == ProbeResult(answer.headers["x-amz-version-id"], len(MP4), answer.headers["etag"].strip('"'), "mp4")


@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
def test_an_s3_error_is_no_absence(request: pytest.FixtureRequest, s3_server: S3Server, code: str) -> None:
    """An S3 error is raised with its code after a second try; it is not an absence."""
    s3_server.need("faults")
    stack: Stack = request.getfixturevalue("stack")
    bucket = S3Bucket(s3_server.client, s3_server.new_bucket())
    put(bucket.upload_link(KEY, 60))
    stack.aws.faults.fail("s3", code, times=1)
    assert bucket.probe(KEY) is not None
    stack.aws.faults.fail("s3", code)
    with pytest.raises(BucketError, match=code):
        bucket.probe(KEY)


def test_the_fake_raises_the_same_error() -> None:
    """The fake bucket raises the same error while it is made unavailable."""
    fake = SimulatedBucket(World())
    fake.put(KEY, MP4)
    fake.lost = lambda: True
    with pytest.raises(BucketError):
        fake.probe(KEY)


def test_a_missing_bucket(s3: Any) -> None:
    """A missing bucket is an error, not the absence of a clip."""
    with pytest.raises(BucketError, match="NoSuchBucket"):
        S3Bucket(s3, "no-such-bucket").probe(KEY)


# ----------------------------------------------------------------------------------------------------------------------
# Images
# ----------------------------------------------------------------------------------------------------------------------

IMAGE = "inputs/ann/abc.png"


@pytest.fixture(params=["real", "fake"])
def inputs(request: pytest.FixtureRequest) -> S3Bucket | SimulatedBucket:
    """The bucket for images: a real one, and the fake."""
    if request.param == "fake":
        return SimulatedBucket(World())
    bucket: S3Bucket = request.getfixturevalue("bucket")
    return bucket


def test_an_image_is_stored_once(inputs: S3Bucket | SimulatedBucket) -> None:
    """An object under the key stays unchanged by a second put."""
    inputs.put_if_absent(IMAGE, b"first", "image/png")
    inputs.put_if_absent(IMAGE, b"second", "image/png")
    assert inputs.head(inputs.name, IMAGE, 100) == Head(5, b"first")


def test_a_second_put_adds_no_version(bucket: S3Bucket, s3: Any, name: str, s3_server: S3Server) -> None:
    """The object has its type and one version; after a deletion it is stored again."""
    s3_server.need("refused versions")
    for _ in range(3):
        bucket.put_if_absent(IMAGE, b"image", "image/png")
    (version,) = s3.list_object_versions(Bucket=name, Prefix=IMAGE)["Versions"]
    assert s3.head_object(Bucket=name, Key=IMAGE)["ContentType"] == "image/png"
    s3.delete_object(Bucket=name, Key=IMAGE)
    assert bucket.head(name, IMAGE, 1) is None
    bucket.put_if_absent(IMAGE, b"image", "image/png")
    assert bucket.head(name, IMAGE, 1) == Head(5, b"i")
    assert s3.head_object(Bucket=name, Key=IMAGE)["VersionId"] != version["VersionId"]


@pytest.mark.parametrize(("length", "content"), [(1, b"i"), (4, b"imag"), (5, b"image"), (6, b"image")])
def test_a_head_has_its_length_and_the_whole_size(
    inputs: S3Bucket | SimulatedBucket, length: int, content: bytes
) -> None:
    """At most the requested length is read, and the size is the object's."""
    inputs.put_if_absent(IMAGE, b"image", "image/png")
    assert inputs.head(inputs.name, IMAGE, length) == Head(5, content)


def test_a_missing_head(inputs: S3Bucket | SimulatedBucket) -> None:
    """A missing object or bucket has no head."""
    assert inputs.head(inputs.name, IMAGE, 10) is None
    assert inputs.head("no-such-bucket", IMAGE, 10) is None


def test_a_head_of_an_empty_object(bucket: S3Bucket, name: str) -> None:
    """The head of an empty object is empty, with size 0."""
    put(bucket.upload_link(IMAGE, 60), b"")
    assert bucket.head(name, IMAGE, 10) == Head(0, b"")


def test_an_image_of_another_bucket(bucket: S3Bucket, s3: Any, s3_server: S3Server) -> None:
    """An object in any readable bucket can be read and linked, under any key."""
    other, key = s3_server.new_bucket(), "ann//%2e%2e/bob/a b+\u00e4?&#%2F.png"
    s3.put_object(Bucket=other, Key=key, Body=b"image")
    assert bucket.head(other, key, 3) == Head(5, b"ima")
    link = bucket.image_link(other, key, 60)
    assert "/ann//%252e%252e/bob/" in link  # decoded once this is the key, not another path
    assert http().get(link).content == b"image"
    assert query(link)["X-Amz-Expires"] == "60"
    assert put(link).status_code == 403
    assert http().get(link.replace("ann", "bob", 1)).status_code == 403


@pytest.mark.parametrize(
    ("code", "status", "exists"),
    [
        ("NoSuchKey", 404, False),
        ("NoSuchBucket", 404, False),
        ("AccessDenied", 403, False),
        ("AllAccessDisabled", 403, False),
        ("InvalidObjectState", 403, False),
        ("InvalidRequest", 400, False),
        ("KMS.DisabledException", 400, False),
        ("SlowDown", 503, True),
        ("InternalError", 500, True),
        ("ExpiredToken", 400, True),
        ("RequestTimeTooSkewed", 403, True),
        ("InvalidAccessKeyId", 403, True),
        ("SignatureDoesNotMatch", 403, True),
    ],
)
def test_s3_errors_about_an_image(s3: Any, code: str, status: int, exists: bool) -> None:
    """An inaccessible image counts as missing; an error of S3 or of our credentials is raised."""
    client = boto3.client("s3", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b", config=S3_CONFIG)
    with Stubber(client) as stubber:
        stubber.add_client_error("get_object", code, http_status_code=status)
        if not exists:
            assert S3Bucket(client, "ours").head("photos", IMAGE, 10) is None
            return
        with pytest.raises(BucketError, match=code):
            S3Bucket(client, "ours").head("photos", IMAGE, 10)


@pytest.mark.parametrize(
    ("first", "second", "error"),
    [
        ("PreconditionFailed", None, None),
        ("ConditionalRequestConflict", "", None),
        ("ConditionalRequestConflict", "SlowDown", "SlowDown"),
        ("SlowDown", None, "SlowDown"),
        ("AccessDenied", None, "AccessDenied"),
    ],
)
def test_concurrent_puts(first: str, second: str | None, error: str | None) -> None:
    """An existing object is left, a conflict with another writer is overwritten, and other errors are raised."""
    client = boto3.client("s3", "us-east-1", aws_access_key_id="a", aws_secret_access_key="b", config=S3_CONFIG)
    sent = {"Bucket": "ours", "Key": IMAGE, "Body": b"image", "ContentType": "image/png"}
    with Stubber(client) as stubber:
        stubber.add_client_error("put_object", first, expected_params={**sent, "IfNoneMatch": "*"})
        if second:
            stubber.add_client_error("put_object", second, expected_params=sent)
        elif second is not None:
            stubber.add_response("put_object", {}, sent)
        if error is None:
            S3Bucket(client, "ours").put_if_absent(IMAGE, b"image", "image/png")
        else:
            with pytest.raises(BucketError, match=error):
                S3Bucket(client, "ours").put_if_absent(IMAGE, b"image", "image/png")
        stubber.assert_no_pending_responses()


def test_an_unavailable_bucket(
    inputs: S3Bucket | SimulatedBucket, request: pytest.FixtureRequest, s3_server: S3Server
) -> None:
    """Both calls raise the error, with the fake as well."""
    if isinstance(inputs, SimulatedBucket):
        inputs.lost = lambda: True
    else:
        s3_server.need("faults")
        stack: Stack = request.getfixturevalue("stack")
        stack.aws.faults.fail("s3", "SlowDown")
    with pytest.raises(BucketError):
        inputs.put_if_absent(IMAGE, b"image", "image/png")
    with pytest.raises(BucketError):
        inputs.head(inputs.name, IMAGE, 10)


# ----------------------------------------------------------------------------------------------------------------------
# Request files and manifests
# ----------------------------------------------------------------------------------------------------------------------


def test_versions_of_a_request_file(s3: Any, name: str) -> None:
    """Each version has its content, metadata and predecessor; a version of another key is none."""
    files, keys = S3RequestFiles(s3, name), [f"requests/ann/{each}.json" for each in ("a%20b", "a%20b.c", "a+b c", "a")]
    versions = {
        key: [
            s3.put_object(Bucket=name, Key=key, Body=content, Metadata={"again": str(len(content))})["VersionId"]
            for content in (b"{}", b"[{}]", b"")
        ]
        for key in keys
    }
    for key, (first, second, third) in versions.items():
        assert [files.before(key, version) for version in (first, second, third)] == [None, first, second]
        opened, found = files.open(key, second), files.head(key, second)
        assert opened is not None
        assert (b"".join(opened.chunks()), opened.encoding) == (b"[{}]", "")
        assert found is not None
        assert (found.size, found.etag) == (4, f'"{md5(b"[{}]").hexdigest()}"')
        for metadata in (opened.metadata, found.metadata):
            assert {each.lower(): value for each, value in metadata.items()} == {"again": "4"}
    s3.delete_object(Bucket=name, Key=keys[0], VersionId=versions[keys[0]][0])
    assert files.open(keys[0], versions[keys[0]][0]) is None
    assert files.head(keys[0], versions[keys[0]][0]) is None


def test_manifests_and_digests(s3: Any, name: str) -> None:
    """A manifest is overwritten, and a digest is that of the named version."""
    manifests, version = S3Manifests(s3, name), s3.put_object(Bucket=name, Key=KEY, Body=MP4)["VersionId"]
    s3.put_object(Bucket=name, Key=KEY, Body=b"something else")
    assert manifests.manifest(f"{KEY}.json") is None
    for content in (b"{}", b'{"sha256": ""}'):
        manifests.put_manifest(f"{KEY}.json", content)
        assert manifests.manifest(f"{KEY}.json") == content
    assert manifests.digest(KEY, version) == sha256(MP4).hexdigest()
    assert manifests.has(KEY, version)
    s3.delete_object(Bucket=name, Key=KEY, VersionId=version)
    assert manifests.digest(KEY, version) is None
    assert not manifests.has(KEY, version)
