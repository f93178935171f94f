"""A network whose next token is a hash of the whole prefix, read from the paged cache itself.

What a request generates then tells whether every token was computed once, in order, in its own
pages, whatever was batched, chunked, cancelled or reused beside it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from haast.config import MemoryPlan, ModelConfig, OpChoice, Plan
from haast.engine.generator import Generator
from haast.engine.request import Request, SamplingParams
from haast.model.config_file import parse_model_config
from haast.model.gpt_oss import GptOss
from haast.model.kv_cache import PAGE_SIZE, KVCache
from haast.model.parameters import Parameters
from haast.ops import MODEL_OPS, REFERENCE, StepMeta

from ..model.helpers import CPU, TINY

SMALLER = TINY | {
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "layer_types": ["sliding_attention", "full_attention"],
}
CONFIG: ModelConfig = parse_model_config(SMALLER, Path("config.json"))
VOCAB = CONFIG.vocab_size


def next_token(prefix: Sequence[int]) -> int:
    """The oracle's opinion; every token and every position of the prefix counts."""
    state = 17
    for token in prefix:
        state = (state * 31 + token + 7) % 1_000_003
    return state % VOCAB


def expected_output(prompt: Sequence[int], num_tokens: int) -> list[int]:
    """What a request must generate greedily, stop tokens apart."""
    ids = list(prompt)
    for _ in range(num_tokens):
        ids.append(next_token(ids))
    return ids[len(prompt) :]


class OracleModel:
    """Takes the place of GptOss. The key of a position is its token id; every slot starts as NaN
    and a step may only see what was written.
    """

    def __init__(self) -> None:
        self.config = replace(CONFIG, num_layers=1, windows=(None,), num_kv_heads=1, head_dim=1)
        self.device = CPU
        self.dtype = torch.float64
        self.steps: list[list[int]] = []
        """Tokens of each request, step by step"""

    def forward(self, token_ids: Tensor, meta: StepMeta, kv) -> Tensor:
        cache = kv.layers[0][0].flatten()
        cache[meta.slot_mapping] = token_ids.double()
        bounds = meta.cu_seqlens_q.tolist()
        self.steps.append([b - a for a, b in zip(bounds, bounds[1:], strict=False)])
        hidden = []
        for b, kv_len in enumerate(meta.kv_lens.tolist()):
            slots = meta.page_table[b].long()[:, None] * PAGE_SIZE + torch.arange(PAGE_SIZE)
            ids = [int(i) for i in cache[slots.flatten()[:kv_len]].tolist()]
            first = kv_len - (bounds[b + 1] - bounds[b])
            assert meta.positions[bounds[b] : bounds[b + 1]].tolist() == [*range(first, kv_len)]
            hidden += [next_token(ids[: n + 1]) for n in range(first, kv_len)]
        return torch.tensor(hidden)[:, None]

    def logits(self, hidden: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(hidden[:, 0], VOCAB).float() * 9


def make_plan(num_pages: int, max_batch_size: int = 4, max_length: int | None = None) -> Plan:
    """A plan of the CPU for that many pages."""
    return Plan(
        model_path=Path("model"),
        architecture=CONFIG.architecture,
        layout="dummy",
        files=(),
        encoding="mxfp4",
        is_swizzled=False,
        device="cpu",
        max_length=max_length or num_pages * PAGE_SIZE,
        max_batch_size=max_batch_size,
        ops=tuple(OpChoice(op.name, REFERENCE, "test") for op in MODEL_OPS),
        memory=MemoryPlan(0, 0, 1, num_pages, PAGE_SIZE),
    )


def oracle_generator(num_pages: int, **plan) -> Generator:
    """A generator over the oracle, its cache full of NaN."""
    generator = Generator(OracleModel(), make_plan(num_pages, **plan))
    poison(generator.kv)
    return generator


def poison(cache: KVCache) -> None:
    """Every slot holds NaN."""
    for pair in cache.layers:
        for pages in pair:
            pages.fill_(torch.nan)


def real_generator(parameters: Parameters, num_pages: int = 8, **plan) -> Generator:
    """A generator over the small random network."""
    plan = make_plan(num_pages, **plan)
    return Generator(GptOss(CONFIG, parameters, plan.max_length), plan)


def make_request(prompt: Sequence[int], num_tokens: int, stop=(), **params) -> Request:
    """Greedy unless a temperature is given."""
    settings = SamplingParams(**({"temperature": 0.0} | params))
    seed = settings.seed or 0
    return Request(prompt, settings, seed, num_tokens, frozenset(stop))


def pages_add_up(generator: Generator) -> bool:
    """Free and held pages are all pages, each once; who is not running holds none."""
    held = [page for request in generator.running for page in request.pages]
    assert not any(request.pages for request in generator.waiting)
    return sorted(generator.free_pages + held) == list(range(generator.plan.memory.num_pages))


def run(generator: Generator, requests: Sequence[Request]) -> list[list[int]]:
    """Outputs of requests run together to their ends; every page is free afterwards."""
    for request in requests:
        generator.add(request)
    while generator.has_work:
        generator.step()
        assert pages_add_up(generator)
    assert len(generator.free_pages) == generator.plan.memory.num_pages
    return [request.output_ids for request in requests]


def prompt_of(size: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCAB, (size,), generator=generator).tolist()
