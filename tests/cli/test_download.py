"""`rushes download`: whole files or none, taken up where they stopped, believed only when they match."""

import json
from pathlib import Path

import pytest
from werkzeug.wrappers import Request, Response

from tests.cli.conftest import FakeService, Run

CONTENT = bytes(range(256)) * 4096  # 1 MiB


def clips(folder: Path) -> dict[str, bytes]:
    """The files in a folder, hidden ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_download(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Every stored clip becomes a file, verified against its manifest; a second run leaves it alone."""
    tasks = [fake.add(content=CONTENT + bytes([number])) for number in range(5)]
    fake.add("failed")
    out = tmp_path / "out"
    ran = run("download", "--out", str(out), "--json")
    assert ran.status == 0, ran.err
    assert len(ran.json["files"]) == 5
    assert set(ran.json["files"][0]) == {
        *("taskUUID", "clip", "file", "outcome", "size", "sha256", "verified", "problem"),
    }
    assert all(each["outcome"] == "downloaded" and each["verified"] for each in ran.json["files"])
    assert clips(out) == {f"{task['taskUUID']}-0.mp4": CONTENT + bytes([n]) for n, task in enumerate(tasks)}
    fake.asked.clear()
    again = run("download", tasks[0]["taskUUID"], "-o", str(out), "--json")
    assert [each["outcome"] for each in again.json["files"]] == ["present"]
    assert not any(path.endswith(".mp4") for _, path, _ in fake.asked)


def test_an_interrupted_download_goes_on(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """After a part was fetched only the rest is asked for, and the whole is right."""
    task = fake.add(content=CONTENT)
    part = tmp_path / f".{task['taskUUID']}-0.mp4.v1.part"
    part.write_bytes(CONTENT[:700_000])
    ranges: list[str | None] = []

    def watch(request: Request) -> None:
        if request.path.endswith(".mp4"):
            ranges.append(request.headers.get("Range"))

    fake.trouble = watch
    assert run("download", task["taskUUID"], "-o", str(tmp_path)).status == 0
    assert ranges == ["bytes=700000-"]
    assert (tmp_path / f"{task['taskUUID']}-0.mp4").read_bytes() == CONTENT
    assert not part.exists()


def test_a_connection_that_ends_early_is_taken_up(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Half an answer is kept, and the next question is for the other half."""
    task = fake.add(content=CONTENT)
    asked: list[str | None] = []

    def half(request: Request) -> Response | None:
        if not request.path.endswith(".mp4"):
            return None
        asked.append(request.headers.get("Range"))
        if len(asked) > 1:
            return None
        return Response(CONTENT[:300_000])  # as if that were all: the size on record says otherwise

    fake.trouble = half
    assert run("download", task["taskUUID"], "-o", str(tmp_path)).status == 0
    assert asked == [None, "bytes=300000-"]
    assert (tmp_path / f"{task['taskUUID']}-0.mp4").read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [b"\0" * 700_000, b"\0" * 2_000_000, b"\0" * len(CONTENT)])
def test_a_part_of_other_bytes_is_thrown_away(fake: FakeService, run: Run, tmp_path: Path, wrong: bytes) -> None:
    """Whatever lies under the part's name: what does not match in the end is fetched anew."""
    task = fake.add(content=CONTENT)
    (tmp_path / f".{task['taskUUID']}-0.mp4.v1.part").write_bytes(wrong)
    assert run("download", task["taskUUID"], "-o", str(tmp_path)).status == 0
    assert (tmp_path / f"{task['taskUUID']}-0.mp4").read_bytes() == CONTENT


def test_wrong_bytes_never_get_the_name(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Bytes that do not have the manifest's hash are refused, and no file is left that looks like the clip."""
    task = fake.add(content=CONTENT)
    fake.files[f"{task['taskUUID']}-0.mp4"] = CONTENT[:-1] + b"?"
    out = tmp_path / "out"
    ran = run("download", task["taskUUID"], "-o", str(out), "--json")
    assert ran.status == 1
    assert [each["outcome"] for each in ran.json["files"]] == ["failed"]
    assert "differs from the record" in ran.json["files"][0]["problem"]
    assert clips(out) == {}


def test_a_changed_file_is_fetched_again(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A file of the right size and other bytes is not taken for the clip."""
    task = fake.add(content=CONTENT)
    file = tmp_path / f"{task['taskUUID']}-0.mp4"
    file.write_bytes(b"\0" * len(CONTENT))
    assert run("download", task["taskUUID"], "-o", str(tmp_path)).status == 0
    assert file.read_bytes() == CONTENT


def test_an_expired_link_is_renewed(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A link that S3 refuses is asked for again; if the new one is refused too, that is said."""
    task = fake.add(content=CONTENT)
    (clip,) = task["clips"]
    url, refused = clip["videoURL"], []

    def expired(request: Request) -> Response | None:
        if not request.path.endswith(".mp4") or request.args.get("fresh"):
            return None
        refused.append(request.path)
        clip["videoURL"] = f"{url}?fresh=1"
        return Response(status=403)

    fake.trouble = expired
    assert run("download", task["taskUUID"], "-o", str(tmp_path / "a")).status == 0
    assert len(refused) == 1
    fake.trouble = lambda request: Response(status=403) if request.path.endswith(".mp4") else None
    ran = run("download", task["taskUUID"], "-o", str(tmp_path / "b"))
    assert ran.status == 1
    assert "the link has expired" in ran.err
    assert "http" not in ran.err


def test_without_a_manifest_the_size_counts(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Before the manifest is written the size is compared, and it is said that the hash was not."""
    task = fake.add(content=CONTENT)
    del fake.files[f"{task['taskUUID']}-0.mp4.json"]
    ran = run("download", task["taskUUID"], "-o", str(tmp_path))
    assert ran.status == 0
    assert "only the size was compared" in ran.err


def test_a_manifest_of_another_version_says_nothing(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A manifest is believed only about the version that the link names."""
    task = fake.add(content=CONTENT)
    name = f"{task['taskUUID']}-0.mp4.json"
    fake.files[name] = json.dumps({**json.loads(fake.files[name]), "versionId": "v2", "sha256": "0" * 64}).encode()
    ran = run("download", task["taskUUID"], "-o", str(tmp_path), "--json")
    assert [(each["outcome"], each["verified"]) for each in ran.json["files"]] == [("downloaded", False)]


@pytest.mark.parametrize(
    ("ordered", "container", "suffix"), [("webm", "mp4", "mp4"), ("mp4", "webm", "webm"), ("mp4", "mov", "mp4")]
)
def test_a_file_is_named_by_what_it_is(
    fake: FakeService, run: Run, tmp_path: Path, ordered: str, container: str, suffix: str
) -> None:
    """A clip of another kind than was ordered gets the suffix of its own; MP4 and MOV are as good as one."""
    task = fake.add(content=CONTENT, clip={"objectKey": f"videos/a/x-0.{ordered}", "container": container})
    assert run("download", task["taskUUID"], "-o", str(tmp_path / "out")).status == 0
    assert clips(tmp_path / "out") == {f"{task['taskUUID']}-0.{suffix}": CONTENT}


def test_the_service_names_no_container(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """Only a known container becomes a suffix."""
    task = fake.add(content=CONTENT, clip={"objectKey": "videos/a/x-0.webm", "container": "../../x"})
    assert run("download", task["taskUUID"], "-o", str(tmp_path / "out")).status == 2
    assert clips(tmp_path / "out") == {}


@pytest.mark.parametrize("key", ["videos/a/x.sh", "videos/a/..", "x.mp4/../../etc/passwd", ""])
def test_the_service_names_no_file(fake: FakeService, run: Run, tmp_path: Path, key: str) -> None:
    """Only a known suffix is taken from the object's key; the rest of the name is ours."""
    task = fake.add(content=CONTENT, clip={"objectKey": key})
    ran = run("download", task["taskUUID"], "-o", str(tmp_path / "out"))
    assert ran.status == 2
    assert clips(tmp_path / "out") == {}


def test_nothing_stored_is_no_success(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A script that counts on clips hears that one or all are missing; a folder that cannot be made is named."""
    ran = run("download", "-o", str(tmp_path))
    assert (ran.status, ran.err) == (1, "No matching tasks.\n")
    fake.add("running")
    ran = run("download", "-o", str(tmp_path))
    assert (ran.status, ran.err) == (1, "1 clip is not stored and cannot be downloaded.\n")
    stored, failed = fake.add(content=CONTENT), fake.add("failed")
    assert run("download", "-o", str(tmp_path)).status == 0
    assert run("download", stored["taskUUID"], failed["taskUUID"], "-o", str(tmp_path)).status == 1
    (tmp_path / "file").touch()
    assert "file" in run("download", "-o", str(tmp_path / "file" / "x")).err
