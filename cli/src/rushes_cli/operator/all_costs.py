"""The counted amounts of all callers' clips, from the table."""

from typing import Any

from rushes.services.queries import CostsQuery
from rushes_cli.operator.deployment import operated


def costs_of_all(stack: str | None, since: str, until: str) -> list[dict[str, Any]]:
    """One entry for each clip that any caller ordered between two days, inclusive; costs are in dollars."""
    with operated(stack) as deployment:
        return [
            {
                "caller": each.caller,
                "taskUUID": f"{each.caller} {each.task_uuid}",  # two callers may use the same taskUUID
                "cost": each.budgeted / 1_000_000,
                "tags": each.tags,
            }
            for each in deployment.store.all_costs(*CostsQuery(since, until).span)
        ]
