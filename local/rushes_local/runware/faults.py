"""How the emulated Runware misbehaves.

Responsible for the switches, their checks and the queue of one-shot faults. It decides nothing: the rest of the
emulator asks here what applies to a submission, a poll or a task. With every switch at its default, the emulator is
the well-behaved service of the documentation.
"""

import threading
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

Json = dict[str, Any]


class UnknownSwitchError(ValueError):
    """A switch that does not exist, or a value that it cannot take. The message lists what there is."""


def _injectable(status: int) -> int:
    if status and not 300 <= status <= 599:
        raise ValueError("0 or an HTTP status from 300 to 599")
    return status


Status = Annotated[int, AfterValidator(_injectable)]


class Switches(BaseModel):
    """One setting of all switches. Seconds are real seconds; a status of 0 means "not injected"."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, strict=True)

    # Submissions
    submit_status: Status = Field(0, description="answer submissions with this HTTP status (300 to 599), buy nothing")
    submit_code: str = Field("", description="the error code that goes with submit_status; empty: the usual one")
    submit_bare: bool = Field(False, description="submit_status comes with a gateway's HTML instead of an envelope")
    submit_accepts: bool = Field(False, description="submit_status is only the answer: the tasks were accepted")
    submit_seconds: float = Field(0.0, ge=0, description="the answer to a submission takes this long, once accepted")
    submit_garbage: bool = Field(False, description="the answer to an accepted submission is not JSON")
    submit_empty: bool = Field(False, description="an accepted submission is answered with an empty data list")
    submit_cut: Literal["no", "before", "after"] = Field(
        "no", description="the connection is cut before or after the tasks are accepted"
    )
    submit_late_seconds: float = Field(
        0.0, ge=0, description="the connection is cut at once and the tasks are accepted only this much later"
    )
    fetches_images: bool = Field(
        True, description="an image URL on this machine is fetched and judged; false: taken on trust like all others"
    )
    conflict_status: Literal[400, 409] = Field(400, description="HTTP status of conflictTaskUUID")
    refuses_running: bool = Field(True, description="a UUID in flight is refused; false: it is bought again")
    refuses_finished: bool = Field(True, description="the UUID of a finished task is refused; false: bought again")

    # Polls
    poll_status: Status = Field(0, description="answer every getResponse with this HTTP status (300 to 599)")
    poll_bare: bool = Field(False, description="poll_status comes with a gateway's HTML instead of an envelope")
    finds_running: bool = Field(True, description="getResponse knows a task that still runs")
    finds_finished_seconds: float | None = Field(
        None, ge=0, description="how long getResponse knows a finished task; null: for ever"
    )
    unknown_uuid: Literal["empty", "taskNotFound"] = Field("empty", description="what a poll says of an unknown UUID")
    poll_failure_status: Literal[200, 400] = Field(
        200, description="HTTP status of a poll that has nothing but failures to tell"
    )
    poll_failure_shape: Literal["errors", "flat", "nested"] = Field(
        "errors", description="a failed task is told in errors, or in data as a flat or nested error item"
    )
    finds_details: bool = Field(True, description="getTaskDetails exists")
    details_status: Status = Field(0, description="answer every getTaskDetails with this HTTP status (300 to 599)")

    # The render and its result
    failure: str = Field("", description="renders fail with this code; a failed render is not charged")
    recovers_seconds: float | None = Field(
        None, ge=0, description="a failed task succeeds after all, this long after it failed; null: never"
    )
    result_format: Literal["", "MP4", "MOV", "WEBM"] = Field(
        "", description="renders are of this format, whatever was ordered; empty: as ordered"
    )
    result_url: bool = Field(True, description="results carry videoURL")
    result_base64: Literal["no", "videoBase64Data", "videoDataURI"] = Field(
        "no", description="results carry the bytes themselves, in this field"
    )
    result_cost: bool = Field(True, description="results carry cost when includeCost asked for it")
    result_nsfw: bool = Field(False, description="results are flagged NSFWContent: true")
    price_percent: int = Field(100, ge=0, description="what is charged, in percent of the listed price")
    video_url_status: Status = Field(0, description="answer downloads of videoURL with this HTTP status (300 to 599)")
    video_url_empty_reads: int = Field(0, ge=0, description="so many first downloads of a videoURL are 200 and empty")

    # The upload
    upload: Literal["before", "after", "never"] = Field(
        "before", description="whether the PUT comes before or after the webhook, or not at all"
    )
    upload_seconds: float = Field(0.0, ge=0, description="the PUT starts this much later than its turn")
    upload_fails: bool = Field(False, description="the PUT breaks: nothing is sent to uploadEndpoint")
    upload_content: Literal["video", "garbage", "empty"] = Field("video", description="the bytes that are PUT")
    upload_content_type: str = Field("", description="Content-Type of the PUT; empty: the header is not sent")
    reports_delivery_failure: Literal["no", "beside", "instead"] = Field(
        "no", description="whether polls tell uploadFailed and webhookTimeout, beside or instead of the result"
    )

    # Webhooks
    webhook_copies: int = Field(1, ge=0, le=10, description="how often each webhook is sent: 0 never, 2 duplicated")
    webhook_seconds: float = Field(0.0, ge=0, description="webhooks go out this much later than their turn")
    webhook_reordered: bool = Field(
        False, description="a task's webhooks are kept until it is over and then go out last first"
    )
    webhook_before_answer: bool = Field(False, description="the webhook arrives before the acknowledgement returns")
    webhook_shape: Literal["envelope", "full", "flat", "array", "singular"] = Field(
        "envelope",
        description="envelope: data or errors; full: both keys; flat: the bare item; array: a bare array; "
        "singular: failures under error",
    )
    webhook_on_failure: bool = Field(True, description="failed tasks call the webhook too")
    webhook_retries: int = Field(9, ge=0, le=100, description="how often a webhook that got no 2xx is repeated")
    webhook_progress: bool = Field(False, description="an accepted task calls the webhook with status processing")


class OneShot:
    """Switches for the next submission that contains `match` (any text of its JSON; empty matches all).

    They hold for that request and for the tasks it starts, over and above the permanent ones.
    """

    def __init__(self, match: str = "", **switches: Any) -> None:
        checked(switches)
        self.match = match
        self.switches = switches


class Faults(Switches):
    """The permanent switches, settable as attributes, and the one-shot faults waiting for their submission."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    _taking: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    next_submissions: list[OneShot] = Field([], description="one-shot faults: switches, and match for the JSON's text")

    def take(self, submission: str) -> Json:
        """The switches of the first waiting one-shot that matches this JSON text, which is then used up."""
        with self._taking:
            for shot in self.next_submissions:
                if shot.match in submission:
                    self.next_submissions.remove(shot)
                    return shot.switches
        return {}

    def over(self, switches: Mapping[str, Any]) -> Switches:
        """What applies where these switches go over the permanent ones."""
        return Switches.model_construct(**{**self.shown(), **switches})

    def replace(self, wanted: Json) -> None:
        """Set exactly these switches and put all others back to their defaults."""
        shots = wanted.get("next_submissions", [])
        if not isinstance(shots, list) or not all(isinstance(shot, dict) for shot in shots):
            raise UnknownSwitchError("next_submissions: must be an array of objects")
        fresh = checked({name: value for name, value in wanted.items() if name != "next_submissions"})
        one_shots = [OneShot(**shot) for shot in shots]
        for name in Switches.model_fields:
            setattr(self, name, getattr(fresh, name))
        self.next_submissions = one_shots

    def shown(self) -> Json:
        """The permanent switches as JSON."""
        return {name: getattr(self, name) for name in Switches.model_fields}

    def waiting(self) -> list[Json]:
        """The one-shot faults as JSON."""
        return [{"match": shot.match, **shot.switches} for shot in self.next_submissions]


def checked(switches: Mapping[str, Any]) -> Switches:
    """These switches over the defaults, or UnknownSwitchError."""
    try:
        return Switches(**switches)
    except ValidationError as error:
        faulty = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise UnknownSwitchError(f"{faulty}. Known switches: {', '.join(Switches.model_fields)}") from error
