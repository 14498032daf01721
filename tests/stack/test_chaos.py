"""A short run of tests/chaos under each setting, in a separate process."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.secret_patterns import leaks

ROOT = Path(__file__).parents[2]
SETTINGS = {"resend": 7, "review": 11}  # and their seeds
PATIENCE = 300  # seconds


@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.batch
@pytest.mark.parametrize("setting", SETTINGS)
def test_all_promises_are_kept(setting: str) -> None:
    """After seven seconds of failures, on an AWS with every switch on, ledger, table and bucket agree."""
    command = [sys.executable, "-m", "tests.chaos", "--for", "7", "--deadline", "16", "--pace", "2"]
    command += ["--seed", str(SETTINGS[setting]), "--when-ambiguous", setting]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    output = run.stdout
    first, behaviour, *report, verdict = output.splitlines()
    assert run.returncode == 0, output + run.stderr
    assert first == f"chaos: seed {SETTINGS[setting]}, 7 s, WhenAmbiguous={setting}"
    assert behaviour.startswith("  Runware: ")
    assert verdict.startswith(f"chaos: all promises kept (seed {SETTINGS[setting]}, "), output
    figures = {name.strip(): int(number) for name, _, number in (line.rpartition(" ") for line in report)}
    assert figures["clips stored"] >= figures["charges"] / 2 > 0, output
    assert any(name.startswith("killed") for name in figures), output
    assert figures["possibly sent"] > 0, output
    assert all(figures[f"AWS: {effect}"] for effect in ("read lagged", "receive left visible")), output


@pytest.mark.parametrize(
    "line",
    [
        "gateway\tPOST /webhooks/runware/ada/6f3c/0?token=abc",
        "submit\tAuthorization: Bearer abc",
        "submit\trushes_AAAAAAAAAAAAAAAAAAAAAAAA",
        "webhook\thttp://127.0.0.1/bucket/key?X-Amz-Signature=0f",
        "submit\temulator-key",
    ],
)
def test_the_judge_reads_the_log(line: str) -> None:
    """A token, a key or a presigned query in a log line is found; a redacted one is not."""
    assert len(leaks([line])) == 1
    assert leaks(["submit\thttp://127.0.0.1/x?[removed] token=[removed] Bearer [removed]"]) == []
