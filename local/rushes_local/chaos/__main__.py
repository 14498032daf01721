"""`python -m rushes_local.chaos`: one run, its report, and a verdict as last line and exit status."""

import argparse
import logging
import random
import sys
import tempfile
from pathlib import Path

from rushes.config import WhenAmbiguous
from rushes_local.chaos.run import Plan, Result, run

ROOT = Path(__file__).parents[3]


def main() -> None:
    """Parse the command line, run, report."""
    parser = argparse.ArgumentParser(prog="chaos", description="The local stack under everything that can go wrong.")
    parser.add_argument("--for", dest="seconds", type=float, default=60.0, help="seconds of bad weather")
    parser.add_argument("--seed", type=int, help="what the dice start from; random if none is given")
    parser.add_argument("--when-ambiguous", choices=("resend", "review"), help="the setting; by the seed if not given")
    parser.add_argument(
        "--deadline", type=float, default=20.0, help="seconds until what is unproven is parked, over 14"
    )
    parser.add_argument("--pace", type=float, default=2.0, help="orders a second")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    settings: tuple[WhenAmbiguous, ...] = ("resend", "review")
    when_ambiguous: WhenAmbiguous = given.when_ambiguous or random.Random(seed).choice(settings)
    plan = Plan(seed, given.seconds, when_ambiguous, given.pace, given.deadline)
    print(f"chaos: seed {seed}, {plan.seconds:g} s, WhenAmbiguous={when_ambiguous}", flush=True)
    # Requests wait for a thread whenever a function is away; that is no news here.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    result = run(ROOT, plan)
    print(result.report, flush=True)
    print(verdict(plan, result))
    sys.exit(bool(result.broken))


def verdict(plan: Plan, result: Result) -> str:
    """The last line. Keeps the log of a run that broke a promise."""
    if result.broken:
        with tempfile.NamedTemporaryFile("w", prefix="chaos-", suffix=".log", delete=False) as file:
            file.writelines(f"{line}\n" for line in result.log)
        return f"chaos: BROKEN {len(result.broken)} promises (seed {plan.seed}, log {file.name})"
    return f"chaos: all promises kept (seed {plan.seed}, {result.clips} clips, {result.kills} kills)"


main()
