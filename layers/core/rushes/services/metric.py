"""The names of all metrics."""

from enum import StrEnum


class Metric(StrEnum):
    """Every metric. Those that need an operator have an alarm in the template and a row in the runbook."""

    TASKS_IMPORTED = "TasksImported"
    TASKS_REFUSED = "TasksRefused"
    CLIPS_BOUGHT = "ClipsBought"
    CLIPS_STORED = "ClipsStored"
    CLIPS_RESCUED = "ClipsRescued"
    RENDER_ORIGINS_REFUSED = "RenderOriginsRefused"
    CLIPS_IN_REVIEW = "ClipsInReview"
    FOUND_BY_POLL = "FoundByPoll"
    AMBIGUOUS_PURCHASES = "AmbiguousPurchases"
    SECOND_RENDERS = "SecondRenders"
    OVERWRITTEN_CLIPS = "OverwrittenClips"
    IMPLAUSIBLE_COST = "ImplausibleCost"
    TOO_MANY_FACTS = "TooManyFacts"
    BUDGET_REFUSED = "BudgetRefused"
    BUDGET_EXCEEDED = "BudgetExceeded"
    ACCOUNT_REFUSED = "AccountRefused"
    WEBHOOKS_REJECTED = "WebhooksRejected"
    WEBHOOKS_DELIVERED = "WebhooksDelivered"
    WEBHOOKS_UNDELIVERED = "WebhooksUndelivered"
    WEBHOOKS_FAILING = "WebhooksFailing"
    LEAVING_MODEL_ORDERED = "LeavingModelOrdered"
    UNREADABLE_CLIPS = "UnreadableClips"
