"""Delivers the emulator's results: render, PUT to uploadEndpoint, POST to webhookURL with retries.

Runs in background workers, where each step queues the next one. Hides the order of upload, publication and webhook, and
the shapes of a webhook's body.
"""

import base64
import json
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from rushes_local.runware.rendering import EXCERPT, Renderer, Shape
from rushes_local.runware.tasks import Execution, TaskBook, Video
from rushes_local.runware.workers import Workers

logger = logging.getLogger(__name__)

Json = dict[str, Any]

SMALL_VARIANTS = 4  # so that most small renders come from the cache
RENDERS, DELIVERIES = "render", "deliver"
LANES = {RENDERS: 2, DELIVERIES: 8}
# As Runware documents: from 250 ms, doubling up to 8 s. The number of retries is not documented; see
# Switches.webhook_retries.
RETRY_DELAYS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
JITTER = 0.25
WEBHOOK_TIMEOUT = 5.0
UPLOAD_TIMEOUT = 30.0
MODERATION = frozenset(
    {
        "invalidProviderContent",
        "contentPolicyViolation",
        "providerContentPolicyViolation",
        "sensitiveContentDetected",
        "unsafeContentDetected",
        "nsfwContentDetected",
        "promptBlocked",
        "imageBlocked",
        "moderationFailed",
    }
)


class TaskCompletion:
    """Renders the released runs and delivers their results."""

    def __init__(
        self,
        book: TaskBook,
        workers: Workers,
        http: httpx.Client,
        base_url: Callable[[], str],
        retry_delays: Sequence[float],
        small: bool,
    ) -> None:
        self._book = book
        self._workers = workers
        self._http = http
        self._base_url = base_url
        self._retry_delays = retry_delays
        self._small = small
        self._render = Renderer()

    def start(self, run: Execution, delay: float) -> None:
        """Finish the run in `delay` seconds."""
        self._workers.at(RENDERS, delay, lambda: self._finish(run))

    def progress(self, run: Execution) -> None:
        """Send a webhook with the status `processing` if the switch `webhook_progress` is on."""
        if self._book.switches(run).webhook_progress and "webhookURL" in run.task:
            body = self._body(run, run.item(status="processing"))
            self._workers.at(DELIVERIES, 0, lambda: self._post_once(run.task["webhookURL"], body))

    def _finish(self, run: Execution) -> None:
        switches = self._book.switches(run)
        if not switches.failure:
            self._succeed(run)
            return
        failure = _failure(run, switches.failure)
        self._book.fail(run, failure)
        if switches.webhook_on_failure:
            self._call(run, failure)
        else:
            run.called.set()
        if switches.recovers_seconds is not None:
            self._workers.at(RENDERS, switches.recovers_seconds, lambda: self._succeed(run))

    def _succeed(self, run: Execution) -> None:
        for number in range(run.wanted):
            seed = random.Random(f"{run.uuid.lower()} {number}").randrange(1, 2**31)
            shape = _shape(run, self._book.format(run), self._small, seed)
            result, video = self._book.rendered(run, self._render(shape), self._base_url(), seed)
            content = video.content
            field = self._book.switches(run).result_base64
            if field != "no":
                prefix = f"data:{video.container.content_type};base64," if field == "videoDataURI" else ""
                result[field] = prefix + base64.b64encode(content).decode()
            self._deliver(run, result, video)

    def _deliver(self, run: Execution, result: Json, video: Video) -> None:
        switches = self._book.switches(run)

        def publish() -> None:
            self._book.publish(run, result)
            self._call(run, result)

        def upload_and_publish() -> None:
            self._upload(run, video)
            publish()

        def publish_and_upload() -> None:
            publish()
            # The webhook's own delay is added, because the upload must follow the call itself.
            delay = switches.webhook_seconds + switches.upload_seconds
            self._workers.at(DELIVERIES, delay, lambda: self._upload_after_call(run, video))

        if "uploadEndpoint" not in run.task or switches.upload == "never":
            self._workers.at(DELIVERIES, 0, publish)
        elif switches.upload == "before":
            self._workers.at(DELIVERIES, switches.upload_seconds, upload_and_publish)
        else:
            self._workers.at(DELIVERIES, 0, publish_and_upload)

    def _upload_after_call(self, run: Execution, video: Video) -> None:
        if not run.called.wait(UPLOAD_TIMEOUT):
            logger.warning("task %s: webhook not sent in time; uploading", run.uuid)
        self._upload(run, video)

    def _upload(self, run: Execution, video: Video) -> None:
        switches = self._book.switches(run)
        content = {"video": video.content, "garbage": b"this is not a video\n" * 50, "empty": b""}
        headers = {"Content-Type": switches.upload_content_type} if switches.upload_content_type else {}
        try:
            if switches.upload_fails:
                raise httpx.WriteError("the switch upload_fails is on")
            self._http.put(
                run.task["uploadEndpoint"],
                content=content[switches.upload_content],
                headers=headers,
                timeout=UPLOAD_TIMEOUT,
            ).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            logger.info("task %s: upload failed: %s", run.uuid, type(error).__name__)
            self._book.delivery_failed(run, _failure(run, "uploadFailed"))

    def _call(self, run: Execution, item: Json) -> None:
        """Send the webhook for one result or failure, or delay it if the switch `webhook_reordered` is on."""
        switches = self._book.switches(run)
        if "webhookURL" not in run.task or switches.webhook_copies == 0:
            run.called.set()
            return
        body = self._body(run, item)
        calls = self._book.delay_call(run, body) if switches.webhook_reordered else [body]
        for _ in range(switches.webhook_copies):
            self._workers.at(DELIVERIES, switches.webhook_seconds, lambda: self._post_all(run, calls))

    def _post_all(self, run: Execution, bodies: list[Any]) -> None:
        # In one job, because several jobs would not keep the order.
        for body in bodies:
            self._post(run, body, 0)

    def _post(self, run: Execution, body: Any, attempt: int) -> None:
        delivered = self._post_once(run.task["webhookURL"], body)
        run.called.set()
        if delivered:
            return
        if attempt >= self._book.switches(run).webhook_retries:
            self._book.delivery_failed(run, _failure(run, "webhookTimeout"))
            return
        delay = self._retry_delays[min(attempt, len(self._retry_delays) - 1)]
        jittered = delay * (1 + JITTER * random.random())
        self._workers.at(DELIVERIES, jittered, lambda: self._post(run, body, attempt + 1))

    def _post_once(self, url: str, body: Any) -> bool:
        try:
            headers = {"Content-Type": "application/json"}
            call = self._http.post(url, content=json.dumps(body), headers=headers, timeout=WEBHOOK_TIMEOUT)
            return call.is_success
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            logger.info("webhook failed: %s", type(error).__name__)
            return False

    def _body(self, run: Execution, item: Json) -> Any:
        key, other = ("errors", "data") if item.get("status") == "error" else ("data", "errors")
        match self._book.switches(run).webhook_shape:
            case "flat":
                return item
            case "array":
                return [item]
            case "full":
                return {key: [item], other: []}
            case "singular" if key == "errors":
                return {"error": item}
        return {key: [item]}


def _shape(run: Execution, container: str, small: bool, seed: int) -> Shape:
    task = run.task
    prompt = task["positivePrompt"]
    excerpt = prompt if len(prompt) <= EXCERPT else prompt[:EXCERPT] + "…"
    source = "from image: " if task.get("inputs", {}).get("frameImages") else ""
    # JSON may contain lone surrogates, which no font can draw.
    caption = (source + excerpt).encode(errors="replace").decode()
    size = task.get("width", 1920), task.get("height", 1080)
    return Shape(*size, run.seconds, container, caption, small, seed % SMALL_VARIANTS if small else seed)


def _failure(run: Execution, code: str) -> Json:
    more = {"responseContent": "The content was refused."} if code in MODERATION else {}
    return {
        "code": code,
        "message": f"The emulator injected the error '{code}'.",
        "documentation": "https://runware.ai/docs/platform/errors",
        **more,
        "status": "error",
        "taskUUID": run.task["taskUUID"],
        "taskType": run.task["taskType"],
    }
