"""The choice of service and key, and the errors for a wrong or missing configuration."""

import json
import os
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from werkzeug.wrappers import Request, Response

from rushes_cli import local_stack, profiles
from rushes_cli.exits import CommandError
from tests.cli.conftest import KEY, FakeService, Run, answer, cut, isolate_environment

CONFIG = """
default = "staging"

[profiles.staging]
url = "https://staging.example.com/v1/"
api_key = "rushes_staging"
ask_above = 0.5

[profiles.prod]
url = "https://prod.example.com"
api_key = "rushes_prod"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with two profiles, readable by its owner only."""
    path = tmp_path / "rushes" / "config.toml"
    path.parent.mkdir()
    path.write_text(CONFIG)
    path.chmod(0o600)
    return path


def chosen(config: Path, profile: str | None = None, **environment: str) -> profiles.Target:
    runtime = config.parent / "runtime"
    runtime.mkdir(exist_ok=True)
    homes = {"XDG_CONFIG_HOME": str(config.parents[1]), "XDG_RUNTIME_DIR": str(runtime)}
    return profiles.choose(profile, {**homes, **environment}, lambda _: None)


def test_the_order_of_settings(config: Path) -> None:
    """A profile option precedes the two variables, then RUSHES_PROFILE, then the default profile."""
    both = {"RUSHES_URL": "https://here.example.com", "RUSHES_API_KEY": "k", "RUSHES_PROFILE": "prod"}
    assert chosen(config, "staging", **both).url == "https://staging.example.com"
    assert chosen(config, **both).url == "https://here.example.com"
    assert chosen(config, RUSHES_PROFILE="prod").api_key == "rushes_prod"
    assert chosen(config).ask_above == 500_000
    assert "rushes_staging" not in repr(chosen(config))


@pytest.mark.parametrize("verb", [["check"], ["review"], ["keys", "list"], ["redrive"], ["cost", "--by", "caller"]])
def test_an_operators_verb_needs_a_stack(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verb: list[str]
) -> None:
    """Without a stack the missing stack is reported, before a missing region."""
    isolate_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    result = run(*verb)
    assert (result.status, result.err) == (5, "rushes: The stack is not set: use --stack.\n")
    result = run(*verb, "--stack", "mine")
    assert (result.status, result.err) == (5, "rushes: No AWS region was found: set AWS_DEFAULT_REGION.\n")


@pytest.mark.parametrize("only", ["RUSHES_URL", "RUSHES_API_KEY"])
def test_a_key_is_not_combined_with_another_url(config: Path, only: str) -> None:
    """One of the two variables alone is not completed from a profile."""
    with pytest.raises(CommandError, match="must be set together") as caught:
        chosen(config, **{only: "https://example.com"})
    assert caught.value.status == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[profiles.x]\nurl = 'https://e.com'", "must have a url and an api_key"),
        ("[profiles.x]\nurl = 'http://example.com'\napi_key = 'k'", "must be https"),
        ("[profiles.x]\nurl = 'https://u:p@e.com'\napi_key = 'k'", "is not a valid URL"),
        ("[profiles.x]\nurl = 'e.com'\napi_key = 'k'", "is not a valid URL"),
        ("[profiles.x]\nurl = 'https://[e.com'\napi_key = 'k'", "is not a valid URL"),
        ("[profiles.x]\nurl = 'https://e.com'\napi_key = 'ü'", "api_key must consist of"),
        ("[profiles.x]\nurl = 'https://e.com'\napi_key = 'k'\nask_above = 'x'", "ask_above must be an amount"),
        ("[profiles.y]", "has no profile x"),
        ("profiles = 3", "has no profile x"),
        ("[", "is not valid TOML"),
    ],
)
def test_an_invalid_configuration_is_explained(config: Path, text: str, message: str) -> None:
    """Every error in the file is named, with exit status 2 and without the key."""
    config.write_text(text)
    with pytest.raises(CommandError, match=message) as caught:
        chosen(config, "x")
    assert caught.value.status == 2


def test_a_file_that_others_can_read_gets_a_warning(config: Path) -> None:
    """A readable file gives a warning with the remedy, and the command continues."""
    warnings: list[str] = []
    environment = {"XDG_CONFIG_HOME": str(config.parents[1])}
    profiles.choose(None, environment, warnings.append)
    assert warnings == []
    config.chmod(0o644)
    profiles.choose(None, environment, warnings.append)
    assert warnings == [f"{config} can be read by other users and may contain a key: chmod 600 {config}"]


STACK = local_stack.RunningStack(
    pid=os.getpid(),
    url="http://127.0.0.1:1",
    api_key="rushes_local",
    emulator_url="http://127.0.0.1:2",
    aws_url="http://127.0.0.1:3",
    access_key="a",
    secret_key="s",
    region="us-east-1",
    table="t",
    bucket="b",
    stack="rushes",
)


def test_a_running_stack_is_found(tmp_path: Path) -> None:
    """Without a configuration a running local stack is used; its file has mode 0600."""
    environment = {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    with local_stack.registered(STACK, environment):
        assert profiles.choose(None, environment, print).api_key == "rushes_local"
        assert profiles.choose("local", environment, print).url == STACK.url
        assert (tmp_path / "rushes" / f"{STACK.pid}.json").stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CommandError, match="No local stack") as caught:
        profiles.choose("local", environment, print)
    assert caught.value.status == 5


def test_one_of_several_stacks_is_chosen_by_its_port(tmp_path: Path) -> None:
    """The newest stack is used, or the one whose port the profile names, also by the operators' and local verbs."""
    environment = {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    newer = replace(STACK, pid=os.getppid(), url="http://127.0.0.1:4", api_key="rushes_newer")
    with local_stack.registered(STACK, environment), local_stack.registered(newer, environment):
        assert profiles.choose(None, environment, print).api_key == "rushes_newer"
        assert profiles.choose("local", environment, print).api_key == "rushes_newer"
        assert profiles.choose("local:1", environment, print).api_key == "rushes_local"
        environment["RUSHES_PROFILE"] = "local:1"
        assert profiles.choose(None, environment, print).api_key == "rushes_local"
        assert local_stack.find(environment) == STACK
        assert profiles.choose("local:4", environment, print).api_key == "rushes_newer"
        with pytest.raises(
            CommandError, match=r"as local:5. Running: http://127.0.0.1:4, http://127.0.0.1:1\."
        ) as caught:
            profiles.choose("local:5", environment, print)
    assert caught.value.status == 5


def test_the_file_of_a_dead_or_unsafe_stack_is_ignored(tmp_path: Path) -> None:
    """A stack's file is ignored if its process is gone, others can write it, it is no JSON, or it is a link."""
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with local_stack.registered(STACK, environment):
        path = tmp_path / "rushes" / f"{STACK.pid}.json"
        path.chmod(0o666)
        assert local_stack.find(environment) is None
        path.chmod(0o600)
        whole = json.loads(path.read_text())
        path.write_text(json.dumps({**whole, "pid": 2**22 - 1}))
        assert local_stack.find(environment) is None
        path.write_text("{")
        assert local_stack.find(environment) is None
        path.write_text(json.dumps(whole))
        assert local_stack.find(environment) == STACK
        path.rename(tmp_path / "elsewhere.json")
        path.symlink_to(tmp_path / "elsewhere.json")
        assert local_stack.find(environment) is None


def test_the_stack_that_started_last_is_found_until_it_ends(tmp_path: Path) -> None:
    """The stack started last is used; when it ends it removes only its own file, and the one before is used."""
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    other = local_stack.RunningStack(**{name: getattr(STACK, name) for name in STACK.__slots__} | {"pid": os.getppid()})
    with local_stack.registered(other, environment):
        with local_stack.registered(STACK, environment):
            assert local_stack.find(environment) == STACK
        assert local_stack.find(environment) == other
    with local_stack.registered(STACK, environment):
        with local_stack.registered(other, environment):
            assert local_stack.find(environment) == other
        assert local_stack.find(environment) == STACK
    assert local_stack.find(environment) is None
    assert list(tmp_path.iterdir()) == []


TASK = "3fa85f64-5717-4562-b3fc-2c963f66afa6"


def test_no_service_is_configured(fake: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any configuration the error names the ways to set one."""
    monkeypatch.delenv("RUSHES_URL")
    monkeypatch.delenv("RUSHES_API_KEY")
    result = run("list")
    assert result.status == 5
    assert "rushes dev" in result.err


def test_a_wrong_key(fake: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused key has its own exit status and is not printed."""
    monkeypatch.setenv("RUSHES_API_KEY", "rushes_wrong")
    result = run("list")
    assert (result.status, result.out) == (5, "")
    assert "does not accept the API key of the environment." in result.err
    assert "rushes_wrong" not in result.err


def test_no_server(fake: FakeService, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL at which nothing listens is one line of error and exit status 5."""
    monkeypatch.setenv("RUSHES_URL", "http://127.0.0.1:1")
    result = run("list")
    assert (result.status, result.out) == (5, "")
    assert result.err == (
        "rushes: http://127.0.0.1:1 refused the connection: is it the URL of a running Rushes service?\n"
    )


@pytest.mark.parametrize("status", [429, 502, 503, 504, "cut"])
def test_a_transient_error_is_retried(fake: FakeService, run: Run, status: int | str) -> None:
    """A transient error is retried, and a persistent one exits with 4."""
    left = [1, 2]

    def fail(request: Request) -> Response | None:
        if not left:
            return None
        left.pop()
        return cut(request) if status == "cut" else answer({"message": "Not now."}, int(status))

    fake.intercept_request = fail
    assert run("list").status == 0
    left += [1] * 9
    assert run("list").status == 4


@pytest.mark.parametrize(
    ("response", "status"),
    [
        (Response("<html>", 200), 5),
        (answer({"tasks": "all"}), 5),
        (Response(status=301, headers={"Location": "https://elsewhere.example"}), 5),
        (answer({"message": "Forbidden"}, 403), 5),
        (Response("<html>", 500), 4),
        (answer({"errors": [{"code": "invalidLimit", "message": "Too many."}]}, 400), 2),
        (Response("Not Found", 404), 5),
        (answer({"message": "Not Found"}, 404), 5),
        (Response("Bad Request", 400), 5),
    ],
)
@pytest.mark.parametrize("arguments", [["list"], ["show", TASK], ["cost"], ["submit", "a lighthouse"]])
def test_an_unexpected_response_is_one_line(
    fake: FakeService, run: Run, response: Response, status: int, arguments: list[str]
) -> None:
    """A response of something else than the service ends every verb with one line that names the URL."""
    fake.intercept_request = lambda _: response
    result = run(*arguments)
    # A refusal of a task is the outcome of `submit`, not of its arguments.
    expected = 1 if status == 2 and arguments[0] == "submit" else status
    assert (result.status, result.out) == (expected, "")
    assert expected in (1, 2) or result.err.startswith(f"rushes: {fake.url} ")
    assert expected == 1 or result.err.count("\n") == 1


def test_the_key_is_in_the_header_alone(fake: FakeService, run: Run) -> None:
    """The key is in no path and no body."""
    run("submit", "a lighthouse")
    assert KEY not in json.dumps(fake.requests)
