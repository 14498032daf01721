"""`rushes demo` and `rushes dev`, against the real functions.

test_no_network runs the demo without a request file; tests/cli/test_local ends `rushes dev` by SIGTERM.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from PIL import Image

from rushes_cli import main
from rushes_local.demo import DemoError, read_request
from rushes_local.dev import free_port
from tests.conftest import PATIENCE, children

RUSHES = [sys.executable, "-c", "from rushes_cli.main import main; main()"]


def task(**fields: object) -> dict[str, Any]:
    return {
        "taskType": "videoInference",
        "model": "klingai:5@3",
        "positivePrompt": "a lighthouse at dusk",
        "width": 1080,
        "height": 1080,
        **fields,
    }


@pytest.mark.usefixtures("no_shared_stack")
def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With one valid and one invalid task, the valid one's clips are reported and downloaded, and the exit status and
    the error are those of the invalid one."""
    request = tmp_path / "request.json"
    task_uuid = str(uuid.uuid4()).upper()
    request.write_text(json.dumps([task(taskUUID=task_uuid, numberResults=2), task(duration=7)]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rushes", "demo", str(request), "--out", "clips", "--render-seconds", "0"])
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main.main()
    printed = capsys.readouterr()
    assert ended.value.code == 1
    assert printed.err.startswith("rushes: refused: unsupportedDuration (duration): ")
    for index in (0, 1):
        file = tmp_path / "clips" / f"{task_uuid.lower()}-{index}.mp4"
        assert f"clips/{file.name}  " in printed.out
        with av.open(str(file)) as container:
            assert (container.streams.video[0].width, container.streams.video[0].height) == (1080, 1080)
    assert printed.out.count(", $0.924, from videos/demo/") == 2
    assert "2 clips stored and downloaded, 1 refused. Charged by the emulator: $1.848.\nPicture: clips/demo.png\n" in (
        printed.out
    )
    assert printed.out.partition("Next:\n")[2].count("\n") == 3
    with Image.open(tmp_path / "clips" / "demo.png") as picture:
        assert picture.size == (1280, 640)


@pytest.mark.usefixtures("no_shared_stack")
def test_demo_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json standard output is one JSON value: the tasks, the files and the picture."""
    request = tmp_path / "request.json"
    request.write_text(json.dumps(task()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rushes", "demo", str(request), "--render-seconds", "0", "--json"])
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    (file,) = printed["files"]
    assert [each["status"] for each in printed["tasks"]] == ["succeeded"]
    assert [Path(file).is_file(), Path(printed["picture"]).is_file()] == [True, True]


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"{", "is not JSON"), (b"\xff", "is not JSON"), (None, "No such file")],
)
def test_unreadable_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, problem: str
) -> None:
    """An unreadable request file is an error with its name and the reason, before the stack starts; the status is 2."""
    file = tmp_path / "request.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DemoError, match=problem):
        read_request(file)
    monkeypatch.setattr(sys, "argv", ["rushes", "demo", str(file)])
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2


def test_request_files(tmp_path: Path) -> None:
    """A file may have one task or an array; only a missing taskUUID is filled in."""
    file = tmp_path / "request.json"
    file.write_text('{"model": "x"}')
    (filled,) = read_request(file)
    assert uuid.UUID(filled["taskUUID"]).version == 4
    file.write_text('[{"taskUUID": "mine"}, 5]')
    assert read_request(file) == [{"taskUUID": "mine"}, 5]


def test_dev_ends_cleanly(tmp_path: Path) -> None:
    """`rushes dev` prints its addresses and key, works, and leaves no process, port or file after Ctrl-C."""
    environment = {key: value for key, value in os.environ.items() if key != "RUNWARE_API_KEY"}
    environment["TMPDIR"] = str(tmp_path)
    command = [*RUSHES, "dev", "--render-seconds", "0", "--limit-usd", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            printed: dict[str, str] = {}
            for line in process.stdout:
                name, _, value = line.strip().partition("  ")
                printed[name] = value.strip()
                if line.startswith("Ctrl-C"):
                    break
            address, _, key = printed["Gallery"].partition("#key=")
            assert key == printed["API key"]
            assert httpx.get(address).text.startswith("<!doctype html>")
            headers = {"Authorization": f"Bearer {printed['API key']}"}
            answer = httpx.post(printed["API"], headers=headers, json=[task()], timeout=PATIENCE)
            assert answer.json()["errors"][0]["parameter"] == "taskUUID"
            assert (
                httpx.get(f"{printed['API'].removesuffix('/v1')}/budget", headers=headers, timeout=PATIENCE).json()[
                    "limit"
                ]
                == 2.0
            )
            ordered = task(taskUUID=str(uuid.uuid4()), positivePrompt="a canal\nat noon")
            assert httpx.post(printed["API"], headers=headers, json=[ordered], timeout=PATIENCE).status_code == 200
            short = ordered["taskUUID"][:8]
            events = []
            for line in process.stdout:
                events.append(line.rstrip())
                if line.startswith("cost"):
                    break
            assert events == [
                "",
                f"ordered  {short}  1 clip, $0.924, by dev: a canal at noon",
                f"running  {short}",
                f"stored   {short}  videos/dev/{datetime.now(UTC):%Y/%m/%d}/{ordered['taskUUID']}-0.mp4",
                "cost     $0.924, $0.924 since the start",
            ]
            pids = children(process.pid)
            assert len(pids) >= 6  # one of each function
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(httpx.ConnectError):
        httpx.post(printed["API"])
    assert list(tmp_path.iterdir()) == []


def test_the_next_free_port() -> None:
    """A taken port is passed over."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) not in (0, port)
    assert free_port(port) == port
