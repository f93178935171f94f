"""The engine over a small random network in fp32 on the CPU, and what each request must give."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from haast import ops
from haast.config import MemoryPlan, ModelConfig, OpChoice, Plan
from haast.engine.load import Loaded, assemble
from haast.engine.request import Request, SamplingParams
from haast.model.config_file import parse_model_config
from haast.model.gpt_oss import GptOss
from haast.model.parameters import Parameters
from haast.ops.sample import reference as sampling

from ..model import helpers
from ..model.helpers import TINY
from .oracle_grammar import OracleGrammars, OracleMatcher

SMALLER = TINY | {
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "layer_types": ["sliding_attention", "full_attention"],
}
CONFIG: ModelConfig = parse_model_config(SMALLER, Path("config.json"))
VOCAB = CONFIG.vocab_size


def make_plan(num_pages: int = 16, num_window_pages: int = 16, **changes) -> Plan:
    """A plan of the CPU with so many pages; changes are fields of Plan, or page_size."""
    page_size = changes.pop("page_size", 64)
    decided = {"max_length": num_pages * page_size, "max_batch_size": 4}
    decided |= {"max_batch_input_tokens": 8192, "enable_in_flight_batching": True}
    decided |= {"enable_prefix_caching": True, "max_queue_size": 100, "has_graphs": False}
    decided["ops"] = tuple(OpChoice(op.name, ops.REFERENCE, "test") for op in ops.MODEL_OPS)
    return Plan(
        model_path=Path("model"),
        architecture=CONFIG.architecture,
        layout="dummy",
        files=(),
        encoding="mxfp4",
        is_swizzled=False,
        device="cpu",
        memory=MemoryPlan(0, 0, 0, 1, 1, page_size, num_pages, num_window_pages, 1),
        **(decided | changes),
    )


def load_small(
    parameters: Parameters, *, config=CONFIG, stop_ids=(), max_in_flight=2, **plan
) -> Loaded:
    """The engine, its KV cache full of NaN."""
    made = make_plan(**plan)
    model = GptOss(config, parameters, made.max_length)
    grammars = OracleGrammars(VOCAB)
    loaded = assemble(model, made, frozenset(stop_ids), max_in_flight, grammars)
    for pair in loaded.runner.kv.layers:
        for pages in pair:
            pages.fill_(torch.nan)
    return loaded


class Ask(NamedTuple):
    """A prompt and fields of SamplingParams; greedy unless they give a temperature."""

    prompt_ids: list[int]
    params: dict

    def submit(self, loaded: Loaded) -> list[Request]:
        params = SamplingParams(**({"temperature": 0.0, "seed": 0} | self.params))
        return loaded.engine.submit(self.prompt_ids, params)


def ask(prompt_ids: Sequence[int], num_tokens: int, **params) -> Ask:
    return Ask(list(prompt_ids), params | {"max_new_tokens": num_tokens})


def run(loaded: Loaded, asks: Sequence[Ask]) -> list[Request]:
    """Requests run together to their ends; every page and row is free afterwards."""
    requests = [request for one in asks for request in one.submit(loaded)]
    while loaded.engine.has_work:
        loaded.engine.step()
        loaded.engine.kv.check()
    check_idle(loaded)
    return requests


def check_idle(loaded: Loaded) -> None:
    """Pages are free or cached, and nothing is kept of any request."""
    kv, runner = loaded.engine.kv, loaded.runner
    for pool in (kv.full, kv.sliding):
        assert (pool.num_held, pool.num_available) == (0, pool.num_pages)
    assert not runner._tables._rows and not runner._extras._wishes
    assert sorted(runner._tables._free) == list(range(runner._tables.num_rows))
    history = runner._extras.history
    assert sorted(runner._extras._free_rows) == list(range(0 if history is None else len(history)))


def outputs(requests: Sequence[Request]) -> list[list[int]]:
    return [request.output_ids for request in requests]


def prompt_of(size: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(1000 * seed + size)
    return torch.randint(VOCAB, (size,), generator=generator).tolist()


class Expected(NamedTuple):
    """What a request gives alone, and the raw log-probabilities [V] before each token."""

    output_ids: list[int]
    log_probs: list[Tensor]


def expected(
    parameters: Parameters, one: Ask, stop_ids=(), config=CONFIG, seed: int | None = None
) -> Expected:
    """Token by token, each from a forward over the whole text, without cache, pages or batch.

    seed  in place of the one that was asked for
    """
    params = SamplingParams(**({"temperature": 0.0, "seed": 0} | one.params))
    ends = {*params.stop_token_ids} | ({*()} if params.ignore_eos else {*stop_ids})
    matcher = None if params.grammar is None else OracleMatcher(params.grammar, VOCAB)
    made, log_probs = [], []
    while len(made) < params.max_new_tokens:
        ids = [*one.prompt_ids, *made]
        raw = helpers.logits(config, parameters, ids)[-1]
        log_probs.append(raw.log_softmax(-1))
        row = adjusted(raw.tolist(), one.prompt_ids, made, params, ends)
        row = confined(row, params, matcher)
        made.append(
            drawn(torch.tensor(row), params, len(ids), params.seed if seed is None else seed)
        )
        if matcher is not None:
            assert matcher.consume(made[-1]) is None
        if made[-1] in ends or (matcher is not None and matcher.is_done):
            break
    return Expected(made, log_probs)


def adjusted(row: list[float], prompt_ids, made, params: SamplingParams, ends) -> list[float]:
    """Logits as the documents of SamplingParams say."""
    row = row[:]
    for token_id in {*prompt_ids, *made}:
        factor = params.repetition_penalty
        row[token_id] = row[token_id] / factor if row[token_id] > 0 else row[token_id] * factor
    for token_id in {*made}:
        row[token_id] -= params.presence_penalty + params.frequency_penalty * made.count(token_id)
    for token_id, value in (params.logit_bias or {}).items():
        row[token_id] += value
    if len(made) < params.min_tokens:
        for token_id in ends:
            row[token_id] = float("-inf")
    return row


def confined(row: list[float], params: SamplingParams, matcher: OracleMatcher | None):
    """Logits of what a grammar and a list allow; -inf for all else."""
    allowed = {*range(VOCAB)} if matcher is None else matcher.allowed()
    if params.allowed_token_ids is not None:
        allowed &= {*params.allowed_token_ids}
    return [value if at in allowed else float("-inf") for at, value in enumerate(row)]


def drawn(row: Tensor, params: SamplingParams, position: int, seed: int) -> int:
    """The token of one row by the reference, which has tests of its own."""
    settings = ops.Sampling(
        temperature=torch.tensor([params.temperature]),
        top_k=torch.tensor([params.top_k or VOCAB], dtype=torch.int32),
        top_p=torch.tensor([params.top_p]),
        min_p=torch.tensor([params.min_p]),
        seed=torch.tensor([seed - (1 << 64) if seed >= 1 << 63 else seed]),
        position=torch.tensor([position], dtype=torch.int32),
    )
    return int(sampling.sample(row[None], settings))
