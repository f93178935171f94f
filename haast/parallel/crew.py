"""Crew: the other ranks of a process, which outlive a model so that the next one can have them."""

import gc
from collections.abc import Callable
from typing import Any

from haast.config import ConfigError
from haast.parallel.followers import Followers, RankError
from haast.parallel.leader import RESTED

REST_S = 60.0
"""How long they may take to forget a model, even one that they are still loading"""


class Crew:
    """Followers that one model after the other has.

    Between GPUs it has to be the same processes: torch counts the meetings of its symmetric memory
    by process, so that one which has met others waits for ever for new ones.

    has_met  whether they and this process have met; until then others may take their place
    """

    def __init__(self) -> None:
        self.has_met = False
        self._is_engaged = False
        self._followers: Followers | None = None
        self._names: list[str] = []
        self._why_gone: str | None = None

    @property
    def is_resting(self) -> bool:
        """Whether they are there and no model has them."""
        return self._followers is not None and not self._is_engaged

    def engage(self, names: list[str], start: Callable[[], Followers]) -> Followers:
        """For a model: those that rest, or the first ones. Raises ConfigError if there can be none.

        names  of all ranks' devices
        """
        if self._is_engaged:
            gc.unfreeze()  # a bench freezes what it has loaded
            gc.collect()
        if self._followers is not None:
            self._check(self._followers, names)
        elif self._why_gone is not None:
            raise _gone(self._why_gone)
        else:
            self._followers, self._names = start(), names
        self._is_engaged = True
        return self._followers

    def rest(self, message: Any) -> bool:
        """Their model has ended: send them this, which has them forget it and say so.

        Does not wait until they are: garbage collection may call it, in any thread.
        returns  False if they are gone
        """
        assert self._followers is not None
        self._followers.when_failed(None)
        self._is_engaged = False
        try:
            self._followers.tell(message)
        except RankError:
            return False
        return True

    def leave(self) -> None:
        """They are gone, or were closed before they met."""
        assert self._followers is not None
        if self.has_met:
            self._why_gone = self._followers.failure
        self._followers = None
        self._is_engaged = False

    def _check(self, followers: Followers, names: list[str]) -> None:
        """That they can have another model now."""
        if followers.failure is None and self._is_engaged:
            raise ConfigError(
                "another model of this process is on several GPUs; one can be at a time"
            )
        if followers.failure is None and names != self._names:
            raise ConfigError(
                f"this process had a model on {', '.join(self._names)} and can have none on "
                f"{', '.join(names)}; start another process"
            )
        try:
            followers.check()
            followers.wait_for(RESTED, REST_S)
            followers.check()
        except RankError as error:
            raise _gone(str(error)) from None


def _gone(why: str) -> ConfigError:
    return ConfigError(
        f"the other ranks of this process are gone ({why}), and it can have no new ones; start "
        "another process"
    )
