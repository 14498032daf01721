"""The JSON of a clip in the API, events and manifests: dollars, ISO 8601, facts in their order. Pure."""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from rushes.domain.clip import SLOTS, Clip, Kind, Scalar, rank
from rushes.domain.delivery import Attempt
from rushes.domain.failure import failure_reason, is_account_failure
from rushes.domain.formats import dollars, iso
from rushes.domain.redaction import scrub_all

Json: TypeAlias = dict[str, Any]

SEED_TEXT = "seedText"


def manifest_key(clip: Clip) -> str:
    """Returns the S3 key of a clip's manifest: the clip's own with another extension, by which it is also erased."""
    return clip.object_key.rpartition(".")[0] + ".json"


def render(clip: Clip) -> Json:
    """Returns the details of the clip's render, {} without one. Of two renders, both paid, the first is the clip's."""
    renders = clip.of(Kind.RENDERED)
    if not renders:
        return {}
    video_uuid, record = min(renders.items(), key=lambda item: (item[1].at, item[0]))
    known = {name: record.fields[name] for name in ("seed", "NSFWContent") if name in record.fields}
    return {"videoUUID": video_uuid, **_with_seed_text(known)}


def chain(clip: Clip) -> Json:
    """Returns the clip's model and the superseded clips before it, oldest first; {} for a task without fallback."""
    if clip.chain is None:
        return {}
    earlier = sorted(clip.of(Kind.FALLBACK).items(), key=lambda item: (item[1].at, item[0]))
    superseded = [{"clipUUID": key, **record.fields, "at": iso(record.at)} for key, record in earlier]
    return {"model": clip.chain.model, "chain": superseded}


def attempt_view(attempt: Attempt) -> Json:
    """Returns an attempt at a delivery, without what it lacks: a response, a replay, an attempt that follows."""
    delivery, reply = attempt.delivery, attempt.reply
    view = {
        "clip": delivery.clip % SLOTS,
        "id": delivery.delivery_id,
        "replayedAt": iso(delivery.run) if delivery.run else None,
        "attempt": delivery.attempt,
        "at": iso(attempt.at),
        "receiver": attempt.receiver,
        "outcome": str(attempt.outcome),
        "status": reply.status,
        "failure": reply.failure or None,
        "milliseconds": reply.duration,
        "excerpt": reply.excerpt,
        "nextAt": None if attempt.next_at is None else iso(attempt.next_at),
    }
    return {name: value for name, value in view.items() if value is not None}


def timeline(clip: Clip) -> list[Json]:
    """Returns a clip's facts in the order of their arrival, one entry for each source, the fields only with the first.

    The same facts give the same list, independent of their order in the table.
    """
    entries = []
    for (kind, key), record in clip.facts.items():
        first = min(record.seen, key=lambda source: (record.seen[source], source))
        for source, at in record.seen.items():
            fields = _fields(record.fields) if source == first else {}
            entry = {"at": iso(at), "fact": str(kind), "key": key, "source": str(source), "fields": fields}
            entries.append(
                ((at, rank(kind), kind, key, source), {name: value for name, value in entry.items() if value})
            )
    return [entry for _, entry in sorted(entries, key=lambda each: each[0])]


def _with_seed_text(fields: Mapping[str, Scalar]) -> Json:
    """The fields with the seed also as a text: it may exceed 2^53, above which many JSON parsers round numbers."""
    return {**fields, **({SEED_TEXT: str(fields["seed"])} if "seed" in fields else {})}


def _fields(fields: Mapping[str, Scalar]) -> Json:
    if is_account_failure(fields):
        rest = {name: value for name, value in fields.items() if name not in ("message", "error")}
        return dict(sorted({**rest, "message": failure_reason(fields)}.items()))
    values: Json = dict(sorted(_with_seed_text(fields).items()))
    if isinstance(values.get("cost"), int):
        values["cost"] = dollars(values["cost"])
    if isinstance(values.get("error"), str):
        values["error"] = json.loads(values["error"])
    # After parsing: in a JSON text, scrub would remove the backslash before a quotation mark along with a secret.
    return {name: scrub_all(value) for name, value in values.items()}
