"""The end of the stack, which leaves nothing, and its failures."""

import tempfile
from pathlib import Path

import httpx
import pytest

from rushes_local.stack import ProviderEndpoint, Stack, StackError
from tests.stack.conftest import toy_root

ROOT = Path(__file__).parents[2]

# A separate stack cannot run beside the shared one.
pytestmark = pytest.mark.usefixtures("no_shared_stack")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stack's temporary directories."""
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_nothing_is_left(tmp_path: Path, files: Path) -> None:
    """After an error in the block no process, no port and no file of the stack is left."""
    stack = Stack(toy_root(ROOT, tmp_path / "root"))

    def fail() -> None:
        with stack:
            assert list(files.iterdir())
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        fail()
    assert {tuple(pool.pids()) for pool in stack.functions.values()} == {()}
    for url in (stack.url, stack.aws_url, stack.emulator_url):
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)
    assert list(files.iterdir()) == []


def test_broken_function(tmp_path: Path, files: Path) -> None:
    """A failed import ends the start with the function's name and the reason, and leaves nothing."""
    root = toy_root(ROOT, tmp_path / "root")
    (root / "functions" / "webhook" / "app.py").write_text("import no_such_module")
    stack = Stack(root)
    with pytest.raises(StackError, match=r"webhook cannot start.*no_such_module"):
        stack.__enter__()
    assert {tuple(pool.pids()) for pool in stack.functions.values()} == {()}
    assert list(files.iterdir()) == []


def test_function_breaks_later(tmp_path: Path) -> None:
    """A function that can no longer start is reported by `check`, and its events fail."""
    root = toy_root(ROOT, tmp_path / "root")
    with Stack(root, processes=1) as stack:
        stack.check()
        (root / "functions" / "submit" / "app.py").write_text("import no_such_module")
        submit = stack.functions["submit"]
        assert submit.invoke({"do": "exit"}).kind == "crashed"
        assert submit.invoke({}).kind == "error"
        with pytest.raises(StackError, match=r"submit cannot start.*no_such_module"):
            stack.check()


def test_developers_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's proxies and profiles do not affect the stack."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9")
    with Stack(toy_root(ROOT, tmp_path / "root"), processes=1) as stack:
        stack.create_key("ada")


def test_without_emulator(tmp_path: Path) -> None:
    """With another provider, the functions get its address and key, and no emulator runs."""
    provider = ProviderEndpoint("a-real-key", "http://127.0.0.1:9/v1")
    with Stack(toy_root(ROOT, tmp_path / "root"), provider=provider, processes=1) as stack:
        variables = stack.functions["submit"].invoke({"do": "environment"}).payload
        secret = stack.client("secretsmanager").get_secret_value(SecretId=variables["RUNWARE_SECRET"])
        with pytest.raises(StackError, match="no emulator"):
            _ = stack.emulator
    assert (variables["RUNWARE_BASE_URL"], secret["SecretString"]) == ("http://127.0.0.1:9/v1", "a-real-key")


def test_runware_itself(tmp_path: Path) -> None:
    """With only a key, the functions buy at the template's address."""
    with Stack(toy_root(ROOT, tmp_path / "root"), provider=ProviderEndpoint("a-real-key"), processes=1) as stack:
        variables = stack.functions["submit"].invoke({"do": "environment"}).payload
    assert variables["RUNWARE_BASE_URL"] == "https://api.runware.ai/v1"
