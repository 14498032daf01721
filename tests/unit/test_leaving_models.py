"""A model that Runware will remove is served with a warning; one that it has removed is refused with its successor."""

from dataclasses import replace

import pytest

from rushes.runware import models
from rushes.runware.models import ModelStatus
from rushes.services.metric import Metric
from rushes.services.request_validation import WARNING_HEADER
from rushes.services.submit import price
from tests.fakes.builders import TASK_UUID, request, uuid4
from tests.fakes.use_cases import UseCases

LEAVING = ModelStatus(state="leaving", date="2026-12-31", successor="klingai:6@1")
GONE = ModelStatus(state="gone", successor="klingai:6@1")


def give(status: ModelStatus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives KlingAI 2.1 Master another status."""
    kling = replace(models.get(models.DEFAULT), status=status)
    monkeypatch.setattr(models, "find", {kling.air: kling}.get)


def test_an_order_for_a_leaving_model_is_bought_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer's header names the day and the successor once, and each order is counted."""
    give(LEAVING, monkeypatch)
    world = UseCases()
    answer = world.submit_service.submit([request(), request(taskUUID=uuid4(1))], world.call())
    assert (answer.status, len(world.runware.sent)) == (200, 2)
    assert answer.headers == {WARNING_HEADER: "klingai:5@3 ends on 2026-12-31; successor klingai:6@1"}
    assert world.telemetry.counted[Metric.LEAVING_MODEL_ORDERED] == 2
    assert price([request()], world.caller, world.bucket).headers == answer.headers


def test_a_live_model_has_no_warning() -> None:
    """The header is left out."""
    world = UseCases()
    assert world.submit_service.submit([request()], world.call()).headers == {}
    assert Metric.LEAVING_MODEL_ORDERED not in world.telemetry.counted


def test_an_order_for_a_gone_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the successor; nothing is bought or recorded, and a dry run has the same error."""
    give(GONE, monkeypatch)
    world = UseCases()
    for answer in (
        world.submit_service.submit([request()], world.call()),
        price([request()], world.caller, world.bucket),
    ):
        ((status, error),) = answer.errors
        assert (status, error["code"], error["allowedValues"]) == (400, "modelGone", ["klingai:6@1"])
    assert (world.runware.sent, world.table.rows) == ([], {})


def test_a_repeat_of_a_recorded_order_is_answered_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that was bought before its model was gone is not refused afterwards."""
    world = UseCases()
    first = world.submit_service.submit([request()], world.call())
    give(GONE, monkeypatch)
    assert world.submit_service.submit([request()], world.call()).body == first.body
    assert world.row().task_uuid == TASK_UUID
    assert len(world.runware.sent) == 1


def test_the_operator_may_allow_gone_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog may be wrong about Runware; then the parameter allows the order."""
    give(GONE, monkeypatch)
    world = UseCases()
    service = replace(world.submit_service, gone_models=True)
    assert service.submit([request()], world.call()).status == 200
    assert price([request()], world.caller, world.bucket, gone_models=True).status == 200
    assert len(world.runware.sent) == 1
