"""Look at the machines of a cluster: what on them would stop or slow the work, with a remedy for each.

Each machine looks at itself (:func:`look`, which imports no Ray) and answers with a :class:`Node`; what those
answers mean is decided where they come together (:func:`findings`).
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UserError
from engine.storage import s3
from engine.storage.store import Store, machine_cache
from engine.versions import LIBRARIES, PROGRAM, version_of

COMPARED = (PROGRAM, "ray", "deepspeed", "pydantic", *LIBRARIES)
"""Distributions of one version on all nodes: they pickle for each other, or decide the numbers."""

CLOCK_S = 2.0
"""Seconds that two clocks may differ. Buckets refuse signatures after 900; logs are hard to read long
before."""

SPILL_SHARE = 0.95
"""Share of a full disk at which Ray's nodes stop to write blocks to it (its default)."""

LEAST_FREE = 10 << 30
"""Bytes of disk below which a job of any size may end in the middle."""

OPEN_FILES = 65536
"""Open files that ``ray_cluster.yaml`` asks for: a node holds a socket for each worker and each neighbour."""

FEW_OPEN_FILES = 16384
"""Open files below which that is said: what a node of some tens of workers gets along with."""

CONNECT_S = 3.0

STORAGE_REMEDY = (
    "give the machine's role or keys the rights s3:GetObject, s3:PutObject and s3:DeleteObject on the "
    "prefix and s3:ListBucket on the bucket (and, without which `seedset clean` leaves what killed writers "
    "began, s3:AbortMultipartUpload and s3:ListBucketMultipartUploads); for a folder, mount it there and let "
    "this account write"
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, what, and what mends it."""

    where: str
    fault: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.fault}; {self.remedy}"


@dataclass(frozen=True)
class Node:
    """What a machine says of itself.

    Args:
        address: of the node.
        python: its version.
        versions: of :data:`COMPARED`; "" where one is not installed.
        clock: seconds since 1970 by its clock.
        shared_bytes: of ``/dev/shm``, and those free in it.
        disk_bytes: of the disk under Ray's folder, and those free on it.
        open_files: that a process may have.
        devices: graphics cards that the system shows.
        usable: those that torch can compute on.
        unreachable: addresses of peers to which it can open no connection.
        storage: what it may not do in the workspace.
        cache_bytes: of the disk under the copies of objects and bundles, if it is another disk.
    """

    address: str
    python: str
    versions: Mapping[str, str]
    clock: float
    shared_bytes: tuple[int, int]
    disk_bytes: tuple[int, int]
    open_files: int
    devices: int
    usable: int
    unreachable: tuple[str, ...] = ()
    storage: tuple[str, ...] = ()
    cache_bytes: tuple[int, int] | None = None


@dataclass(frozen=True)
class Seen:
    """A node beside what the cluster says of it.

    Args:
        node: what it says of itself.
        asked: the asker's clock before and after the question.
        gpus: that Ray gives out there.
        object_store_bytes: of Ray's object store there.
    """

    node: Node
    asked: tuple[float, float]
    gpus: float = 0
    object_store_bytes: float = 0


def look(
    address: str, peers: Sequence[tuple[str, int]] = (), workspace: str | None = None, folder: str = "/tmp"
) -> Node:
    """Return what this machine says of itself.

    Args:
        address: under which the cluster knows it.
        peers: addresses and ports that it must reach.
        workspace: in which it must read and write.
        folder: of Ray's session, whose disk is looked at.
    """
    shared, disk, cache = _disk("/dev/shm"), _disk(folder), _disk_of_copies()
    return Node(
        address,
        platform.python_version(),
        {name: version_of(name) for name in COMPARED},
        time.time(),
        shared,
        disk,
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        len(list(Path("/dev").glob("nvidia[0-9]*"))),
        _usable_gpus(),
        tuple(f"{host}:{port}" for host, port in peers if not _reaches(host, port)),
        tuple(storage_faults(workspace)) if workspace else (),
        None if cache[0] == disk[0] else cache,
    )


def _disk(folder: str) -> tuple[int, int]:
    try:
        found = shutil.disk_usage(folder)
    except OSError:
        return (0, 0)
    return found.total, found.free


def _disk_of_copies() -> tuple[int, int]:
    """Return the size of the disk under this machine's cache, and what is free; the folder may be to come."""
    folder = machine_cache().absolute()
    there = next((one for one in (folder, *folder.parents) if one.is_dir()), folder)
    return _disk(str(there))


def _usable_gpus() -> int:
    # Ray hides the cards from what asks for none.
    hidden = os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    try:
        import torch

        return int(torch.cuda.device_count())
    except ImportError:
        return 0
    finally:
        if hidden is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = hidden


def _reaches(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=CONNECT_S):
            return True
    except OSError:
        return False


def storage_faults(workspace: str) -> Iterator[str]:
    """Yield what cannot be done in a workspace, with the reason; a file is written there and removed.

    Args:
        workspace: folder or ``s3://`` prefix.
    """
    # A folder of its own: to list the workspace itself may take minutes.
    name = f".check-{socket.gethostname()}-{uuid.uuid4().hex}"
    try:
        folder = Store.open(workspace) / name
    except UserError as error:
        yield f"open: {error}"
        return
    file = folder / "seen"
    try:
        yield from _failed_steps(file)
    finally:
        if file.is_local:
            with suppress(OSError):  # it was never made
                Path(folder.path).rmdir()


def _failed_steps(file: Store) -> Iterator[str]:
    """Yield what cannot be done with a file, and why; the steps after a write that failed are left out."""

    def write() -> bool:
        file.write_bytes(b"1")
        return True

    def delete() -> bool:
        file.delete()
        return not file.exists()

    steps: list[tuple[str, Callable[[], bool]]] = [
        ("write", write),
        ("read", lambda: file.read_bytes() == b"1"),
        ("list", lambda: [one.name for one in file.parent.files()] == [file.name]),
        ("replace", lambda: file.replace_bytes(b"2", b"1") and not file.replace_bytes(b"3", b"1")),
        ("delete", delete),
    ]
    if not file.is_local:
        steps.append(("unfinished uploads", lambda: _uploads_end(file)))
    for step, does in steps:
        try:
            if not does():
                yield f"{step}: what was written before is not what is there"
        except (UserError, OSError) as error:
            yield f"{step}: {error}"
            if step == "write":
                return


def _uploads_end(file: Store) -> bool:
    """Ask for the uploads below a file's folder, and give up one of a name that none has."""
    s3.unfinished_uploads(file.parent.path)
    s3.give_up_upload(s3.UnfinishedUpload(file.path, "none", 0))
    return True


def findings(seen: Sequence[Seen], here: Node) -> list[Finding]:
    """Return all that is wrong on some nodes, by what was seen of them and of this process' own machine."""
    found: list[Finding] = []
    for one in seen:
        found += _versions(one.node, here)
        found += _clock(one)
        found += _memory_and_disk(one)
        found += _gpus(one)
        found += _network_and_storage(one.node)
    return found


def _versions(node: Node, here: Node) -> Iterator[Finding]:
    if node.python.rsplit(".", 1)[0] != here.python.rsplit(".", 1)[0]:
        yield Finding(
            node.address,
            f"Python {node.python}, here {here.python}",
            "install one minor version on all machines, and make the environment anew with it",
        )
    pairs = [(name, node.versions.get(name, ""), here.versions.get(name, "")) for name in COMPARED]
    other = [
        f"{name} {there or 'missing'} (here {ours or 'missing'})"
        for name, there, ours in pairs
        if there != ours
    ]
    if other:
        yield Finding(
            node.address,
            f"other versions: {', '.join(other)}",
            "run the setup commands of the cluster file there again (pip install -c requirements.lock), "
            "or build all images from one commit",
        )


def _clock(one: Seen) -> Iterator[Finding]:
    before, after = one.asked
    # Its answer was made between the two: what lies outside is the least that its clock is off.
    off = max(before - one.node.clock, one.node.clock - after, 0.0)
    if off > CLOCK_S:
        yield Finding(
            one.node.address,
            f"its clock is at least {off:.0f} s off this machine's",
            "switch time synchronisation on (timedatectl set-ntp true); a bucket refuses signatures from "
            "900 s on",
        )


def _memory_and_disk(one: Seen) -> Iterator[Finding]:
    node = one.node
    shared, _ = node.shared_bytes
    if one.object_store_bytes > shared:
        yield Finding(
            node.address,
            f"the object store of {one.object_store_bytes / 2**30:.1f} GiB does not fit /dev/shm "
            f"({shared / 2**30:.1f} GiB), so that Ray keeps it on a disk",
            "make /dev/shm larger (docker run --shm-size, an emptyDir of medium Memory, a remount with "
            "size=), "
            "or start Ray with a smaller --object-store-memory",
        )
    total, free = node.disk_bytes
    if free < LEAST_FREE or total - free >= SPILL_SHARE * total:
        yield Finding(
            node.address,
            f"{free / 2**30:.1f} GiB of {total / 2**30:.1f} GiB are free under Ray's folder",
            f"free {LEAST_FREE >> 30} GiB, or start Ray with --temp-dir on a larger disk: at "
            f"{SPILL_SHARE:.0%} it stops to write blocks there, and jobs end",
        )
    if node.cache_bytes and node.cache_bytes[1] < LEAST_FREE:
        yield Finding(
            node.address,
            f"{node.cache_bytes[1] / 2**30:.1f} GiB are free for copies of objects and bundles",
            f"free {LEAST_FREE >> 30} GiB there (`seedset clean --caches 7`), or let SEEDSET_CACHE name "
            "a folder on a larger disk",
        )
    if node.open_files < FEW_OPEN_FILES:
        yield Finding(
            node.address,
            f"a process may have {node.open_files} files open",
            f"say `ulimit -n {OPEN_FILES}` before `ray start`, and raise the limit in limits.conf if that "
            "is refused",
        )


def _gpus(one: Seen) -> Iterator[Finding]:
    node = one.node
    if node.devices and not node.usable:
        yield Finding(
            node.address,
            f"{node.devices} graphics cards, and torch can use none",
            "install torch's CUDA build (setup commands, cuda.Dockerfile) and a driver that is new enough "
            "for it",
        )
    elif one.gpus > node.usable:
        yield Finding(
            node.address,
            f"Ray gives out {one.gpus:g} GPUs, and torch can use {node.usable}",
            "start Ray without --num-gpus there, or mend the driver (nvidia-smi says what is wrong)",
        )
    elif node.usable and not one.gpus:
        yield Finding(
            node.address,
            f"torch can use {node.usable} GPUs, and Ray gives out none",
            "start Ray after the driver, or with --num-gpus",
        )


def _network_and_storage(node: Node) -> Iterator[Finding]:
    if node.unreachable:
        yield Finding(
            node.address,
            f"no connection to {', '.join(node.unreachable)}",
            "open Ray's ports between the machines, all of 1024-65535, in the firewall or security group",
        )
    for fault in node.storage:
        yield Finding(
            node.address,
            f"the workspace: {fault}",
            STORAGE_REMEDY,
        )
