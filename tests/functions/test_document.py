"""The functions answer as docs/openapi.json promises, for valid and invalid requests."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rushes.domain.clip import Kind, merge_all
from rushes.runware import models
from scripts.openapi import DOCUMENT
from tests.conftest import PATIENCE, Json, User, order
from tests.fakes.builders import fact

# Not `positive_data_acceptance`: a schema cannot express that width and height go together, or which dates exist.
# Not `unsupported_method`: API Gateway answers 404, not 405.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ensure_resource_availability",
    "ignored_auth",
]


@cache
def document() -> Json:
    """The document with `additionalProperties: false` in every answer, which clients must not assume."""
    content: Json = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    for schema in content["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return content


def faults(name: str, answer: Any) -> list[str]:
    """The differences between an answer and a component of the document."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document()["components"]}
    return [error.message for error in Draft202012Validator(schema).iter_errors(answer)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "phases", ["examples,fuzzing,stateful", pytest.param("coverage,examples,fuzzing,stateful", marks=pytest.mark.batch)]
)
def test_every_answer_is_documented(phases: str, user: User, tmp_path: Path) -> None:
    """No route gives a 5xx or an undocumented answer, accepts bad input, or works without the key.

    Bounded and deterministic; the last phase follows links from answers to further requests. The coverage phase, with
    every parameter at every limit, takes most of the time.
    """
    (tmp_path / "openapi.json").write_text(json.dumps(document()))
    command = [
        Path(sys.executable).with_name("schemathesis"),
        *("run", "openapi.json", "--url", user.stack.url, "--header", f"Authorization: Bearer {user.key}"),
        *("--checks", ",".join(CHECKS), "--phases", phases, "--max-examples", "10", "--seed", "1"),
        *("--no-color", "--warnings", "off", "--no-shrink"),
    ]
    environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr[-2000:]
    assert "API Links:" in run.stdout, "no links were followed"
    # Most requests are refused, so few purchases remain besides that of the document's example.
    assert 0 < len(user.stack.emulator.requests()) < 200


def test_answers_about_clips_have_only_documented_fields(user: User) -> None:
    """Answers about stored, failed, running and review clips have documented fields only, in both formats."""
    stored, failed, in_review = (order(includeCost=True, safety={"checkContent": True}) for _ in range(3))
    user.post(stored)
    assert user.stack.emulator.finish_all()
    assert user.stack.emulator.idle(PATIENCE)
    user.stack.emulator.faults.failure = "invalidProviderContent"
    user.post(failed)
    assert user.stack.emulator.finish_all()
    assert user.stack.emulator.idle(PATIENCE)
    user.post(in_review)
    (clip,) = user.clips(in_review)
    user.stack.store.save(clip, merge_all(clip, [fact(Kind.UNPROVEN)]))
    user.post(order())
    page = user.get("/tasks").json()
    assert {task["status"] for task in page["tasks"]} == {"succeeded", "failed", "review", "running"}
    assert faults("Page", page) == []
    for task in page["tasks"]:
        assert faults("Task", user.get(f"/tasks/{task['taskUUID']}").json()) == []
        assert faults("Envelope", user.poll(task["taskUUID"]).json()) == []
    assert faults("Costs", user.get("/costs").json()) == []
    assert [faults("Model", model) for model in user.get("/models").json()["models"]] == [[]] * len(
        models.identifiers()
    )
    assert faults("Budget", user.get("/budget").json()) == []
    assert faults("Task", {**page["tasks"][0], "more": 1}) != []
