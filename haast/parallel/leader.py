"""Leader: rank 0, seen from another rank's process."""

import os
from multiprocessing.connection import Connection
from threading import Lock, Thread
from time import sleep
from typing import Any

BEAT, READY, RESTED, FAILED = "beat", "ready", "rested", "failed"
"""What a follower says"""
BEAT_S = 1.0


class Leader:
    """The link to rank 0, which ends when that does; beats begin at once.

    fd  of the link
    """

    def __init__(self, fd: int) -> None:
        self._link = Connection(fd)
        self._sending = Lock()
        Thread(target=self._beat, daemon=True, name="beat").start()

    def receive(self) -> Any:
        """The next message. Raises EOFError when rank 0 has closed the link, or is dead."""
        try:
            return self._link.recv()
        except OSError as error:
            raise EOFError from error

    def say_ready(self) -> None:
        """What was asked for is done."""
        self._say(READY)

    def say_rested(self) -> None:
        """The last model is forgotten, and whatever was asked for it."""
        self._say(RESTED)

    def say_failed(self, why: str) -> None:
        """This rank cannot go on; rank 0 ends it."""
        self._say(FAILED, why)

    def _beat(self) -> None:
        """A rank that waits for a dead one for ever is ended from here."""
        while True:
            try:
                self._say(BEAT)
            except OSError:
                os._exit(0)
            sleep(BEAT_S)

    def _say(self, kind: str, text: str = "") -> None:
        with self._sending:
            self._link.send((kind, text))
