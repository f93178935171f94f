"""Drafts: guesses at a request's next tokens from its own text, and when they are worth a try.

Pure Python. A guess is one more decode of its request: at the position after, with the guessed
token for input. What that row samples is the request's next token if the guess was right, and is
thrown away otherwise. So output does not depend on guesses, greedy or drawn: a token's random
number depends on seed and position alone.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from haast.config import SpeculativeConfig
from haast.engine.request import Request, SamplingParams, Status
from haast.engine.step import Step

MOST_CANDIDATES = 8
"""Earlier places of the shortest n-gram, newest first, of which the one that fits best is taken"""
INDEXED_A_STEP = 512
"""Tokens of long prompts that are taken into indexes between two steps: some 0.1 ms"""


@dataclass(frozen=True)
class Costs:
    """What guesses cost, in steps of the request that they are for.

    row        of every guess: on an H100 a step of gpt-oss-20b takes 0.14 to 0.25 more for each
               other row at batch 1 to 8, less above
    alone      of waiting until guesses are verified: the GPU is idle while the host schedules
    beside     the same where others run: they have a step meanwhile, the request has none
    allowance  of a request's steps, the share that its wrong guesses may cost altogether
    most       what may be lost, at most, of what right ones have won
    """

    row: float = 0.25
    alone: float = 0.3
    beside: float = 1.0
    allowance: float = 0.025
    most: float = 4.0


@dataclass
class DraftCounts:
    """How many drafts there were, of how many tokens, and how many of those were right.

    per_position  drafts whose token at this place, from the first on, was right
    """

    drafts: int = 0
    tokens: int = 0
    accepted: int = 0
    per_position: list[int] = field(default_factory=list)


class Drafts:
    """Of one request: where its n-grams stand, and what it may still lose.

    Every step adds to its account, every guess is paid for from it, and every right one is a step
    saved. So all of a request's guesses together never cost more than the allowance, whatever its
    text; without luck it guesses seldom, and with luck as much as there is to guess.
    """

    __slots__ = (
        "_costs",
        "_earlier",
        "_ends",
        "_ids",
        "_longest",
        "_reach",
        "_shortest",
        "balance",
    )

    def __init__(self, config: SpeculativeConfig, costs: Costs) -> None:
        self.balance = 0.0
        self._costs = costs
        self._shortest, self._longest = config.lookup
        self._reach = config.num_speculative_tokens
        self._ids: list[int] = []
        self._ends: dict[int, int] = {}
        """hash of a shortest n-gram -> where it last ended"""
        self._earlier = array("i")
        """where the n-gram that ends after each token ended before that, 0 = nowhere"""

    def affordable(self, most: int, wait: float) -> int:
        """How many guesses a step may have, 0 if they could not win more than they cost."""
        row = self._costs.row
        count = min(most, self._reach, int((self.balance - wait) / row))
        return count if count > wait + count * row else 0

    def read(self, request: Request, budget: int) -> int:
        """Take in the request's new tokens, so many at most into the index; returns how many.

        All but the last: the n-gram that is looked up must not find itself.
        """
        ids, size, earlier, ends = self._ids, self._shortest, self._earlier, self._ends
        ids += request.token_ids(len(ids), request.num_tokens)
        first = len(earlier) + 1
        stop = min(len(ids), first + budget)
        for end in range(first, stop):
            if end < size:
                earlier.append(0)
                continue
            key = hash(tuple(ids[end - size : end]))
            earlier.append(ends.get(key, 0))
            ends[key] = end
        return max(0, stop - first)

    def guess(self, skip: int, count: int) -> list[int]:
        """The tokens that follow the last ones where they stood before; none if they did not.

        skip  so many that come first are on their way already
        """
        ids, end = self._ids, self._best_end()
        if end is None:
            return []
        period = len(ids) - end  # what goes on to here goes on as it did from there
        return [ids[end + i % period] for i in range(skip, skip + count)]

    def learn(self, count: int, num_right: int, limit: int) -> None:
        """Of `count` guesses so many were right; `limit` is the most that may be made at a time."""
        self.balance = min(self.balance + num_right, self._costs.most)
        if num_right == count:
            self._reach = min(limit, max(self._reach, 2 * count))
        else:
            self._reach = min(limit, max(2, num_right + 1))

    def _best_end(self) -> int | None:
        """Where the longest n-gram ended, the newest if there are several."""
        ids, size = self._ids, self._shortest
        end = self._ends.get(hash(tuple(ids[-size:])), 0) if len(ids) >= size else 0
        best, longest = None, size - 1
        for _ in range(MOST_CANDIDATES):
            if not end or longest == self._longest:
                break
            length = self._common(end)
            if length > longest:
                best, longest = end, length
            end = self._earlier[end - 1]
        return best

    def _common(self, end: int) -> int:
        """Tokens before `end` that equal the last ones; no more than are compared."""
        ids = self._ids
        most = min(self._longest, end)
        return next((n for n in range(most) if ids[end - 1 - n] != ids[-1 - n]), most)


class Drafter:
    """Adds guesses to steps, and tells them from tokens afterwards.

    max_drafts  guesses that a step has room for
    page_size   positions a page; guesses take no page that their request does not hold
    """

    def __init__(
        self, config: SpeculativeConfig, max_drafts: int, page_size: int, costs: Costs | None = None
    ) -> None:
        self.config = config
        self.max_drafts = max_drafts
        self.page_size = page_size
        self.costs = costs or Costs()
        self.counts = DraftCounts(per_position=[0] * config.num_speculative_tokens)
        self._room = self._budget = 0
        self._wait = 0.0

    def drafts_for(self, params: SamplingParams) -> Drafts | None:
        """Of a new request. None for one with penalties or a constraint: what these allow depends
        on the tokens just before, which guesses stand for."""
        penalties = (params.presence_penalty, params.frequency_penalty)
        is_plain = params.repetition_penalty == 1 and not any(penalties)
        is_free = params.grammar is None and params.allowed_token_ids is None
        return Drafts(self.config, self.costs) if is_plain and is_free else None

    def begin_step(self, num_running: int) -> None:
        """Called before the decodes of a step are added."""
        self._room, self._budget = self.max_drafts, INDEXED_A_STEP
        self._wait = self.costs.alone if num_running == 1 else self.costs.beside

    def add_rows(self, step: Step, request: Request, position: int) -> int:
        """Guesses after the decode that was added last, at a position; returns how many."""
        drafts = request.drafts
        assert drafts is not None, request
        drafts.balance = min(drafts.balance + self.costs.allowance, self.costs.most)
        held = len(request.window_pages) * self.page_size
        room = min(self._room, min(held, request.last_position) - position - 1)
        count = drafts.affordable(room, self._wait)
        if count == 0:
            return 0
        self._budget -= drafts.read(request, self._budget)
        ids = drafts.guess(position + 1 - request.num_tokens, count)
        if not ids:
            return 0
        drafts.balance -= self._wait + count * self.costs.row
        self._room -= count
        step.drafts.append((len(step.requests) - 1, count))
        step.requests += [request] * count
        step.starts += range(position + 1, position + 1 + count)
        step.input_ids += ids
        step.input_rows += [-1] * count
        request.num_in_flight += count
        return count

    def settle(self, step: Step, token_ids: Sequence[int]) -> Sequence[int | None]:
        """A step's tokens, None for what follows a wrong guess; requests go on from the others."""
        if not step.drafts:
            return token_ids
        settled: list[int | None] = list(token_ids)
        for row, count in step.drafts:
            request = step.sampling[row]
            guesses = step.input_ids[row + 1 : row + 1 + count]
            pairs = zip(guesses, token_ids[row:], strict=False)
            num_right = next((n for n, (a, b) in enumerate(pairs) if a != b), count)
            settled[row + 1 + num_right : row + 1 + count] = [None] * (count - num_right)
            if request.status is Status.DECODING:  # else it has no pages, or soon none
                request.num_computed += num_right
            assert request.drafts is not None, request
            request.drafts.learn(count, num_right, self.config.num_speculative_tokens)
            self._count(count, num_right)
        return settled

    def _count(self, count: int, num_right: int) -> None:
        counts = self.counts
        counts.drafts += 1
        counts.tokens += count
        counts.accepted += num_right
        for place in range(num_right):
            counts.per_position[place] += 1
