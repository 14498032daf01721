"""The photo recipe of docs/recipes.md, word for word, with the installed command."""

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
    (found,) = [block for block in blocks if f"\n# {name} " in block]
    return str(found)


def store_orders(fake: FakeService, request: Request) -> None:
    """Stores each ordered clip at once."""
    for uuid, task in list(fake.tasks.items()):
        if task["status"] == "running":
            fake.tasks[uuid] = {**make_task(task["request"], "stored"), "createdAt": task["createdAt"]}
            photo = task["request"]["tags"]["photo"]
            fake.serve(fake.tasks[uuid], fake.tasks[uuid]["clips"][0], photo.encode())


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
        variables = {**environment(fake, tmp_path), "PATH": f"{Path(RUSHES).parent}{os.pathsep}{os.environ['PATH']}"}
        return subprocess.run(
            ["bash", "-c", script("photos.sh"), "photos.sh", str(folder), "autumn"],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            timeout=280,
        )

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
