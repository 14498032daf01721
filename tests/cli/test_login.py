"""`rushes login`: the checks of URL and key, and the file that it writes."""

import getpass
import os
import sys
import tomllib
from pathlib import Path

import pytest

from rushes_cli.login import with_profile
from tests.cli.conftest import KEY, FakeService, Run, isolate_environment

WRONG = "rushes_" + "w" * 43


@pytest.fixture
def config(fake: FakeService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The path of the configuration, with no URL or key in the environment."""
    isolate_environment(monkeypatch, tmp_path)
    return tmp_path / "config" / "rushes" / "config.toml"


def test_login_from_a_script(config: Path, fake: FakeService, run: Run) -> None:
    """URL and key are verified and saved with mode 0600, and the next command needs no other settings."""
    fake.add()
    result = run("login", "--url", f"{fake.url}/v1", "--key-stdin", stdin=f"{KEY}\n")
    assert (result.status, result.err) == (0, "")
    assert "Profile default was written" in result.out
    assert KEY not in result.out
    assert (config.stat().st_mode & 0o777, config.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert tomllib.loads(config.read_text()) == {
        "default": "default",
        "profiles": {"default": {"url": fake.url, "api_key": KEY}},
    }
    assert list(config.parent.iterdir()) == [config]
    assert run("list").status == 0


def test_login_on_a_terminal(config: Path, fake: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal URL and key are prompted for, the key without echo."""

    class Terminal:
        def isatty(self) -> bool:
            return True

    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or fake.url)
    monkeypatch.setattr(getpass, "getpass", lambda prompt: asked.append(prompt) or KEY)
    monkeypatch.setattr("rushes_cli.login.sys", type("Sys", (), {"stdin": Terminal(), "stdout": sys.stdout}))
    assert run("login", "-p", "prod").status == 0
    assert asked == ["URL of the service: ", "API key: "]
    assert tomllib.loads(config.read_text())["default"] == "prod"


@pytest.mark.parametrize(
    ("arguments", "key", "status", "message"),
    [
        (["--url", "{url}"], WRONG, 5, "does not accept the API key of profile default"),
        (["--url", "{url}/elsewhere"], KEY, 5, "is it the URL of a Rushes service?"),
        (["--url", "http://127.0.0.1:9"], KEY, 5, "refused the connection"),
        (["--url", "http://rushes.example"], KEY, 2, "the URL must be https"),
        (["--url", "{url}"], "", 2, "must have a url and an api_key"),
        (["--url", "{url}", "-p", "local"], KEY, 2, "local is reserved for the local stack"),
        (["--url", "{url}", "-p", "a.b"], KEY, 2, "a profile's name has"),
        ([], KEY, 2, "--key-stdin requires --url"),
    ],
)
def test_a_failed_login_writes_nothing(
    config: Path, fake: FakeService, run: Run, arguments: list[str], key: str, status: int, message: str
) -> None:
    """A wrong URL, a wrong key and an invalid profile name have their own errors and leave no file."""
    result = run("login", "--key-stdin", *(each.format(url=fake.url) for each in arguments), stdin=key)
    assert result.status == status, result.err
    assert message in result.err
    assert "Traceback" not in result.err
    assert (key or "no key") not in result.err
    assert not config.parent.exists()


def test_other_settings_are_preserved(config: Path, fake: FakeService, run: Run) -> None:
    """Other profiles, comments, the default and a profile's other settings are kept; the mode becomes 0600."""
    config.parent.mkdir()
    config.write_text(
        '# mine\ndefault = "prod"\n\n[profiles.prod]\nurl = "https://old.example"  # old\napi_key = "old"\n'
        'ask_above = 2.5 # dollars\n\n[profiles.other]\nurl = "https://other.example"\napi_key = "k"\n'
    )
    config.chmod(0o644)
    assert run("login", "-p", "prod", "--url", fake.url, "--key-stdin", stdin=KEY).status == 0
    text = config.read_text()
    assert tomllib.loads(text) == {
        "default": "prod",
        "profiles": {
            "prod": {"url": fake.url, "api_key": KEY, "ask_above": 2.5},
            "other": {"url": "https://other.example", "api_key": "k"},
        },
    }
    assert text.startswith("# mine\n")
    assert "# dollars" in text
    assert config.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "profiles.prod.url = 'https://old.example'\n",
        "profiles = 5\n",
        "[profiles]\nprod = 1\n",
        "[profiles.prod]  # a comment\nurl = 'x'\n",
        "[profiles.prod]\nurl = '''\nx'''\n",
    ],
)
def test_a_file_that_cannot_be_edited_safely_is_kept(text: str) -> None:
    """A configuration is not edited if more than the new profile would change."""
    assert with_profile(text, "prod", {"url": "https://a.example", "api_key": "k"}) is None


@pytest.mark.skipif(os.getuid() == 0, reason="root can write anywhere")
def test_a_folder_that_cannot_be_written(config: Path, fake: FakeService, run: Run) -> None:
    """A folder without write permission is named, and the exit status is 2."""
    config.parent.mkdir(mode=0o500)
    result = run("login", "--url", fake.url, "--key-stdin", stdin=KEY)
    assert (result.status, "Permission denied" in result.err) == (2, True)
