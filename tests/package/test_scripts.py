"""The helpers behind `make`: which Python is taken, and how the Runware key gets to where it belongs."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.client import BaseClient
from moto import mock_aws

from scripts import deployed

ROOT = Path(__file__).resolve().parents[2]

# `mock_aws` empties moto, whose state is one for the process: a shared stack would find its table gone.
pytestmark = pytest.mark.usefixtures("no_shared_stack")


def find_python(commands: Path, *wanted: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{commands}{os.pathsep}/usr/bin{os.pathsep}/bin"}
    command = ["bash", str(ROOT / "scripts" / "find-python"), *wanted]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_an_interpreter_that_exists_and_fails_is_passed_over(tmp_path: Path) -> None:
    """A version manager's empty shell of a command is skipped for the next one that works."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    put(tmp_path, f"python{version}", "exit 127")
    put(tmp_path, "python3", f'exec {sys.executable} "$@"')
    result = find_python(tmp_path, version)
    assert result.returncode == 0
    assert Path(result.stdout.strip()).samefile(sys.executable)


def test_no_interpreter_is_said_clearly(tmp_path: Path) -> None:
    """Without a Python of the wanted version nothing is printed but a sentence that names it."""
    result = find_python(tmp_path, "3.99")
    assert (result.returncode, result.stdout) == (1, "")
    assert "Python 3.99" in result.stderr


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The ARN of the empty secret that a deployed stack names."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        arn = boto3.client("secretsmanager").create_secret(Name="runware")["ARN"]
        topic = {"Type": "AWS::SNS::Topic"}  # a stack must have some resource
        body = {"Resources": {"Topic": topic}, "Outputs": {"RunwareSecretArn": {"Value": arn}}}
        boto3.client("cloudformation").create_stack(StackName="rushes-dev", TemplateBody=json.dumps(body))
        yield arn


def type_in(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_configure_puts_the_key_into_the_secret(
    secret: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is typed ends up in the secret, without its line end, and is not shown again."""
    type_in("the-key\n", monkeypatch)
    deployed.main(["configure", "rushes-dev"])
    assert boto3.client("secretsmanager").get_secret_value(SecretId=secret)["SecretString"] == "the-key"
    assert "the-key" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "\n", "two words\n", "schlüssel\n"])
def test_configure_takes_nothing_that_cannot_be_a_key(text: str, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip of the keyboard leaves the secret as it was."""
    client = boto3.client("secretsmanager")
    client.put_secret_value(SecretId=secret, SecretString="before")
    type_in(text, monkeypatch)
    with pytest.raises(ValueError, match="nothing was changed"):
        deployed.main(["configure", "rushes-dev"])
    assert client.get_secret_value(SecretId=secret)["SecretString"] == "before"


def test_redrive_sends_back_what_waits(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each dead-letter queue of the stack is named with what it holds, and only those that hold any are emptied."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        sqs, outputs = boto3.client("sqs"), {}
        for name in deployed.DEAD_LETTERS:
            outputs[f"{name}Url"] = {"Value": sqs.create_queue(QueueName=name)["QueueUrl"]}
        body = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}, "Outputs": outputs}
        boto3.client("cloudformation").create_stack(StackName="rushes-dev", TemplateBody=json.dumps(body))
        for text in ("one", "two"):
            sqs.send_message(QueueUrl=outputs["InboxDeadLettersUrl"]["Value"], MessageBody=text)

        class Moved(Exception):
            """moto does not move messages: this is raised in its place."""

        def start(_client: object, operation: str, parameters: dict[str, str]) -> object:
            if operation == "StartMessageMoveTask":
                raise Moved(parameters["SourceArn"])
            return genuine(_client, operation, parameters)

        genuine = BaseClient._make_api_call
        monkeypatch.setattr(BaseClient, "_make_api_call", start)
        with pytest.raises(Moved, match=r":InboxDeadLetters$"):
            deployed.main(["redrive", "rushes-dev"])
        sqs.purge_queue(QueueUrl=outputs["InboxDeadLettersUrl"]["Value"])
        deployed.main(["redrive", "rushes-dev"])
    assert capsys.readouterr().out.splitlines() == [f"{name}: 0 messages" for name in deployed.DEAD_LETTERS]
