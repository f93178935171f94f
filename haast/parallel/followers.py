"""Followers: the other ranks' processes, seen from rank 0's."""

import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from threading import Event, RLock, Thread
from time import monotonic, sleep
from typing import Any

from haast.errors import HaastError
from haast.parallel.collectives import WAIT_S
from haast.parallel.leader import BEAT, FAILED, READY, RESTED

SILENCE_S = 20.0
"""A rank of which nothing comes for so long hangs: it beats every second"""
IMPORT_S = 120.0
"""How long one may take to begin to beat: it imports torch first"""
LEAVE_S = 2.0
"""How long one may take to leave by itself"""
EXPLAIN_S = 5.0
"""How long rank 0, whose collective failed, waits to learn which other rank is why"""
STUCK_S = 2.0
"""How long after a rank's end this one's device may still be waiting for it"""


class RankError(HaastError):
    """A rank died, hangs or cannot go on, and so nobody can."""


class Followers:
    """Starts `python -m MODULE FD` for every rank but 0, talks to them and watches them.

    What goes wrong with one ends all; `failure` says what it was. They leave when their link ends,
    so also when this process does, however that happens.

    names     what to call each rank, from rank 0 on
    is_stuck  after a failure: whether this process waits for a rank on its device, for ever
    """

    def __init__(
        self,
        module: str,
        names: Sequence[str],
        *,
        is_stuck: Callable[[], bool] = lambda: False,
    ) -> None:
        self._all = [_Follower(module, rank, name) for rank, name in enumerate(names) if rank]
        self._watch = _Watch(self._all, is_stuck)
        self._end = weakref.finalize(self, _end, self._all, self._watch)
        Thread(target=self._watch.run, daemon=True, name="ranks").start()

    @property
    def failure(self) -> str | None:
        """Why the ranks cannot go on, in one line."""
        return self._watch.failure

    def when_failed(self, act: Callable[[str], None] | None) -> None:
        """Call this with the reason, in a thread, as soon as the ranks cannot go on. Otherwise, and
        with None, the next use of them raises it."""
        self._watch.on_failure = act

    def tell(self, message: Any) -> None:
        """Send all of them a message. Raises RankError if one is gone."""
        data = pickle.dumps(message)
        self._send(lambda _rank: data)

    def tell_each(self, make: Callable[[int], Any]) -> None:
        """Send each the message that is made for its rank. Raises RankError as `tell`."""
        self._send(lambda rank: pickle.dumps(make(rank)))

    def _send(self, data_for: Callable[[int], bytes]) -> None:
        self.check()
        try:
            for follower in self._all:
                follower.link.send_bytes(data_for(follower.rank))
        except OSError as error:
            raise self.explained(error) from error

    def wait_for(self, word: str, limit_s: float = math.inf) -> None:
        """Until all have said it once more. Raises RankError, and ends them if it takes longer."""
        until = monotonic() + limit_s
        for follower in self._all:
            while not follower.said[word].wait(timeout=0.1):
                self.check()
                if monotonic() > until:
                    self._watch.fail(f"{follower.name} has not {word} within {limit_s:g} s")
            for said in follower.said.values():
                said.clear()

    def check(self) -> None:
        """Raises RankError if the ranks cannot go on."""
        if self.failure is not None:
            raise RankError(self.failure)

    def explained(self, error: Exception) -> RankError:
        """What to raise for an error in work that the ranks do together; ends them all."""
        self._watch.failed.wait(EXPLAIN_S)
        self._watch.fail(f"rank 0: {type(error).__name__}: {error}")
        return RankError(self._watch.failure)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what cannot be called off once another rank is gone; too long, and one hangs."""
        self._watch.waiting_since = monotonic()
        try:
            yield
        finally:
            self._watch.waiting_since = None

    def close(self) -> None:
        """Have them leave, or kill them; also done when this object is no longer used."""
        self._end()


class _Follower:
    """One process and the link to it."""

    def __init__(self, module: str, rank: int, name: str) -> None:
        self.rank = rank
        self.name = f"rank {rank} ({name})"
        self.said = {READY: Event(), RESTED: Event()}
        self._socket, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # signals to the group of rank 0 are its alone
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            )
        self.link = Connection(os.dup(self._socket.fileno()))
        self.heard_at = monotonic()
        self.has_beaten = False

    def dismiss(self) -> None:
        """Nothing more will be sent; it leaves when it has read everything."""
        with suppress(OSError), self._socket as link:
            link.shutdown(socket.SHUT_WR)

    def bury(self, patience_s: float) -> None:
        """Kill it unless it ends in time."""
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            with suppress(subprocess.TimeoutExpired):  # not even that ends who waits for a device
                self.process.wait(LEAVE_S)

    def how_ended(self) -> str:
        """Of a process whose link has ended."""
        try:
            status = self.process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            return f"{self.name} closed its link"
        if status < 0:
            return f"{self.name} was killed by {signal.Signals(-status).name}"
        return f"{self.name} ended with exit status {status}"


class _Watch:
    """Reads what followers say, in a thread, and notices when one ends or falls silent."""

    def __init__(
        self,
        followers: Sequence[_Follower],
        is_stuck: Callable[[], bool],
    ) -> None:
        self.failure: str | None = None
        self.failed = Event()
        self.is_closed = False
        self.waiting_since: float | None = None
        self._failing = RLock()  # garbage collection may come to `fail` within it
        self._followers = followers
        self._is_stuck = is_stuck
        self.on_failure: Callable[[str], None] | None = None

    def run(self) -> None:
        """Until one fails or all are closed."""
        links: dict[object, _Follower] = {each.link: each for each in self._followers}
        while not self.failed.is_set():
            for link in wait([each.link for each in self._followers], timeout=1.0):
                self._take(links[link])
            self._look()

    def _look(self) -> None:
        """Whether something takes too long."""
        now, since = monotonic(), self.waiting_since
        for follower in self._followers:
            limit_s = SILENCE_S if follower.has_beaten else IMPORT_S
            if now > follower.heard_at + limit_s:
                self.fail(f"{follower.name} hangs: nothing came from it for {limit_s:g} s")
        if since is not None and now > since + WAIT_S:
            self.fail(f"ranks wait for each other for longer than {WAIT_S:g} s")

    def _take(self, follower: _Follower) -> None:
        try:
            kind, text = follower.link.recv()
        except (EOFError, OSError):
            self.fail(follower.how_ended())
            return
        follower.heard_at, follower.has_beaten = monotonic(), True
        if kind in follower.said:
            follower.said[kind].set()
        elif kind == FAILED:
            self.fail(f"{follower.name}: {text}")
        else:
            assert kind == BEAT, kind

    def fail(self, reason: str) -> None:
        """The first reason is the one to tell; nobody goes on without the others."""
        with self._failing:
            if self.is_closed or self.failed.is_set():
                return
            self.failure = reason
            for follower in self._followers:
                follower.process.kill()
            self.failed.set()
        if self.on_failure is not None:
            self.on_failure(reason)
        for follower in self._followers:
            follower.bury(LEAVE_S)
        Thread(target=self._leave_if_stuck, daemon=True).start()

    def _leave_if_stuck(self) -> None:
        """A device that waits for a rank which is gone cannot be called off, only left."""
        sleep(STUCK_S)
        if self.waiting_since is not None or self._is_stuck():
            print(f"haast: {self.failure}", file=sys.stderr, flush=True)
            os._exit(1)


def _end(followers: Sequence[_Follower], watch: _Watch) -> None:
    watch.is_closed = True
    watch.failed.set()
    for follower in followers:
        follower.dismiss()
    until = monotonic() + LEAVE_S
    for follower in followers:
        follower.bury(max(0.0, until - monotonic()))
