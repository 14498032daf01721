"""`rushes download`: a file is whole or absent, an interrupted download is resumed, and every file is verified."""

import json
from pathlib import Path

import pytest
from werkzeug.wrappers import Request, Response

from tests.cli.conftest import FakeService, Run

CONTENT = bytes(range(256)) * 4096  # 1 MiB


def clips(folder: Path) -> dict[str, bytes]:
    """The files in a folder, including hidden ones, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_download(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Each stored clip is downloaded and verified against its manifest; a second run does not fetch it again."""
    tasks = [fake.add(content=CONTENT + bytes([number])) for number in range(5)]
    fake.add("failed")
    out = tmp_path / "out"
    result = run("download", "--out", str(out), "--json")
    assert result.status == 0, result.err
    assert len(result.json["files"]) == 5
    assert set(result.json["files"][0]) == {
        *("taskUUID", "clip", "file", "outcome", "size", "sha256", "verified", "problem"),
    }
    assert all(each["outcome"] == "downloaded" and each["verified"] for each in result.json["files"])
    assert clips(out) == {f"{task['taskUUID']}-0.mp4": CONTENT + bytes([n]) for n, task in enumerate(tasks)}
    fake.requests.clear()
    again = run("download", tasks[0]["taskUUID"], "-o", str(out), "--json")
    assert [each["outcome"] for each in again.json["files"]] == ["present"]
    assert not any(path.endswith(".mp4") for _, path, _ in fake.requests)


def test_an_interrupted_download_is_resumed(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Only the missing rest of a partly downloaded clip is requested, and the file is complete."""
    task = fake.add(content=CONTENT)
    part = tmp_path / f".{task['taskUUID']}-0.mp4.v1.part"
    part.write_bytes(CONTENT[:700_000])
    ranges: list[str | None] = []

    def watch(request: Request) -> None:
        if request.path.endswith(".mp4"):
            ranges.append(request.headers.get("Range"))

    fake.intercept_request = watch
    assert run("download", task["taskUUID"], "-o", str(tmp_path)).status == 0
    assert ranges == ["bytes=700000-"]
    assert (tmp_path / f"{task['taskUUID']}-0.mp4").read_bytes() == CONTENT
    assert not part.exists()


def test_a_download_resumes_after_a_short_response(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """The first half of a clip is kept, and the next request is for the other half."""
    task = fake.add(content=CONTENT)
    asked: list[str | None] = []

    def half(request: Request) -> Response | None:
        if not request.path.endswith(".mp4"):
            return None
        asked.append(request.headers.get("Range"))
        if len(asked) > 1:
            return None
        return Response(CONTENT[:300_000])  # a complete response, but shorter than the recorded size

    fake.intercept_request = half
    assert run("download", task["taskUUID"], "-o", str(tmp_path)).status == 0
    assert asked == [None, "bytes=300000-"]
    assert (tmp_path / f"{task['taskUUID']}-0.mp4").read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [b"\0" * 700_000, b"\0" * 2_000_000, b"\0" * len(CONTENT)])
def test_a_part_of_other_bytes_is_discarded(fake: FakeService, run: Run, tmp_path: Path, wrong: bytes) -> None:
    """A partial file with the wrong bytes is discarded and the clip is fetched again."""
    task = fake.add(content=CONTENT)
    (tmp_path / f".{task['taskUUID']}-0.mp4.v1.part").write_bytes(wrong)
    assert run("download", task["taskUUID"], "-o", str(tmp_path)).status == 0
    assert (tmp_path / f"{task['taskUUID']}-0.mp4").read_bytes() == CONTENT


def test_wrong_bytes_leave_no_file(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A download that does not match the manifest's hash fails and leaves no file."""
    task = fake.add(content=CONTENT)
    fake.files[f"{task['taskUUID']}-0.mp4"] = CONTENT[:-1] + b"?"
    out = tmp_path / "out"
    result = run("download", task["taskUUID"], "-o", str(out), "--json")
    assert result.status == 1
    assert [each["outcome"] for each in result.json["files"]] == ["failed"]
    assert "differs from the record" in result.json["files"][0]["problem"]
    assert clips(out) == {}


def test_a_changed_file_is_fetched_again(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A file of the right size with other bytes is fetched again."""
    task = fake.add(content=CONTENT)
    file = tmp_path / f"{task['taskUUID']}-0.mp4"
    file.write_bytes(b"\0" * len(CONTENT))
    assert run("download", task["taskUUID"], "-o", str(tmp_path)).status == 0
    assert file.read_bytes() == CONTENT


def test_an_expired_link_is_renewed(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A link that S3 refuses is renewed once; if the new one is refused too, the error names the expiry."""
    task = fake.add(content=CONTENT)
    (clip,) = task["clips"]
    url, refused = clip["videoURL"], []

    def expired(request: Request) -> Response | None:
        if not request.path.endswith(".mp4") or request.args.get("fresh"):
            return None
        refused.append(request.path)
        clip["videoURL"] = f"{url}?fresh=1"
        return Response(status=403)

    fake.intercept_request = expired
    assert run("download", task["taskUUID"], "-o", str(tmp_path / "a")).status == 0
    assert len(refused) == 1
    fake.intercept_request = lambda request: Response(status=403) if request.path.endswith(".mp4") else None
    result = run("download", task["taskUUID"], "-o", str(tmp_path / "b"))
    assert result.status == 1
    assert "the link has expired" in result.err
    assert "http" not in result.err


def test_without_a_manifest_the_size_is_compared(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Before the manifest exists, only the size is compared, and a warning names that."""
    task = fake.add(content=CONTENT)
    del fake.files[f"{task['taskUUID']}-0.mp4.json"]
    result = run("download", task["taskUUID"], "-o", str(tmp_path))
    assert result.status == 0
    assert "only the size was compared" in result.err


def test_a_manifest_of_another_version_is_ignored(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A manifest is used only for the object version that the link names."""
    task = fake.add(content=CONTENT)
    name = f"{task['taskUUID']}-0.mp4.json"
    fake.files[name] = json.dumps({**json.loads(fake.files[name]), "versionId": "v2", "sha256": "0" * 64}).encode()
    result = run("download", task["taskUUID"], "-o", str(tmp_path), "--json")
    assert [(each["outcome"], each["verified"]) for each in result.json["files"]] == [("downloaded", False)]


@pytest.mark.parametrize(
    ("ordered", "container", "suffix"), [("webm", "mp4", "mp4"), ("mp4", "webm", "webm"), ("mp4", "mov", "mp4")]
)
def test_the_suffix_follows_the_container(
    fake: FakeService, run: Run, tmp_path: Path, ordered: str, container: str, suffix: str
) -> None:
    """The suffix is that of the clip's container if it differs from the order; MP4 and MOV count as equal."""
    task = fake.add(content=CONTENT, clip={"objectKey": f"videos/a/x-0.{ordered}", "container": container})
    assert run("download", task["taskUUID"], "-o", str(tmp_path / "out")).status == 0
    assert clips(tmp_path / "out") == {f"{task['taskUUID']}-0.{suffix}": CONTENT}


def test_an_unknown_container_is_refused(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Only a supported container becomes a suffix."""
    task = fake.add(content=CONTENT, clip={"objectKey": "videos/a/x-0.webm", "container": "../../x"})
    assert run("download", task["taskUUID"], "-o", str(tmp_path / "out")).status == 2
    assert clips(tmp_path / "out") == {}


@pytest.mark.parametrize("key", ["videos/a/x.sh", "videos/a/..", "x.mp4/../../etc/passwd", ""])
def test_an_object_key_names_no_file(fake: FakeService, run: Run, tmp_path: Path, key: str) -> None:
    """Only a supported suffix is taken from the object key; the rest of the file name is built locally."""
    task = fake.add(content=CONTENT, clip={"objectKey": key})
    result = run("download", task["taskUUID"], "-o", str(tmp_path / "out"))
    assert result.status == 2
    assert clips(tmp_path / "out") == {}


def test_missing_clips_fail_the_download(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """The exit status is 1 if a requested clip is missing; a folder that cannot be made is named."""
    result = run("download", "-o", str(tmp_path))
    assert (result.status, result.err) == (1, "No matching tasks.\n")
    fake.add("running")
    result = run("download", "-o", str(tmp_path))
    assert (result.status, result.err) == (1, "1 clip is not stored and cannot be downloaded.\n")
    stored, failed = fake.add(content=CONTENT), fake.add("failed")
    assert run("download", "-o", str(tmp_path)).status == 0
    assert run("download", stored["taskUUID"], failed["taskUUID"], "-o", str(tmp_path)).status == 1
    (tmp_path / "file").touch()
    assert "file" in run("download", "-o", str(tmp_path / "file" / "x")).err
