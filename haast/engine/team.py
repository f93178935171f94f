"""Team: the other ranks, as rank 0's engine deals with them."""

import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import NamedTuple, Self

import torch

from haast.config import EngineConfig, Plan
from haast.engine.call import Call
from haast.engine.graphs import Captured
from haast.engine.place import Place
from haast.parallel.collectives import Ranks, meeting_place
from haast.parallel.connect import connect
from haast.parallel.crew import Crew
from haast.parallel.followers import Followers, RankError
from haast.parallel.gpu import check_group_is_free
from haast.parallel.leader import READY

MODULE = "haast.engine.follower"
CREW = Crew()
"""The ranks of this process that outlive a model"""
OUTLIVING = ("cuda",)
"""Types of the devices whose ranks do"""


class Start(NamedTuple):
    """What a follower is told first: load your share and say so. Then comes Join, then Calls."""

    config: EngineConfig
    plan: Plan
    rank: int


class Join(NamedTuple):
    """All have loaded their shares: connect, say so and compute what comes."""

    port: int


class Rest(NamedTuple):
    """The model has ended, or will not be: forget it, say so and wait for another Start."""


class Team:
    """Tells the other ranks what to compute while rank 0 does.

    Once a call has been told all must see it through: if one does not, none can go on.
    """

    def __init__(self, followers: Followers, place: Place, crew: Crew | None = None) -> None:
        self.followers = followers
        self.waiting = followers.waiting
        self.when_failed = followers.when_failed
        self._place = place
        self._crew = crew
        self._joined: list[Ranks] = []
        self._captured: list[Captured] = []
        self.close = weakref.finalize(self, _close, followers, crew, self._joined, self._captured)
        """Have all ranks rest, or leave; also done when this object is no longer used"""
        self.close.atexit = False  # the followers' own end does, and NCCL may not come back

    @classmethod
    def start(cls, place: Place, plan: Plan) -> Self | None:
        """Have the other ranks load their shares; None if there are none. Raises ConfigError if
        another model of this process is, or was, on several GPUs in a way that forbids this one.
        """
        if len(place.devices) == 1:
            return None
        if place.device.type == "cuda" and not CREW.has_met:
            check_group_is_free()
        is_stuck = partial(_is_busy, place.device)
        start = partial(Followers, MODULE, place.names, is_stuck=is_stuck)
        crew = CREW if place.device.type in OUTLIVING else None
        team = cls(crew.engage(place.names, start) if crew else start(), place, crew)
        followers = team.followers
        try:
            followers.tell_each(lambda rank: Start(place.config, plan, rank))
        except BaseException:
            team.close()
            raise
        return team

    def join(self, hidden_size: int) -> Ranks:
        """Once rank 0 has loaded its share, too. Raises RankError if another could not."""
        followers, place = self.followers, self._place
        followers.wait_for(READY)
        size = len(place.devices)
        store, port = meeting_place(size)
        is_gpu = place.device.type == "cuda"
        if self._crew is not None:
            self._crew.has_met = True
        with self._all_or_none(Join(port)), self.waiting() if is_gpu else nullcontext():
            ranks = connect(place.device, store, place.rank, size, hidden_size)
        self._joined.append(ranks)
        followers.wait_for(READY)
        return ranks

    def hold(self, captured: Captured) -> None:
        """Graphs that may have collectives in them: to be forgotten before the ranks leave."""
        self._captured.append(captured)

    def working_on(self, call: Call) -> AbstractContextManager[None]:
        """Around rank 0's own part of a call. Raises RankError if it fails, for whatever reason."""
        return self._all_or_none(call)

    def is_alive(self) -> bool:
        """Whether the ranks can go on."""
        return self.close.alive and self.followers.failure is None

    @contextmanager
    def _all_or_none(self, message: object) -> Iterator[None]:
        if not self.close.alive:  # what was told now, another model's ranks might hear
            raise RankError("the ranks of this model were closed")
        self.followers.tell(message)
        try:
            yield
        except Exception as error:  # whatever it is, ranks are no longer at the same place
            raise self.followers.explained(error) from error


def _close(
    followers: Followers, crew: Crew | None, joined: list[Ranks], captured: list[Captured]
) -> None:
    """Graphs first: NCCL waits for those that hold its collectives, and garbage collection would
    free them only after this."""
    for graphs in captured:
        graphs.clear()
    if crew is not None and crew.has_met and crew.rest(Rest()):
        return
    followers.close()
    for ranks in joined:
        ranks.close()
    if crew is not None:
        crew.leave()


def _is_busy(device: torch.device) -> bool:
    """Whether it has work that has not ended, and that may be of several ranks."""
    if device.type != "cuda" or CREW.is_resting:
        return False
    return not torch.cuda.default_stream(device).query()
