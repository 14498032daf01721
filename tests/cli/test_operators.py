"""An operator's verbs, run against the table and the bucket of the local stack."""

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


def told(user: User, clip: Clip, *facts: Fact) -> Clip:
    """The clip, once these facts were learned."""
    store = user.stack.store
    return update_clip(
        store, clip, lambda now: merge_all(now, facts), now=clock(), times=TIMES, telemetry=NoTelemetry()
    )


def fact(kind: Kind, key: str = "", **fields: Any) -> Fact:
    return Fact(kind=kind, key=key, at=clock(), source=FactSource.CLOCK, fields=fields)


def unproven(user: User) -> Clip:
    """A clip of which nobody knows whether it was bought."""
    return told(user, user.buy(), fact(Kind.UNPROVEN, reason="an attempt may have arrived"))


def unsaved(user: User) -> Clip:
    """A clip that was rendered, and of which there is no copy."""
    return told(user, user.buy(), fact(Kind.RENDERED, "v", cost=924_000), fact(Kind.UNSAVED, reason="no copy"))


def name(clip: Clip) -> tuple[str, ...]:
    return clip.caller, clip.task_uuid, str(clip.index), "--stack", STACK_NAME


def test_review_lists_what_waits_with_its_evidence(stack: Stack, user: User, run: Run) -> None:
    """Every parked clip is listed with its story, for people and for scripts; nothing else is."""
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
    """An operator sees what each caller's clips count, one caller's tasks apart from another's of the same UUID."""
    other = stack.create_key("someone-else", limit_usd=10)
    same = order(numberResults=2, tags={"project": "fox"})
    user.post(same)
    user.buy()
    headers = {"Authorization": f"Bearer {other}"}
    assert http().post(f"{stack.url}/v1", json=[{**same, "numberResults": 1}], headers=headers).status_code == 200
    found = run("cost", "--by", "caller", "--stack", STACK_NAME, "--json").json
    theirs = {"name": "someone-else", "tasks": 1, "clips": 1, "cost": 0.924}
    assert {"name": user.name, "tasks": 2, "clips": 3, "cost": 2.772} in found["groups"]
    assert theirs in found["groups"]
    assert found["budget"] is None
    only = run("cost", "--by", "caller", "--tag", "project=fox", "--stack", STACK_NAME, "--csv").out
    assert f"{user.name},1,2,1.848000" in only.splitlines()
    assert run("cost", "--by", "caller", "--until", "2026-01-02", "--since", "2026-01-01").status != 0


def test_giving_up_releases_what_was_not_bought(stack: Stack, user: User, run: Run) -> None:
    """An unproven clip that is given up has failed, with the operator's reason, and its money is back."""
    clip = unproven(user)
    assert user.counted(clip) == 924_000
    ran = run("review", "give-up", *name(clip), "--reason", "Runware knows nothing of it.", "--json")
    assert ran.status == 0, ran.err
    assert (ran.json["status"], ran.json["open"], ran.json["cost"]) == ("failed", False, 0.0)
    now = user.now(clip)
    assert (now.status, now.open, now.next_check_at) == (Status.FAILED, False, None)
    assert now.of(Kind.FAILED)["givenUp"].fields["message"] == "Runware knows nothing of it."
    assert list(now.of(Kind.FAILED)["givenUp"].seen) == [FactSource.OPERATOR]
    assert user.counted(clip) == 0
    assert run("review", "give-up", *name(clip)).err.endswith("not in review; nothing was decided.\n")


@pytest.mark.parametrize("parked", [unproven, unsaved])
def test_asking_again(user: User, run: Run, parked: Callable[[User], Clip]) -> None:
    """A clip in review is due for the next sweep, by an operator's word, and stays in review with its money."""
    clip = parked(user)
    ran = run("review", "ask", *name(clip), "--json")
    assert ran.status == 0, ran.err
    assert (ran.json["status"], ran.json["open"], ran.json["cost"]) == ("review", True, 0.924)
    now = user.now(clip)
    assert [known.seen.keys() for known in now.of(Kind.ASKED).values()] == [{FactSource.OPERATOR}]
    assert [named[1] for named in user.stack.store.due(clock() + 60_000, 10)] == [clip.task_uuid]
    assert run("review", "--stack", STACK_NAME, "--json").json["clips"] == []
    told(user, now, fact(Kind.ANSWERED, *now.of(Kind.ASKED), reason="nothing new"))
    out = run("review", "--stack", STACK_NAME).out
    assert "An operator requested another check of the bucket and Runware." in out
    assert "The requested check is complete: nothing new." in out
    assert run("review", "ask", *name(told(user, user.now(clip), fact(Kind.STORED, "1", size=9)))).status != 0


def test_giving_up_a_render_keeps_its_price(stack: Stack, user: User, run: Run) -> None:
    """A rendered clip whose copy is given up has failed and stays paid for; a copy that comes outranks that."""
    clip = unsaved(user)
    assert run("review", "give-up", *name(clip)).status == 0
    now = user.now(clip)
    assert (now.status, now.open, user.counted(clip)) == (Status.FAILED, False, 924_000)
    assert told(user, now, fact(Kind.STORED, "1", size=9)).status == Status.STORED


def test_a_copy_settles_a_review(stack: Stack, user: User, run: Run, tmp_path: Path) -> None:
    """A video under the clip's key, or in a file, makes it stored; anything else decides nothing."""
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
    ran = run("review", "stored", *name(clip), "--file", str(right), "--json")
    assert ran.json["status"] == "stored"
    now = user.now(clip)
    assert now.open  # its seed and its cost are still asked for
    assert now.copy is not None
    assert now.copy[1].fields["size"] == len(video)
    assert FactSource.OPERATOR in now.copy[1].seen


def test_an_unknown_clip(stack: Stack, user: User, run: Run) -> None:
    """Neither an unknown clip nor a UUID that is none is decided about."""
    clip = unproven(user)
    assert run("review", "give-up", clip.caller, clip.task_uuid, "3", "--stack", STACK_NAME).status == 1
    assert run("review", "give-up", clip.caller, "x", "0", "--stack", STACK_NAME).status == 2


def test_an_operator_says_where_images_may_lie(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The places of a caller's images come with its key, and a further key without any leaves them as they are."""
    monkeypatch.setenv("TABLE_NAME", stack.table_name)

    def create(limit: int, *places: str) -> Caller | None:
        images = [word for place in places for word in ("--images", place)]
        assert run("keys", "create", "ada", "--limit-usd", str(limit), *images).status == 0
        return stack.store.caller_named("ada")

    assert create(20, "s3://photos/ada/", "s3://film/") == Caller("ada", 20_000_000, ("photos/ada/", "film/"))
    assert create(30) == Caller("ada", 30_000_000, ("photos/ada/", "film/"))
    assert create(30, "s3://film/") == Caller("ada", 30_000_000, ("film/",))


@pytest.mark.parametrize("place", ["photos/ada", "s3://photos", "s3:///ada", "https://photos/ada", ""])
def test_a_place_that_is_none(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """What is not a bucket with a prefix is refused before a key is made: a bare name could begin others."""
    monkeypatch.setenv("TABLE_NAME", stack.table_name)
    before = whole_table(stack)
    assert run("keys", "create", "ada", "--limit-usd", "20", "--images", place).status == 2
    assert whole_table(stack) == before


def test_keys(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is made, listed without the key itself, given another limit, and revoked; then it opens nothing."""
    monkeypatch.setenv("TABLE_NAME", stack.table_name)
    key = run("keys", "create", "ada", "--limit-usd", "20", "--json").json["key"]
    second = run("keys", "create", "ada", "--limit-usd", "20", "--name", "laptop").out.strip()
    assert run("keys", "limit", "ada", "9", "--images", "s3://photos/ada/").status == 0
    assert run("keys", "limit", "ada", "9", "--images", "photos").status == 2
    assert run("keys", "limit", "ada", "2.5").out == "ada may spend $2.500 a month.\n"
    known = stack.store.caller_named("ada")
    assert known is not None
    assert known.image_sources == ("photos/ada/",)
    listed = run("keys", "list", "--json").json["keys"]
    assert [(each["caller"], each["name"], each["limit"], each["revokedAt"]) for each in listed] == [
        ("ada", "ada", 2.5, None),
        ("ada", "laptop", 2.5, None),
    ]
    assert key not in json.dumps(listed)
    assert run("keys", "revoke", "ada").status == 1
    assert run("keys", "revoke", "ada", listed[0]["id"]).status == 0
    assert stack.store.caller(hash_of(key)) is None
    assert stack.store.caller(hash_of(second)) is not None
    assert "revoked 20" in run("keys", "list").out
    assert run("keys", "revoke", "ada").status == 0
    assert stack.store.caller(hash_of(second)) is None
    assert run("keys", "revoke", "ada", "--all").status == 1


def test_callers_are_disabled_and_enabled(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller is made by its limit, listed with its state, and a name that is none is no caller to disable."""
    monkeypatch.setenv("TABLE_NAME", stack.table_name)
    assert run("keys", "limit", "events", "20").status == 0
    assert run("callers", "disable", "evnts").status == 1
    for verb, disabled in (("disable", True), ("enable", False)):
        assert run("callers", verb, "events").out == f"events is {verb}d.\n"
        listed = run("callers", "list", "--json").json["callers"]
        assert {"caller": "events", "disabled": disabled, "limit": 20.0, "spent": 0.0} in listed
        assert f"{verb}d" in run("callers", "list").out


def test_a_disabled_caller_is_let_in_by_no_key(stack: Stack, user: User) -> None:
    """Its valid key is answered as one that is none, to order and to read."""
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
def test_what_cannot_be_a_caller(stack: Stack, run: Run, arguments: tuple[str, ...]) -> None:
    """A name or a limit that cannot be one is refused before anything is written."""
    assert run("keys", *arguments, "--stack", STACK_NAME).status == 2
    assert stack.store.all_keys() == []


def hash_of(key: str) -> str:
    from rushes.domain.caller import hash_key

    return hash_key(key)


def test_forget(stack: Stack, user: User, run: Run) -> None:
    """A finished task is erased, one under way is not."""
    task = order()
    user.post(task)
    assert run("forget", user.name, task["taskUUID"], "--stack", STACK_NAME).status == 1
    stack.emulator.finish_all()
    assert stack.emulator.idle(PATIENCE)
    ran = run("forget", user.name, task["taskUUID"].upper(), "--stack", STACK_NAME, "--json")
    assert (ran.status, ran.json["deleted"] >= 1) == (0, True)


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
    """Afterwards the key is what it was."""
    key = RunwareKey(
        stack.client("secretsmanager"), run("output", "RunwareSecretArn", "--stack", STACK_NAME).out.strip()
    )
    before = key.read()
    yield key
    key.put(before)


def test_configure_puts_the_key_into_the_secret(runware_key: RunwareKey, run: Run) -> None:
    """What is typed ends up in the secret, without its line end, and is not shown again."""
    ran = run("configure", "--stack", STACK_NAME, stdin="another-key\n")
    assert ran.status == 0, ran.err
    assert "another-key" not in ran.out + ran.err
    assert runware_key.read() == "another-key"


@pytest.mark.parametrize("text", ["", "\n", "two words\n", "schlüssel\n"])
def test_configure_takes_nothing_that_cannot_be_a_key(text: str, runware_key: RunwareKey, run: Run) -> None:
    """A slip of the keyboard leaves the secret as it was."""
    runware_key.put("before")
    ran = run("configure", "--stack", STACK_NAME, stdin=text)
    assert (ran.status, ran.err) == (
        2,
        "rushes: An API key must be printable ASCII without spaces; nothing was changed.\n",
    )
    assert runware_key.read() == "before"


def test_redrive_sends_back_what_waits(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each dead-letter queue of the stack is named with what it holds, and only those that hold any are emptied."""
    sqs, url = stack.client("sqs"), run("output", "InboxDeadLettersUrl", "--stack", STACK_NAME).out.strip()
    for text in ("one", "two"):
        sqs.send_message(QueueUrl=url, MessageBody=text)
    moved, genuine = [], BaseClient._make_api_call

    def call(client: Any, operation: str, parameters: dict[str, str]) -> Any:
        if operation != "StartMessageMoveTask":  # which moto does not know
            return genuine(client, operation, parameters)
        moved.append((parameters["SourceArn"], parameters["DestinationArn"]))
        return {}

    monkeypatch.setattr(BaseClient, "_make_api_call", call)
    assert run("redrive", "--stack", STACK_NAME).out.splitlines() == [
        "InboxDeadLetters: 2 messages are being moved back",
        "RequestsDeadLetters: 0 messages",
        "UploadsDeadLetters: 0 messages",
    ]
    queues = (url, run("output", "InboxUrl", "--stack", STACK_NAME).out.strip())
    arns = [sqs.get_queue_attributes(QueueUrl=each, AttributeNames=["QueueArn"])["Attributes"] for each in queues]
    assert moved == [tuple(each["QueueArn"] for each in arns)]
    sqs.purge_queue(QueueUrl=url)
    waiting = run("redrive", "--stack", STACK_NAME, "--json").json["queues"]
    assert [each["messages"] for each in waiting] == [0, 0, 0]
    assert len(moved) == 1


def test_an_output_that_there_is_not(stack: Stack, run: Run) -> None:
    """An unknown output is named in one line."""
    ran = run("output", "Nothing", "--stack", STACK_NAME)
    assert (ran.status, ran.out, ran.err) == (
        1,
        "",
        "rushes: The stack has no output Nothing: template.yaml lists its outputs.\n",
    )


def test_what_aws_says_is_one_line(stack: Stack, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stack of that name, no word on which, no credentials: a sentence and an exit status."""
    ran = run("check", "--stack", "no-such-stack")
    assert (ran.status, ran.err.count("\n")) == (1, 1)
    assert run("check").status == 5
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    ran = run("keys", "list", "--stack", STACK_NAME)
    assert (ran.status, ran.err) == (5, "rushes: No AWS credentials were found.\n")
