"""What the clips of all callers count, as the table has it."""

from typing import Any

from rushes.services.queries import CostsQuery
from rushes_cli.operator.deployment import operated


def costs_of_all(stack: str | None, since: str, until: str) -> list[dict[str, Any]]:
    """A line for each clip of every caller that was ordered between two days."""
    with operated(stack) as deployment:
        return [
            {
                "caller": each.caller,
                "taskUUID": f"{each.caller} {each.task_uuid}",  # two callers may have taken the same one
                "cost": each.budgeted / 1_000_000,
                "tags": each.tags,
            }
            for each in deployment.store.all_costs(*CostsQuery(since, until).span)
        ]
