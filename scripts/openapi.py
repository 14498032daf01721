"""The schemas of a `videoInference` task in docs/openapi.json: `python -m scripts.openapi` writes them.

They follow from the model's data. The rest of the document is kept by hand; tests compare it with the deployed routes
and with real answers.
"""

import json
from pathlib import Path
from typing import Any

from rushes.runware import models
from rushes.runware.request import request_type

DOCUMENT = Path(__file__).parents[1] / "docs" / "openapi.json"


def schemas() -> dict[str, Any]:
    """The generated schemas by name."""
    whole: dict[str, Any] = _tidied(
        request_type(models.get(models.DEFAULT)).model_json_schema(ref_template="#/components/schemas/{model}")
    )
    parts: dict[str, Any] = whole.pop("$defs")
    return {**parts, "VideoInference": whole}


def render(text: str) -> str:
    """The document with its generated schemas replaced by the current ones."""
    document = json.loads(text)
    document["components"]["schemas"] |= schemas()
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
