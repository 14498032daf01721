"""The emulator's fault switches.

Responsible for the switches, their validation and the queue of one-shot faults. The other modules read here the
switches for a submission, a poll or a task, and implement them. With every switch at its default, the emulator behaves
as documented.
"""

import threading
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

Json = dict[str, Any]


class UnknownSwitchError(ValueError):
    """An unknown switch, or an invalid value of one. The message lists the switches."""


def _injectable(status: int) -> int:
    if status and not 300 <= status <= 599:
        raise ValueError("0 or an HTTP status from 300 to 599")
    return status


Status = Annotated[int, AfterValidator(_injectable)]


class Switches(BaseModel):
    """The values of all switches. Seconds are real seconds; a status of 0 means "not injected"."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, strict=True)

    # Submissions
    submit_status: Status = Field(0, description="HTTP status for submissions (300 to 599), which buy nothing; 0: off")
    submit_code: str = Field("", description="error code with submit_status; empty: the usual one for the status")
    submit_bare: bool = Field(False, description="submit_status with a gateway's HTML page instead of an envelope")
    submit_accepts: bool = Field(False, description="submit_status although the tasks are accepted")
    submit_seconds: float = Field(0.0, ge=0, description="delay of the response to an accepted submission, in seconds")
    submit_garbage: bool = Field(False, description="the response to an accepted submission is not JSON")
    submit_empty: bool = Field(False, description="the response to an accepted submission has an empty data list")
    submit_cut: Literal["no", "before", "after"] = Field(
        "no", description="the connection is cut before or after the tasks are accepted"
    )
    submit_late_seconds: float = Field(
        0.0, ge=0, description="the connection is cut at once, and the tasks are accepted so many seconds later"
    )
    fetches_images: bool = Field(
        True, description="an image URL of this machine is fetched and validated; false: accepted like all others"
    )
    conflict_status: Literal[400, 409] = Field(400, description="HTTP status of conflictTaskUUID")
    refuses_running: bool = Field(True, description="a repeated UUID of a running task is refused; false: bought again")
    refuses_finished: bool = Field(
        True, description="a repeated UUID of a finished task is refused; false: bought again"
    )

    # Polls
    poll_status: Status = Field(0, description="HTTP status for every getResponse (300 to 599); 0: off")
    poll_bare: bool = Field(False, description="poll_status with a gateway's HTML page instead of an envelope")
    finds_running: bool = Field(True, description="getResponse finds a running task")
    finds_finished_seconds: float | None = Field(
        None, ge=0, description="seconds for which getResponse finds a finished task; null: permanently"
    )
    unknown_uuid: Literal["empty", "taskNotFound"] = Field("empty", description="response to a poll of an unknown UUID")
    poll_failure_status: Literal[200, 400] = Field(200, description="HTTP status of a poll that finds only failures")
    poll_failure_shape: Literal["errors", "flat", "nested"] = Field(
        "errors", description="a failed task is in errors, or in data as a flat or nested error item"
    )
    finds_details: bool = Field(True, description="getTaskDetails exists")
    details_status: Status = Field(0, description="HTTP status for every getTaskDetails (300 to 599); 0: off")

    # The render and its result
    failure: str = Field("", description="renders fail with this code; a failed render is not charged")
    recovers_seconds: float | None = Field(
        None, ge=0, description="a failed task succeeds so many seconds after its failure; null: never"
    )
    result_format: Literal["", "MP4", "MOV", "WEBM"] = Field(
        "", description="format of every render; empty: as ordered"
    )
    result_url: bool = Field(True, description="results have videoURL")
    result_base64: Literal["no", "videoBase64Data", "videoDataURI"] = Field(
        "no", description="results have the video's bytes, in this field"
    )
    result_cost: bool = Field(True, description="results have cost if the task has includeCost")
    result_nsfw: bool = Field(False, description="results are flagged NSFWContent: true")
    price_percent: int = Field(100, ge=0, description="the charge, in percent of the list price")
    video_url_status: Status = Field(0, description="HTTP status for downloads of videoURL (300 to 599); 0: off")
    video_url_empty_reads: int = Field(0, ge=0, description="number of first downloads of a videoURL that are empty")

    # The upload
    upload: Literal["before", "after", "never"] = Field(
        "before", description="the PUT comes before or after the webhook, or never"
    )
    upload_seconds: float = Field(0.0, ge=0, description="delay of the PUT, in seconds")
    upload_fails: bool = Field(False, description="the PUT fails: nothing is sent to uploadEndpoint")
    upload_content: Literal["video", "garbage", "empty"] = Field("video", description="the content of the PUT")
    upload_content_type: str = Field("", description="Content-Type of the PUT; empty: the header is not sent")
    reports_delivery_failure: Literal["no", "beside", "instead"] = Field(
        "no", description="polls report uploadFailed and webhookTimeout: no, beside the result, or instead of it"
    )

    # Webhooks
    webhook_copies: int = Field(1, ge=0, le=10, description="number of copies of each webhook; 0: none")
    webhook_seconds: float = Field(0.0, ge=0, description="delay of the webhooks, in seconds")
    webhook_reordered: bool = Field(False, description="a task's webhooks wait for its end, and are sent last first")
    webhook_before_answer: bool = Field(False, description="the webhook arrives before the acknowledgement")
    webhook_shape: Literal["envelope", "full", "flat", "array", "singular"] = Field(
        "envelope",
        description="envelope: data or errors; full: both keys; flat: the bare item; array: a bare array; "
        "singular: failures under error",
    )
    webhook_on_failure: bool = Field(True, description="failed tasks send a webhook too")
    webhook_retries: int = Field(9, ge=0, le=100, description="number of retries of a webhook that gets no 2xx")
    webhook_progress: bool = Field(False, description="an accepted task sends a webhook with status processing")


class OneShot:
    """Switches for the next submission whose JSON contains the text `match`; an empty text matches all.

    They override the permanent ones for that request and the tasks that it starts. Raises UnknownSwitchError.
    """

    def __init__(self, match: str = "", **switches: Any) -> None:
        validated(switches)
        self.match = match
        self.switches = switches


class Faults(Switches):
    """The permanent switches, as attributes, and the one-shot faults that wait for their submission."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)
    next_submissions: list[OneShot] = Field([], description="one-shot faults: switches, and match for the JSON's text")

    def take(self, submission: str) -> Json:
        """Remove the first one-shot that matches this JSON text; returns its switches, empty if none matches."""
        with self._lock:
            for shot in self.next_submissions:
                if shot.match in submission:
                    self.next_submissions.remove(shot)
                    return shot.switches
        return {}

    def with_overrides(self, switches: Mapping[str, Any]) -> Switches:
        """The permanent switches, overridden by these."""
        return Switches.model_construct(**{**self.permanent(), **switches})

    def replace(self, values: Json) -> None:
        """Set these switches and reset all others to their defaults. Raises UnknownSwitchError."""
        shots = values.get("next_submissions", [])
        if not isinstance(shots, list) or not all(isinstance(shot, dict) for shot in shots):
            raise UnknownSwitchError("next_submissions: must be an array of objects")
        switches = validated({name: value for name, value in values.items() if name != "next_submissions"})
        one_shots = [OneShot(**shot) for shot in shots]
        for name in Switches.model_fields:
            setattr(self, name, getattr(switches, name))
        self.next_submissions = one_shots

    def permanent(self) -> Json:
        """The permanent switches as JSON."""
        return {name: getattr(self, name) for name in Switches.model_fields}

    def one_shots(self) -> list[Json]:
        """The one-shot faults as JSON."""
        return [{"match": shot.match, **shot.switches} for shot in self.next_submissions]


def validated(switches: Mapping[str, Any]) -> Switches:
    """These switches, and the defaults of all others. Raises UnknownSwitchError."""
    try:
        return Switches(**switches)
    except ValidationError as error:
        faulty = "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())
        raise UnknownSwitchError(f"{faulty}. The switches are: {', '.join(Switches.model_fields)}") from error
