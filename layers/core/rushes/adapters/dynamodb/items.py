"""The table's items: attribute names, key formats, and conversions between items and domain objects. Pure."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rushes.adapters.dynamodb import attribute_values
from rushes.domain.budget import Cost, Share
from rushes.domain.caller import ApiKey, Caller
from rushes.domain.clip import SLOTS, Chain, Claim, Clip, FactRecord, Facts, FallbackModel, Lease
from rushes.domain.delivery import Attempt, AttemptOutcome, Delivery, Reply, SigningSecret
from rushes.domain.formats import iso
from rushes.domain.task import Task, TaskWithClips
from rushes.errors import UnreadableClipError, UnreadableError

Item = dict[str, Any]
SHARDS = 8  # partitions of the index of open clips, over which its writes are spread
REVIEW_SHARD = "review"
_POSITION = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z#[0-9a-f-]{36}")
_COST_POSITION = re.compile(r"(\d{13})#([0-9a-f-]{36})#(\d{1,2})")
# The exceptions of `_clip_of` for an item that is not a clip, or one of a later version.
_NO_CLIP = (AttributeError, KeyError, TypeError, ValueError, ArithmeticError)
_TOKENS = 4  # tokens of a clip's last saves that are kept: a repeated save is recognised after up to three later ones


def to_attributes(values: Mapping[str, Any]) -> Item:
    return {name: attribute_values.wire(value) for name, value in values.items()}


def from_attributes(item: Mapping[str, Any]) -> Item:
    return {name: attribute_values.plain(value) for name, value in item.items()}


def task_pk(caller: str, task_uuid: str) -> str:
    return f"task#{caller}#{task_uuid}"


def clip_key(caller: str, task_uuid: str, index: int) -> Item:
    return {"pk": {"S": task_pk(caller, task_uuid)}, "sk": {"S": f"clip#{index}"}}


def budget_key(scope: str, month: str, share: int) -> Item:
    return {"pk": {"S": f"budget#{scope}"}, "sk": {"S": f"{month}#{share:02}"}}


def read_share(item: Item) -> tuple[int, Share]:
    """One share of a budget with its number."""
    share = Share(item["counted"], item.get("room"), item.get("limit"), item.get("balance", ""))
    return int(item["sk"].rpartition("#")[2]), share


def caller_key(name: str) -> Item:
    return {"pk": {"S": f"caller#{name}"}, "sk": {"S": "caller"}}


def api_key(key_hash: str) -> Item:
    return {"pk": {"S": f"key#{key_hash}"}, "sk": {"S": "key"}}


def listed_key(caller: str, key_hash: str) -> Item:
    """The key of an API key's second item, beside its caller, by which keys are listed and revoked by name."""
    return {"pk": {"S": f"caller#{caller}"}, "sk": {"S": f"key#{key_hash}"}}


def signing_key(caller: str) -> Item:
    """The key of a caller's signing secrets: a partition of its own, which only `deliver` may read."""
    return {"pk": {"S": f"signing#{caller}"}, "sk": {"S": "secrets"}}


def slot_key(caller: str, number: int) -> Item:
    """The key of one of the slots for concurrent deliveries of a caller."""
    return {"pk": {"S": f"slots#{caller}"}, "sk": {"S": str(number)}}


def attempts_pk(caller: str, task_uuid: str) -> str:
    return f"delivery#{caller}#{task_uuid}"


def attempts_of(caller: str) -> str:
    """The key in the index `recent` of the attempts for a caller, apart from the caller's tasks."""
    return f"delivery#{caller}"


def attempt_key(delivery: Delivery) -> Item:
    sk = f"{delivery.clip}#{delivery.delivery_id}#{delivery.run}#{delivery.attempt:02}"
    return {"pk": {"S": attempts_pk(delivery.caller, delivery.task_uuid)}, "sk": {"S": sk}}


def task_start_key(caller: str, position: str, day: str) -> Item:
    """The key after which a page of tasks begins; its item may not exist. Raises `UnreadableError`."""
    if not _POSITION.fullmatch(position) or not position.startswith(day):
        raise UnreadableError("The cursor does not belong to this list.")
    _, _, task_uuid = position.partition("#")
    pk, sk = task_pk(caller, task_uuid), "request"
    return to_attributes({"caller": caller, "createdAt": position, "pk": pk, "sk": sk})


def cost_start_key(caller: str, position: str, since: int, until: int) -> Item:
    """The key after which a page of costs begins; its item may not exist. Raises `UnreadableError`."""
    match = _COST_POSITION.fullmatch(position)
    if not match or not since <= int(match[1]) <= until:  # DynamoDB refuses a start key outside the range
        raise UnreadableError("The cursor does not belong to this list.")
    return {
        **to_attributes({"clipCaller": caller, "createdAtMs": int(match[1])}),
        **clip_key(caller, match[2], int(match[3])),
    }


def clip_name(key: Item) -> tuple[str, str, int]:
    _, caller, task_uuid = key["pk"].split("#")
    return caller, task_uuid, int(key["sk"].removeprefix("clip#"))


def save_token_name(saved: Clip) -> str:
    """The attribute with the token of the save that wrote this version."""
    return f"save{saved.version % _TOKENS}"


def _sortable(created_at: int, task_uuid: str) -> str:
    """The sort key of the list of tasks: the creation time, then the UUID for tasks of the same millisecond."""
    return f"{iso(created_at)}#{task_uuid}"


def task_item(task: Task) -> Item:
    return to_attributes(
        {
            "pk": task_pk(task.caller, task.task_uuid),
            "sk": "request",
            "caller": task.caller,
            "taskUUID": task.task_uuid,
            "createdAt": _sortable(task.created_at, task.task_uuid),
            "createdAtMs": task.created_at,
            # As text: DynamoDB's numbers differ from JSON's, and no query needs its members.
            "request": json.dumps(task.request, ensure_ascii=False),
            "fingerprint": task.fingerprint,
            "clips": task.clips,
            **({"expiresAt": task.expires_at // 1000} if task.expires_at is not None else {}),
            **({"webhookURL": task.webhook_url} if task.webhook_url else {}),
            # The number of models, by which the clips of chains are found after an erasure, too.
            **({"models": 1 + len(task.request["fallback"])} if task.request.get("fallback") else {}),
        }
    )


def lasting_attributes(task: Task, clip: Clip) -> Item:
    """The attributes of a clip that outlive the request: for costs and, in the first clip, the tombstone."""
    tombstone = {"fingerprint": task.fingerprint, "clips": task.clips} if clip.index == 0 else {}
    return to_attributes({**tombstone, **_attributes_for_costs(task, clip)})


def successor_item(task: Task | None, clip: Clip) -> Item:
    """The item of a clip that is recorded after its task; the task's request may have expired."""
    return {**clip_item(clip), **to_attributes(_attributes_for_costs(task, clip))}


def _attributes_for_costs(task: Task | None, clip: Clip) -> dict[str, Any]:
    request = task.request if task else {}
    tags = request.get("tags")
    with_tags = {"tags": json.dumps(tags, ensure_ascii=False)} if tags else {}
    return {"model": clip.chain.model if clip.chain else request.get("model", ""), **with_tags}


def clip_keys(request: Item) -> list[Item]:
    """The keys of all clips that a task may have, by the item of its request."""
    caller, task_uuid = request["caller"], request["taskUUID"]
    return [
        clip_key(caller, task_uuid, slot + SLOTS * member)
        for member in range(request.get("models", 1))
        for slot in range(request["clips"])
    ]


def clip_item(clip: Clip) -> Item:
    changing = {name: value for name, value in changing_attributes(clip).items() if value is not None}
    return to_attributes(
        {
            "pk": task_pk(clip.caller, clip.task_uuid),
            "sk": f"clip#{clip.index}",
            "clipCaller": clip.caller,  # not `caller`, which would add every clip to the index of recent tasks
            "taskUUID": clip.task_uuid,
            "clip": clip.index,
            "clipUUID": clip.clip_uuid,
            "objectKey": clip.object_key,
            "estimate": clip.estimate,
            "month": clip.month,
            "createdAtMs": clip.created_at,
            **({"chain": _chain_value(clip.chain)} if clip.chain else {}),
            **changing,
        }
    )


def changing_attributes(clip: Clip) -> dict[str, Any]:
    """The attributes that a save writes; None removes one."""
    lease = clip.lease
    return {
        "facts": {_fact_name(*name): fact_value(record) for name, record in clip.facts.items()},
        "possiblySentAt": clip.possibly_sent_at,
        "possiblySentTo": clip.possibly_sent_to or None,
        "lease": lease._asdict() if lease else None,
        "dueShard": _shard(clip) if clip.next_check_at is not None else None,
        "nextCheckAt": clip.next_check_at,
        "counted": clip.budgeted,
        "version": clip.version,
    }


def _shard(clip: Clip) -> str:
    # A clip in review whose budgets are not current is checked like other clips.
    is_in_review = clip.decision is not None and clip.decision.needs_review and not clip.open and clip.budget_is_current
    return REVIEW_SHARD if is_in_review else str(int(clip.clip_uuid[:8], 16) % SHARDS)


def _chain_value(chain: Chain) -> dict[str, Any]:
    return {**chain._asdict(), "rest": [each._asdict() for each in chain.rest]}


def _read_chain(value: Mapping[str, Any]) -> Chain:
    return Chain(value["model"], tuple(FallbackModel(**each) for each in value["rest"]), value["on_moderation"])


def _fact_name(kind: str, key: str) -> str:
    return f"{kind}:{key}" if key else str(kind)


def fact_value(record: FactRecord) -> dict[str, Any]:
    """A fact in the format that earlier versions read, too; with its claims, if there are several."""
    seen = {str(source): at for source, at in record.seen.items()}
    fields = dict(record.fields)
    claims = {source: {"at": claim.at, "fields": dict(claim.fields)} for source, claim in record.claims.items()}
    return {"seen": seen, **({"fields": fields} if fields else {}), **({"claims": claims} if len(claims) > 1 else {})}


def read_task(item: Item) -> Task:
    """A task from its item or, after the request has expired, from the item of its first clip."""
    return Task(
        caller=item.get("caller") or item["clipCaller"],
        task_uuid=item["taskUUID"],
        request=json.loads(item.get("request", "{}")),
        fingerprint=item["fingerprint"],
        clips=item["clips"],
        created_at=item["createdAtMs"],
        expires_at=item["expiresAt"] * 1000 if "expiresAt" in item else None,
        webhook_url=item.get("webhookURL", ""),
    )


def read_clip(item: Item) -> Clip:
    """A clip from its item; raises `UnreadableClipError` for an item of another version or one edited by hand."""
    try:
        return _clip_of(item)
    except _NO_CLIP as error:
        raise UnreadableClipError(type(error).__name__) from None


def clip_of_image(image: Mapping[str, Any]) -> Clip:
    """A clip from its item's image in the table's stream; raises `UnreadableError` if it is not a clip."""
    try:
        return _clip_of(from_attributes(image))
    except _NO_CLIP:
        raise UnreadableError("the image is not a clip's") from None


def _clip_of(item: Item) -> Clip:
    lease = item.get("lease")
    return Clip(
        caller=item["clipCaller"],
        task_uuid=item["taskUUID"],
        index=item["clip"],
        clip_uuid=item["clipUUID"],
        object_key=item["objectKey"],
        estimate=item["estimate"],
        month=item["month"],
        created_at=item["createdAtMs"],
        chain=_read_chain(item["chain"]) if "chain" in item else None,
        facts=read_facts(item["facts"]),
        possibly_sent_at=item.get("possiblySentAt"),
        possibly_sent_to=item.get("possiblySentTo", ""),
        lease=Lease(lease["holder"], lease["since"], lease["until"], lease.get("account", "")) if lease else None,
        next_check_at=item.get("nextCheckAt"),
        budgeted=item["counted"],
        version=item["version"],
    )


def read_facts(values: Mapping[str, Any]) -> Facts:
    """The stored facts, including those of kinds and sources from a later version.

    Raises `ValueError` or `KeyError` for a fact of another format, because the next save could not preserve it.
    """
    facts = {}
    for name, value in values.items():
        kind, _, key = name.partition(":")
        if not value["seen"] or value.keys() - {"seen", "fields", "claims"}:
            raise ValueError(name)
        facts[kind, key] = _read_record(value)
    return facts


def _read_record(value: Mapping[str, Any]) -> FactRecord:
    if "claims" in value:
        return FactRecord({source: Claim(claim["at"], claim["fields"]) for source, claim in value["claims"].items()})
    return FactRecord.of_all(value["seen"], value.get("fields", {}))


def task_with_clips(items: Sequence[Item]) -> TaskWithClips | None:
    """The task in these items; None without a task or clips."""
    clips = sorted((read_clip(item) for item in items if "clipUUID" in item), key=lambda clip: clip.index)
    # The task's own item or, after it has expired, the tombstone in its first clip's.
    found = [item for item in items if "request" in item] or [item for item in items if "fingerprint" in item]
    if not found or not clips:
        return None
    task = read_task(found[0])
    return TaskWithClips(task, tuple(clips), _sortable(task.created_at, task.task_uuid))


def read_cost(item: Item) -> Cost:
    _, task_uuid, index = clip_name(item)
    tags = json.loads(item.get("tags", "{}"))
    created_at, budgeted = item["createdAtMs"], item["counted"]
    return Cost(item["clipCaller"], task_uuid, index, created_at, budgeted, item.get("model", ""), tags)


def secrets_item(caller: str, secrets: Sequence[SigningSecret]) -> Item:
    return {**signing_key(caller), **to_attributes({"secrets": [_present(secret) for secret in secrets]})}


def read_secrets(item: Item) -> list[SigningSecret]:
    return [
        SigningSecret(secret["text"], secret["made_at"], secret.get("ends_at")) for secret in item.get("secrets", [])
    ]


def attempt_item(attempt: Attempt, expires_at: int) -> Item:
    delivery = attempt.delivery
    values = {
        "caller": attempts_of(delivery.caller),
        "createdAt": _sortable(attempt.at, delivery.task_uuid),
        "delivery": delivery._asdict(),
        "at": attempt.at,
        "receiver": attempt.receiver,
        "reply": _present(attempt.reply),
        "outcome": str(attempt.outcome),
        "expiresAt": expires_at // 1000,
        **({"nextAt": attempt.next_at} if attempt.next_at is not None else {}),
    }
    return {**attempt_key(delivery), **to_attributes(values)}


def read_attempt(item: Item) -> Attempt:
    reply = item["reply"]
    return Attempt(
        delivery=Delivery(**item["delivery"]),
        at=item["at"],
        receiver=item["receiver"],
        reply=Reply(
            reply.get("status"),
            reply["duration"],
            reply["excerpt"],
            reply.get("retry_after"),
            reply["failure"],
        ),
        outcome=AttemptOutcome(item["outcome"]),
        next_at=item.get("nextAt"),
    )


def _present(values: Any) -> dict[str, Any]:
    """The fields of a named tuple that are not None."""
    return {name: value for name, value in values._asdict().items() if value is not None}


def read_caller(name: str, item: Item) -> Caller:
    return Caller(
        name,
        item["monthlyLimit"],
        tuple(item["imageSources"]),
        disabled=item.get("disabled", False),
        webhook_url=item.get("webhookURL", ""),
        signs_webhooks=item.get("signsWebhooks", False),
    )


def read_api_key(item: Item) -> ApiKey:
    """An API key, from either of its items."""
    name = item["sk"] if item["sk"].startswith("key#") else item["pk"]
    return ApiKey(name.removeprefix("key#"), item["name"], item["madeAt"], item.get("revokedAt"))
