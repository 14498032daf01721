"""`python -m tests.chaos`: one run, its report, and a verdict as the last line and the exit status."""

import argparse
import logging
import random
import sys
import tempfile
from pathlib import Path

from rushes.config import WhenAmbiguous
from tests.chaos.run import Plan, Result, run

ROOT = Path(__file__).parents[2]


def main() -> None:
    """Parse the command line, run, and print the report."""
    parser = argparse.ArgumentParser(prog="chaos", description="The local stack with random failures of every part.")
    parser.add_argument("--for", dest="seconds", type=float, default=60.0, help="seconds with failures")
    parser.add_argument("--seed", type=int, help="seed of the random choices. Default: random")
    parser.add_argument("--when-ambiguous", choices=("resend", "review"), help="the setting. Default: by the seed")
    parser.add_argument(
        "--deadline", type=float, default=20.0, help="seconds until an uncertain purchase needs review; above 14"
    )
    parser.add_argument("--pace", type=float, default=2.0, help="orders a second")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    settings: tuple[WhenAmbiguous, ...] = ("resend", "review")
    when_ambiguous: WhenAmbiguous = options.when_ambiguous or random.Random(seed).choice(settings)
    plan = Plan(seed, options.seconds, when_ambiguous, options.pace, options.deadline)
    print(f"chaos: seed {seed}, {plan.seconds:g} s, WhenAmbiguous={when_ambiguous}", flush=True)
    # waitress warns when requests wait for a thread, which is normal here while functions are killed.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    result = run(ROOT, plan)
    print(result.report, flush=True)
    print(verdict(plan, result))
    sys.exit(bool(result.broken))


def verdict(plan: Plan, result: Result) -> str:
    """The last line of the output. Saves the log of a run that broke a promise."""
    if result.broken:
        with tempfile.NamedTemporaryFile("w", prefix="chaos-", suffix=".log", delete=False) as file:
            file.writelines(f"{line}\n" for line in result.log)
        return f"chaos: BROKEN {len(result.broken)} promises (seed {plan.seed}, log {file.name})"
    return f"chaos: all promises kept (seed {plan.seed}, {result.clips} clips, {result.kills} kills)"


main()
