"""The names of downloaded files: every field, unsafe values, and equal names."""

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rushes_cli.exits import UsageError
from rushes_cli.file_names import FIELDS, check_template, file_names, safe
from tests.cli.conftest import FakeService, Json, Run

TASK_UUID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
REQUEST = {
    "positivePrompt": "a lighthouse",
    "model": "klingai:5@3",
    "destination": "campaign/autumn",
    "tags": {"photo": "mug", "a.b": "c"},
}
CLIP = {"clip": 1, "clipUUID": "9c0b8f6e-0000-4000-8000-000000000000", "seed": 9_007_199_254_740_993}


def task(number: int = 0, **changes: Any) -> Json:
    at = f"2026-11-24T10:00:0{number}.000Z"
    return {"taskUUID": f"{number + 3}{TASK_UUID[1:]}", "createdAt": at, "request": {**REQUEST, **changes}}


def clip(**changes: Any) -> Json:
    return {**CLIP, "objectKey": "videos/ann/x-1.mp4", **changes}


def names(template: str, *clips: tuple[Json, Json]) -> list[str]:
    return [name.plain for name in file_names(template, clips)]


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{taskUUID}", TASK_UUID),
        ("{id}-{n}", "3fa85f64-1"),
        ("{clipUUID}", CLIP["clipUUID"]),
        ("{date} {prompt}", "2026-11-24 a lighthouse"),
        ("{model}", "klingai_5@3"),
        ("{destination}", "campaign_autumn"),
        ("{seed}", "9007199254740993"),
        ("{tag.photo}-{n}", "mug-1"),
        ("{tag.a.b}{tag.other}", "cnone"),
    ],
)
def test_each_field(template: str, name: str) -> None:
    """Each field has its value; a separator of folders in it becomes an underscore."""
    check_template(template)
    assert names(template, (task(), clip())) == [f"{name}.mp4"]


def test_a_field_may_have_no_value() -> None:
    """Every field of a task without a request and of a clip without details has a text."""
    bare = {"taskUUID": TASK_UUID, "request": {}}
    (name,) = names("".join(f"{{{field}}}" for field in [*FIELDS, "tag.x"]), (bare, {"clip": 0, "objectKey": "x.mov"}))
    assert name.endswith("nonenonenonenone.mov")


@pytest.mark.parametrize(
    "template",
    ["", "{photo}", "{tag.}", "{tag.photo", "n}", "{{n}}", "a/{n}", "../{n}", "a\\{n}", "\0", "{n.real}", "{}"],
)
def test_a_wrong_template_is_refused(fake: FakeService, run: Run, template: str) -> None:
    """Unknown fields, single braces and paths are refused before any request."""
    with pytest.raises(UsageError):
        check_template(template)
    if "\0" not in template:
        assert run("download", "--name", template).status == 2
    assert fake.requests == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..", "_"),
        ("", "_"),
        (".bashrc", "bashrc"),
        ("-rf", "_-rf"),
        ("a\nb\x1b\u202ec\0", "a_b__c_"),
        ('<a>:"b|?*', "_a___b___"),
        ("Tasse grün 灯台 क्षि", "Tasse grün 灯台 क्षि"),
        ("mug. ", "mug"),
        ("u\u0308", "ü"),
    ],
)
def test_unsafe_values(text: str, name: str) -> None:
    """A value never leaves the folder, hides the file, or makes it an option of another command."""
    assert safe(text) == name
    (found,) = names("{tag.photo}", (task(tags={"photo": text}), clip())) if text else [f"{name}.mp4"]
    assert found == f"{name}.mp4"


@given(st.text(max_size=300))
def test_every_value_makes_a_file_name(text: str) -> None:
    """Any text becomes one name within a folder that is short enough for partial files, too."""
    name = safe(text)
    assert Path(name).name == name
    assert name not in ("", ".", "..")
    assert name[0] not in ".- "
    assert len(name.encode()) <= 161
    assert not any(unicodedata.category(char)[0] == "C" for char in name)
    assert safe(name) == name


def test_equal_names_are_told_apart() -> None:
    """Of equal names, in any case, the first ordered stays; the order of the list and other clips change nothing."""
    clips = [(task(number, tags={"photo": photo}), clip()) for number, photo in enumerate(("mug", "Mug", "cup"))]
    expected = ["mug-1.mp4", "Mug-1-4fa85f64-1.mp4", "cup-1.mp4"]
    assert names("{tag.photo}-{n}", *clips) == expected
    assert names("{tag.photo}-{n}", *reversed(clips)) == expected[::-1]
    assert names("{tag.photo}-{n}", *clips[1:]) == ["Mug-1.mp4", "cup-1.mp4"]
    several = [(task(), clip(clip=number)) for number in range(3)]
    assert names("{tag.photo}", *several) == ["mug.mp4", "mug-3fa85f64-1.mp4", "mug-3fa85f64-2.mp4"]


@given(st.lists(st.sampled_from(["mug", "MUG", "mug-3fa85f64-1", "mug-3fa85f64-1-1", ""]), max_size=9))
def test_no_two_clips_share_a_name(photos: list[str]) -> None:
    """Tags that imitate the names of other clips lead to no common name, in letters of any case."""
    clips = [(task(number, tags={"photo": photo}), clip()) for number, photo in enumerate(photos)]
    found = file_names("{tag.photo}", clips)
    taken = [name.lower() for each in found for name in {each.plain, each.unique}]
    assert len(taken) == len(set(taken))


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_of_other_content_is_kept(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A file that is not this clip keeps its name and content, and a repeat finds the clip under its other name."""
    ordered = fake.add(content=b"video" * 100, request={"positivePrompt": "x", "tags": {"photo": "mug"}})
    out = tmp_path / "out"
    out.mkdir()
    (out / "mug-0.mp4").write_bytes(b"my own")
    arguments = ("download", "-o", str(out), "--name", "{tag.photo}-{n}", "--json")
    for outcome in ("downloaded", "present"):
        (result,) = run(*arguments).json["files"]
        assert result["outcome"] == outcome
    unique = f"mug-0-{ordered['taskUUID'][:8]}-0.mp4"
    assert content_of(out) == {"mug-0.mp4": b"my own", unique: b"video" * 100}


def test_named_files_are_found_again(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A repeat with more clips of the same name changes no earlier name."""
    tags = {"batch": "a", "photo": "mug"}
    first = fake.add(content=b"first", request={"positivePrompt": "x", "tags": tags}, createdAt=task(0)["createdAt"])
    out = tmp_path / "out"
    arguments = ("download", "-o", str(out), "--name", "{tag.photo}-{n}", "--tag", "batch=a", "--all")
    assert run(*arguments).out == f"{out}/mug-0.mp4\n"
    second = fake.add(content=b"second", request={"positivePrompt": "x", "tags": tags}, createdAt=task(1)["createdAt"])
    fake.add(content=b"other", request={"positivePrompt": "x", "tags": {"batch": "b"}})
    assert run(*arguments).status == 0
    later = f"mug-0-{second['taskUUID'][:8]}-0.mp4"
    assert content_of(out) == {"mug-0.mp4": b"first", later: b"second"}
    assert first["taskUUID"] != second["taskUUID"]


def test_a_task_named_twice_is_fetched_once(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """A task under its whole UUID and under a beginning is one task."""
    uuid = fake.add(content=b"video")["taskUUID"]
    files = run("download", uuid, uuid[:8], "-o", str(tmp_path), "--json").json["files"]
    assert [each["outcome"] for each in files] == ["downloaded"]


def test_all_and_since(fake: FakeService, run: Run, tmp_path: Path) -> None:
    """`--all` has no limit, and `--since` selects by the time of the order."""
    for number in range(25):
        fake.add(content=b"x", createdAt=f"2026-11-24T10:00:{number:02}.000Z")
    arguments = ("download", "-o", str(tmp_path), "--json")
    assert len(run(*arguments).json["files"]) == 20
    assert len(run(*arguments, "--all").json["files"]) == 25
    assert len(run(*arguments, "--since", "2026-11-24T10:00:22").json["files"]) == 3
