"""One attempt to buy one clip, whoever makes it: `submit` at first, `reconcile` later.

The caller of `attempt` has put a lease for its holder into the table. What comes back from Runware is learned here;
if that cannot be saved, the lease stays behind and says so to whoever finds it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rushes.domain import webhook_token
from rushes.domain.clip import Clip, release
from rushes.domain.timings import Timings
from rushes.errors import BucketError, BusyError
from rushes.runware import facts
from rushes.runware.outcome import Outcome
from rushes.runware.wire import OURS
from rushes.services import input_images
from rushes.services.ports import ClipObjects, ClipTable, Metric, RunwareOrders, Telemetry
from rushes.services.update_clip import update_clip


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a purchase is made and called back with; `webhook_keys` are newest first."""

    runware_key: str
    webhook_keys: Sequence[str]

    @property
    def account(self) -> str:
        """By what two Runware accounts are told apart. A new key of the same account counts as another one."""
        return hashlib.sha256(f"account {self.runware_key}".encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Buyer:
    """Who buys: the name that its leases carry, and until when its function may run, in milliseconds.

    `patient`: nobody waits for an answer, so trouble with our account leaves the clip pending instead of refused.
    """

    holder: str
    ends_at: int
    credentials: Credentials
    unattended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PurchaseService:
    """What every attempt needs. `clock` gives milliseconds."""

    clips: ClipTable
    links: ClipObjects
    runware: RunwareOrders
    telemetry: Telemetry
    times: Timings
    webhook_url: str
    clock: Callable[[], int]

    def attempt(self, clip: Clip, request: Mapping[str, Any], buyer: Buyer) -> tuple[Clip, Outcome | None]:
        """Sends a leased clip once and learns what came of it; None for the outcome means that nothing was sent.

        Never raises for trouble with the table after the request is out: the record knows enough to go on.
        """
        sent_at = self.clock()
        # By another function's clock the lease may be over sooner.
        lease_ends_at = clip.lease.until - self.times.skew if clip.lease else sent_at
        task = self._order(clip, request, buyer, sent_at)
        if task is None or sent_at + self.times.http > min(lease_ends_at, buyer.ends_at):
            return self.give_back(clip, buyer), None
        outcome = self.runware.submit(task, buyer.credentials.runware_key)
        if facts.is_account_refusal(outcome):
            self.telemetry.count(Metric.ACCOUNT_REFUSED)
            status, code, said = outcome.status, outcome.problem.code, outcome.problem.message
            self.telemetry.log("Runware refuses our account", warn=True, httpStatus=status, code=code, said=said)
        now = self.clock()
        learned = self._update(
            clip,
            lambda current: facts.apply_outcome(
                current,
                outcome,
                holder=buyer.holder,
                account=buyer.credentials.account,
                sent_at=sent_at,
                now=now,
                unattended=buyer.unattended,
            ),
        )
        return learned, outcome

    def give_back(self, clip: Clip, buyer: Buyer) -> Clip:
        """Ends a lease under which nothing was sent, so that it does not count as an attempt."""
        return self._update(clip, lambda current: release(current, buyer.holder))

    def _order(self, clip: Clip, request: Mapping[str, Any], buyer: Buyer, now: int) -> dict[str, Any] | None:
        """What is sent for the clip; None if no link can be signed just now for its upload or its image."""
        seconds = self.times.deadline // 1000
        try:
            link = self.links.upload_link(clip.object_key, seconds)
            reachable = input_images.linked(request, lambda bucket, key: self.links.image_link(bucket, key, seconds))
        except BucketError as error:
            self.telemetry.log("no link could be signed", warn=True, reason=str(error), clipUUID=clip.clip_uuid)
            return None
        callback = callback_url(self.webhook_url, clip, buyer.credentials.webhook_keys, now)
        least_ttl = self.times.copy_deadline // 1000
        return build_wire_task(reachable, clip, callback=callback, upload_link=link, least_ttl=least_ttl)

    def _update(self, clip: Clip, change: Callable[[Clip], Clip]) -> Clip:
        try:
            return update_clip(self.clips, clip, change, now=self.clock(), times=self.times, telemetry=self.telemetry)
        except BusyError as error:
            # The lease may stay behind; then the attempt counts as ambiguous.
            self.telemetry.log(
                "an attempt's outcome could not be saved",
                warn=True,
                reason=str(error),
                taskUUID=clip.task_uuid,
                clip=clip.index,
            )
            return clip


def callback_url(base: str, clip: Clip, keys: Sequence[str], now: int) -> str:
    """Where Runware reports this clip, with a token for this clip alone."""
    subject = webhook_token.subject(clip.caller, clip.task_uuid, clip.index)
    return f"{base}/webhooks/runware/{subject}?token={webhook_token.sign(subject, keys, now)}"


def build_wire_task(
    request: Mapping[str, Any], clip: Clip, *, callback: str, upload_link: str, least_ttl: int
) -> dict[str, Any]:
    """The one task that buys this clip: the caller's request, with what the service itself decides.

    `ttl` shortens how long Runware keeps its copy, and a rescue needs that copy: never below `least_ttl` seconds.
    """
    task = {name: value for name, value in request.items() if name not in OURS}
    if "ttl" in task:
        task["ttl"] = max(task["ttl"], least_ttl)
    return task | {
        "taskUUID": clip.clip_uuid,
        "deliveryMethod": "async",
        "numberResults": 1,
        "includeCost": True,
        "webhookURL": callback,
        "uploadEndpoint": upload_link,
    }
