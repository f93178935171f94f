"""Runs the questions, compares with the BF16 control, says pass or fail with the numbers."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from haast.coherence.metrics import (
    Agreement,
    answer_log_probs,
    count_markup,
    perplexity,
    repetition,
)
from haast.coherence.suite import PROMPTS, Suite, read_suite
from haast.config import ConfigError, EngineConfig
from haast.engine.request import SamplingParams
from haast.llm import LLM
from haast.result import Result

MAX_NEW_TOKENS = 512
MAX_REPETITION = 0.5
MIN_ANSWERED = 0.9
MAX_DIVERGENCE = 0.02
MIN_TOP1 = 0.95
"""Two correct bf16 paths differ by less; a wrong scale or a swapped nibble by far more."""
E4M3_ALLOWANCE = 1.5
"""A cache in float8_e4m3fn may be so many times as far from fp32: on haast-tiny it was 0.0299 and
0.1200 nats, median and mean, where bf16 was 0.0143 and 0.0528"""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Check:
    """One number against its limit."""

    name: str
    value: float
    limit: float
    is_ceiling: bool
    """whether the value must not exceed the limit, else not fall below it"""

    @property
    def passed(self) -> bool:
        """False for NaN too."""
        return self.value <= self.limit if self.is_ceiling else self.value >= self.limit


@dataclass(frozen=True)
class Report:
    """All checks of a model."""

    model: str
    checks: tuple[Check, ...]
    skipped: dict[str, str]
    """check -> why it could not be made"""
    wrong: tuple[tuple[str, str, str], ...]
    """prompt, expected and given answer where they differ"""
    warning: str | None = None
    """what the plan warns of"""

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def check_coherence(
    config: EngineConfig, progress: Progress | None = None, max_prompts: int | None = None
) -> Report:
    """Judge a model by greedy answers, its own suite and the BF16 control of the same weights.

    progress     called with prompts answered and prompts in all
    max_prompts  ask only so many of the suite's prompts
    Raises HaastError if the model cannot be loaded.
    """
    llm = _load(config)
    suite = read_suite(llm.plan.model_path)
    expected = suite.answers[:max_prompts] if suite else ()
    prompts = [*PROMPTS, *(prompt for prompt, _ in expected)]
    results = _answers(llm, prompts, progress)
    fixed, own = results[: len(PROMPTS)], results[len(PROMPTS) :]
    texts = [[*result.prompt_token_ids, *result.token_ids] for result in fixed]
    logits = [llm.score(ids) for ids in texts]
    wrong = [
        (prompt, answer, result.text)
        for (prompt, answer), result in zip(expected, own, strict=True)
        if result.text != answer
    ]
    checks = _output_checks(results, logits)
    if suite:
        checks += [
            Check("exact answers", 1 - len(wrong) / len(expected), suite.min_exact, False),
            _held_out_check(llm, suite),
            *_golden_checks(llm, suite, _allowance(config)),
        ]
    found, warning = llm.found, llm.plan.warning
    del llm
    skipped: dict[str, str] = {}
    try:
        checks += _control_checks(config, texts, logits)
    except ConfigError as error:
        skipped["agreement with the bf16 control"] = str(error)
    return Report(found, tuple(checks), skipped, tuple(wrong), warning)


def _load(config: EngineConfig) -> LLM:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return LLM(**vars(config))


def _answers(llm: LLM, prompts: list[str], progress: Progress | None) -> list[Result]:
    room = min(MAX_NEW_TOKENS, llm.plan.max_length // 2)
    params = SamplingParams(temperature=0, max_new_tokens=room)

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, len(prompts))

    return llm.generate(prompts, params, progress=tell)


def _output_checks(results: Sequence[Result], logits: Sequence[Tensor]) -> list[Check]:
    """What can be said of any model's output without knowing the right answer."""
    texts = [result.text + result.reasoning for result in results]
    not_finite = sum(int((~torch.isfinite(rows)).sum()) for rows in logits)
    answered = sum(bool(result.text.strip()) for result in results) / len(results)
    return [
        Check("logits not finite", not_finite, 0, True),
        Check("leaked markup", sum(map(count_markup, texts)), 0, True),
        Check("harmony anomalies", sum(sum(r.anomalies.values()) for r in results), 0, True),
        Check("answered", answered, MIN_ANSWERED, False),
        Check(
            "worst repetition", max(repetition(r.token_ids) for r in results), MAX_REPETITION, True
        ),
    ]


def _held_out_check(llm: LLM, suite: Suite) -> Check:
    log_probs: list[float] = []
    for text in suite.held_out:
        ids = [*text.prompt_ids, *text.answer_ids]
        log_probs += answer_log_probs(llm.score(ids), len(text.prompt_ids), ids)
    return Check("held-out perplexity", perplexity(log_probs), suite.max_perplexity, True)


def _allowance(config: EngineConfig) -> float:
    return E4M3_ALLOWANCE if config.kv_cache_format == "float8_e4m3fn" else 1.0


def _golden_checks(llm: LLM, suite: Suite, allowance: float) -> list[Check]:
    """Log-probabilities against a recorded fp32 forward pass; sees faults the answers survive."""
    distances: list[float] = []
    for text in suite.golden:
        ours = answer_log_probs(llm.score(text.ids), 1, text.ids)
        distances += [abs(a - b) for a, b in zip(ours, text.log_probs, strict=True)]
    values = torch.tensor(distances, dtype=torch.float64)
    median, mean = allowance * suite.max_golden_median, allowance * suite.max_golden_mean
    return [
        Check("median distance from fp32", float(values.median()), median, True),
        Check("mean distance from fp32", float(values.mean()), mean, True),
    ]


def _control_checks(
    config: EngineConfig, texts: Sequence[list[int]], logits: Sequence[Tensor]
) -> list[Check]:
    """Distributions over the fixed prompts and their answers, experts and cache in bf16."""
    control = _load(
        replace(
            config,
            quantization_encoding="bfloat16",
            kv_cache_format="bfloat16",
            max_batch_size=1,
        )
    )
    agreement = Agreement()
    for ids, running in zip(texts, logits, strict=True):
        agreement.add(running, control.score(ids))
    return [
        Check("divergence from the bf16 control", agreement.divergence, MAX_DIVERGENCE, True),
        Check("same first choice as the control", agreement.top1, MIN_TOP1, False),
    ]
