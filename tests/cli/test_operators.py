"""Operators' verbs on the table and the bucket of the local stack."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient

from rushes.domain.caller import Caller
from rushes.domain.clip import Clip, Fact, FactSource, Kind, Status, merge_all
from rushes.services.update_clip import update_clip
from rushes_cli.operator.review import NoTelemetry, clock
from rushes_local.stack import STACK_NAME, Stack
from tests.cli.conftest import Run
from tests.conftest import PATIENCE, User, http, order, whole_table
from tests.fakes.builders import TIMES

Json = dict[str, Any]

pytestmark = pytest.mark.usefixtures("account")


def with_facts(user: User, clip: Clip, *facts: Fact) -> Clip:
    """The clip after these facts were added."""
    store = user.stack.store
    return update_clip(
        store, clip, lambda current: merge_all(current, facts), now=clock(), times=TIMES, telemetry=NoTelemetry()
    )


def fact(kind: Kind, key: str = "", **fields: Any) -> Fact:
    return Fact(kind=kind, key=key, at=clock(), source=FactSource.CLOCK, fields=fields)


def unproven(user: User) -> Clip:
    """A clip in review, for which it is uncertain if it was bought."""
    return with_facts(user, user.buy(), fact(Kind.UNPROVEN, reason="an attempt may have arrived"))


def unsaved(user: User) -> Clip:
    """A clip in review that was rendered and has no copy."""
    return with_facts(user, user.buy(), fact(Kind.RENDERED, "v", cost=924_000), fact(Kind.UNSAVED, reason="no copy"))


def name(clip: Clip) -> tuple[str, ...]:
    return clip.caller, clip.task_uuid, str(clip.index), "--stack", STACK_NAME


def test_review_lists_clips_with_their_evidence(stack: Stack, user: User, run: Run) -> None:
    """Exactly the clips in review are listed with their timelines, as text and as JSON."""
    assert run("review", "--stack", STACK_NAME).err == "No clips are in review.\n"
    clip, other = unproven(user), unsaved(user)
    user.buy()
    found = run("review", "--stack", STACK_NAME, "--json").json["clips"]
    assert [each["taskUUID"] for each in found] == [clip.task_uuid, other.task_uuid]
    assert set(found[0]) == {
        *("caller", "taskUUID", "clip", "status", "open", "cost", "objectKey", "clipUUID"),
        *("possiblySentAt", "nextCheckAt", "timeline"),
    }
    out = run("review", "--stack", STACK_NAME).out
    assert "an attempt may have arrived. It cannot be determined if the clip was bought." in out
    assert "Rendered for $0.924" in out


def test_costs_by_caller(stack: Stack, user: User, run: Run) -> None:
    """Costs are grouped by caller, also where two callers' tasks have the same UUID."""
    other = stack.create_key("someone-else", limit_usd=10)
    same = order(numberResults=2, tags={"project": "fox"})
    user.post(same)
    user.buy()
    headers = {"Authorization": f"Bearer {other}"}
    assert http().post(f"{stack.url}/v1", json=[{**same, "numberResults": 1}], headers=headers).status_code == 200
    found = run("cost", "--by", "caller", "--stack", STACK_NAME, "--json").json
    others = {"name": "someone-else", "tasks": 1, "clips": 1, "cost": 0.924}
    assert {"name": user.name, "tasks": 2, "clips": 3, "cost": 2.772} in found["groups"]
    assert others in found["groups"]
    assert found["budget"] is None
    only = run("cost", "--by", "caller", "--tag", "project=fox", "--stack", STACK_NAME, "--csv").out
    assert f"{user.name},1,2,1.848000" in only.splitlines()
    assert run("cost", "--by", "caller", "--until", "2026-01-02", "--since", "2026-01-01").status != 0


def test_giving_up_an_unproven_clip_releases_its_money(stack: Stack, user: User, run: Run) -> None:
    """An unproven clip that is given up is failed with the operator's reason, and its money is released."""
    clip = unproven(user)
    assert user.counted(clip) == 924_000
    result = run("review", "give-up", *name(clip), "--reason", "Runware knows nothing of it.", "--json")
    assert result.status == 0, result.err
    assert (result.json["status"], result.json["open"], result.json["cost"]) == ("failed", False, 0.0)
    now = user.now(clip)
    assert (now.status, now.open, now.next_check_at) == (Status.FAILED, False, None)
    assert now.of(Kind.FAILED)["givenUp"].fields["message"] == "Runware knows nothing of it."
    assert list(now.of(Kind.FAILED)["givenUp"].seen) == [FactSource.OPERATOR]
    assert user.counted(clip) == 0
    assert run("review", "give-up", *name(clip)).err.endswith("not in review; nothing was decided.\n")


@pytest.mark.parametrize("in_review", [unproven, unsaved])
def test_an_operator_requests_another_check(user: User, run: Run, in_review: Callable[[User], Clip]) -> None:
    """A requested check makes a clip in review due for the next sweep; its status and its money stay."""
    clip = in_review(user)
    result = run("review", "ask", *name(clip), "--json")
    assert result.status == 0, result.err
    assert (result.json["status"], result.json["open"], result.json["cost"]) == ("review", True, 0.924)
    now = user.now(clip)
    assert [record.seen.keys() for record in now.of(Kind.ASKED).values()] == [{FactSource.OPERATOR}]
    assert [due[1] for due in user.stack.store.due(clock() + 60_000, 10)] == [clip.task_uuid]
    assert run("review", "--stack", STACK_NAME, "--json").json["clips"] == []
    with_facts(user, now, fact(Kind.ANSWERED, *now.of(Kind.ASKED), reason="nothing new"))
    out = run("review", "--stack", STACK_NAME).out
    assert "An operator requested another check of the bucket and Runware." in out
    assert "The requested check is complete: nothing new." in out
    assert run("review", "ask", *name(with_facts(user, user.now(clip), fact(Kind.STORED, "1", size=9)))).status != 0


def test_giving_up_a_render_keeps_its_cost(stack: Stack, user: User, run: Run) -> None:
    """A rendered clip that is given up fails and stays charged, and a copy that arrives later makes it stored."""
    clip = unsaved(user)
    assert run("review", "give-up", *name(clip)).status == 0
    now = user.now(clip)
    assert (now.status, now.open, user.counted(clip)) == (Status.FAILED, False, 924_000)
    assert with_facts(user, now, fact(Kind.STORED, "1", size=9)).status == Status.STORED


def test_a_copy_decides_a_review(stack: Stack, user: User, run: Run, tmp_path: Path) -> None:
    """A video under the clip's key or in a given file makes it stored; any other content changes nothing."""
    clip = unproven(user)
    assert "not a video" in run("review", "stored", *name(clip)).err
    other = user.buy()
    stack.emulator.finish(other.clip_uuid)
    assert stack.emulator.idle(PATIENCE)
    video = stack.client("s3").get_object(Bucket=stack.bucket_name, Key=other.object_key)["Body"].read()
    wrong, right = tmp_path / "wrong.mp4", tmp_path / "right.mp4"
    wrong.write_bytes(b"no video")
    right.write_bytes(video)
    assert "nothing was uploaded" in run("review", "stored", *name(clip), "--file", str(wrong)).err
    assert user.now(clip).status == Status.REVIEW
    result = run("review", "stored", *name(clip), "--file", str(right), "--json")
    assert result.json["status"] == "stored"
    now = user.now(clip)
    assert now.open  # its seed and its cost are still looked up
    assert now.copy is not None
    assert now.copy[1].fields["size"] == len(video)
    assert FactSource.OPERATOR in now.copy[1].seen


def test_an_unknown_clip_cannot_be_decided(stack: Stack, user: User, run: Run) -> None:
    """An unknown clip and an invalid UUID are refused."""
    clip = unproven(user)
    assert run("review", "give-up", clip.caller, clip.task_uuid, "3", "--stack", STACK_NAME).status == 1
    assert run("review", "give-up", clip.caller, "x", "0", "--stack", STACK_NAME).status == 2


def test_a_key_is_created_with_image_sources(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller's image sources are set with its key, and a further key without any leaves them unchanged."""
    monkeypatch.setenv("TABLE_NAME", stack.table_name)

    def create(limit: int, *sources: str) -> Caller | None:
        images = [word for source in sources for word in ("--images", source)]
        assert run("keys", "create", "ada", "--limit-usd", str(limit), *images).status == 0
        return stack.store.caller_named("ada")

    assert create(20, "s3://photos/ada/", "s3://film/") == Caller("ada", 20_000_000, ("photos/ada/", "film/"))
    assert create(30) == Caller("ada", 30_000_000, ("photos/ada/", "film/"))
    assert create(30, "s3://film/") == Caller("ada", 30_000_000, ("film/",))


@pytest.mark.parametrize("source", ["photos/ada", "s3://photos", "s3:///ada", "https://photos/ada", ""])
def test_an_invalid_image_source(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """An image source without bucket and prefix is refused before a key is made: a bare name could begin others."""
    monkeypatch.setenv("TABLE_NAME", stack.table_name)
    before = whole_table(stack)
    assert run("keys", "create", "ada", "--limit-usd", "20", "--images", source).status == 2
    assert whole_table(stack) == before


def test_keys(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is created, listed without its secret, given another limit, and revoked, after which it is invalid."""
    monkeypatch.setenv("TABLE_NAME", stack.table_name)
    key = run("keys", "create", "ada", "--limit-usd", "20", "--json").json["key"]
    second = run("keys", "create", "ada", "--limit-usd", "20", "--name", "laptop").out.strip()
    assert run("keys", "limit", "ada", "9", "--images", "s3://photos/ada/").status == 0
    assert run("keys", "limit", "ada", "9", "--images", "photos").status == 2
    assert run("keys", "limit", "ada", "2.5").out == "ada may spend $2.500 a month.\n"
    caller = stack.store.caller_named("ada")
    assert caller is not None
    assert caller.image_sources == ("photos/ada/",)
    listed = run("keys", "list", "--json").json["keys"]
    assert [(each["caller"], each["name"], each["limit"], each["revokedAt"]) for each in listed] == [
        ("ada", "ada", 2.5, None),
        ("ada", "laptop", 2.5, None),
    ]
    assert key not in json.dumps(listed)
    assert run("keys", "revoke", "--yes", "ada").status == 1
    assert run("keys", "revoke", "--yes", "ada", listed[0]["id"]).status == 0
    assert stack.store.caller(hash_of(key)) is None
    assert stack.store.caller(hash_of(second)) is not None
    listed = run("keys", "list", "--json").json["keys"]
    assert {key["createdAt"] for key in listed} == {
        line.split("\t")[3] for line in run("keys", "list").out.splitlines()[1:]
    }
    assert f"revoked {listed[0]['revokedAt']}" in run("keys", "list").out
    assert run("keys", "revoke", "--yes", "ada").status == 0
    assert stack.store.caller(hash_of(second)) is None
    assert run("keys", "revoke", "--yes", "ada", "--all").status == 1


def test_callers_are_disabled_and_enabled(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller is created with its limit, listed with its state, disabled and enabled; an unknown name is refused."""
    monkeypatch.setenv("TABLE_NAME", stack.table_name)
    assert run("keys", "limit", "events", "20").status == 0
    assert run("callers", "disable", "evnts").status == 1
    for verb, disabled in (("disable", True), ("enable", False)):
        assert run("callers", verb, "events").out == f"events is {verb}d.\n"
        listed = run("callers", "list", "--json").json["callers"]
        assert {"caller": "events", "disabled": disabled, "limit": 20.0, "spent": 0.0} in listed
        assert f"{verb}d" in run("callers", "list").out


def test_a_disabled_callers_key_is_refused(stack: Stack, user: User) -> None:
    """A disabled caller's key gets a 401 for orders and for reads."""
    assert stack.store.disable_caller(user.name)
    headers = {"Authorization": f"Bearer {user.key}"}
    assert http().post(f"{stack.url}/v1", json=[order()], headers=headers).status_code == 401
    assert http().get(f"{stack.url}/tasks", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "Ada!", "--limit-usd", "1"),
        ("create", "ada", "--limit-usd", "-1"),
        ("limit", "ada", "much"),
        ("limit", "ada", "1e39"),
    ],
)
def test_an_invalid_caller_or_limit(stack: Stack, run: Run, arguments: tuple[str, ...]) -> None:
    """An invalid name or limit is refused before anything is written."""
    assert run("keys", *arguments, "--stack", STACK_NAME).status == 2
    assert stack.store.all_keys() == []


def hash_of(key: str) -> str:
    from rushes.domain.caller import hash_key

    return hash_key(key)


def test_forget(stack: Stack, user: User, run: Run) -> None:
    """A finished task is erased, a running one is not."""
    task = order()
    user.post(task)
    assert run("forget", "--yes", user.name, task["taskUUID"], "--stack", STACK_NAME).status == 1
    stack.emulator.finish_all()
    assert stack.emulator.idle(PATIENCE)
    result = run("forget", "--yes", user.name, task["taskUUID"].upper(), "--stack", STACK_NAME, "--json")
    assert (result.status, result.json["deleted"] >= 1) == (0, True)


@dataclass
class RunwareKey:
    """The Runware key in the stack's secret."""

    client: Any
    secret: str

    def read(self) -> str:
        return str(self.client.get_secret_value(SecretId=self.secret)["SecretString"])

    def put(self, key: str) -> None:
        self.client.put_secret_value(SecretId=self.secret, SecretString=key)


@pytest.fixture
def runware_key(stack: Stack, run: Run) -> Iterator[RunwareKey]:
    """The stack's Runware key, restored after the test."""
    key = RunwareKey(
        stack.client("secretsmanager"), run("output", "RunwareSecretArn", "--stack", STACK_NAME).out.strip()
    )
    before = key.read()
    yield key
    key.put(before)


def test_configure_saves_the_key(runware_key: RunwareKey, run: Run) -> None:
    """The typed key is saved in the secret without its line end and is not printed."""
    result = run("configure", "--stack", STACK_NAME, stdin="another-key\n")
    assert result.status == 0, result.err
    assert "another-key" not in result.out + result.err
    assert runware_key.read() == "another-key"


@pytest.mark.parametrize("text", ["", "\n", "two words\n", "schlüssel\n"])
def test_configure_refuses_an_invalid_key(text: str, runware_key: RunwareKey, run: Run) -> None:
    """An invalid key leaves the secret unchanged."""
    runware_key.put("before")
    result = run("configure", "--stack", STACK_NAME, stdin=text)
    assert (result.status, result.err) == (
        2,
        "rushes: An API key must be printable ASCII without spaces; nothing was changed.\n",
    )
    assert runware_key.read() == "before"


def test_redrive_moves_dead_letters_back(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each dead-letter queue is listed with its number of messages, and those with messages are redriven."""
    sqs, url = stack.client("sqs"), run("output", "InboxDeadLettersUrl", "--stack", STACK_NAME).out.strip()
    for text in ("one", "two"):
        sqs.send_message(QueueUrl=url, MessageBody=text)
    moved, original = [], BaseClient._make_api_call

    def call(client: Any, operation: str, parameters: dict[str, str]) -> Any:
        if operation != "StartMessageMoveTask":  # moto has no such operation
            return original(client, operation, parameters)
        moved.append((parameters["SourceArn"], parameters["DestinationArn"]))
        return {}

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    assert run("redrive", "--stack", STACK_NAME).out.splitlines() == [
        "InboxDeadLetters: 2 messages are being moved back",
        "RequestsDeadLetters: 0 messages",
        "UploadsDeadLetters: 0 messages",
        "DeliveriesDeadLetters: 0 messages",
    ]
    queues = (url, run("output", "InboxUrl", "--stack", STACK_NAME).out.strip())
    arns = [sqs.get_queue_attributes(QueueUrl=each, AttributeNames=["QueueArn"])["Attributes"] for each in queues]
    assert moved == [tuple(each["QueueArn"] for each in arns)]
    sqs.purge_queue(QueueUrl=url)
    waiting = run("redrive", "--stack", STACK_NAME, "--json").json["queues"]
    assert [each["messages"] for each in waiting] == [0, 0, 0, 0]
    assert len(moved) == 1


def test_an_unknown_output(stack: Stack, run: Run) -> None:
    """An unknown output is named in one line."""
    result = run("output", "Nothing", "--stack", STACK_NAME)
    assert (result.status, result.out, result.err) == (
        1,
        "",
        "rushes: The stack has no output Nothing: template.yaml lists its outputs.\n",
    )


def test_an_aws_error_is_one_line(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown stack, no stack and no credentials each end with one sentence and an exit status."""
    result = run("check", "--stack", "no-such-stack")
    assert (result.status, result.err.count("\n")) == (1, 1)
    assert run("check").status == 5
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    result = run("keys", "list", "--stack", STACK_NAME)
    assert (result.status, result.err) == (5, "rushes: No AWS credentials were found.\n")
