"""Runs OpenStack Swift with its S3 API on 127.0.0.1: swift_server <empty folder> <access key> <secret key>.

All four servers of Swift are in this process, with one device and one replica of everything. Objects are in memory: on
disk their names are in extended attributes, for which file systems have too little space or none. Prints the port of
the S3 API once it accepts connections, and ends with its standard input. Started by the Python of .venv-swift. The
access key has the form account:user.
"""

import os
import sys
from pathlib import Path
from typing import Any

import eventlet

eventlet.monkey_patch()

from eventlet import patcher, wsgi  # noqa: E402
from swift.common.constraints import reload_constraints  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.storage_policy import reload_storage_policies  # noqa: E402
from swift.common.utils import set_swift_dir  # noqa: E402
from swift.common.wsgi import SwiftHttpProtocol, loadapp  # noqa: E402

HOST, REGION = "127.0.0.1", "us-east-1"
# A version's name is longer than its key, which S3 permits 1,024 bytes.
CLUSTER = """
[swift-hash]
swift_hash_path_suffix = tests
[swift-constraints]
max_object_name_length = 1100
"""
STORAGE = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}
mount_check = false
fallocate_reserve = 0
[pipeline:main]
pipeline = server
[app:server]
use = egg:swift#{server}
"""
# The order of Swift's own sample: s3api translates S3's requests into Swift's, and tempauth checks their signatures.
PROXY = """
[DEFAULT]
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors gatekeeper listing_formats bulk s3api tempauth copy slo versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
conn_timeout = 30
node_timeout = 30
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:s3api]
use = egg:swift#s3api
location = {region}
[filter:tempauth]
use = egg:swift#tempauth
user_{user} = {secret_key} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
"""


def main(folder: Path, access_key: str, secret_key: str) -> None:
    """Serves until standard input ends."""
    (folder / "swift.conf").write_text(CLUSTER)
    set_swift_dir(str(folder))
    reload_constraints()
    reload_storage_policies()
    (folder / "device").mkdir()
    sockets = {name: eventlet.listen((HOST, 0)) for name in ("account", "container", "object")}
    for name, socket in sockets.items():
        write_ring(folder / f"{name}.ring.gz", socket.getsockname()[1])
    for name, socket in sockets.items():
        server = "mem_object" if name == "object" else name
        eventlet.spawn(serve, socket, load(folder / f"{name}.conf", STORAGE.format(folder=folder, server=server)))
    user = access_key.replace(":", "_")
    text = PROXY.format(folder=folder, region=REGION, user=user, secret_key=secret_key)
    application, listener = load(folder / "proxy.conf", text), eventlet.listen((HOST, 0))
    patcher.original("threading").Thread(target=end_with_input, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    serve(listener, application)


def write_ring(path: Path, port: int) -> None:
    """Writes a ring with one device."""
    builder = RingBuilder(part_power=1, replicas=1, min_part_hours=0)
    address = {"ip": HOST, "port": port, "replication_ip": HOST, "replication_port": port}
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "weight": 1, "device": "device", "meta": "", **address})
    builder.rebalance()
    builder.get_ring().save(str(path))


def load(path: Path, text: str) -> Any:
    """The application of a configuration, which is written to `path`."""
    path.write_text(text)
    return loadapp(str(path))


def serve(socket: Any, application: Any) -> None:
    """Serves an application without an access log."""
    wsgi.server(socket, application, protocol=SwiftHttpProtocol, log_output=False)


def end_with_input() -> None:
    """Ends the process with the one that started it."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), *sys.argv[2:])
