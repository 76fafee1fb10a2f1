"""Run a language model that is split over processes: one leads, the others follow it.

The leader is the process that searches and scores, with the code that knows nothing of the split. It calls
the model's body as ever; each call is told to the followers, which make the same call on their parts, so that
the layers' all-reduces meet. So only the leader reads a clock, keeps caches of scores, or decides what comes
next, and the processes cannot come apart. Followers are children of the leader, on its machine, and end with
it. What fails in one process leaves the others waiting in an all-reduce, so a group ends as a whole, and the
leader's process with it: who started that process starts another.

What is said to a follower goes down a pipe (:mod:`engine.generation.group_member` reads it); tensors go by
broadcast.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import logging
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, DynamicCache

from engine.errors import UserError
from engine.models.causal import body_of
from engine.models.hub import NamedModel
from engine.models.tensor_parallel import check_tensor_parallel, load_part

Tensor = torch.Tensor

logger = logging.getLogger(__name__)

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others in one operation; that one died is seen sooner."""


@dataclass(frozen=True)
class Load:
    """An order to load a part of a model."""

    model: int
    path: str
    dtype: torch.dtype


@dataclass(frozen=True)
class CacheUse:
    """The key-value cache of a call, and the rows that were selected in it since the last call."""

    number: int
    selected: tuple[list[int], ...]


@dataclass(frozen=True)
class Forward:
    """An order to call a model's body. The tensors are broadcast after it, in this order.

    Args:
        model: its number.
        tensors: name, shape and dtype of each.
        values: arguments that are no tensors.
        cache: None: the call has none.
        dropped: numbers of caches that are not needed any more.
        models_dropped: numbers of models.
    """

    model: int
    tensors: tuple[tuple[str, torch.Size, torch.dtype], ...]
    values: dict[str, Any]
    cache: CacheUse | None
    dropped: tuple[int, ...]
    models_dropped: tuple[int, ...]


class Rendezvous(NamedTuple):
    """Where the processes of a group meet, and which one a process is."""

    file: str
    rank: int
    processes: int
    gpu: bool
    threads: int

    def join(self) -> torch.device:
        """Join the default process group and return this process's device."""
        torch.set_num_threads(self.threads)
        if not self.gpu and "lo" in (name for _, name in socket.if_nameindex()):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # all are on this machine
        device = torch.device("cuda", self.rank) if self.gpu else torch.device("cpu")
        dist.init_process_group(
            "nccl" if self.gpu else "gloo",
            store=dist.FileStore(self.file, self.processes),
            rank=self.rank,
            world_size=self.processes,
            timeout=COLLECTIVE_TIMEOUT,
            device_id=device if self.gpu else None,
        )
        return device


class FollowedCache(DynamicCache):
    """A leader's key-value cache: keeps what followers must do to theirs before the next call."""

    def __init__(self, config: Any, number: int) -> None:
        super().__init__(config=config)
        self.number = number
        self.selected: list[list[int]] = []

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows, repeated or left out as they say."""
        super().batch_select_indices(indices)
        self.selected.append(indices.tolist())

    def use(self) -> CacheUse:
        """Return what followers are told, once."""
        selected, self.selected = tuple(self.selected), []
        return CacheUse(self.number, selected)


class ModelGroup:
    """The leader's side of a group of processes; one a process, made by :meth:`of`.

    Args:
        processes: of the group, this one among them.
        gpu: whether each has a GPU, the leader the first that this process sees.
    """

    _of_process: ModelGroup | None = None
    _making = threading.Lock()

    @classmethod
    def of(cls, processes: int, gpu: bool) -> ModelGroup:
        """Return this process's group; the first call starts it.

        Raises:
            UserError: this process sees too few GPUs, or the followers cannot be started.
        """
        with cls._making:
            if cls._of_process is None:
                cls._of_process = cls(processes, gpu)
            return cls._of_process

    def __init__(self, processes: int, gpu: bool) -> None:
        if gpu and torch.cuda.device_count() < processes:
            raise UserError(
                f"tensor_parallel {processes}: this process sees {torch.cuda.device_count()} GPUs; reserve "
                f"{processes} for it (--gpu), or take a smaller group"
            )
        self._numbers, self._closed = itertools.count(), False
        self._dropped: deque[int] = deque()
        self._models_dropped: deque[int] = deque()
        self._calling, self._telling = threading.Lock(), threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="seedset-group-")
        meeting = Rendezvous(
            str(Path(self._folder.name) / "store"),
            *(0, processes, gpu, max(1, torch.get_num_threads() // processes)),
        )
        self.processes = processes
        self._followers = [_started(meeting._replace(rank=rank)) for rank in range(1, processes)]
        for follower in self._followers:
            threading.Thread(target=self._watch, args=(follower,), daemon=True).start()
        self.device = meeting.join()

    def load(self, named: NamedModel, dtype: torch.dtype) -> tuple[Any, Callable[[], DynamicCache]]:
        """Load a model, its body called in all processes from now on; return it and what makes its caches.

        Calls of models that are loaded already go on meanwhile.

        Raises:
            UserError: it cannot be split, or not be loaded by one of the processes.
        """
        check_tensor_parallel(named, self.processes)
        with self._making:
            number = next(self._numbers)
            self._tell(Load(number, named.path, dtype))
            channel = dist.new_group()
            try:
                model = load_part(named, AutoModelForCausalLM, dtype, self.processes)
            finally:
                reasons = [pickle.load(follower.stdout) for follower in self._followers]
            if told := [reason for reason in reasons if reason]:
                raise UserError(f"{named.label}: another process of its group: {told[0]}")
        self._lead(number, body_of(model), channel)
        weakref.finalize(model, self._models_dropped.append, number)
        return model, functools.partial(self._new_cache, model.config)

    def close(self) -> None:
        """End the group: the followers' processes, and this one's part in it."""
        self._closed = True
        for follower in self._followers:
            with contextlib.suppress(BrokenPipeError):  # what could not be said to one that died
                follower.stdin.close()
            follower.wait()
            follower.stdout.close()
        dist.destroy_process_group()
        self._folder.cleanup()
        type(self)._of_process = None

    def _new_cache(self, config: Any) -> FollowedCache:
        cache = FollowedCache(config, next(self._numbers))
        weakref.finalize(cache, self._dropped.append, cache.number)
        return cache

    def _lead(self, number: int, body: Any, channel: Any) -> None:
        """Let calls of a body be followed."""
        own = body.forward
        names = list(inspect.signature(own).parameters)

        @functools.wraps(own)
        @torch.inference_mode()
        def forward(*positional: Any, **given: Any) -> Any:
            given |= dict(zip(names, positional, strict=False))
            with self._calling:
                try:
                    self._call(number, channel, given)
                    return own(**given)
                except Exception as error:
                    if not self._closed:
                        _end_process(f"a call of a model that {self.processes} processes share failed", error)
                    raise

        body.forward = forward

    def _call(self, number: int, channel: Any, given: dict[str, Any]) -> None:
        """Tell the followers of a call."""
        tensors = {name: value for name, value in given.items() if isinstance(value, Tensor)}
        others = {name: value for name, value in given.items() if name not in tensors}
        cache = others.pop("past_key_values", None)
        order = Forward(
            number,
            tuple((name, value.shape, value.dtype) for name, value in tensors.items()),
            others,
            None if cache is None else cache.use(),
            _emptied(self._dropped),
            _emptied(self._models_dropped),
        )
        self._tell(order)
        for value in tensors.values():
            dist.broadcast(value.contiguous(), 0, channel)

    def _tell(self, order: Load | Forward) -> None:
        said = pickle.dumps(order)
        with self._telling:
            for follower in self._followers:
                follower.stdin.write(said)
                follower.stdin.flush()

    def _watch(self, follower: Any) -> None:
        """End this process when a follower has ended: it may wait for it in an operation without an end."""
        status = follower.wait()
        if not self._closed:
            _end_process(f"one of {self.processes} processes that share a model ended with status {status}")


def _started(meeting: Rendezvous) -> Any:
    """Start a follower's process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    follower = subprocess.Popen(
        # -P: what is imported is found where this process finds it, not in the current folder.
        [sys.executable, "-P", "-m", "engine.generation.group_member"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # who interrupts a command interrupts its leader, which ends the others
    )
    assert follower.stdin is not None
    follower.stdin.write(pickle.dumps(tuple(meeting)))
    follower.stdin.flush()
    return follower


def _emptied(waiting: deque[int]) -> tuple[int, ...]:
    """Return what is in a queue, which other threads may add to meanwhile."""
    return tuple(waiting.popleft() for _ in range(len(waiting)))


def _end_process(why: str, error: BaseException | None = None) -> None:
    """End this process at once, as its group cannot go on; nothing can be awaited in it."""
    logger.critical("%s; this process ends, to be started again by what started it", why, exc_info=error)
    sys.stderr.flush()
    os._exit(1)
