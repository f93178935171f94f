"""`haast bench agree`: do two ways to run a model give the same greedy tokens?

They may part where the reference's logits of both tokens lie closer together than bf16 tells apart:
such a near-tie is counted, anything else is a difference.
"""

import gc
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from haast import ops
from haast.bench.machine import BenchError, one_line
from haast.bench.whole_model import run
from haast.config import EngineConfig, OpChoice
from haast.engine.load import Loaded, Prepared, prepare
from haast.engine.loading import load
from haast.engine.op_choice import DECODE_STEP, are_capturable
from haast.engine.request import Request, SamplingParams
from haast.engine.sampling_params import MAX_LOGPROBS
from haast.engine.score import score

FRACTION_BITS = 7
"""of bf16"""
SLACK = 0.01
"""of a spacing, as margins are differences of log-probabilities in fp32"""
WIDTH = 16
"""of a column"""


@dataclass(frozen=True)
class Way:
    """How to run a model."""

    wishes: EngineConfig
    pins: Mapping[str, str]
    """op -> implementation, on top of the plan's"""


@dataclass(frozen=True)
class Difference:
    """Where an answer leaves the reference's for the first time."""

    prompt: int
    position: int
    token_ids: tuple[int, int]
    """the reference's and the other's"""
    margin: float
    """between the reference's best logit and that of the other's token; at least this, where the
    token is not among the reference's best MAX_LOGPROBS"""
    spacing: float
    """of bf16 numbers as large as the best logit"""

    @property
    def spacings(self) -> float:
        return self.margin / self.spacing

    def is_near_tie(self, most: float) -> bool:
        """Whether so many spacings explain it."""
        return self.spacings <= most + SLACK


def random_prompts(count: int, longest: int, vocab_size: int, seed: int) -> list[list[int]]:
    """Random token ids; lengths are drawn evenly from 1 to the longest."""
    draw = random.Random(seed)
    lengths = [draw.randint(1, longest) for _ in range(count)]
    return [[draw.randrange(vocab_size) for _ in range(length)] for length in lengths]


def compare(
    reference: Way,
    others: Sequence[Way],
    prompts: Sequence[list[int]],
    num_tokens: int,
    stop_ids: frozenset[int] = frozenset(),
) -> list[list[Difference]]:
    """For each other way, the first difference of each answer that has one.

    num_tokens  of an answer, unless it ends sooner
    stop_ids    tokens that end it
    Models are loaded one after the other, the reference last.
    Raises HaastErrors as `prepare` and `load`, BenchError for pins that there are not.
    """
    params = SamplingParams(
        temperature=0, max_new_tokens=num_tokens, ignore_eos=True, stop_token_ids=tuple(stop_ids)
    )
    answers = [_answers(other, prompts, params) for other in others]
    loaded = _load(reference)
    wanted = _generate(loaded, prompts, replace(params, logprobs=MAX_LOGPROBS))
    return [_differences(loaded, wanted, of_one) for of_one in answers]


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """Index of the first token that is another one; None if there is none.

    Answers of unlike lengths end with unlike tokens, of which one is a stop token.
    """
    pairs = enumerate(zip(one, other, strict=True))
    return next((index for index, (a, b) in pairs if a != b), None)


def bf16_spacing(value: float) -> float:
    """Distance of neighbouring bf16 numbers at a normal one."""
    return math.ldexp(1.0, math.frexp(value)[1] - 1 - FRACTION_BITS)


def with_pins(prepared: Prepared, pins: Mapping[str, str]) -> Prepared:
    """The same with other implementations of some ops. Raises BenchError for unknown ones."""
    known = {op.name: [ops.REFERENCE, *(k.name for k in op.kernels)] for op in ops.MODEL_OPS}
    known[DECODE_STEP] = [ops.REFERENCE, ops.PERSISTENT]
    for name, implementation in pins.items():
        if implementation not in known.get(name, ()):
            allowed = ", ".join(known.get(name, known))
            raise BenchError(f"cannot pin {name}={implementation}; there are {allowed}")
    choices = tuple(
        OpChoice(c.op, pins[c.op], "pinned") if c.op in pins else c for c in prepared.plan.ops
    )
    has_graphs = prepared.plan.has_graphs and are_capturable(choices, torch.device("cuda"))
    return replace(prepared, plan=replace(prepared.plan, ops=choices, has_graphs=has_graphs))


def summary(differences: Sequence[Difference], num_prompts: int, most: float) -> dict[str, Any]:
    """Counts, and the differences with what they are of.

    most  spacings that count as a near-tie
    """
    near = sum(difference.is_near_tie(most) for difference in differences)
    return {
        "prompts": num_prompts,
        "equal": num_prompts - len(differences),
        "near_ties": near,
        "different": len(differences) - near,
        "most_spacings": max((d.spacings for d in differences), default=0.0),
        "differences": [asdict(d) | {"spacings": d.spacings} for d in differences],
    }


def table_lines(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line a way, by its name, of what `summary` counts."""
    heads = ("prompts", "equal", "near-ties", "different", "largest margin")
    lines = [f"{'':8}" + "".join(f"{head:>{WIDTH}}" for head in heads)]
    for name, row in rows.items():
        counts = (row[key] for key in ("prompts", "equal", "near_ties", "different"))
        margin = f"{row['most_spacings']:.2f} spacings"
        lines.append(f"{name:8}" + "".join(f"{n:{WIDTH}}" for n in counts) + f"{margin:>{WIDTH}}")
    return lines


def _load(way: Way) -> Loaded:
    return load(with_pins(prepare(way.wishes), way.pins), frozenset())


def _answers(way: Way, prompts: Sequence[list[int]], params: SamplingParams) -> list[list[int]]:
    """What one way says; its memory is free again."""
    answers = [request.output_ids for request in _generate(_load(way), prompts, params)]
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return answers


def _generate(
    loaded: Loaded, prompts: Sequence[list[int]], params: SamplingParams
) -> list[Request]:
    """Greedy answers, all there at once. Raises BenchError if one fails."""
    with one_line():
        requests = [r for prompt in prompts for r in loaded.engine.submit(prompt, params)]
        for _ in run(loaded):
            pass
    for request in requests:
        if request.error is not None:
            raise BenchError(f"a request failed: {request.error}")
    return requests


def _differences(
    loaded: Loaded, wanted: Sequence[Request], answers: Sequence[list[int]]
) -> list[Difference]:
    found = []
    for index, (request, answer) in enumerate(zip(wanted, answers, strict=True)):
        position = first_difference(request.output_ids, answer)
        if position is not None:
            found.append(_difference(loaded, index, position, request, answer[position]))
    return found


def _difference(
    loaded: Loaded, index: int, position: int, request: Request, token_id: int
) -> Difference:
    own, top = request.logprobs[position]
    logprobs = dict(top)
    text = [*request.prompt_ids, *request.output_ids[:position]]
    best = score(loaded, text)[-1].max().item()
    return Difference(
        prompt=index,
        position=position,
        token_ids=(request.output_ids[position], token_id),
        margin=own - logprobs.get(token_id, min(logprobs.values())),
        spacing=bf16_spacing(best),
    )
