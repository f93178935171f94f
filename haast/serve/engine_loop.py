"""EngineLoop: what the engine process does once it has an engine."""

import gc
from array import array
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import msgspec
import zmq

from haast.engine.drafts import DraftCounts
from haast.engine.engine import Engine, EngineDeadError, Output
from haast.engine.request import QueueFullError, Request, RequestError
from haast.serve.compiling import Compiling
from haast.serve.messages import (
    Cancel,
    Dead,
    EngineStats,
    FromEngine,
    News,
    Refused,
    Stepped,
    Submit,
    ToEngine,
    from_plain,
    inbox_address,
    outbox_address,
    to_plain,
)

STATS_S = 0.1
"""Least time between two reports; while there is work it is also the most between two messages"""
COMPILING_MS = 1
"""How long an idle engine waits for a message while a grammar is compiled"""
MAX_MESSAGES = 64
"""Taken between two steps: a burst of calls may not stall those who run"""
MAX_STEPS_WITHOUT_GC = 10_000
"""Reference cycles are rare; it may be long until the engine is idle"""
IDLE_S = 0.25
"""Without a step, before garbage is collected: the next call of a lone client comes sooner"""
LINGER_MS = 2000
"""How long last messages may take to leave"""


class Channel:
    """The engine process's end of the two sockets.

    folder  where the server made them
    """

    def __init__(self, folder: Path) -> None:
        self._encode = msgspec.msgpack.Encoder(enc_hook=to_plain).encode
        self._decode = msgspec.msgpack.Decoder(ToEngine, dec_hook=from_plain).decode
        self._context = zmq.Context()
        self._inbox = self._context.socket(zmq.PULL)
        self._outbox = self._context.socket(zmq.PUSH)
        for socket in (self._inbox, self._outbox):
            socket.set_hwm(0)
        self._inbox.bind(inbox_address(folder))
        self._outbox.connect(outbox_address(folder))

    def send(self, message: FromEngine) -> None:
        """Never waits."""
        self._outbox.send(self._encode(message))

    def receive(self, timeout_ms: int | None) -> list[ToEngine]:
        """What has come, at most MAX_MESSAGES; waits so long for the first, None = for ever."""
        messages: list[ToEngine] = []
        if timeout_ms != 0 and not self._inbox.poll(timeout_ms):
            return messages
        try:
            while len(messages) < MAX_MESSAGES:
                messages.append(self._decode(self._inbox.recv(zmq.NOBLOCK)))
        except zmq.Again:
            pass
        return messages

    def close(self) -> None:
        """Waits up to LINGER_MS for messages to leave."""
        self._context.destroy(linger=LINGER_MS)


class EngineLoop:
    """Takes calls from a channel, steps an engine and tells its outputs, one message a step."""

    def __init__(self, engine: Engine, channel: Channel) -> None:
        self.engine = engine
        self.channel = channel
        self._compiling = Compiling(engine.intake.grammars)
        self._requests: dict[int, Request] = {}
        self._numbers: dict[Request, int] = {}
        self._num_steps = self._num_steps_at_gc = 0
        self._prefix_queries = self._prefix_hits = 0
        self._told_at = self._stepped_at = 0.0
        self._told: EngineStats | None = None

    def run(self) -> None:
        """For ever. Raises EngineDeadError after the server was told, or what the engine raises."""
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection may not come between two steps
        self._compiling.warm()
        while True:
            self.turn()

    def turn(self) -> None:
        """Take what has come; make a step if there is work, else wait for some."""
        has_work = self.engine.has_work
        for message in self.channel.receive(0 if has_work else self._patience_ms()):
            if isinstance(message, Submit):
                self._accept(message)
            elif isinstance(message, Cancel):
                self._cancel(message)
            else:
                raise AssertionError(message)
        for call, error in self._compiling.take() if self._compiling else ():
            if error is None:
                self._submit(call)
            else:
                self.channel.send(Refused(call.number, False, error))
        outputs = self._step() if self.engine.has_work else []
        told = self._stepped(outputs)
        told.stats = self._stats_if_due()
        if outputs or told.stats is not None:
            self.channel.send(told)

    def _accept(self, call: Submit) -> None:
        """Submit a call, or have it wait for its grammar, which counts as waiting in the queue."""
        waiting = self._compiling
        if not waiting.must_wait(call):
            self._submit(call)
        elif self.engine.has_room(waiting.num_answers + call.params.n):
            waiting.add(call)
        else:
            limit = f"max_queue_size {self.engine.limits.max_queue_size}"
            message = f"{waiting.num_answers} requests wait for grammars; more exceed {limit}"
            self.channel.send(Refused(call.number, True, message))

    def _submit(self, call: Submit) -> None:
        prompt = array("i", call.prompt).tolist()
        try:
            requests = self.engine.submit(
                prompt, call.params, priority=call.priority, salt=call.salt
            )
        except (QueueFullError, RequestError) as error:
            is_full = isinstance(error, QueueFullError)
            self.channel.send(Refused(call.number, is_full, str(error)))
            return
        for number, request in enumerate(requests, call.number):
            self._requests[number] = request
            self._numbers[request] = number

    def _cancel(self, cancel: Cancel) -> None:
        self._compiling.cancel(cancel.numbers)
        found = (self._requests.get(number) for number in cancel.numbers)
        self.engine.cancel(request for request in found if request is not None)

    def _step(self) -> list[Output]:
        self._num_steps += 1
        self._stepped_at = monotonic()
        if self._num_steps - self._num_steps_at_gc >= MAX_STEPS_WITHOUT_GC:
            self._collect_garbage()
        try:
            return self.engine.step()
        except EngineDeadError as error:
            self.channel.send(self._stepped(error.outputs))
            self.channel.send(Dead(str(error)))
            raise

    def _stepped(self, outputs: Sequence[Output]) -> Stepped:
        """This loop is the cost of telling: a few plain operations a token.

        A failed launch gives a request two outputs at once, of which the later one is the last.
        """
        numbers: list[int] = []
        token_ids: list[int] = []
        news: dict[int, News] = {}
        number_of = self._numbers
        for output in outputs:
            request, token_id, logprobs, finish_reason = output
            number = number_of[request]
            is_plain = finish_reason is None and logprobs is None and token_id is not None
            if is_plain and len(request.output_ids) > 1:
                numbers.append(number)
                token_ids.append(token_id)  # type: ignore[arg-type]
            else:
                self._add_news(news, number, output)
        return Stepped(numbers, token_ids, list(news.values()))

    def _add_news(self, news: dict[int, News], number: int, output: Output) -> None:
        """A first token, a last one, or one with log-probabilities."""
        request, token_id, logprobs, finish_reason = output
        told = news.setdefault(number, News(number, [], [], None, request.cached_tokens, None))
        if token_id is not None:
            told.token_ids.append(token_id)
            if len(request.output_ids) == 1:
                self._prefix_queries += len(request.prompt_ids)
                self._prefix_hits += request.cached_tokens
        if logprobs is not None:
            told.logprobs.append(logprobs)
        if finish_reason is not None:
            told.finish_reason, told.error = finish_reason, request.error
            del self._requests[number], self._numbers[request]

    def _patience_ms(self) -> int | None:
        """How long an idle engine waits for a message: until garbage or a report is due, if any."""
        if self._compiling:
            return COMPILING_MS
        now = monotonic()
        due: list[float] = []
        if self._num_steps > self._num_steps_at_gc:
            if now >= self._stepped_at + IDLE_S:
                self._collect_garbage()
            else:
                due.append(self._stepped_at + IDLE_S)
        if self._told != self._stats():
            due.append(self._told_at + STATS_S)
        return 1 + int(1000 * max(0.0, min(due) - now)) if due else None

    def _stats_if_due(self) -> EngineStats | None:
        now = monotonic()
        if now - self._told_at < STATS_S:
            return None
        self._told_at, self._told = now, self._stats()
        return self._told

    def _stats(self) -> EngineStats:
        scheduler, full = self.engine.scheduler, self.engine.kv.full
        drafts = self.engine.drafter.counts if self.engine.drafter else DraftCounts()
        return EngineStats(
            num_running=scheduler.num_running,
            num_waiting=len(scheduler.waiting) + self._compiling.num_answers,
            kv_usage=1 - full.num_available / full.num_pages,
            prefix_queries=self._prefix_queries,
            prefix_hits=self._prefix_hits,
            num_preemptions=scheduler.num_preemptions,
            steps=self._num_steps,
            short_steps=self.engine.runner.num_short_steps,
            num_drafts=drafts.drafts,
            num_draft_tokens=drafts.tokens,
            num_accepted_tokens=drafts.accepted,
            accepted_per_position=tuple(drafts.per_position),
        )

    def _collect_garbage(self) -> None:
        self._num_steps_at_gc = self._num_steps
        gc.collect()
