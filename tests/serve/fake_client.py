"""An EngineClient without an engine: it tells what a test wrote down, and remembers what came."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple

from haast.engine.request import SamplingParams
from haast.model.locate import demo_folder
from haast.serve.client import EngineDownError, EngineInfo, EngineStats, Tokens

INFO = EngineInfo(
    model_path=str(demo_folder()),
    found="a script",
    tokenizer=str(demo_folder() / "tokenizer.json"),
    max_length=640,
    max_batch_size=8,
    vocab_size=201_088,
    kv_tokens=1280,
    plan={},
    load_s=0.0,
)
Item = Tokens | Exception | float
"""What comes next: news, an error, or nothing for so many seconds"""
Script = Callable[[Sequence[int], SamplingParams], Sequence[Item]]


class Asked(NamedTuple):
    prompt_ids: list[int]
    params: SamplingParams
    priority: int
    salt: str | None


class FakeClient:
    """script: prompt and params -> what is told."""

    def __init__(self, script: Script, info: EngineInfo = INFO) -> None:
        self.info = info
        self.script = script
        self.asked: list[Asked] = []
        self.num_open = 0
        self.num_cancelled = 0
        self.cancelled: list[int] = []
        """indices of answers that were cancelled alone"""
        self.now = EngineStats()
        self.down_because: str | None = None
        self.num_probes = 0

    async def generate(self, prompt_ids, params, *, priority=0, salt=None) -> AsyncIterator[Tokens]:
        self.asked.append(Asked(list(prompt_ids), params, priority, salt))
        if self.down_because is not None:
            raise EngineDownError(self.down_because)
        self.num_open += 1
        has_ended = False
        try:
            for item in self.script(prompt_ids, params):
                if isinstance(item, Exception):
                    has_ended = True
                    raise item
                if isinstance(item, float):
                    await asyncio.sleep(item)
                else:
                    yield item._replace(number=item.index)
            has_ended = True
        finally:
            self.num_open -= 1
            self.num_cancelled += not has_ended

    def cancel(self, number: int) -> None:
        self.cancelled.append(number)

    def stats(self) -> EngineStats:
        return self.now

    async def probe(self, timeout_s: float) -> None:
        self.num_probes += 1
        await asyncio.sleep(0.01)
        if self.down_because is not None:
            raise EngineDownError(self.down_because)


def tokens(*token_ids, index=0, end=None, cached=0, logprobs=None, error=None) -> Tokens:
    return Tokens(index, token_ids, logprobs, end, cached, error)
