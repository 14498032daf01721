"""A clip as it is told outside (API, events, manifests): dollars, ISO 8601, facts in their order. Pure."""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from rushes.domain.clip import Clip, Kind, Scalar, rank
from rushes.domain.failure import failure_reason, is_account_failure
from rushes.domain.formats import dollars, iso
from rushes.domain.redaction import scrub_all

Json: TypeAlias = dict[str, Any]


def manifest_key(clip: Clip) -> str:
    """Beside the clip, under the same stem; erasing a task goes by it."""
    return clip.object_key.rpartition(".")[0] + ".json"


def render(clip: Clip) -> Json:
    """What is known of the render that came to light first: of two, which were both paid, it is the clip's."""
    renders = clip.of(Kind.RENDERED)
    if not renders:
        return {}
    video_uuid, known = min(renders.items(), key=lambda item: (item[1].at, item[0]))
    return {
        "videoUUID": video_uuid,
        **{name: known.fields[name] for name in ("seed", "NSFWContent") if name in known.fields},
    }


def timeline(clip: Clip) -> list[Json]:
    """A clip's facts in the order they were learned, once for each witness. What a fact says stands with the first.

    The same facts give the same text, in whatever order the table holds them.
    """
    entries = []
    for (kind, key), known in clip.facts.items():
        first = min(known.seen, key=lambda source: (known.seen[source], source))
        for source, at in known.seen.items():
            fields = _fields(known.fields) if source == first else {}
            entry = {"at": iso(at), "fact": str(kind), "key": key, "source": str(source), "fields": fields}
            entries.append(
                ((at, rank(kind), kind, key, source), {name: value for name, value in entry.items() if value})
            )
    return [entry for _, entry in sorted(entries, key=lambda each: each[0])]


def _fields(fields: Mapping[str, Scalar]) -> Json:
    if is_account_failure(fields):
        rest = {name: value for name, value in fields.items() if name not in ("message", "error")}
        return dict(sorted({**rest, "message": failure_reason(fields)}.items()))
    told: Json = dict(sorted(fields.items()))
    if isinstance(told.get("cost"), int):
        told["cost"] = dollars(told["cost"])
    if isinstance(told.get("error"), str):
        told["error"] = json.loads(told["error"])
    # Last: inside of a JSON text it would take the backslash before a quotation mark for a part of what it removes.
    return {name: scrub_all(value) for name, value in told.items()}
