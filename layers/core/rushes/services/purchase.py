"""One attempt to buy one clip: the first is made by `submit`, later ones by `reconcile`.

Before a call of `attempt`, the caller saves the clip with a lease for its buyer. The outcome is saved here. If that
fails, the lease stays in the table, and once it expires the attempt counts as ambiguous.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from rushes.domain import webhook_token
from rushes.domain.clip import Clip, release
from rushes.domain.timings import Timings
from rushes.errors import BucketError, BusyError
from rushes.runware import facts
from rushes.runware.outcome import Outcome
from rushes.runware.wire import OURS
from rushes.services import input_images
from rushes.services.metric import Metric
from rushes.services.update_clip import update_clip

if TYPE_CHECKING:
    from rushes.services.ports import ClipObjects, ClipTable, RunwareOrders, Telemetry


class Credentials(NamedTuple):
    """The secrets of a purchase: Runware's API key, and the keys that sign webhook tokens, newest first."""

    runware_key: str
    webhook_keys: Sequence[str]

    @property
    def account(self) -> str:
        """A digest that identifies the Runware account. A new key of the same account counts as another account."""
        return hashlib.sha256(f"account {self.runware_key}".encode()).hexdigest()[:12]


class Buyer(NamedTuple):
    """A function invocation that buys: the holder of its leases, its end in milliseconds, and its credentials.

    `unattended`: no caller waits for an answer, so an account refusal leaves the clip pending instead of refused.
    """

    holder: str
    ends_at: int
    credentials: Credentials
    unattended: bool = False


@dataclass(slots=True, kw_only=True, eq=False, repr=False)
class PurchaseService:
    """The attempts to buy, with their adapters. `clock` gives milliseconds.

    `SubmitService` calls it for new clips, also on behalf of `InboxService`, and `ReconcileService` for pending ones.
    """

    clips: ClipTable
    links: ClipObjects
    runware: RunwareOrders
    telemetry: Telemetry
    times: Timings
    webhook_url: str
    clock: Callable[[], int]

    def attempt(self, clip: Clip, request: Mapping[str, Any], buyer: Buyer) -> tuple[Clip, Outcome | None]:
        """Sends a leased clip once; returns the saved clip and the outcome, which is None if nothing was sent.

        Does not raise if the table is unavailable after the send: the lease on record is enough to continue.
        """
        sent_at = self.clock()
        # The lease may end earlier by another function's clock.
        lease_ends_at = clip.lease.until - self.times.skew if clip.lease else sent_at
        task = self._order(clip, request, buyer, sent_at)
        if task is None or sent_at + self.times.http > min(lease_ends_at, buyer.ends_at):
            return self.give_back(clip, buyer), None
        outcome = self.runware.submit(task, buyer.credentials.runware_key)
        if facts.is_account_refusal(outcome):
            self.telemetry.count(Metric.ACCOUNT_REFUSED)
            status, code, reason = outcome.status, outcome.problem.code, outcome.problem.message
            self.telemetry.log("Runware refused the account", warn=True, httpStatus=status, code=code, reason=reason)
        now = self.clock()
        updated = self._update(
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
        return updated, outcome

    def give_back(self, clip: Clip, buyer: Buyer) -> Clip:
        """Ends a lease under which nothing was sent, so that it does not count as an attempt."""
        return self._update(clip, lambda current: release(current, buyer.holder))

    def _order(self, clip: Clip, request: Mapping[str, Any], buyer: Buyer, now: int) -> dict[str, Any] | None:
        """The task to send for the clip; None if the link for its upload or its image cannot be signed now."""
        seconds = self.times.deadline // 1000
        try:
            link = self.links.upload_link(clip.object_key, seconds)
            reachable = input_images.linked(request, lambda bucket, key: self.links.image_link(bucket, key, seconds))
        except BucketError as error:
            self.telemetry.log(
                "upload or image link could not be signed", warn=True, reason=str(error), clipUUID=clip.clip_uuid
            )
            return None
        callback = callback_url(self.webhook_url, clip, buyer.credentials.webhook_keys, now)
        least_ttl = self.times.copy_deadline // 1000
        return build_wire_task(reachable, clip, callback=callback, upload_link=link, least_ttl=least_ttl)

    def _update(self, clip: Clip, change: Callable[[Clip], Clip]) -> Clip:
        try:
            return update_clip(self.clips, clip, change, now=self.clock(), times=self.times, telemetry=self.telemetry)
        except BusyError as error:
            # If the lease stays, the attempt counts as ambiguous.
            self.telemetry.log(
                "attempt outcome could not be saved",
                warn=True,
                reason=str(error),
                taskUUID=clip.task_uuid,
                clip=clip.index,
            )
            return clip


def callback_url(base: str, clip: Clip, keys: Sequence[str], now: int) -> str:
    """The webhook URL for this clip, with a token that is valid for this clip only."""
    subject = webhook_token.subject(clip.caller, clip.task_uuid, clip.index)
    return f"{base}/webhooks/runware/{subject}?token={webhook_token.sign(subject, keys, now)}"


def build_wire_task(
    request: Mapping[str, Any], clip: Clip, *, callback: str, upload_link: str, least_ttl: int
) -> dict[str, Any]:
    """The task that buys this clip: the caller's request with the service's own parameters.

    A caller's `ttl` limits how long Runware keeps the render; it is raised to `least_ttl` seconds for a rescue.
    """
    task = {name: value for name, value in request.items() if name not in OURS}
    if "ttl" in task:
        task["ttl"] = max(task["ttl"], least_ttl)
    if clip.chain:
        task["model"] = clip.chain.model
    return task | {
        "taskUUID": clip.clip_uuid,
        "deliveryMethod": "async",
        "numberResults": 1,
        "includeCost": True,
        "webhookURL": callback,
        "uploadEndpoint": upload_link,
    }
