"""The templates and JSON examples in the pages are complete and can be parsed."""

import json
import re
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from rushes_local import template as templates

ROOT = Path(__file__).resolve().parents[2]


def snippets(language: str) -> list[Any]:
    """The code blocks of a language on all pages."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        blocks = re.findall(rf"(?ms)^ *```{language}\n(.*?)^ *```$", page.read_text())
        found += [
            pytest.param(textwrap.dedent(block), id=f"{page.relative_to(ROOT)}-{number}")
            for number, block in enumerate(blocks, 1)
        ]
    return found


@pytest.mark.parametrize("text", snippets("yaml"))
def test_yaml_can_be_read(text: str, tmp_path: Path) -> None:
    """Every YAML block can be parsed with CloudFormation's tags; an alias without its anchor is an error."""
    file = tmp_path / "snippet.yaml"
    file.write_text(text)
    assert isinstance(templates.read(file), dict)


@pytest.mark.parametrize("text", snippets("json"))
def test_json_can_be_read(text: str) -> None:
    """Every JSON block is valid JSON."""
    assert json.loads(text)


def adoption_commands() -> str:
    """The commands that adopt an existing bucket and table, without the first call of `aws`."""
    _, _, text = (ROOT / "docs" / "deploying.md").read_text().partition("\n## An existing bucket\n")
    bucket, table = re.findall(r"(?ms)^```bash\n(.*?)^```$", text)[:2]
    return str(bucket.partition("aws ")[0] + table)


def test_the_adopted_template_is_complete(tmp_path: Path) -> None:
    """The template cut out by the commands is complete: it refers to nothing outside it, has no YAML alias, which
    CloudFormation cannot read, and has all properties that the next deployment compares."""
    (tmp_path / "template.yaml").write_text((ROOT / "template.yaml").read_text())
    subprocess.run(["bash", "-euc", adoption_commands()], cwd=tmp_path, check=True, timeout=30)
    adopted, whole = templates.read(tmp_path / "adopt.yaml"), templates.read(ROOT / "template.yaml")
    text = (tmp_path / "adopt.yaml").read_text()
    assert not [token for token in yaml.scan(text) if isinstance(token, (yaml.AliasToken, yaml.AnchorToken))]
    assert adopted["Resources"].keys() == {"Bucket", "Table"}
    assert adopted["Resources"]["Table"]["Properties"] == whole["Resources"]["Table"]["Properties"]
    for resource in adopted["Resources"].values():
        assert (resource["DeletionPolicy"], resource["UpdateReplacePolicy"]) == ("Retain", "Retain")
    for part in ("Parameters", "Conditions"):
        assert adopted[part] == whole[part]
    named = set(re.findall(r'"(?:Ref|Condition)": "(\w+)"|"Fn::If": \["(\w+)"', json.dumps(adopted)))
    assert {name for pair in named for name in pair if name} <= {*adopted["Parameters"], *adopted["Conditions"]}
