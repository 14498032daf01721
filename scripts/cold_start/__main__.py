"""`python -m scripts.cold_start`: measures, prints the table, writes docs/benchmarks.md; `--quick` only tries it."""

import argparse
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rushes_local.template import DeclaredFunction
from scripts.cold_start import cases
from scripts.cold_start.cases import CASES, Case
from scripts.cold_start.measure import Measured, Program, concurrent_map, import_shares, ratio
from scripts.cold_start.packages import ROOT, Packages
from scripts.cold_start.page import WHOLE_WAY, Row, page, table, verdict
from scripts.cost_report.metering import measure

PAGE = ROOT / "docs" / "benchmarks.md"
_REFERENCES = Path(__file__).parent / "references"
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Effort:
    """The number of rounds, warm-up events and measured events."""

    rounds: int
    warm_rounds: int
    warm_up: int
    events: int


THOROUGH = Effort(15, 7, 50, 300)
QUICK = Effort(1, 1, 5, 20)


def main() -> None:
    arguments = argparse.ArgumentParser(description="Measures the functions and common alternatives.")
    arguments.add_argument("--quick", action="store_true", help="make few measurements, judge and write nothing")
    quick = arguments.parse_args().quick
    effort = QUICK if quick else THOROUGH
    with tempfile.TemporaryDirectory(prefix="rushes-bench-") as folder, _runware() as runware_url:
        bench = Bench(Packages.make(Path(folder)), runware_url, effort)
        rows = bench.rows()
        shares = bench.shares()
    print(table(rows, judged=not quick))
    if quick:
        print("\nToo few measurements for a verdict.")
        return
    whole_way = WHOLE_WAY.find(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(page(rows, shares, datetime.now(UTC).strftime("%Y-%m-%d"), whole_way), encoding="utf-8")
    print(f"\n{verdict(rows)}")


class Bench:
    """Every measurement, in the order of the table."""

    def __init__(self, packages: Packages, runware_url: str, effort: Effort) -> None:
        self._packages, self._runware_url, self._effort = packages, runware_url, effort
        self._functions = cases.functions()
        self._items = cases.items()

    def rows(self) -> list[Row]:
        """All rows, each printed to standard error as soon as it is measured."""
        rows = []
        for part in (self._cold, self._warm, self._package, self._calls):
            for row in part():
                print("  ".join(cell for cell in row.cells[:-1] if cell), file=sys.stderr)
                rows.append(row)
        return rows

    def shares(self) -> dict[str, dict[str, float]]:
        """The share of the import time in percent, by function and package."""
        rounds = self._effort.warm_rounds
        return {function.name: import_shares(self._ours(function), rounds) for function in self._functions}

    def _cold(self) -> Iterator[Row]:
        self._modules: dict[str, int] = {}
        for function in self._functions:
            case = CASES[function.name]
            programs = {
                "ours": self._ours(function),
                "floor": self._reference("floor", function),
                "pruned": self._reference("floor", function, self._packages.deployed),
            }
            if case.usual:
                programs["usual"] = self._reference("usual", function)
            if function.routes:
                programs["restored"] = replace(self._ours(function), restored=True)
            found = concurrent_map(programs, self._effort.rounds)
            self._check_compiled(found["ours"])
            self._modules[function.name] = len(found["ours"].modules)
            yield _compared(f"cold `{function.name}`, floor", found["ours"], found["floor"], case.cold)
            yield _compared(f"cold `{function.name}`, floor on our layers", found["ours"], found["pruned"], None)
            if case.usual:
                yield _compared(f"cold `{function.name}`, usual stack", found["ours"], found["usual"], case.usual)
            if function.routes:
                yield _compared(
                    f"restored `{function.name}`, its own cold start", found["restored"], found["ours"], None
                )

    def _warm(self) -> Iterator[Row]:
        for function in self._functions:
            case = CASES[function.name]
            if case.same:
                programs = self.warm_programs(function.name)
                found = concurrent_map(
                    programs, self._effort.warm_rounds, warm_up=self._effort.warm_up, events=self._effort.events
                )
                yield _compared(f"warm `{function.name}`, the same calls", found["ours"], found["same"], case.warm)

    def _package(self) -> Iterator[Row]:
        size = self._packages.bytes / _MEGABYTE
        pip = self._packages.installed_bytes / _MEGABYTE
        what, unit = "layers, unzipped, with byte code", " MB"
        yield Row(what=what, ours=f"{size:.1f} MB", reference=f"{pip:.1f} MB by pip", value=size, goal=20, unit=unit)
        for name, modules in self._modules.items():
            yield Row(what=f"modules loaded by `{name}`", ours=str(modules))

    def _calls(self) -> Iterator[Row]:
        for name, usage in measure(ROOT).paths.items():
            called = usage.calls
            counts = {
                "writes": sum(called[f"dynamodb {each}"] for each in ("TransactWriteItems", "UpdateItem", "PutItem")),
                "reads": sum(called[f"dynamodb {each}"] for each in ("GetItem", "Query")),
                "probes": called["s3 GET"],
            }
            for what, count in counts.items() if name == "happy" else ():
                yield Row(
                    what=f"{name} path: {what} a clip", ours=str(count), value=count, goal=_CALLS[what], unit=f" {what}"
                )
            yield Row(what=f"{name} path: write units a clip", ours=str(usage.write_units))

    def warm_programs(self, name: str) -> dict[str, Program]:
        """A function, and the handler that makes the same calls."""
        (function,) = (each for each in self._functions if each.name == name)
        same = CASES[name].same
        assert same is not None
        return {"ours": self._ours(function), "same": self._reference(same, function)}

    def _ours(self, function: DeclaredFunction) -> Program:
        return self._program(function, function.folder / "app.py", self._packages.deployed, CASES[function.name])

    def _reference(self, name: str, function: DeclaredFunction, path: list[str] | None = None) -> Program:
        file = _REFERENCES / f"{name}.py"
        return self._program(function, file, path or self._packages.installed, CASES[function.name])

    def _program(self, function: DeclaredFunction, app: Path, path: list[str], case: Case) -> Program:
        return Program(
            app=app,
            path=path,
            environment=cases.environment(function, self._runware_url),
            event=case.event(),
            items=self._items,
            secrets=cases.SECRETS,
            status=case.status,
        )

    def _check_compiled(self, measured: Measured) -> None:
        """Raises `SystemExit` if a cold start loads a module that `scripts/pack.py` leaves without byte code."""
        bare = self._packages.uncompiled(measured.modules)
        if bare:
            raise SystemExit(f"loaded without byte code, see scripts/pack.py: {', '.join(sorted(bare))}")


_CALLS = {"writes": 3, "reads": 2, "probes": 1}


def _compared(what: str, ours: Measured, reference: Measured, goal: float | None) -> Row:
    our_time, reference_time = (f"{seconds * 1000:.3g} ms" for seconds in (ours.median, reference.median))
    return Row(what=what, ours=our_time, reference=reference_time, value=ratio(ours, reference), goal=goal)


@contextmanager
def _runware() -> Iterator[str]:
    """A server on loopback that accepts every task as Runware does; yields its address."""

    class Accepting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            tasks = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            data = [{"taskType": task["taskType"], "taskUUID": task["taskUUID"]} for task in tasks]
            body = json.dumps({"data": data}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Accepting)
    threading.Thread(target=server.serve_forever, name="runware", daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
