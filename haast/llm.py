"""The Python API: load a model, generate, stream."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from haast.config import EngineConfig, SpeculativeConfig
from haast.engine.engine import Output
from haast.engine.load import prepare
from haast.engine.loading import Loading
from haast.engine.request import Request, RequestError, SamplingParams
from haast.engine.score import score
from haast.grammars import LlGrammars
from haast.harmony import ChatTemplate, Tokenizer
from haast.model.weights import Progress
from haast.prompt import ChatOptions, Prompt, PromptBuilder, opened_message
from haast.reply_stream import ReplyStream, TextDelta
from haast.result import Result, Timings


class LLM:
    """A gpt-oss model, loaded and ready.

    model_path  folder of a checkpoint in any published layout, owner/name of one in the local
                Hugging Face cache, or None for the bundled haast-tiny
    progress    called with bytes loaded and bytes in all
    wishes      fields of `haast.config.EngineConfig`, such as devices="cpu" or max_length=4096;
                speculative_config may be a dict of its fields

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
        speculative = wishes.get("speculative_config")
        if isinstance(speculative, dict):
            wishes["speculative_config"] = SpeculativeConfig.of(speculative)
        config = EngineConfig(model_path=path, **wishes)
        started = time.perf_counter()
        prepared = prepare(config)
        self.plan = prepared.plan
        self.found = prepared.found
        with Loading(prepared, progress) as loading:
            self.tokenizer = Tokenizer(prepared.tokenizer)
            template = config.chat_template and ChatTemplate(config.chat_template, self.tokenizer)
            self._prompts = PromptBuilder(self.tokenizer, template or None)
            grammars = LlGrammars(self.tokenizer, prepared.config.vocab_size)
            self._loaded = loading.finish(self.tokenizer.stop_ids, grammars)
        self.engine = self._loaded.engine
        self.device = self._loaded.model.device
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
        return list(self.answers(inputs, params, progress=progress, **chat))

    def answers(
        self,
        inputs: str | Sequence[Prompt],
        params: SamplingParams | None = None,
        *,
        progress: Callable[[int], None] | None = None,
        **chat: Any,
    ) -> Iterator[Result]:
        """The results of `generate`, each as soon as it and all before it are there.

        Closing the iterator early cancels the rest.
        """
        prompts = [inputs] if isinstance(inputs, str) else inputs
        params, options = params or SamplingParams(), ChatOptions(**chat)
        calls = [call for prompt in prompts for call in self._calls(prompt, params, options)]
        num_done = num_given = 0
        for call, _ in self._run(calls):
            if not call.is_done:
                continue
            num_done += 1
            if progress is not None:
                progress(num_done)
            while num_given < len(calls) and calls[num_given].is_done:
                yield calls[num_given].result()
                num_given += 1

    def stream(
        self, prompt: Prompt, params: SamplingParams | None = None, **chat: Any
    ) -> Iterator[TextDelta | Result]:
        """Yield TextDeltas as they are generated and the Result last; arguments as `generate`.

        Closing the iterator early cancels the request.
        """
        params = params or SamplingParams()
        if params.n != 1:
            raise RequestError(f"a stream is of one answer; n must be 1, got {params.n}")
        (call,) = self._calls(prompt, params, ChatOptions(**chat))
        for _, deltas in self._run([call]):
            yield from deltas
        yield call.result()

    def prompt_ids(
        self, prompt: Prompt, params: SamplingParams | None = None, **chat: Any
    ) -> list[int]:
        """Token ids of a prompt, as `generate` reads it; arguments as there.

        Raises HaastError if it is malformed or too long.
        """
        calls = self._calls(prompt, params or SamplingParams(), ChatOptions(**chat))
        return list(calls[0].request.prompt_ids)

    def score(self, token_ids: Sequence[int]) -> Tensor:
        """Logits after each token of a text, [len(token_ids), V] fp32 on the host."""
        return score(self._loaded, list(token_ids))

    def _calls(self, prompt: Prompt, params: SamplingParams, options: ChatOptions) -> list["_Call"]:
        """The params.n answers to a prompt, checked and not yet queued."""
        prompt_ids = self._prompts.ids(prompt, options)
        requests = self.engine.intake.requests(prompt_ids, params)
        return [_Call(request, self.tokenizer) for request in requests]

    def _run(self, calls: Sequence["_Call"]) -> Iterator[tuple["_Call", list[TextDelta]]]:
        """Runs calls to their ends; no more of them wait in the engine than its queue takes."""
        engine = self.engine
        if engine.has_work:
            raise RequestError("a stream of this LLM is still open; exhaust or close it first")
        waiting, queued = _siblings(calls), {}
        try:
            while waiting or engine.has_work:
                while waiting and (engine.has_room(len(waiting[0])) or not engine.has_work):
                    group = waiting.popleft()
                    engine.enqueue([call.request for call in group])
                    queued.update({call.request: call for call in group})
                for output in engine.step():
                    call = queued[output.request]
                    if not call.is_done:
                        yield call, self._take(call, output)
        finally:
            engine.cancel(queued)
            while engine.has_work:
                engine.step()

    def _take(self, call: "_Call", output: Output) -> list[TextDelta]:
        deltas = call.take(output)
        if call.is_done and output.finish_reason is None:
            self.engine.cancel([call.request])  # a stop string ended it
        return deltas


def _siblings(calls: Sequence["_Call"]) -> "deque[list[_Call]]":
    """The answers to each prompt together, in order."""
    groups: deque[list[_Call]] = deque()
    for call in calls:
        if groups and groups[-1][0].request.prompt_ids is call.request.prompt_ids:
            groups[-1].append(call)
        else:
            groups.append([call])
    return groups


class _Call:
    """One request on its way to a result."""

    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        self.request = request
        opened = opened_message(request.prompt_ids, tokenizer)
        self.stream = ReplyStream(tokenizer, request.params.stop_strings, opened)
        self.is_done = False
        self.num_tokens = 0
        """taken: a step may give more, after those that hold a stop string"""
        self.started = time.perf_counter()
        self.first_token_at = self.ended_at = 0.0

    def take(self, output: Output) -> list[TextDelta]:
        self.ended_at = time.perf_counter()
        self.first_token_at = self.first_token_at or self.ended_at
        deltas = []
        if output.token_id is not None:
            self.num_tokens += 1
            deltas = self.stream.feed(output.token_id)
        self.is_done = self.stream.is_stopped or output.finish_reason is not None
        return deltas + self.stream.finish() if self.is_done else deltas

    def result(self) -> Result:
        reply, request, count = self.stream.reply, self.request, self.num_tokens
        return Result(
            text=self.stream.content,
            reasoning=reply.reasoning,
            finish_reason=self._finish_reason(),
            token_ids=tuple(request.output_ids[:count]),
            prompt_token_ids=tuple(request.prompt_ids),
            logprobs=tuple(request.logprobs[:count]),
            cached_tokens=request.cached_tokens,
            error=None if self.stream.is_stopped else request.error,
            tool_calls=tuple(reply.tool_calls),
            anomalies=self.stream.anomalies,
            timings=Timings(
                prompt_tokens=len(request.prompt_ids),
                generated_tokens=count,
                ttft_s=self.first_token_at - self.started,
                total_s=self.ended_at - self.started,
            ),
        )

    def _finish_reason(self) -> str:
        assert self.is_done, self.request
        if self.stream.is_stopped:
            return "stop"
        is_call = self.request.finish_reason == "stop" and self.stream.reply.tool_calls
        return "tool_calls" if is_call else str(self.request.finish_reason)
