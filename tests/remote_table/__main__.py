"""`python -m tests.remote_table`: runs the tests of the table and the functions on a table of another server.

The table is created for the run and removed at its end, also after Ctrl-C or a failure.
"""

import argparse
import signal
import subprocess
import sys
import uuid
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tests.remote_table.server import ACCOUNT, ROOT, ServerError, TableServer, error_text

TESTS = ("tests/contract/test_store.py", "tests/contract/test_stream.py", "tests/functions")
PREFIX = "rushes-test-"
_PATIENCE = 60  # seconds for pytest to end after Ctrl-C
_NO_ENDPOINT = f"""\
test-table: choose the DynamoDB to test with; the run creates a table there and removes it.
  make test-table ENDPOINT=http://127.0.0.1:8000   a server with DynamoDB's API
  make test-table ENDPOINT={ACCOUNT}                     an AWS account; names it, and asks for ACCOUNT=its number"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Tests the table and the functions on another DynamoDB.")
    parser.add_argument(
        "--endpoint", default="", help=f"a URL, or {ACCOUNT} for the account of the default credentials"
    )
    parser.add_argument("--account", default="", help="the number of that account, as a confirmation")
    parser.add_argument("arguments", nargs="*", help="for pytest")
    given = parser.parse_args()
    if not given.endpoint:
        return _refuse(_NO_ENDPOINT)
    name = f"{PREFIX}{uuid.uuid4().hex[:12]}"
    try:
        server = TableServer(given.endpoint)
        where = f"at {server.endpoint}"
        if server.is_account:
            number = server.account()
            where = f"in account {number}, region {server.session.region_name}"
            if given.account != number:
                text = f"test-table: would create and remove a table like {name} {where}. Nothing is done yet. To run:"
                return _refuse(f"{text}\n  make test-table ENDPOINT={ACCOUNT} ACCOUNT={number}")
        print(f"test-table: creates the table {name} {where}, and removes it at the end", flush=True)
        return _run(server, name, where, given.arguments)
    except ServerError as error:
        return _refuse(f"test-table: {error}")
    except ClientError as error:
        return _refuse(f"test-table: {error_text(error)}")
    except BotoCoreError as error:
        return _refuse(f"test-table: {error}")


def _run(server: TableServer, name: str, where: str, arguments: list[str]) -> int:
    """Runs the tests between the table's creation and its removal."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    process, refused = None, False
    try:
        try:
            server.create(name)
        except ClientError as error:
            refused = error.response["ResponseMetadata"]["HTTPStatusCode"] < 500
            raise
        server.wait(name)
        command = [sys.executable, "-m", "pytest", "-rs", "-p", "tests.remote_table.plugin"]
        command += ["--table-endpoint", server.endpoint, "--table-name", name]
        process = subprocess.Popen([*command, *TESTS, *arguments], cwd=ROOT)
        return process.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if process is not None:
            _end(process)
        if not refused:
            _remove(server, name, where)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends pytest. After Ctrl-C in a terminal it is already ending."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _remove(server: TableServer, name: str, where: str) -> None:
    try:
        server.remove(name)
    except (ClientError, BotoCoreError):
        print(f"test-table: the table {name} {where} could not be removed: remove it by hand", file=sys.stderr)
        raise
    print(f"test-table: removed the table {name} {where}", flush=True)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _refuse(text: str) -> int:
    print(text, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
