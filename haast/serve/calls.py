"""Calls: who in the server waits for which answers of the engine. Knows no process."""

import asyncio

from haast.engine.request import FinishReason, QueueFullError, RequestError, TokenLogprobs
from haast.serve.messages import EngineDownError, News, Refused, Stepped, Tokens


class Answer:
    """One answer to a call: what has come of it and was not yet taken."""

    __slots__ = (
        "cached_tokens",
        "call",
        "error",
        "finish_reason",
        "index",
        "is_pending",
        "logprobs",
        "number",
        "token_ids",
    )

    def __init__(self, call: "Call", index: int, number: int) -> None:
        self.call = call
        self.index = index
        self.number = number
        self.token_ids: list[int] = []
        self.logprobs: list[TokenLogprobs] = []
        self.finish_reason: FinishReason | None = None
        self.cached_tokens = 0
        self.error: str | None = None
        self.is_pending = False

    def add(self, news: News) -> None:
        self.token_ids += news.token_ids
        self.logprobs += news.logprobs
        self.finish_reason, self.error = news.finish_reason, news.error
        self.cached_tokens = news.cached_tokens

    def take(self) -> Tokens:
        """All that has come since the last time."""
        logprobs = tuple(self.logprobs) if self.call.has_logprobs else None
        tokens = Tokens(
            self.index,
            tuple(self.token_ids),
            logprobs,
            self.finish_reason,
            self.cached_tokens,
            self.error,
            self.number,
        )
        self.token_ids.clear()
        self.logprobs.clear()
        self.is_pending = False
        return tokens


class Call:
    """The answers to one prompt, and the task that waits for them.

    number   of its first answer
    is_done  whether the ends of all answers were taken
    """

    def __init__(self, number: int, num_answers: int, has_logprobs: bool) -> None:
        self.number = number
        self.has_logprobs = has_logprobs
        self.answers = [Answer(self, index, number + index) for index in range(num_answers)]
        self._num_open = num_answers
        self._pending: list[Answer] = []
        self._failure: Exception | None = None
        self._wake = asyncio.Event()

    @property
    def is_done(self) -> bool:
        return self._num_open == 0

    def notify(self, answer: Answer) -> None:
        """An answer has something to take."""
        if not answer.is_pending:
            answer.is_pending = True
            self._pending.append(answer)
            self._wake.set()

    def fail(self, error: Exception) -> None:
        """There will be no more; `news` raises this after what has come before."""
        self._failure = error
        self._wake.set()

    async def news(self) -> list[Tokens]:
        """Wait for and take what has come, in its order; raises what `fail` was given."""
        while not self._pending:
            if self._failure is not None:
                raise self._failure
            self._wake.clear()
            await self._wake.wait()
        pending, self._pending = self._pending, []
        self._num_open -= sum(answer.finish_reason is not None for answer in pending)
        return [answer.take() for answer in pending]


class Calls:
    """The open calls of a server, and their answers by number."""

    def __init__(self) -> None:
        self._answers: dict[int, Answer] = {}
        self._next_number = 0

    def __len__(self) -> int:
        """Answers that have not ended."""
        return len(self._answers)

    def open(self, num_answers: int, has_logprobs: bool) -> Call:
        """A new call with numbers that no other had."""
        call = Call(self._next_number, num_answers, has_logprobs)
        self._next_number += num_answers
        self._answers.update({answer.number: answer for answer in call.answers})
        return call

    def forget(self, call: Call) -> list[int]:
        """Drop a call; the numbers of its answers that have not ended."""
        return [a.number for a in call.answers if self._answers.pop(a.number, None) is not None]

    def cancel(self, number: int) -> bool:
        """End one answer of a call as cancelled; False if it has ended."""
        answer = self._answers.pop(number, None)
        if answer is not None:
            answer.finish_reason = "cancelled"
            answer.call.notify(answer)
        return answer is not None

    def take(self, stepped: Stepped) -> None:
        """Hand out what a step gave; what nobody waits for any more is dropped."""
        answers = self._answers
        for number, token_id in zip(stepped.numbers, stepped.token_ids, strict=True):
            answer = answers.get(number)
            if answer is not None:
                answer.token_ids.append(token_id)
                answer.call.notify(answer)
        for news in stepped.news:
            answer = answers.get(news.number)
            if answer is not None:
                answer.add(news)
                answer.call.notify(answer)
                if news.finish_reason is not None:
                    del answers[news.number]

    def refuse(self, refused: Refused) -> None:
        """The engine did not take a call."""
        answer = self._answers.get(refused.number)
        if answer is not None:
            error = QueueFullError if refused.is_queue_full else RequestError
            self.forget(answer.call)
            answer.call.fail(error(refused.message))

    def fail(self, reason: str) -> None:
        """There is no engine any more: all open calls end with EngineDownError."""
        calls = {answer.call: None for answer in self._answers.values()}
        self._answers.clear()
        for call in calls:
            call.fail(EngineDownError(reason))
