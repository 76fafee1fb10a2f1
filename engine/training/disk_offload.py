"""Keep an optimiser's state in files on a disk (ZeRO-Infinity, Rajbhandari et al. 2021), by DeepSpeed.

Its operator ``async_io`` reads and writes the files past the page cache. It is compiled on each machine when
it is first used, against libaio's headers; nothing else here wants a compiler.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import resource
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

import torch

from engine.errors import UserError
from engine.storage.store import Store

PREFIX, IN_USE = "seedset-offload-", "in-use"

BYTES_A_PARAMETER = 16
"""In the files: float32 weights, their gradient and AdamW's two moments."""

BUFFERS = 4
"""Of the largest group, in memory: all four of them, while a group is stepped."""


def load_operator() -> None:
    """Load DeepSpeed's operator of disks, which compiles it the first time on a machine (a minute or two).

    Raises:
        UserError: it cannot be compiled here.
    """
    from deepspeed.ops.op_builder import AsyncIOBuilder

    try:
        AsyncIOBuilder().load(verbose=False)
    except Exception as error:  # whatever a compiler, a linker or torch's wrapper of both raises
        raise UserError(
            "--offload nvme: DeepSpeed's operator async_io cannot be compiled on this machine "
            f"({_last_line(error)}): it wants a C++ compiler, ninja and the headers of libaio (Debian: "
            "apt-get install g++ ninja-build libaio-dev); or take --offload cpu"
        ) from None


def _last_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def disk_of(folder: str, bytes_needed: int) -> Path:
    """Return a new folder for this process's files, after a look at the disk.

    Folders beside it whose processes were killed are removed.

    Args:
        folder: that the user named; made if need be.
        bytes_needed: by all workers of this machine.

    Raises:
        UserError: it cannot be written to, its disk has no room, or reads and writes through caches alone.
    """
    parent = Path(folder)
    try:
        with Store.open(parent / PREFIX).locked():
            for other in parent.glob(f"{PREFIX}*"):
                if _is_left(other):
                    shutil.rmtree(other, ignore_errors=True)
            own = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
            handle = os.open(own / IN_USE, os.O_CREAT | os.O_RDWR)
            fcntl.flock(handle, fcntl.LOCK_EX)  # until this process ends, however it does
        os.close(os.open(own / "direct", os.O_CREAT | os.O_RDWR | getattr(os, "O_DIRECT", 0)))
    except OSError as error:
        raise UserError(
            f"--offload-folder {folder}: {error.strerror or error}; name a folder on a local disk that this "
            "machine may write to (a file system in memory has no direct access)"
        ) from None
    free = shutil.disk_usage(own).free
    if free < bytes_needed:
        remove(own, handle)
        raise UserError(
            f"--offload-folder {folder}: {free / 1e9:.2f} GB are free, and the workers of this machine write "
            f"{bytes_needed / 1e9:.2f}; make room, name another disk, or take more machines"
        )
    weakref.finalize(_processes_files, remove, own, handle)
    return own


class _Alive:
    """What lives as long as the process."""


_processes_files = _Alive()


def _is_left(folder: Path) -> bool:
    """Return whether the process that made a folder has ended."""
    try:
        handle = os.open(folder / IN_USE, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def remove(folder: Path, handle: int) -> None:
    """Remove a process's files, and let go of their lock."""
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)


def check_locked_memory(bytes_needed: int) -> None:
    """Check that this process may lock its buffers in memory; DeepSpeed ends the process if it may not.

    Raises:
        UserError: it may not.
    """
    allowed = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if allowed == resource.RLIM_INFINITY or bytes_needed <= allowed or _locks_more_than(allowed):
        return
    raise UserError(
        f"--offload nvme: {bytes_needed / 1e9:.2f} GB are to be locked in memory, and this process may lock "
        f"{allowed / 1e9:.3f} (ulimit -l; in containers: --ulimit memlock=-1 or --cap-add IPC_LOCK); or take "
        "--offload cpu"
    )


def _locks_more_than(allowed: int) -> bool:
    """Return whether the limit binds this process, by trying: a privileged one is above it."""
    libc, size = ctypes.CDLL(None), allowed + mmap.PAGESIZE
    with mmap.mmap(-1, size) as memory:
        view = ctypes.c_char.from_buffer(memory)
        locked: int = libc.mlock(ctypes.byref(view), ctypes.c_size_t(size))
        del view
        return locked == 0  # what is unmapped is unlocked


def on_disk_config(module: torch.nn.Module, folder: str, group_elements: int) -> dict[str, Any]:
    """Return DeepSpeed's settings of an optimiser whose state lies on a disk, ready to be used.

    Args:
        module: whose parameters that learn are shared by the workers.
        folder: that the user named.
        group_elements: of a share that are stepped in one go.

    Raises:
        UserError: the operator, the disk or the memory does not allow it.
    """
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    sizes = [int(getattr(p, "ds_numel", p.numel())) for p in module.parameters() if p.requires_grad]
    share = sum(sizes) // world
    check_locked_memory(4 * BUFFERS * min(share, group_elements + max(sizes, default=0) // world))
    place = disk_of(folder, BYTES_A_PARAMETER * share * here)
    load_operator()
    return {"device": "nvme", "nvme_path": str(place), "buffer_count": BUFFERS}
