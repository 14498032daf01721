"""Runware's echoes of our secrets, in any phrase and encoding, and every text that could show them."""

import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import httpx
import pytest

from rushes.adapters.runware_api import RunwareClient
from rushes.domain.clip import Clip, Kind, merge_all
from rushes.domain.views import timeline
from rushes.runware.facts import poll_facts
from rushes.services.publish import detail, event_of
from tests.fakes.builders import TASK_UUID, clip, fact, request
from tests.fakes.use_cases import FakeBucket, UseCases, transport

KEY = "Kq7vR2mX9tLw4ZcN8bHs3JdF6gPy1AeU"
SIGNATURE = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
SESSION = "IQoJb3JpZ2luX2VjEHkaCWV1LXdlc3QtMSJH+mEUCIQDk3nS/x0Zt5b7yQhGvA4wP=="

PHRASES = [
    "Invalid API key: {}",
    "Invalid API key {}",
    "Invalid API key '{}'.",
    'Invalid API key "{}"',
    "Invalid API key ({})",
    "Invalid API key [{}]",
    "Invalid API key <{}>",
    "Invalid API key `{}`, see https://my.runware.ai/keys",
    "invalid api-key: {}",
    "Invalid apiKey={}",
    "Invalid apiKey -> {}",
    "API key {} is invalid",
    "The API key provided ({}) is not valid.",
    "{} is not a valid API key",
    "'{}': unknown API key",
    "Key {} has been revoked",
    "key={}&model=x: forbidden",
    "Unauthorized: {}",
    "authentication failed for {}",
    "No account for credentials {}",
    "Bearer {}: expired",
    "Authorization header 'Bearer {}' was refused",
    '{{"apiKey": "{}"}} was refused',
    "%7B%22apiKey%22%3A%22{}%22%7D was refused",
]


def escape_json(text: str) -> str:
    """The text as JSON with every character as an escape."""
    return "".join(f"\\u{ord(character):04x}" for character in text)


def as_pairs(form: str) -> Callable[[str], str]:
    """A link as the pairs of its query, each in the given form."""

    def split(link: str) -> str:
        return "; ".join(form.format(*pair) for pair in parse_qsl(urlsplit(link).query))

    return split


ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent": lambda link: quote(link, safe=""),
    "percent, twice": lambda link: quote(quote(link, safe=""), safe=""),
    "percent, lower case": lambda link: re.sub("%..", lambda code: code[0].lower(), quote(link, safe="")),
    "JSON": lambda link: json.dumps(link).replace("/", "\\/"),
    "JSON, twice": lambda link: json.dumps(json.dumps(link).replace("/", "\\/")),
    "JSON, by number": escape_json,
    "HTML": html.escape,
    "HTML, by number": lambda link: "".join(f"&#x{ord(character):x};" for character in link),
    "percent in JSON": lambda link: escape_json(quote(link, safe="")),
    "JSON in percent": lambda link: quote(escape_json(link), safe=""),
    "HTML in percent": lambda link: quote(html.escape(link), safe=""),
    "pairs with a sign": as_pairs("{}={}"),
    "pairs with an arrow": as_pairs("{} -> {}"),
    "pairs with words": as_pairs("{} is {}"),
    "pairs in lists": as_pairs('["{}", "{}"]'),
    "pairs in objects": as_pairs('{{"name": "{}", "value": "{}"}}'),
}
WRAPPINGS = ["could not reach {}", "redirect%3Furl%3D{}", "<a href=\"{}\">the file</a>, which was 403"]  # fmt: skip
ECHOES = list(product(ENCODINGS, WRAPPINGS, ["webhookURL", "uploadEndpoint"]))


@dataclass
class Presigning(FakeBucket):
    """A bucket whose upload links are like S3's."""

    def __post_init__(self) -> None:
        super().__init__()

    def upload_link(self, key: str, seconds: int) -> str:
        return (
            f"https://bucket.s3.eu-central-1.amazonaws.com/{key}?X-Amz-Algorithm=AWS4-HMAC-SHA256"
            f"&X-Amz-Credential=ASIAZ7Q2EXAMPLE4K5TN%2F20260921%2Feu-central-1%2Fs3%2Faws4_request"
            f"&X-Amz-Date=20260921T143320Z&X-Amz-Expires={seconds}&X-Amz-SignedHeaders=host"
            f"&X-Amz-Security-Token={quote(SESSION, safe='')}&X-Amz-Signature={SIGNATURE}"
        )


@dataclass
class Echoing:
    """Runware, which answers each order with `status`, `code` and a message that `words` makes of the order."""

    status: int
    code: str
    words: Callable[[dict[str, Any]], str]
    sent: dict[str, Any] = field(default_factory=dict)

    def answer(self, received: httpx.Request) -> httpx.Response:
        (self.sent,) = json.loads(received.content)
        message = self.words(self.sent)
        error = {"code": self.code, "message": message, "taskUUID": self.sent["taskUUID"], "responseContent": [message]}
        return httpx.Response(self.status, json={"data": [], "errors": [error]})

    def runware(self) -> Any:
        http = httpx.Client(transport=transport(self.answer))
        return RunwareClient(http, "https://api.runware.example/v1")


def buy(runware: Echoing) -> tuple[UseCases, list[str]]:
    """Buys one clip; returns the fakes and every text that its caller and the operators can read."""
    world = UseCases(bucket=Presigning(), runware=runware.runware())
    call = world.call()
    credentials = type(call.buyer.credentials)(KEY, ["signing-key"])
    buyer = type(call.buyer)("holder", call.buyer.ends_at, credentials)
    answer = world.submit_service.submit([request()], type(call)(world.caller, buyer))
    poll = world.submit_service.submit([{"taskType": "getResponse", "taskUUID": TASK_UUID}], call)
    repeat = world.submit_service.submit([request()], call)
    return world, [str(each.body) for each in (answer, poll, repeat)] + list(readable_texts(world, world.row()))


def readable_texts(world: UseCases, row: Clip) -> Iterator[str]:
    """The texts about a clip that the API, the events and the logs have."""
    yield str(world.query_service.task(world.caller, TASK_UUID))
    yield str(timeline(row))
    event = event_of(row)
    if event:
        yield str(detail(row, event, {}, "bucket", None))
    yield str(world.telemetry.logs)
    yield str(row.facts)


def secrets_of(sent: dict[str, Any]) -> list[str]:
    """The secrets of an order, which no text may contain, encoded or not."""
    token = dict(parse_qsl(urlsplit(sent["webhookURL"]).query))["token"]
    return [KEY, token, token.rpartition(".")[2], SIGNATURE, SESSION]


def leaked(text: str, hidden: list[str]) -> list[str]:
    """The secrets in a text, also after repeated decoding."""
    found = set()
    for _ in range(6):
        found |= {secret for secret in hidden if secret.lower() in text.lower()}
        text = html.unescape(unquote(text))
        text = re.sub(r"\\+u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), text).replace("\\", "")
    return sorted(found)


@pytest.mark.parametrize("phrase", PHRASES)
@pytest.mark.parametrize(("status", "code"), [(401, "invalidApiKey"), (400, "invalidValue"), (200, "promptBlocked")])
def test_the_runware_key_is_never_shown(phrase: str, status: int, code: str) -> None:
    """Whatever phrase and code Runware uses, no text contains the key."""
    runware = Echoing(status, code, lambda _: phrase.format(KEY))
    _, texts = buy(runware)
    assert [leaked(text, [KEY]) for text in texts] == [[]] * len(texts)


@pytest.mark.parametrize(("encoding", "wrapping", "link"), ECHOES)
def test_links_of_the_order_are_never_shown(encoding: str, wrapping: str, link: str) -> None:
    """In whatever encoding a refusal has a link of the order, no text contains its token or signature."""
    runware = Echoing(400, "invalidValue", lambda sent: wrapping.format(ENCODINGS[encoding](sent[link])))
    _, texts = buy(runware)
    assert [leaked(text, secrets_of(runware.sent)) for text in texts] == [[]] * len(texts)


@pytest.mark.parametrize(("encoding", "wrapping", "link"), ECHOES)
def test_links_echoed_by_webhooks_and_polls_are_never_shown(encoding: str, wrapping: str, link: str) -> None:
    """A failed render may echo the links of an order that another process sent long ago."""
    runware = Echoing(500, "internalServerError", lambda _: "no")
    world, _ = buy(runware)
    message = wrapping.format(ENCODINGS[encoding](runware.sent[link]))
    clip_uuid = runware.sent["taskUUID"]
    error = {"code": "inferenceError", "message": message, "taskUUID": clip_uuid, "responseContent": [message]}
    body = json.dumps({"errors": [error]}).encode()
    token = dict(parse_qsl(urlsplit(runware.sent["webhookURL"]).query))["token"]
    last_look = [fact(Kind.LAST_LOOK)]
    by_webhook = merge_all(world.webhook_service.receive(body, "ann", TASK_UUID, 0, token), last_look)
    answering = transport(lambda _: httpx.Response(200, content=body))
    report = RunwareClient(httpx.Client(transport=answering), "https://api.runware.example/v1").poll([clip_uuid], KEY)
    by_poll = merge_all(clip(), [*poll_facts(report.envelope.about(clip_uuid), 0), *last_look])
    for clip_after in (by_webhook, by_poll):
        assert clip_after.decisive == Kind.FAILED
        assert [leaked(text, secrets_of(runware.sent)) for text in readable_texts(world, clip_after)] == [[]] * 5


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_key_echoed_by_a_webhook_is_never_shown(phrase: str) -> None:
    """Without access to the key, a webhook's text is searched for anything of its shape."""
    runware = Echoing(500, "internalServerError", lambda _: "no")
    world, _ = buy(runware)
    error = {"code": "inferenceError", "message": phrase.format(KEY), "taskUUID": runware.sent["taskUUID"]}
    clip_after = world.webhook_service.receive(json.dumps(error).encode(), "ann", TASK_UUID, 0, "t" * 50)
    assert [leaked(text, [KEY]) for text in readable_texts(world, clip_after)] == [[]] * 4


@pytest.mark.parametrize(("status", "code"), [(401, "whatever"), (402, "x"), (403, "invalidModel"), (400, "noCredits")])
def test_account_refusals_are_shown_to_operators_alone(status: int, code: str) -> None:
    """The caller reads, also in the timeline, that the operator has to act; only the log has Runware's message."""
    _, texts = buy(Echoing(status, code, lambda _: "Your balance is 0.17 dollars, Mr Smith"))
    *shown, logged, _ = texts
    assert "Smith" in logged
    assert not [text for text in shown if "Smith" in text]
    assert all("operator" in text for text in shown[:-2])


def test_account_refusals_in_old_records_are_hidden() -> None:
    """Records of earlier versions have the provider's message about our account."""
    old = {"httpStatus": 401, "category": "auth", "message": "Smith", "error": '{"message":"Smith"}'}
    refused = clip(fact(Kind.REFUSED, "invalidApiKey", **old))
    failed = clip(
        fact(Kind.FAILED, "noCredits", **{**old, "httpStatus": 200, "category": "quota"}), fact(Kind.LAST_LOOK)
    )
    for recorded in (refused, failed):
        world = UseCases()
        world.table.put(recorded)
        assert not [text for text in list(readable_texts(world, recorded))[:4] if "Smith" in text]
        _, ((_, error),) = world.query_service.poll("ann", TASK_UUID)
        assert "Smith" not in str(error)


def test_redaction_never_changes_an_error_code() -> None:
    """A caller chooses its images' addresses, and must not be able to change the code of a conflict."""
    runware = Echoing(400, "conflictTaskUUID", lambda _: "known")
    world = UseCases(runware=runware.runware())
    image = "https://a.example/b.png?x=conflictTaskUUID"
    world.submit_service.submit([request(inputs={"frameImages": [image]})], world.call())
    assert world.row().decisive == Kind.ACCEPTED


def test_a_secret_is_not_cut_in_half() -> None:
    """A long text is cut after its secrets are removed, so that no part of one stays."""
    for length in (2000, 2030, 16_350, 16_384):
        runware = Echoing(400, "invalidValue", lambda _, length=length: "x" * length + " " + KEY)
        _, texts = buy(runware)
        assert not [text for text in texts if KEY[:8] in text]
