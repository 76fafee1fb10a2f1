"""Hold a workspace while a command writes into it: several that add go together, one that replaces is alone.

Each command that writes has a file of its own in ``locks/``. It writes the file, then looks at the others':
of two that begin at once at least one sees the other one, since a listing shows what was written before it.
Local disks and S3 (which is strongly consistent since December 2020) promise that. Who sees a file that it
cannot go together with takes its own away again, and tries a few times more after times drawn by chance.

A command that ends takes its file away. One that was killed cannot, so a file counts as left behind

- where its process has ended, if it ran under the same kernel as who looks: at once;
- else where it has not changed for :attr:`Timing.silence_s`, while its holder would write it anew every
  :attr:`Timing.heartbeat_s`. That is watched by the own clock: those of two machines may differ by any time.

Who takes a file over writes so into it, on the condition that it still holds what was seen. A holder that
was only suspended finds that at its next heartbeat, or before it publishes (:func:`check_held`).
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

from engine.errors import StorageError, UserError
from engine.external_errors import translated
from engine.renames import logger
from engine.storage.holders import Holder, Watch, in_words
from engine.storage.store import Store

T = TypeVar("T")

_FAILURES = (OSError, UserError)
"""What a disk or a bucket raises."""
_ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a process without a word, unless they are handled."""


@dataclass(frozen=True)
class Timing:
    """Times in seconds, and the clocks.

    Args:
        heartbeat_s: after which a holder writes its file anew.
        silence_s: without a change after which a file of another machine is taken over: six heartbeats, as a
            network disk may show a change a minute late (NFS, by default), and a bucket may be slow.
        doubt_s: since the last heartbeat after which such a file is watched before the command is refused; a
            difference of the clocks makes a file be watched in vain, which takes a heartbeat.
        poll_s: between two looks.
        tries: before a command is refused: two that begin at once may see each other, and both give way.
        jitter_s: longest wait before the second try, or what a try takes if that is longer; it doubles with
            every further one.
        wall: clock that people set.
        steady: clock that nobody sets.
        sleep: waits so many seconds.
    """

    heartbeat_s: float = 20.0
    silence_s: float = 120.0
    doubt_s: float = 60.0
    poll_s: float = 2.0
    tries: int = 6
    jitter_s: float = 0.02
    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


USUAL = Timing()


class WorkspaceLock:
    """One command's hold on a workspace; see :func:`hold`.

    Args:
        locks: the workspace's folder of them.
        command: as it is typed, for others to read.
        exclusive: whether no other one may write meanwhile.
        timing: times and clocks.
    """

    def __init__(self, locks: Store, command: str, exclusive: bool, timing: Timing = USUAL) -> None:
        self.root = locks.parent
        self._locks, self._timing = locks, timing
        self._file = locks / f"{uuid.uuid4().hex}.json"
        self._holder = Holder.here(command, exclusive, timing.wall())
        self._content = b""
        """What the own file holds; empty: there is none."""
        self._watch = Watch(timing.silence_s, timing.steady)
        self._left: list[Store] = []
        """Files that were taken over: they say by whom until this command ends."""
        self._made = _missing_folders(locks)
        self._writing, self._ended = threading.Lock(), threading.Event()
        self._lost = ""
        self._thread: threading.Thread | None = None

    def acquire(self, wait_s: float = 0.0) -> None:
        """Begin to hold the workspace.

        Args:
            wait_s: seconds to wait for commands that this one cannot go together with.

        Raises:
            StorageError: there still is such a one; names it.
        """
        timing, tries, told = self._timing, 0, False
        begun = timing.steady()
        end = begun + wait_s
        while against := self._try():
            tries += 1
            if tries < timing.tries:
                longest = max(timing.jitter_s, timing.steady() - begun)
                timing.sleep(random.uniform(0, longest * 2 ** (tries - 1)))
                begun = timing.steady()
                continue
            alive = [one for file, one in against if not self._may_be_gone(file, one)]
            if alive and timing.steady() >= end:
                raise self._refusal(alive[0])
            if not told:
                self._say_waiting(against[0][1])
                told = True
            timing.sleep(timing.poll_s)
        if self._content:
            self._thread = threading.Thread(target=self._keep_heartbeat, name="workspace-lock", daemon=True)
            self._thread.start()

    def check(self) -> None:
        """Check that nobody has taken the lock over, and write a heartbeat.

        Raises:
            StorageError: somebody has; says who.
        """
        with translated(self._file.uri):
            self._heartbeat()
        if self._lost:
            raise StorageError(
                f"{self.root.uri}: {self._lost}; nothing was published: run the command again when no other "
                "one writes there"
            )

    def release(self) -> None:
        """End to hold the workspace; the own file goes, and what was made for it alone."""
        self._ended.set()
        if self._holder.pid != os.getpid():
            return  # a fork: the file is its parent's
        if self._thread is not None:
            self._thread.join(self._timing.heartbeat_s)
        for file in (*self._left, self._file):
            with suppress(*_FAILURES):
                file.delete()
        if self._locks.is_local and Path(self._locks.path).is_dir():
            with suppress(OSError), self._locks.locked():  # an error: others are in it
                for folder in (Path(self._locks.path), *self._made):
                    folder.rmdir()

    def _try(self) -> list[tuple[Store, Holder]]:
        """Write the own file, and take it away again if others are there that this one cannot go with.

        Returns:
            Those.
        """
        if against := self._against():  # whose own tries a file for a moment would disturb
            return against
        self._write()
        if against := self._against():
            self._file.delete()
            self._content = b""
        return against

    def _write(self) -> None:
        self._holder = self._holder.with_heartbeat(self._timing.wall())
        try:
            _again(self._write_file, self._locks.is_local)
        except UserError as error:
            if self._holder.exclusive:
                raise
            # Then hardly anything can be written: the command's own words for that are better.
            root = Path(self.root.path)
            if not self.root.is_local or (root.is_dir() and root not in self._made):
                logger.warning("others cannot see that this command writes here: %s", error)
            return
        self._content = self._holder.content()

    def _write_file(self) -> None:
        with translated(self._locks.uri), self._locks.locked() if self._locks.is_local else nullcontext():
            self._file.write_bytes(self._holder.content())

    def _against(self) -> list[tuple[Store, Holder]]:
        """Return the holders that this one cannot go together with; takes over what was left behind."""
        found, passed = [], list[tuple[Store, str]]()
        files = _again(lambda: self._locks.files(".json"), self._locks.is_local)
        names = {file.name for file in files}
        for file in files:
            content = None if file == self._file else file.read_if_there()
            if content is None:
                continue
            holder = Holder.read(file, content)
            if holder.taken_over_by:
                if holder.taker not in names:
                    with suppress(*_FAILURES):  # nobody needs it any more
                        file.delete()
                passed.append((file, holder.taker))
                continue
            counts = self._holder.exclusive or holder.exclusive
            if self._is_gone(file, content, holder, counts) and self._take_over(file, content, holder):
                continue
            if counts:
                found.append((file, holder))
        self._inherit(passed)
        return found

    def _inherit(self, passed: Sequence[tuple[Store, str]]) -> None:
        """Let what others had taken over go with this one, where they themselves were taken over.

        Args:
            passed: such files, and the names of those that took them over.
        """
        while more := [
            file
            for file, taker in passed
            if file not in self._left and taker in {one.name for one in self._left}
        ]:
            self._left += more

    def _is_gone(self, file: Store, content: bytes, holder: Holder, watched: bool) -> bool:
        lives = holder.lives()
        if lives is None:
            return watched and self._watch.is_silent(file, content)
        return not lives

    def _may_be_gone(self, file: Store, holder: Holder) -> bool:
        """Return whether a holder on another machine has to be watched before anything is said of it."""
        silent = abs(holder.silent_s(self._timing.wall())) > self._timing.doubt_s
        return silent and holder.lives() is None and not self._watch.has_changed(file)

    def _take_over(self, file: Store, content: bytes, holder: Holder) -> bool:
        """Take over what a holder has left; return False if it has changed meanwhile."""
        told = {"taken_over_by": self._holder.who(), "taker": self._file.name}
        if not file.replace_bytes(holder.model_copy(update=told).content(), content):
            return False
        self._left.append(file)
        silent = in_words(holder.silent_s(self._timing.wall()))
        logger.warning(
            "%s: took over the lock of %s, which has ended without a word; its last sign of life was %s ago",
            *(self.root.uri, holder.who(), silent),
        )
        return True

    def _heartbeat(self) -> None:
        """Write the own file anew; note if it is no longer what this command wrote."""
        with self._writing:
            if not self._content or self._lost or self._holder.pid != os.getpid():
                return  # of a fork the file is its parent's, who would not know what was written
            later = self._holder.with_heartbeat(self._timing.wall())
            there = self._file.read_if_there()
            if there == self._content and self._file.replace_bytes(later.content(), there):
                self._content = later.content()
                return
            # A bucket may refuse for another reason, or have written and its answer was lost.
            there = self._file.read_if_there()
            if there == later.content():
                self._content = there
            elif there != self._content:
                self._lost = self._said_of_loss(there)

    def _said_of_loss(self, there: bytes | None) -> str:
        by = ""
        with suppress(UserError):
            by = Holder.read(self._file, there or b"").taken_over_by
        return f"the lock was taken over by {by or 'another command, which has ended since'}"

    def _keep_heartbeat(self) -> None:
        while not self._ended.wait(self._timing.heartbeat_s):
            with suppress(*_FAILURES):  # said before anything is published
                self._heartbeat()
            if self._lost:
                logger.warning("%s: %s; this command will publish nothing", self.root.uri, self._lost)
                return

    def _say_waiting(self, other: Holder) -> None:
        silent = in_words(other.silent_s(self._timing.wall()))
        logger.warning(
            "%s: waiting for %s, whose last sign of life was %s ago", self.root.uri, other.who(), silent
        )

    def _refusal(self, other: Holder) -> StorageError:
        now, timing = self._timing.wall(), self._timing
        alone = other.who() if other.exclusive else f"`seedset {self._holder.command}`"
        return StorageError(
            f"{self.root.uri}: {other.who()} has written here for {in_words(now - other.since.timestamp())}, "
            f"its last sign of life was {in_words(other.silent_s(now))} ago, and {alone} lets no other one "
            "write meanwhile; wait for its end (--wait MINUTES), or end it. The lock of a command that was "
            f"killed is taken over by the next one, from another machine after {in_words(timing.silence_s)}"
        )


_held: list[WorkspaceLock] = []
"""What this process holds."""


@contextmanager
def hold(
    locks: Store, command: str, exclusive: bool = False, wait_s: float = 0.0, timing: Timing = USUAL
) -> Iterator[WorkspaceLock]:
    """Hold a workspace for a block; a signal that asks the process to end leaves the block, too.

    Args:
        locks: :attr:`engine.storage.workspace.Workspace.locks`.
        command: as it is typed, for others to read.
        exclusive: whether no other one may write meanwhile; else those that are not exclusive go together.
        wait_s: seconds to wait for commands that this one cannot go together with.
        timing: times and clocks.

    Raises:
        StorageError: another command writes there, or the workspace cannot be reached.
    """
    lock = WorkspaceLock(locks, command, exclusive, timing)
    with _signals_raised():
        try:
            lock.acquire(wait_s)
            _held.append(lock)
            yield lock
        finally:
            _held[:] = [one for one in _held if one is not lock]
            lock.release()


def check_held(place: Store) -> None:
    """Check, before something is published, that this process' lock on the workspace was not taken over.

    Args:
        place: the workspace, or anything in it. Where this process holds no lock nothing is checked.

    Raises:
        StorageError: it was; says by whom.
    """
    for lock in list(_held):
        if lock.root.is_local == place.is_local and f"{place.path}/".startswith(f"{lock.root.path}/"):
            lock.check()


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Let signals that end the process leave the block as SystemExit; the second one ends it as ever."""
    own = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != own:  # a fork has nothing to clean up
            os.kill(os.getpid(), number)
        raise SystemExit(128 + number)

    main = threading.current_thread() is threading.main_thread()
    taken = [one for one in _ENDING if main and signal.getsignal(one) == signal.SIG_DFL]
    for number in taken:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in taken:
            if signal.getsignal(number) is leave:  # else a library has set its own since
                signal.signal(number, signal.SIG_DFL)


def _missing_folders(locks: Store) -> list[Path]:
    """Return the folders above a local one that are not there, the innermost first."""
    return [one for one in Path(locks.path).parents if not one.exists()] if locks.is_local else []


def _again(reach: Callable[[], T], is_local: bool) -> T:
    """Call what reaches the local folder of locks up to three times: whoever was last in it removes it."""
    for _ in range(2 if is_local else 0):
        with suppress(UserError):
            return reach()
    return reach()
