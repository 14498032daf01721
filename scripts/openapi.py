"""The schemas of a `videoInference` task and of a model in docs/openapi.json: `python -m scripts.openapi` writes them.

They follow from the model catalog. The rest of the document is kept by hand; tests compare it with the deployed routes
and with real answers.
"""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rushes.runware import models
from rushes.runware.request import request_type
from scripts.model_files import ModelFile

_GENERATED = re.compile(r"(VideoInference|Model)(\.|$)")
DOCUMENT = Path(__file__).parents[1] / "docs" / "openapi.json"


def schemas() -> dict[str, Any]:
    """The generated schemas by name: a task of each model, and the files of the catalog."""
    named = {air: re.sub(r"[:@]", "-", air) for air in models.identifiers()}
    parts: dict[str, Any] = {}
    for air, name in named.items():
        model = models.get(air)
        parts |= _schema(request_type(model), f"VideoInference.{name}")
        parts[f"VideoInference.{name}"] |= _rules(model)
    mapping = {air: f"#/components/schemas/VideoInference.{name}" for air, name in named.items()}
    whole = {
        "oneOf": [{"$ref": reference} for reference in mapping.values()],
        "discriminator": {"propertyName": "model", "mapping": mapping},
    }
    return {**parts, "VideoInference": whole, **_schema(ModelFile, "Model")}


def _rules(model: models.VideoModel) -> dict[str, Any]:
    """The rules that concern several parameters, as far as JSON Schema has keywords for them."""
    required = {"fallbackOnModeration": ["fallback"]}
    alternatives: list[dict[str, Any]] = []
    for rule in model.rules:
        if rule.kind == "together":
            required |= {name: [other for other in rule.parameters if other != name] for name in rule.parameters}
        elif rule.kind == "exactlyOneOf" and not any("." in name for group in rule.groups for name in group):
            alternatives = [{"required": list(group)} for group in rule.groups]
    return {"dependentRequired": required, **({"oneOf": alternatives} if alternatives else {})}


def _schema(of: type[BaseModel], name: str) -> dict[str, Any]:
    """The schema of a type under its name, and those of its parts under names that begin with it."""
    whole = _tidied(of.model_json_schema(ref_template=f"#/components/schemas/{name}.{{model}}"))
    parts = whole.pop("$defs", {})
    return {**{f"{name}.{part}": schema for part, schema in parts.items()}, name: whole}


def render(text: str) -> str:
    """The document with its generated schemas replaced by the current ones."""
    document = json.loads(text)
    kept = {name: schema for name, schema in document["components"]["schemas"].items() if not _GENERATED.match(name)}
    document["components"]["schemas"] = kept | schemas()
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _tidied(node: Any) -> Any:
    """The schema without generated titles, and without null defaults, which mean a missing value."""
    if isinstance(node, list):
        return [_tidied(each) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        name: _tidied(value)
        for name, value in node.items()
        if name != "title" and not (name == "default" and value is None)
    }


if __name__ == "__main__":
    DOCUMENT.write_text(render(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
