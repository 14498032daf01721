"""The S3 server of the contract tests: the local AWS, OpenStack Swift, or any other endpoint.

S3_ENDPOINT selects it: empty for the local AWS, `swift`, or an address, for which boto3 finds credentials and region
as always. Swift is another implementation of S3's signatures, versions, conditions and multipart uploads, so that a
test that passes with both depends on no peculiarity of moto.
"""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from rushes.adapters.s3 import S3_CONFIG
from rushes_local.stack import Stack
from tests.conftest import ROOT

SWIFT_PYTHON = ROOT / ".venv-swift" / "bin" / "python"
SWIFT_LACKS = {
    "faults": "Swift injects no errors",
    "refused versions": "Swift refuses the second PUT with If-None-Match, but lists its content as an older version",
}
# The timeouts in S3_CONFIG are for functions; a request of a test may wait for a busy machine.
_PATIENT = Config(proxies={}, read_timeout=30)


@dataclass
class S3Server:
    """A server, with a client that has the settings of the functions. `lacks` gives a reason for each missing ability.

    The abilities: `faults`, errors on request; `refused versions`, no version after a conditional PUT that is refused.
    """

    client: Any
    lacks: dict[str, str] = field(default_factory=dict)
    keeps_buckets: bool = True  # removed with the server
    _buckets: list[str] = field(default_factory=list)

    def need(self, ability: str) -> None:
        """Skips the test, with the reason, if the server lacks an ability."""
        if ability in self.lacks:
            pytest.skip(f"{ability}: {self.lacks[ability]}")

    def new_bucket(self) -> str:
        """The name of a new bucket with versioning, as in the template."""
        name = f"rushes-test-{uuid.uuid4()}"
        region = self.client.meta.region_name
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        self.client.create_bucket(Bucket=name, **where)
        self._buckets.append(name)
        self.client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    def remove_buckets(self) -> None:
        """Removes all buckets of this server's tests with their objects, unless they end with the server."""
        while self._buckets and not self.keeps_buckets:
            name = self._buckets.pop()
            for page in self.client.get_paginator("list_object_versions").paginate(Bucket=name):
                for each in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
                    self.client.delete_object(Bucket=name, Key=each["Key"], VersionId=each["VersionId"])
            self.client.delete_bucket(Bucket=name)


@contextmanager
def serve_s3(folder: Path) -> Iterator[S3Server]:
    """The server that S3_ENDPOINT selects; Swift's data are in this folder, which must be empty."""
    if os.environ["S3_ENDPOINT"] == "swift":
        with _swift(folder) as client:
            yield S3Server(client, SWIFT_LACKS)
        return
    client = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"], config=S3_CONFIG.merge(_PATIENT))
    yield S3Server(client, {"faults": "the endpoint injects no errors"}, keeps_buckets=False)


@cache
def local_s3(stack: Stack) -> S3Server:
    """The S3 of the local stack, with one client for all tests, because making one takes longer than most tests."""
    return S3Server(stack.client("s3", config=S3_CONFIG))


@contextmanager
def _swift(folder: Path) -> Iterator[Any]:
    if not SWIFT_PYTHON.exists():
        pytest.fail("Swift is not installed: run the tests with `make test-s3`")
    access_key, secret_key = "test:tester", "a-secret-key-for-swift"
    command = [
        SWIFT_PYTHON,
        "-W",
        "ignore",
        Path(__file__).with_name("swift_server.py"),
        folder,
        access_key,
        secret_key,
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            port = process.stdout.readline().strip()
            assert port.isdigit(), "Swift did not start; its errors are above"
            yield boto3.client(
                "s3",
                endpoint_url=f"http://127.0.0.1:{port}",
                region_name="us-east-1",
                aws_access_key_id=access_key,
                aws_secret_access_key=secret_key,
                config=S3_CONFIG.merge(_PATIENT),
            )
        finally:
            process.kill()
