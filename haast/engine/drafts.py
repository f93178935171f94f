"""Drafts: guesses at a request's next tokens from its own text, and when they are worth a try.

Pure Python. A guess is one more decode of its request: at the position after, with the guessed
token for input. What that row samples is the request's next token if the guess was right, and is
thrown away otherwise. So output does not depend on guesses, greedy or drawn: a token's random
number depends on seed and position alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from haast.config import SpeculativeConfig
from haast.engine.ngrams import Ngrams
from haast.engine.request import Request, SamplingParams, Status
from haast.engine.step import Step

INDEXED_A_STEP = 512
"""Tokens of long prompts that are taken into indexes between two steps: some 0.1 ms"""


@dataclass(frozen=True)
class Costs:
    """What guesses cost, in steps of the request that they are for.

    row        of every guess: on an H100 a step of gpt-oss-20b takes 0.14 to 0.28 more for each
               other row at batch 1 to 8, less above
    idle       of verifying guesses before the next step is scheduled: the GPU waits for the host
    other      the same for every other request, which waits as well
    beside     of not waiting: the others have another step meanwhile, the request has none
    allowance  of a request's steps, the share that its wrong guesses may cost altogether
    most       what may be lost, at most, of what right ones have won
    """

    row: float = 0.3
    idle: float = 0.3
    other: float = 0.1
    beside: float = 1.0
    allowance: float = 0.025
    most: float = 4.0

    def idle_of(self, num_running: int) -> float:
        """Of all of them together."""
        return self.idle + self.other * (num_running - 1)

    def wait(self, num_running: int, num_guessing: int) -> float:
        """Of each of those that have guesses in a step; the cheaper way is taken."""
        return min(self.beside, self.idle_of(num_running) / num_guessing)


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
    """Of one request: its n-grams, and an account of what guesses won and cost.

    Every step adds the allowance, every guess is paid for, and every right one is a step saved. The
    balance never gets below 0, so all of a request's guesses together never cost more than the
    allowance, whatever its text; without luck there are few, with luck as many as may be.
    """

    def __init__(self, config: SpeculativeConfig, costs: Costs) -> None:
        self.balance = 0.0
        self.ngrams = Ngrams(*config.lookup)
        self._costs = costs
        self._limit = self._reach = config.num_speculative_tokens

    def earn(self) -> None:
        """A step."""
        self.balance = min(self.balance + self._costs.allowance, self._costs.most)

    def affordable(self, most: int, wait: float) -> int:
        """How many guesses a step may have, 0 if they could not win more than they cost."""
        row = self._costs.row
        count = min(most, self._reach, int((self.balance - wait) / row))
        return count if count > wait + count * row else 0

    def pay(self, count: int, wait: float) -> None:
        self.balance -= wait + count * self._costs.row

    def learn(self, count: int, num_right: int) -> None:
        """Of `count` guesses so many were right."""
        self.balance = min(self.balance + num_right, self._costs.most)
        wanted = max(self._reach, 2 * count) if num_right == count else max(2, num_right + 1)
        self._reach = min(self._limit, wanted)


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
        self._room, self._budget = max_drafts, INDEXED_A_STEP

    def drafts_for(self, params: SamplingParams) -> Drafts | None:
        """Of a new request. None for one with penalties or a constraint: what these allow depends
        on the tokens just before, which guesses stand for."""
        penalties = (params.presence_penalty, params.frequency_penalty)
        is_plain = params.repetition_penalty == 1 and not any(penalties)
        is_free = params.grammar is None and params.allowed_token_ids is None
        return Drafts(self.config, self.costs) if is_plain and is_free else None

    def add_rows(self, step: Step, request: Request, position: int, num_decoding: int) -> int:
        """Guesses after the decode that was added last, at a position; returns how many."""
        drafts = _drafts_of(request)
        drafts.earn()
        held = len(request.window_pages) * self.page_size
        room = min(self._room, min(held, request.last_position) - position - 1)
        count = drafts.affordable(room, self.costs.wait(num_decoding, 1))
        if count == 0:
            return 0
        ngrams, num_tokens = drafts.ngrams, request.num_tokens
        new_ids = request.token_ids(len(ngrams.ids), num_tokens)
        self._budget -= ngrams.read(new_ids, self._budget)
        ids = ngrams.following(position + 1 - num_tokens, count)  # but for one in flight
        if not ids:
            return 0
        self._room -= count
        step.drafts.append((len(step.requests) - 1, count))
        step.requests += [request] * count
        step.starts += range(position + 1, position + 1 + count)
        step.input_ids += ids
        step.input_rows += [-1] * count
        request.num_in_flight += count
        return count

    def end_step(self, step: Step, num_decoding: int) -> None:
        """Called after a step's decodes were added. Guesses are paid for now: the more requests
        make some, the less costs the waiting each of them."""
        self._room, self._budget = self.max_drafts, INDEXED_A_STEP
        num_guessing = len(step.drafts)
        if not num_guessing:
            return
        step.is_awaited = self.costs.idle_of(num_decoding) <= num_guessing * self.costs.beside
        wait = self.costs.wait(num_decoding, num_guessing)
        for row, count in step.drafts:
            _drafts_of(step.requests[row]).pay(count, wait)

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
            _drafts_of(request).learn(count, num_right)
            self._count(count, num_right)
        return settled

    def _count(self, count: int, num_right: int) -> None:
        counts = self.counts
        counts.drafts += 1
        counts.tokens += count
        counts.accepted += num_right
        for place in range(num_right):
            counts.per_position[place] += 1


def _drafts_of(request: Request) -> Drafts:
    assert request.drafts is not None, request
    return request.drafts
