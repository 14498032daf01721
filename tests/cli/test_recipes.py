"""Recipes of docs/recipes.md, word for word, with the installed command."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from werkzeug.wrappers import Request

from tests.cli.conftest import FakeService, make_task
from tests.cli.test_terminal import RUSHES, environment

ROOT = Path(__file__).resolve().parents[2]
PNG, JPEG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20, b"\xff\xd8\xff" + b"\0" * 20
WEBP = b"RIFF\0\0\0\0WEBP" + b"\0" * 20
PHOTOS = {"Mug.JPG": JPEG, "cup.jpeg": JPEG, "plate 2.PNG": PNG, "bowl.WebP": WEBP, "mug.png": PNG}
OTHERS = {"notes.txt": b"notes", "broken.jpg": b"no picture", "mug.jpg.bak": JPEG}


def script(name: str) -> str:
    """The recipe whose first comment names this script."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "docs/recipes.md").read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if re.search(rf"\n# {re.escape(name)}[ :]", block)]
    return str(found)


def store_orders(fake: FakeService, request: Request) -> None:
    """Stores each ordered clip at once."""
    for uuid, task in list(fake.tasks.items()):
        if task["status"] == "running":
            fake.tasks[uuid] = {**make_task(task["request"], "stored"), "createdAt": task["createdAt"]}
            name = task["request"]["tags"].get("photo") or task["request"]["positivePrompt"]
            fake.serve(fake.tasks[uuid], fake.tasks[uuid]["clips"][0], name.encode())


def run_script(fake: FakeService, folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a recipe in this folder, with the installed command as `rushes`."""
    variables = {**environment(fake, folder), "PATH": f"{Path(RUSHES).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", script(name), name, *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.mark.timeout(600)
def test_photos_become_clips_with_their_names(fake: FakeService, tmp_path: Path) -> None:
    """Photos of every ending are ordered and fetched under their names; other files are listed as skipped."""
    fake.intercept_response = lambda request: store_orders(fake, request)
    fake.add(content=b"of another batch", request={"positivePrompt": "x", "tags": {"batch": "spring"}})
    folder = tmp_path / "photos"
    (folder / "more.png").mkdir(parents=True)
    for name, content in {**PHOTOS, **OTHERS}.items():
        (folder / name).write_bytes(content)

    def photos() -> subprocess.CompletedProcess[str]:
        return run_script(fake, tmp_path, "photos.sh", str(folder), "autumn")

    done = photos()
    assert done.returncode == 0, done.stderr
    skipped = set(re.findall(r"^skipped: (\S+)", done.stderr, re.MULTILINE))
    assert skipped == {*OTHERS, "more.png"}
    assert "5 ordered, 4 skipped" in done.stderr
    found = {path.name: path.read_text() for path in (tmp_path / "clips/autumn").iterdir()}
    (other,) = found.keys() - {"Mug-0.mp4", "mug-0.mp4", "cup-0.mp4", "plate 2-0.mp4", "bowl-0.mp4"}
    assert re.fullmatch(r"[Mm]ug-0-[0-9a-f]{8}-0\.mp4", other)
    assert sorted(found.values()) == ["Mug", "bowl", "cup", "mug", "plate 2"]
    (folder / "jug.jpg").write_bytes(JPEG)
    again = photos()
    assert again.returncode == 0, again.stderr
    assert fake.bought() == 7
    after = {path.name: path.read_text() for path in (tmp_path / "clips/autumn").iterdir()}
    assert after == {**found, "jug-0.mp4": "jug"}


@pytest.mark.timeout(600)
def test_one_bad_line_does_not_stop_a_night(fake: FakeService, tmp_path: Path) -> None:
    """The nightly recipe orders the valid lines, lists the others with lines and reasons, and stays in the budget."""
    fake.intercept_response = lambda request: store_orders(fake, request)
    fake.limit = 2.0
    tasks = [{"positivePrompt": "harbour"}, {"positivePrompt": "x", "duration": 7}, {"positivePrompt": "lighthouse"}]
    lines = [*map(json.dumps, tasks), "{", json.dumps({"positivePrompt": "gull", "duration": 7})]
    (tmp_path / "tonight.jsonl").write_text("\n".join(lines))
    done = run_script(fake, tmp_path, "nightly.sh")
    assert done.returncode == 0, done.stderr
    assert "not everything was ordered:" in done.stdout
    assert "refused: line 5: duration 7: 5 or 10\n" in done.stdout
    assert re.findall(r"^refused: lines? ([\d ]+):", done.stdout, re.MULTILINE) == ["2", "4", "5"]
    assert "2 of 5 tasks ordered, for $1.848." in done.stdout
    (clips,) = (tmp_path / "clips").iterdir()
    assert sorted(clip.read_text() for clip in clips.glob("*.mp4")) == ["harbour", "lighthouse"]
    again = run_script(fake, tmp_path, "nightly.sh")
    assert (again.returncode, fake.bought()) == (1, 2)
    assert "tonight costs 1.848 dollars, and 0.152 are left" in again.stdout


def test_a_night_without_a_file_ends_with_the_reason(fake: FakeService, tmp_path: Path) -> None:
    """A missing file ends the nightly recipe with a message."""
    done = run_script(fake, tmp_path, "nightly.sh")
    assert done.returncode == 1
    assert "tonight.jsonl: No such file or directory" in done.stdout
    assert fake.orders() == []
