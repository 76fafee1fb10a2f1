"""Follow the leader of a tensor-parallel group: the program of its other processes.

Reads orders from standard input (:mod:`engine.generation.model_group` writes them) and ends with it.
"""

from __future__ import annotations

import logging
import os
import pickle
import queue
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, DynamicCache

from engine.errors import UserError
from engine.generation.model_group import Forward, Load, Rendezvous
from engine.models.causal import body_of
from engine.models.hub import NamedModel
from engine.models.tensor_parallel import load_part

LAST_WORDS_S = 1.0
"""How long what went wrong here waits for the end of the leader, of which it may have come."""


class Follower:
    """A process's part of the models of a group.

    Args:
        meeting: the group.
        answers: where it says how loading went.
    """

    def __init__(self, meeting: Rendezvous, answers: BinaryIO) -> None:
        self._processes, self._device = meeting.processes, meeting.join()
        self._answers = answers
        self._loading = ThreadPoolExecutor(1)  # calls of models that are loaded go on meanwhile
        self._models: dict[int, Future[tuple[Any, Any]]] = {}
        self._caches: dict[int, DynamicCache] = {}

    def obey(self, order: Load | Forward) -> None:
        """Do what is ordered."""
        if isinstance(order, Load):
            self._models[order.model] = self._loading.submit(self._load, order)
        else:
            self._forward(order)

    def _load(self, order: Load) -> tuple[Any, Any]:
        """Return a model's body and the group of its broadcasts; its output layer is the leader's."""
        try:
            channel = dist.new_group()
            named = NamedModel.open(order.path, "language model")
            body = body_of(load_part(named, AutoModelForCausalLM, order.dtype, self._processes).eval())
        except (UserError, OSError, MemoryError, RuntimeError) as error:
            self._say(str(error) or type(error).__name__)
            raise
        self._say("")
        return body, channel

    def _say(self, reason: str) -> None:
        pickle.dump(reason, self._answers)
        self._answers.flush()

    @torch.inference_mode()
    def _forward(self, order: Forward) -> None:
        for number in order.dropped:
            self._caches.pop(number, None)
        for number in order.models_dropped:
            self._models.pop(number, None)
        body, channel = self._models[order.model].result()
        given = dict(order.values)
        for name, shape, dtype in order.tensors:
            given[name] = torch.empty(shape, dtype=dtype, device=self._device)
            dist.broadcast(given[name], 0, channel)
        if order.cache is not None:
            if order.cache.number not in self._caches:
                self._caches[order.cache.number] = DynamicCache(config=body.config)
            cache = given["past_key_values"] = self._caches[order.cache.number]
            for rows in order.cache.selected:
                cache.batch_select_indices(torch.tensor(rows, device=self._device))
        body(**given)


def _read(orders: BinaryIO, into: queue.SimpleQueue[Load | Forward]) -> None:
    """Hand orders on; where they end the leader has ended, and what it is awaited in has no end."""
    try:
        while True:
            into.put(pickle.load(orders))
    except (EOFError, OSError, pickle.UnpicklingError):
        os._exit(0)


def main() -> None:
    """Follow until the leader ends."""
    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what libraries print is no answer
    meeting = Rendezvous(*pickle.load(orders))
    if meeting.gpu:
        torch.cuda.set_device(meeting.rank)
        os.environ["LOCAL_RANK"] = str(meeting.rank)
    waiting: queue.SimpleQueue[Load | Forward] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(orders, waiting), daemon=True).start()
    follower = Follower(meeting, answers)
    try:
        while True:
            follower.obey(waiting.get())
    except Exception:
        time.sleep(LAST_WORDS_S)
        logging.exception("a process that follows another's calls of a language model failed")
        os._exit(1)  # a thread still reads the orders


if __name__ == "__main__":
    main()
