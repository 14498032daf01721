"""The journal: an entry belongs to one run, and is reused only after that run has ended."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rushes_cli.exits import UsageError
from rushes_cli.journal import Journal

DIGEST = "d" * 64

# A run that stores its UUIDs, prints them, and ends only when it is killed.
RUN = """
import json, os, sys
from rushes_cli.journal import Journal
journal = Journal(os.environ, sys.argv[1])
print(json.dumps(journal.open(2)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> dict[str, str]:
    """An environment with an empty state directory."""
    return {"XDG_STATE_HOME": str(tmp_path)}


def entries(state: dict[str, str]) -> list[Path]:
    return list(Path(state["XDG_STATE_HOME"]).rglob("*.json"))


def test_an_entry_is_reused_only_after_its_process_has_ended(state: dict[str, str]) -> None:
    """The UUIDs of a process are not used while it runs; once it was killed, exactly one run uses them."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, DIGEST], env=state, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    killed, _ = json.loads(process.stdout.readline())
    with Journal(state, DIGEST) as beside:
        uuids, since = beside.open(2)
        assert (since, set(uuids) & set(killed)) == (None, set())
        beside.close()
    process.kill()
    process.communicate()
    with Journal(state, DIGEST) as first, Journal(state, DIGEST) as second:
        uuids, since = first.open(2)
        assert uuids == killed
        assert since is not None
        assert second.open(2)[1] is None


def test_only_the_own_entry_is_deleted(state: dict[str, str]) -> None:
    """A run that ends leaves the entry of an equal run, also for a later run."""
    with Journal(state, DIGEST) as one, Journal(state, DIGEST) as other:
        kept, _ = one.open(1)
        other.open(1)
        assert len(entries(state)) == 2
        other.close()
        assert len(entries(state)) == 1
    with Journal(state, DIGEST) as later:
        assert later.open(1)[0] == kept
        later.close()
    assert entries(state) == []


def test_an_entry_that_was_deleted_meanwhile_is_not_reused(state: dict[str, str], tmp_path: Path) -> None:
    """A run that has opened the file of another run before its deletion finds no UUIDs in it."""
    with Journal(state, DIGEST) as one:
        one.open(1)
        (path,) = entries(state)
        link = tmp_path / "open.json"
        link.hardlink_to(path)  # as an open file, it outlasts the deletion
        one.close()
    assert link.read_text() == ""


@pytest.mark.parametrize("content", ["", "{", "[]", '{"at": 1, "taskUUIDs": [1]}', '{"at": 1, "taskUUIDs": ["x"]}'])
def test_an_unusable_entry_is_ignored(state: dict[str, str], content: str) -> None:
    """An incomplete entry, and one of another number of tasks, has no UUIDs to reuse."""
    with Journal(state, DIGEST) as first:
        first.open(1)
    (path,) = entries(state)
    with Journal(state, DIGEST) as other:
        assert other.open(2)[1] is None
        other.close()
    path.write_text(content)
    with Journal(state, DIGEST) as later:
        assert later.open(1)[1] is None


def test_a_fresh_run_deletes_the_entries_of_ended_runs_alone(state: dict[str, str]) -> None:
    """A fresh run leaves nothing that a later run would take for its own, and keeps the entry of a run beside it."""
    with Journal(state, DIGEST) as beside:
        beside.open(1)
        for _ in range(2):
            with Journal(state, DIGEST) as lost, Journal(state, DIGEST) as also_lost:
                lost.open(1)
                also_lost.open(1)
        with Journal(state, DIGEST) as fresh:
            assert fresh.open(1, fresh=True)[1] is None
            assert len(entries(state)) == 2
            fresh.close()
        assert len(entries(state)) == 1


def test_without_an_entry_nothing_is_ordered(state: dict[str, str], tmp_path: Path) -> None:
    """A state directory that cannot be written is an error that names it."""
    (tmp_path / "rushes").write_text("a file")
    with Journal(state, DIGEST) as journal, pytest.raises(UsageError, match="have to be stored there"):
        journal.open(1)
