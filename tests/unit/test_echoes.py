"""What Runware echoes of our secrets, in any phrase and encoding, and every place where somebody could read it."""

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


def escaped(text: str) -> str:
    """As JSON may write it: every character by its number."""
    return "".join(f"\\u{ord(character):04x}" for character in text)


def pairs(form: str) -> Callable[[str], str]:
    """A link taken apart: only the members of its query are told."""

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
    "JSON, by number": escaped,
    "HTML": html.escape,
    "HTML, by number": lambda link: "".join(f"&#x{ord(character):x};" for character in link),
    "percent in JSON": lambda link: escaped(quote(link, safe="")),
    "JSON in percent": lambda link: quote(escaped(link), safe=""),
    "HTML in percent": lambda link: quote(html.escape(link), safe=""),
    "pairs with a sign": pairs("{}={}"),
    "pairs with an arrow": pairs("{} -> {}"),
    "pairs with words": pairs("{} is {}"),
    "pairs in lists": pairs('["{}", "{}"]'),
    "pairs in objects": pairs('{{"name": "{}", "value": "{}"}}'),
}
WRAPPINGS = ["could not reach {}", "redirect%3Furl%3D{}", "<a href=\"{}\">the file</a>, which was 403"]  # fmt: skip
ECHOES = list(product(ENCODINGS, WRAPPINGS, ["webhookURL", "uploadEndpoint"]))


@dataclass
class Presigning(FakeBucket):
    """A bucket whose upload links are as S3's."""

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
    """Runware, which answers each order with `status`, `code` and what `words` make of the order."""

    status: int
    code: str
    words: Callable[[dict[str, Any]], str]
    sent: dict[str, Any] = field(default_factory=dict)

    def answer(self, asked: httpx.Request) -> httpx.Response:
        (self.sent,) = json.loads(asked.content)
        said = self.words(self.sent)
        error = {"code": self.code, "message": said, "taskUUID": self.sent["taskUUID"], "responseContent": [said]}
        return httpx.Response(self.status, json={"data": [], "errors": [error]})

    def runware(self) -> Any:
        http = httpx.Client(transport=transport(self.answer))
        return RunwareClient(http, "https://api.runware.example/v1")


def bought(runware: Echoing) -> tuple[UseCases, list[str]]:
    """A world after one order, and all that its caller and its operators may read of it."""
    world = UseCases(bucket=Presigning(), runware=runware.runware())
    call = world.call()
    credentials = type(call.buyer.credentials)(KEY, ["signing-key"])
    buyer = type(call.buyer)("holder", call.buyer.ends_at, credentials)
    answer = world.submit_service.submit([request()], type(call)(world.caller, buyer))
    poll = world.submit_service.submit([{"taskType": "getResponse", "taskUUID": TASK_UUID}], call)
    again = world.submit_service.submit([request()], call)
    return world, [str(each.body) for each in (answer, poll, again)] + list(readable(world, world.row()))


def readable(world: UseCases, known: Clip) -> Iterator[str]:
    """What is told of a clip outside, and logged."""
    yield str(world.query_service.task(world.caller, TASK_UUID))
    yield str(timeline(known))
    news = event_of(known)
    if news:
        yield str(detail(known, news, {}, "bucket", None))
    yield str(world.telemetry.notes)
    yield str(known.facts)


def secrets(sent: dict[str, Any]) -> list[str]:
    """What nobody may read, however often a text is decoded."""
    token = dict(parse_qsl(urlsplit(sent["webhookURL"]).query))["token"]
    return [KEY, token, token.rpartition(".")[2], SIGNATURE, SESSION]


def leaked(text: str, hidden: list[str]) -> list[str]:
    """The secrets that stand in a text, or in what becomes of it when it is decoded."""
    found = set()
    for _ in range(6):
        found |= {secret for secret in hidden if secret.lower() in text.lower()}
        text = html.unescape(unquote(text))
        text = re.sub(r"\\+u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), text).replace("\\", "")
    return sorted(found)


@pytest.mark.parametrize("phrase", PHRASES)
@pytest.mark.parametrize(("status", "code"), [(401, "invalidApiKey"), (400, "invalidValue"), (200, "promptBlocked")])
def test_our_key_stays_with_us(phrase: str, status: int, code: str) -> None:
    """However Runware phrases it, and whatever it calls the trouble, nobody reads our key anywhere."""
    runware = Echoing(status, code, lambda _: phrase.format(KEY))
    _, texts = bought(runware)
    assert [leaked(text, [KEY]) for text in texts] == [[]] * len(texts)


@pytest.mark.parametrize(("encoding", "wrapping", "link"), ECHOES)
def test_our_links_stay_with_us(encoding: str, wrapping: str, link: str) -> None:
    """However a link of the order is written in the refusal, nobody reads its token or signature anywhere."""
    runware = Echoing(400, "invalidValue", lambda sent: wrapping.format(ENCODINGS[encoding](sent[link])))
    _, texts = bought(runware)
    assert [leaked(text, secrets(runware.sent)) for text in texts] == [[]] * len(texts)


@pytest.mark.parametrize(("encoding", "wrapping", "link"), ECHOES)
def test_nor_do_webhooks_and_polls_tell_them(encoding: str, wrapping: str, link: str) -> None:
    """A render that failed may echo the links of an order that another process sent long ago."""
    runware = Echoing(500, "internalServerError", lambda _: "no")
    world, _ = bought(runware)
    said = wrapping.format(ENCODINGS[encoding](runware.sent[link]))
    clip_uuid = runware.sent["taskUUID"]
    error = {"code": "inferenceError", "message": said, "taskUUID": clip_uuid, "responseContent": [said]}
    body = json.dumps({"errors": [error]}).encode()
    token = dict(parse_qsl(urlsplit(runware.sent["webhookURL"]).query))["token"]
    closed = [fact(Kind.LAST_LOOK)]
    by_webhook = merge_all(world.webhook_service.receive(body, "ann", TASK_UUID, 0, token), closed)
    answering = transport(lambda _: httpx.Response(200, content=body))
    report = RunwareClient(httpx.Client(transport=answering), "https://api.runware.example/v1").poll([clip_uuid], KEY)
    by_poll = merge_all(clip(), [*poll_facts(report.envelope.about(clip_uuid), 0), *closed])
    for known in (by_webhook, by_poll):
        assert known.decisive == Kind.FAILED
        assert [leaked(text, secrets(runware.sent)) for text in readable(world, known)] == [[]] * 5


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_webhook_does_not_tell_our_key(phrase: str) -> None:
    """Where our key is not at hand, it is known by its shape."""
    runware = Echoing(500, "internalServerError", lambda _: "no")
    world, _ = bought(runware)
    error = {"code": "inferenceError", "message": phrase.format(KEY), "taskUUID": runware.sent["taskUUID"]}
    known = world.webhook_service.receive(json.dumps(error).encode(), "ann", TASK_UUID, 0, "t" * 50)
    assert [leaked(text, [KEY]) for text in readable(world, known)] == [[]] * 4


@pytest.mark.parametrize(("status", "code"), [(401, "whatever"), (402, "x"), (403, "invalidModel"), (400, "noCredits")])
def test_our_accounts_trouble_is_told_to_operators_alone(status: int, code: str) -> None:
    """A caller reads that the operator has to act, in the timeline as well; the log has Runware's words."""
    _, texts = bought(Echoing(status, code, lambda _: "Your balance is 0.17 dollars, Mr Smith"))
    *told, notes, _ = texts
    assert "Smith" in notes
    assert not [text for text in told if "Smith" in text]
    assert all("operator" in text for text in told[:-2])


def test_what_was_recorded_before_is_hidden_as_well() -> None:
    """Records of earlier versions hold the provider's words of our account."""
    old = {"httpStatus": 401, "category": "auth", "message": "Smith", "error": '{"message":"Smith"}'}
    refused = clip(fact(Kind.REFUSED, "invalidApiKey", **old))
    failed = clip(
        fact(Kind.FAILED, "noCredits", **{**old, "httpStatus": 200, "category": "quota"}), fact(Kind.LAST_LOOK)
    )
    for known in (refused, failed):
        world = UseCases()
        world.table.put(known)
        assert not [text for text in list(readable(world, known))[:4] if "Smith" in text]
        _, ((_, error),) = world.query_service.poll("ann", TASK_UUID)
        assert "Smith" not in str(error)


def test_a_code_is_never_made_into_another() -> None:
    """Whoever orders decides what its images' addresses hold: not what a conflict is called."""
    runware = Echoing(400, "conflictTaskUUID", lambda _: "known")
    world = UseCases(runware=runware.runware())
    image = "https://a.example/b.png?x=conflictTaskUUID"
    world.submit_service.submit([request(inputs={"frameImages": [image]})], world.call())
    assert world.row().decisive == Kind.ACCEPTED


def test_a_secret_is_not_cut_in_half() -> None:
    """What is too long is cut after its secrets are out, and never through one."""
    for length in (2000, 2030, 16_350, 16_384):
        runware = Echoing(400, "invalidValue", lambda _, length=length: "x" * length + " " + KEY)
        _, texts = bought(runware)
        assert not [text for text in texts if KEY[:8] in text]
