"""The measured process: a fresh interpreter that loads one handler, handles events and prints its processor time.

Runs as a file, without site-packages, and imports only from the folders of its job. It reads the job as JSON from
standard input, and prints processor time and modules as the last line of standard error. The time counts from the start
of the process, from the loaded handler (`restored`), or from the end of the warm-up.
"""

import importlib.util
import json
import resource
import sys
from types import SimpleNamespace
from typing import Any


def main() -> None:
    job = json.load(sys.stdin)
    sys.path[:0] = job["path"]
    answers = _load("answers", job["answers"])
    answers.Answers(job["items"], job["secrets"]).install()
    app = _load("app", job["app"])
    for _ in range(job["warm_up"]):
        _answer(app, job["event"], job["status"])
    before = _used() if job["warm_up"] or job["restored"] else 0.0
    for _ in range(job["events"]):
        _answer(app, job["event"], job["status"])
    used = _used() - before
    print(json.dumps({"seconds": used / job["events"], "modules": sorted(sys.modules)}), file=sys.stderr)


def _load(name: str, file: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _answer(app: Any, event: dict[str, Any], status: int | None) -> None:
    context = SimpleNamespace(
        aws_request_id="00000000-0000-4000-8000-000000000000",
        function_name="bench",
        function_version="1",
        invoked_function_arn="arn:aws:lambda:us-east-1:123456789012:function:bench",
        memory_limit_in_mb=1024,
        get_remaining_time_in_millis=lambda: 25_000,
    )
    answer = app.handler(event, context)
    if (status is not None and answer["statusCode"] != status) or answer.get("batchItemFailures"):
        raise SystemExit(f"answered {answer}")


def _used() -> float:
    """Seconds of processor time, user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
