"""pytest's part of `make test-table`: the shared stack's table, and the list of tests that cannot run on it."""

from collections import Counter

import pytest

from rushes_local.aws.remote_table import RemoteTable
from tests.remote_table.server import TableServer

REMOTE_TABLE = pytest.StashKey[RemoteTable]()
_LEFT_OUT = pytest.StashKey[list[tuple[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table-endpoint", required=True)
    parser.addoption("--table-name", required=True)


def pytest_configure(config: pytest.Config) -> None:
    server = TableServer(config.getoption("table_endpoint"))
    config.stash[REMOTE_TABLE] = server.table(config.getoption("table_name"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests marked with `moto`."""
    marked = {item: mark for item in items if (mark := item.get_closest_marker("moto"))}
    config.stash[_LEFT_OUT] = [(item.nodeid, mark.args[0]) for item, mark in marked.items()]
    config.hook.pytest_deselected(items=list(marked))
    items[:] = [item for item in items if item not in marked]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Lists the tests that were left out, and the reasons."""
    left_out = config.stash.get(_LEFT_OUT, [])
    terminalreporter.section(f"left out, because they need moto itself: {len(left_out)}")
    names = Counter((name.partition("[")[0], reason) for name, reason in left_out)
    for (name, reason), count in names.items():
        terminalreporter.write_line(f"{name} ({count}): {reason}")
