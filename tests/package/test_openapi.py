"""docs/openapi.json is what the code says, and says something of every route."""

import json
from typing import Any

from openapi_spec_validator import validate

from functions.tasks import app as tasks
from rushes_local import openapi


def routes(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, each in document["paths"].items() for method in each}


def test_the_document_is_what_the_code_says() -> None:
    """Whoever changes the API runs `make openapi`."""
    assert openapi.DOCUMENT.read_text(encoding="utf-8") == openapi.render()


def test_the_document_is_valid() -> None:
    """Any tool can read it, in its strict form, too."""
    for document in (openapi.describe(), openapi.describe(closed=True)):
        validate(document)
        assert document["openapi"].startswith("3.1")


def test_every_route_is_described(resources: dict[str, Any]) -> None:
    """What is deployed is described, what is described is deployed, and what reads serves just its share."""
    described = routes(openapi.describe())
    deployed = {
        (event["Properties"]["Method"], event["Properties"]["Path"])
        for each in resources.values()
        for event in each["Properties"].get("Events", {}).values()
        if event["Type"] == "HttpApi"
    }
    assert described == deployed
    served = {tasks.PAGE, *tasks.READ}
    assert served == {f"{method} {path}" for method, path in described if method == "GET"}


def test_nothing_is_open_by_mistake() -> None:
    """Every route but the page asks for a key or a token."""
    document = openapi.describe()
    unguarded = {
        each["operationId"] for path in document["paths"].values() for each in path.values() if "security" not in each
    }
    assert unguarded == {"page"}
    assert document["components"]["securitySchemes"].keys() == {"ApiKey", "WebhookToken"}


def test_no_status_of_the_resolvers_own_is_promised() -> None:
    """Tasks are validated one by one, so no 422 is ever answered."""
    text = json.dumps(openapi.describe())
    assert '"422"' not in text
    assert "ValidationError" not in text
