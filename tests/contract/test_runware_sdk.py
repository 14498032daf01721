"""The official client, unchanged, against the emulator over real sockets, to verify its wire format."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from runware import Runware
from runware.errors import RunwareError

from rushes_local.runware.emulator import Emulator, OneShot
from rushes_local.servers import Server


@pytest.fixture(scope="module")
def served() -> Iterator[Emulator]:
    """An emulator behind a server on a free port."""
    emulator = Emulator(small=True)
    with Server(emulator.wsgi, name="emulator") as server:
        emulator.base_url = server.url
        yield emulator
    emulator.close()


@pytest.fixture
def emulator(served: Emulator) -> Iterator[Emulator]:
    """The served emulator, reset after each test."""
    yield served
    served.reset()


@pytest.fixture
def run_client(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Calls one method of the client, with pauses between polls and retries fifty times shorter."""
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda seconds: sleep(seconds / 50))

    def call(method: str, parameters: dict[str, Any], api_key: str = "emulator-key") -> Any:
        async def session() -> Any:
            async with Runware(
                api_key=api_key, transport="rest", http_base_url=f"{emulator.base_url}/v1", poll_timeout=10_000
            ) as client:
                return await getattr(client, method)(parameters)

        return asyncio.run(session())

    return call


def order(**changes: Any) -> dict[str, Any]:
    return {
        "taskType": "videoInference",
        "model": "klingai:5@3",
        "positivePrompt": "a lighthouse at dusk",
        "duration": 5,
        "width": 1920,
        "height": 1080,
        "includeCost": True,
        **changes,
    }


@pytest.mark.parametrize("number", [1, 3])
def test_the_client_gets_its_results(run_client: Callable[..., Any], emulator: Emulator, number: int) -> None:
    """Submission and polls give as many distinct items as ordered, with the documented fields."""
    items = run_client("run", order(numberResults=number))
    assert len({item["videoUUID"] for item in items}) == number
    assert all(item["cost"] == 0.924 and item["videoURL"].startswith(emulator.base_url) for item in items)
    assert len(emulator.ledger()) == number


@pytest.mark.parametrize(
    ("changes", "parameter"),
    [({"duration": 7}, "duration"), ({"fps": 24}, "fps"), ({"height": 720}, "width"), ({"positivePrompt": "a"}, None)],
)
def test_a_refused_request_is_a_validation_error(
    run_client: Callable[..., Any], changes: dict[str, Any], parameter: str | None
) -> None:
    """A refusal raises the class validation with parameter, UUID and status, and the client does not retry."""
    task_uuid = str(uuid.uuid4())
    with pytest.raises(RunwareError) as refusal:
        run_client("run", order(taskUUID=task_uuid, **changes))
    error = refusal.value
    assert (error.code, error.status_code, error.retryable) == ("validation", 400, False)
    assert error.parameter == (parameter or "positivePrompt")
    assert error.task_uuid == task_uuid


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(("code", "kind"), [("providerTimeout", "timeout"), ("invalidProviderContent", "safety")])
def test_a_failure_in_a_poll(
    run_client: Callable[..., Any], emulator: Emulator, code: str, kind: str, status: Any
) -> None:
    """A failed render raises the right class, whichever HTTP status the poll has."""
    emulator.faults.failure = code
    emulator.faults.poll_failure_status = status
    with pytest.raises(RunwareError) as failure:
        run_client("run", order())
    assert failure.value.code == kind
    assert emulator.ledger() == []


def test_a_failure_nested_in_data(run_client: Callable[..., Any], emulator: Emulator) -> None:
    """A nested error item is understood, too."""
    emulator.faults.failure = "taskFailed"
    emulator.faults.poll_failure_shape = "nested"
    with pytest.raises(RunwareError) as failure:
        run_client("run", order())
    assert failure.value.code == "provider"


def test_a_repeated_uuid_is_a_validation_error(run_client: Callable[..., Any], emulator: Emulator) -> None:
    """conflictTaskUUID raises the class validation about taskUUID, and nothing more is bought."""
    task = order(taskUUID=str(uuid.uuid4()))
    run_client("run", task)
    with pytest.raises(RunwareError) as conflict:
        run_client("run", task)
    assert (conflict.value.code, conflict.value.parameter) == ("validation", "taskUUID")
    assert len(emulator.ledger()) == 1


@pytest.mark.parametrize("fault", [{"submit_status": 429}, {"submit_status": 503, "submit_bare": True}])
def test_the_client_retries_until_it_succeeds(
    run_client: Callable[..., Any], emulator: Emulator, fault: dict[str, Any]
) -> None:
    """Two refusals for lack of capacity and then a success end in one purchase."""
    emulator.faults.next_submissions += [OneShot(**fault), OneShot(**fault)]
    assert len(run_client("run", order())) == 1
    assert len(emulator.ledger()) == 1
    submissions = [received.task for received in emulator.requests() if received.task["taskType"] == "videoInference"]
    assert len(submissions) == 3
    assert submissions[0] == submissions[2]


@pytest.mark.parametrize(("cut", "outcome"), [("before", 1), ("after", "validation")])
def test_a_connection_cut_under_the_client(
    run_client: Callable[..., Any], emulator: Emulator, cut: str, outcome: Any
) -> None:
    """Cut before acceptance, the client's retry succeeds; cut after it, the retry is a conflict. Bought once."""
    emulator.faults.next_submissions.append(OneShot(submit_cut=cut))
    try:
        result: Any = len(run_client("run", order()))
    except RunwareError as error:
        result = error.code
    assert result == outcome
    assert emulator.idle(5)
    assert len(emulator.ledger()) == 1


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_cut_socket_closes_without_a_byte(emulator: Emulator, cut: str) -> None:
    """A cut connection closes without a status line or an error page, through the server too."""
    emulator.faults.next_submissions.append(OneShot(submit_cut=cut))
    headers = {"Authorization": "Bearer emulator-key"}
    task = order(taskUUID=str(uuid.uuid4()))
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        httpx.post(f"{emulator.base_url}/v1", json=[task], headers=headers, trust_env=False)


def test_account_and_key(run_client: Callable[..., Any]) -> None:
    """The account can be read, and a wrong key raises the class auth."""
    (details,) = run_client("account_management", {"operation": "getDetails"})
    assert details["balance"] == 1000
    with pytest.raises(RunwareError) as refusal:
        run_client("account_management", {"operation": "getDetails"}, api_key="wrong")
    assert (refusal.value.code, refusal.value.status_code) == ("auth", 401)
