"""What `klingai:5@3` accepts and answers never changes: requests and their answers, as recorded."""

import json
from pathlib import Path

import pytest

from rushes.services.submit import price
from tests.fakes.use_cases import UseCases

RECORDED = Path(__file__).parent / "recorded" / "klingai-5@3.jsonl"
LINES = RECORDED.read_text(encoding="utf-8").splitlines()


def test_two_hundred_answers_are_recorded() -> None:
    """Good and bad requests are among them."""
    statuses = [json.loads(line)["status"] for line in LINES]
    assert len(LINES) >= 200
    assert min(statuses.count(200), statuses.count(400)) >= 50


@pytest.mark.parametrize("line", LINES, ids=range(1, len(LINES) + 1))
def test_an_answer_is_the_recorded_one(line: str) -> None:
    """The answer to a dry run is the recorded one, byte for byte."""
    world, recorded = UseCases(), json.loads(line)
    answer = price(recorded["tasks"], world.caller._replace(signs_webhooks=True), world.bucket)
    assert json.dumps(answer.body) == json.dumps(recorded["answer"])
    assert answer.status == recorded["status"]
