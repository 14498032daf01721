"""docs/openapi.json describes every route, and a task as the model's data defines it."""

import json
from typing import Any

import pytest
from openapi_spec_validator import validate

from functions.tasks import app as tasks
from rushes.services.queries import MAX_COSTS, MAX_TASKS, USUAL_TASKS
from rushes.services.request_validation import MAX_CLIPS
from rushes.services.request_validation import MAX_TASKS as MAX_IN_ONE
from scripts import openapi

Document = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Document:
    content: Document = json.loads(openapi.DOCUMENT.read_text(encoding="utf-8"))
    return content


def routes(document: Document) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, each in document["paths"].items() for method in each}


def parameters(document: Document, path: str) -> dict[str, Any]:
    """The schemas of a GET route's parameters, by name."""
    return {each["name"]: each["schema"] for each in document["paths"][path]["get"]["parameters"]}


def references(node: Any) -> set[str]:
    """All references in a part of the document."""
    if isinstance(node, list):
        return set().union(*map(references, node))
    if not isinstance(node, dict):
        return set()
    return {node["$ref"]} if "$ref" in node else set().union(*map(references, node.values()))


def test_a_task_is_described_as_it_is_validated(document: Document) -> None:
    """The document equals the output of `make openapi`."""
    assert openapi.DOCUMENT.read_text(encoding="utf-8") == openapi.render(json.dumps(document))
    stale = json.loads(json.dumps(document))
    stale["components"]["schemas"]["VideoInference.klingai-5-3"]["properties"]["duration"]["enum"] = [5]
    stale["components"]["schemas"]["VideoInference.klingai-0-0"] = {}
    assert json.loads(openapi.render(json.dumps(stale))) == document


def test_limits_are_those_of_the_code(document: Document) -> None:
    """The limits of requests and pages are those of the code."""
    body = document["paths"]["/v1"]["post"]
    (many, _) = body["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    assert many["maxItems"] == MAX_IN_ONE + 1, "an authentication task comes on top"
    assert body["description"].startswith(f"Up to {MAX_IN_ONE} tasks and {MAX_CLIPS} clips.")
    listed, counted = (parameters(document, path)["limit"] for path in ("/tasks", "/costs"))
    assert (listed["maximum"], listed["default"]) == (MAX_TASKS, USUAL_TASKS)
    assert (counted["maximum"], counted["default"]) == (MAX_COSTS, MAX_COSTS)


def test_the_document_is_valid(document: Document) -> None:
    """The document is valid OpenAPI 3.1 without unused components."""
    validate(document)
    assert document["openapi"].startswith("3.1")
    components = document["components"]
    kept = {f"#/components/{kind}/{name}" for kind in ("responses", "schemas") for name in components[kind]}
    assert references(document) == kept


def test_every_route_is_described(document: Document, resources: dict[str, Any]) -> None:
    """The described routes are the deployed ones, and the reading function serves exactly the GET routes."""
    described = routes(document)
    deployed = {
        (event["Properties"]["Method"], event["Properties"]["Path"])
        for each in resources.values()
        for event in each["Properties"].get("Events", {}).values()
        if event["Type"] == "HttpApi"
    }
    assert described == deployed
    served = {tasks.PAGE, *tasks.READ}
    assert served == {f"{method} {path}" for method, path in described if method == "GET"}


def test_every_route_but_the_page_is_protected(document: Document) -> None:
    """Every route but the page requires a key or a token."""
    unguarded = {
        each["operationId"] for path in document["paths"].values() for each in path.values() if "security" not in each
    }
    assert unguarded == {"page"}
    assert document["components"]["securitySchemes"].keys() == {"ApiKey", "WebhookToken"}


def test_the_documented_statuses_are_complete(document: Document) -> None:
    """API Gateway's statuses are on every route; a 422 is on none, because tasks are validated one by one."""
    answered = [set(each["responses"]) for path in document["paths"].values() for each in path.values()]
    assert all({"200", "429", "500", "503"} <= each for each in answered)
    assert set().union(*answered) == {"200", "400", "401", "402", "404", "413", "429", "500", "503"}
