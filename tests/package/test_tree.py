"""Content that must not be in the repository."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MACHINE_PATH = re.compile(rb"(?:^|[^\w.*])/(?:home|root|Users|work|farm)/\w")
REGISTRY = re.compile(rb"(?:pypi|pythonhosted|npmjs)[.](?:org|com)")
ACCOUNT = re.compile(rb"(?<![\w-])(?!123456789012)\d{12}(?![\w-])")


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """All files that are committed or not ignored."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(listing, cwd=ROOT, capture_output=True, check=False)
    if result.returncode != 0:
        pytest.skip("not a git checkout")
    paths = (ROOT / name.decode() for name in result.stdout.split(b"\0") if name)
    return [path for path in paths if path.is_file()]


def test_no_file_is_large(files: list[Path]) -> None:
    """No file is over 1 MB; test videos are rendered, not committed."""
    assert [path for path in files if path.stat().st_size > 1_000_000] == []


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["paths of a machine", "hosts of registries"])
def test_no_file_names_a_machine_or_registry(files: list[Path], pattern: re.Pattern[bytes]) -> None:
    """No file contains a path of a developer's machine or the host of a package registry."""
    found = {str(path.relative_to(ROOT)): match[0] for path in files if (match := pattern.search(path.read_bytes()))}
    assert found == {}


def test_deployment_settings_name_no_account() -> None:
    """No deployment setting contains an account ID."""
    for name in ("samconfig.toml", "template.yaml"):
        assert not ACCOUNT.search((ROOT / name).read_bytes()), name


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (MACHINE_PATH, b"cd /ho" + b"me/alice/project"),
        (MACHINE_PATH, b'"/Us' + b'ers/alice"'),
        (REGISTRY, b"--index-url https://py" + b"pi.org/simple"),
        (ACCOUNT, b"arn:aws:iam::210987654321:role/x"),
    ],
)
def test_the_patterns_match_their_examples(pattern: re.Pattern[bytes], text: bytes) -> None:
    """Each pattern matches an example."""
    assert pattern.search(text)
