"""The Python API: load a model, generate, stream."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from haast.config import EngineConfig
from haast.engine.generator import RequestError
from haast.engine.load import load_generator, prepare
from haast.engine.request import Request, SamplingParams
from haast.engine.score import score
from haast.harmony import ChatTemplate, Tokenizer, ToolCall
from haast.model.weights import Progress
from haast.prompt import ChatOptions, Prompt, PromptBuilder, opened_message
from haast.reply_stream import ReplyStream, TextDelta


@dataclass(frozen=True)
class Timings:
    """How long one request took; waiting for other requests of the same call included."""

    prompt_tokens: int
    generated_tokens: int
    ttft_s: float
    total_s: float

    @property
    def prompt_tokens_per_s(self) -> float:
        return self.prompt_tokens / self.ttft_s

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Speed after the first token; None if there was no other."""
        decode_s = self.total_s - self.ttft_s
        return (self.generated_tokens - 1) / decode_s if self.generated_tokens > 1 else None


@dataclass(frozen=True)
class Result:
    """A finished generation.

    text           the answer: harmony's final channel, after preambles if there are any
    reasoning      the analysis channel
    finish_reason  stop, length or tool_calls
    token_ids      every generated token, markers included
    anomalies      how often the model left the harmony format, by kind
    """

    text: str
    reasoning: str
    finish_reason: str
    token_ids: tuple[int, ...]
    prompt_token_ids: tuple[int, ...]
    tool_calls: tuple[ToolCall, ...]
    anomalies: dict[str, int]
    timings: Timings


class LLM:
    """A gpt-oss model, loaded and ready.

    model_path  folder of a checkpoint in any published layout, owner/name of one in the local
                Hugging Face cache, or None for the bundled haast-tiny
    progress    called with bytes loaded and bytes in all
    wishes      fields of `haast.config.EngineConfig`, such as devices="cpu" or max_length=4096

    plan        Plan of what runs
    found       which weights were found and from which files, in one line
    load_s      seconds from wishes to ready
    Raises HaastError, in one line, for everything the caller can mend.
    """

    def __init__(
        self,
        model_path: str | Path | None = None,
        *,
        progress: Progress | None = None,
        **wishes: Any,
    ) -> None:
        path = None if model_path is None else Path(model_path)
        config = EngineConfig(model_path=path, **wishes)
        started = time.perf_counter()
        prepared = prepare(config)
        self.plan = prepared.plan
        self.found = prepared.found
        self.tokenizer = Tokenizer(prepared.tokenizer)
        template = config.chat_template and ChatTemplate(config.chat_template, self.tokenizer)
        self._prompts = PromptBuilder(self.tokenizer, template or None)
        self.generator = load_generator(prepared, progress)
        self.load_s = time.perf_counter() - started

    def generate(
        self,
        inputs: str | Sequence[Prompt],
        params: SamplingParams | None = None,
        *,
        progress: Callable[[int], None] | None = None,
        **chat: Any,
    ) -> list[Result]:
        """Run prompts to their ends, batched; results are in the order of `inputs`.

        inputs    a list of prompts, each a string (one user message), token ids or chat messages;
                  a single string is a list of one
        progress  called with the number of finished requests
        chat      fields of `haast.prompt.ChatOptions`, such as reasoning_effort="low"
        Raises HaastError before anything runs if a prompt is malformed or too long.
        """
        prompts = [inputs] if isinstance(inputs, str) else inputs
        calls = [self._start(prompt, params, ChatOptions(**chat)) for prompt in prompts]
        done = 0
        for call, _ in self._run(calls):
            if call.is_done and progress is not None:
                done += 1
                progress(done)
        return [call.result() for call in calls]

    def stream(
        self, prompt: Prompt, params: SamplingParams | None = None, **chat: Any
    ) -> Iterator[TextDelta | Result]:
        """Yield TextDeltas as they are generated and the Result last; arguments as `generate`.

        Closing the iterator early cancels the request.
        """
        call = self._start(prompt, params, ChatOptions(**chat))
        for _, deltas in self._run([call]):
            yield from deltas
        yield call.result()

    def score(self, token_ids: Sequence[int]) -> Tensor:
        """Logits after each token of a text, [len(token_ids), V] fp32 on the host."""
        return score(self.generator, list(token_ids))

    def _start(
        self, prompt: Prompt, params: SamplingParams | None, options: ChatOptions
    ) -> "_Call":
        params = params or SamplingParams()
        prompt_ids = self._prompts.ids(prompt, options)
        room = max(1, self.plan.max_length - len(prompt_ids))
        request = Request(
            prompt_ids=prompt_ids,
            params=params,
            seed=secrets.randbits(64) if params.seed is None else params.seed,
            max_new_tokens=params.max_new_tokens or room,
            stop_ids=self.tokenizer.stop_ids,
        )
        self.generator.check(request)
        return _Call(request, self.tokenizer)

    def _run(self, calls: Sequence["_Call"]) -> Iterator[tuple["_Call", list[TextDelta]]]:
        generator = self.generator
        if generator.has_work:
            raise RequestError("a stream of this LLM is still open; exhaust or close it first")
        by_request = {call.request: call for call in calls}
        for request in by_request:
            generator.add(request)
        try:
            while generator.has_work:
                for progress in generator.step():
                    if progress.token_id is None:
                        continue
                    call = by_request[progress.request]
                    deltas = call.take(progress.token_id)
                    if call.is_stopped:
                        generator.cancel([call.request])
                    yield call, deltas
        finally:
            generator.cancel(by_request)


class _Call:
    """One request on its way to a result."""

    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        self.request = request
        opened = opened_message(request.prompt_ids, tokenizer)
        self.stream = ReplyStream(tokenizer, request.params.stop_strings, opened)
        self.started = time.perf_counter()
        self.first_token_at = self.ended_at = 0.0

    @property
    def is_stopped(self) -> bool:
        return self.stream.is_stopped

    @property
    def is_done(self) -> bool:
        return self.is_stopped or self.request.finish_reason is not None

    def take(self, token_id: int) -> list[TextDelta]:
        self.ended_at = time.perf_counter()
        self.first_token_at = self.first_token_at or self.ended_at
        deltas = self.stream.feed(token_id)
        return deltas + self.stream.finish() if self.is_done else deltas

    def result(self) -> Result:
        reply, request = self.stream.reply, self.request
        return Result(
            text=self.stream.content,
            reasoning=reply.reasoning,
            finish_reason=self._finish_reason(),
            token_ids=tuple(request.output_ids),
            prompt_token_ids=tuple(request.prompt_ids),
            tool_calls=tuple(reply.tool_calls),
            anomalies=self.stream.anomalies,
            timings=Timings(
                prompt_tokens=len(request.prompt_ids),
                generated_tokens=len(request.output_ids),
                ttft_s=self.first_token_at - self.started,
                total_s=self.ended_at - self.started,
            ),
        )

    def _finish_reason(self) -> str:
        assert self.is_done, self.request
        if self.is_stopped:
            return "stop"
        is_call = self.request.finish_reason == "stop" and self.stream.reply.tool_calls
        return "tool_calls" if is_call else str(self.request.finish_reason)
