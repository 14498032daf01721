"""Corrections of moto's buckets: policies with conditions, and the events of EventBridge in the notifications.

moto ignores the conditions of a bucket policy's statements, so that a conditional denial would deny every request. A
statement with a condition therefore has no effect here: requests to this machine have no TLS. And
GetBucketNotificationConfiguration lacks the element EventBridgeConfiguration, which "enables delivery of events to
Amazon EventBridge".
https://docs.aws.amazon.com/AmazonS3/latest/API/API_NotificationConfiguration.html
"""

import json
from typing import Any


def correct_buckets() -> None:
    """Change moto's buckets for this process; a second call changes nothing. Imports moto."""
    from moto.core.responses import ActionResult
    from moto.iam.access_control import IAMPolicy, PermissionResult
    from moto.s3.models import FakeBucket
    from moto.s3.responses import S3Response

    if hasattr(S3Response, "notifications_without_event_bridge"):
        return

    def get_permission(bucket: Any, action: str, resource: str) -> Any:
        statements = json.loads(bucket.policy)["Statement"] if bucket.policy else []
        unconditional = [each for each in statements if "Condition" not in each]
        if not unconditional:
            return PermissionResult.NEUTRAL
        return IAMPolicy(json.dumps({"Statement": unconditional})).is_action_permitted(action, resource)

    def get_bucket_notification(self: Any) -> Any:
        found = self.backend.get_bucket_notification_configuration(self.bucket_name)
        if found is None or found.event_bridge is None:
            return self.notifications_without_event_bridge()
        self.data["Action"] = "GetBucketNotificationConfiguration"
        return self.serialized(ActionResult({"EventBridgeConfiguration": {}}))

    FakeBucket.get_permission = get_permission  # type: ignore[method-assign,assignment]
    S3Response.notifications_without_event_bridge = S3Response.get_bucket_notification  # type: ignore[attr-defined]
    S3Response.get_bucket_notification = get_bucket_notification  # type: ignore[method-assign]
