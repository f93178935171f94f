"""WaitingQueue: requests that do not run yet or any more, in order. Pure Python."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from operator import attrgetter

from haast.engine.request import Request, Status

ORDER = attrgetter("order")


def remove_ordered(requests: list[Request], request: Request) -> None:
    """Take a request out of a list sorted by order."""
    index = bisect_left(requests, request.order, key=ORDER)
    assert requests[index] is request, request
    del requests[index]


class WaitingQueue:
    """Requests by (priority, arrival).

    Siblings, the answers to one call, share the pages of their prompt: all but the first, their
    leader, are parked until it has computed them. A leader that leaves before is replaced by the
    first sibling.
    """

    def __init__(self) -> None:
        self._ready: list[Request] = []
        self._num_parked = 0

    def __len__(self) -> int:
        """Parked ones included."""
        return len(self._ready) + self._num_parked

    @property
    def first(self) -> Request | None:
        """Who is served next."""
        return self._ready[0] if self._ready else None

    def add(self, request: Request) -> None:
        request.status = Status.WAITING
        insort(self._ready, request, key=ORDER)

    def add_siblings(self, requests: Sequence[Request]) -> None:
        """The requests of one call; the first becomes the leader."""
        leader, *siblings = requests
        self.add(leader)
        leader.siblings = siblings
        self._num_parked += len(siblings)
        for request in siblings:
            request.status = Status.PARKED
            request.leader = leader

    def pop(self) -> Request:
        return self._ready.pop(0)

    def remove(self, request: Request) -> None:
        """Take out a waiting or parked request; who is parked behind it stays parked there."""
        if request.leader is None:
            remove_ordered(self._ready, request)
        else:
            request.leader.siblings.remove(request)
            request.leader = None
            self._num_parked -= 1

    def unpark(self, leader: Request, has_prompt: bool) -> None:
        """Let go who is parked behind a leader: all of them if it has computed the prompt, else
        one that becomes the leader of the rest.
        """
        siblings, leader.siblings = leader.siblings, []
        self._num_parked -= len(siblings)
        for request in siblings:
            request.leader = None
        if not has_prompt and siblings:
            self.add_siblings(siblings)
            return
        for request in siblings:
            self.add(request)
