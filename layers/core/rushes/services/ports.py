"""The protocols that the use cases need of the world, each once, and the names of everything that is counted."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Protocol, TypeVar


class Metric(StrEnum):
    """Everything that is counted."""

    TASKS_TAKEN_IN = "TasksTakenIn"
    TASKS_REFUSED = "TasksRefused"
    CLIPS_BOUGHT = "ClipsBought"
    CLIPS_STORED = "ClipsStored"
    CLIPS_RESCUED = "ClipsRescued"
    RENDER_ORIGINS_REFUSED = "RenderOriginsRefused"
    CLIPS_IN_REVIEW = "ClipsInReview"
    FOUND_BY_POLL = "FoundByPoll"
    AMBIGUOUS_PURCHASES = "AmbiguousPurchases"
    SECOND_RENDER_SEEN = "SecondRenderSeen"
    OVERWRITTEN_CLIPS = "OverwrittenClips"
    COST_DISBELIEVED = "CostDisbelieved"
    TOO_MANY_FACTS = "TooManyFacts"
    BUDGET_REFUSED = "BudgetRefused"
    BUDGET_EXCEEDED = "BudgetExceeded"
    PROVIDER_REFUSES_US = "ProviderRefusesUs"
    WEBHOOKS_REJECTED = "WebhooksRejected"
    UNREADABLE_CLIPS = "UnreadableClips"


class Telemetry(Protocol):
    """Where use cases say what happened."""

    def count(self, metric: Metric, amount: int = 1) -> None: ...

    def note(self, message: str, *, warn: bool = False, **details: object) -> None: ...


T = TypeVar("T")


R = TypeVar("R")


# Runware advises a low, steady concurrency, and every clip's work is mostly waiting for it.
MOST_AT_ONCE = 8


class SideBySide(Protocol):
    """Like `map`, but complete when it returns; the results are in the items' order."""

    def __call__(self, work: Callable[[T], R], items: Iterable[T], /) -> list[R]: ...
