"""A clip as it is told outside (API, events, manifests): dollars, ISO 8601, facts in their order. Pure."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from rushes.clip import Clip, Kind, Scalar, rank
from rushes.redaction import scrub, scrub_all
from rushes.runware.errors import ABOUT_ACCOUNTS, ACCOUNT_TROUBLE

Json: TypeAlias = dict[str, Any]


def iso(at: int) -> str:
    """A time in milliseconds since the epoch, as `2026-11-24T13:35:45.123Z`."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dollars(amount: int) -> float:
    """Micro-dollars in dollars."""
    return amount / 1_000_000


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
        first = min(known.seen, key=lambda witness: (known.seen[witness], witness))
        for witness, at in known.seen.items():
            fields = _fields(known.fields) if witness == first else {}
            entry = {"at": iso(at), "fact": str(kind), "key": key, "witness": str(witness), "fields": fields}
            entries.append(
                ((at, rank(kind), kind, key, witness), {name: value for name, value in entry.items() if value})
            )
    return [entry for _, entry in sorted(entries, key=lambda each: each[0])]


def about_our_account(fields: Mapping[str, Scalar]) -> bool:
    """Whether a refusal or failure was about this service's own account at Runware rather than the clip."""
    return fields.get("httpStatus") in ACCOUNT_TROUBLE or fields.get("category") in ABOUT_ACCOUNTS


def reason(fields: Mapping[str, Scalar]) -> str:
    """Why a clip was refused or failed, as callers may read it. Our account's trouble is none of theirs."""
    if about_our_account(fields):
        return "This service's own account at Runware is in trouble. The operator has to act."
    return scrub(str(fields.get("message", "Runware gave no reason.")))


def _fields(fields: Mapping[str, Scalar]) -> Json:
    if about_our_account(fields):
        rest = {name: value for name, value in fields.items() if name not in ("message", "error")}
        return dict(sorted({**rest, "message": reason(fields)}.items()))
    told: Json = dict(sorted(fields.items()))
    if isinstance(told.get("cost"), int):
        told["cost"] = dollars(told["cost"])
    if isinstance(told.get("error"), str):
        told["error"] = json.loads(told["error"])
    # Last: inside of a JSON text it would take the backslash before a quotation mark for a part of what it removes.
    return {name: scrub_all(value) for name, value in told.items()}
