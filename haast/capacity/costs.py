"""Seconds of a step: measured for gpt-oss-20b on one GPU, computed from that for all else."""

from dataclasses import dataclass, field
from functools import cached_property

from haast.bench.rooflines import Ceilings
from haast.bench.whole_model import decode_work, prefill_work
from haast.capacity.curves import Curves, interpolated
from haast.config import ModelConfig

BF16 = 2
NVLINK_B_PER_S = 360e9
"""Of 450 GB/s each way between the GPUs of a host, what large all-reduces reach; an assumption"""
ALL_REDUCE_S = 2.9e-6
"""Of the hidden state of one token over peer memory, measured between two H200 (LOG.md); between
more GPUs taken to be the same"""
KEYS_SHARE = 0.8
"""Of the read ceiling at which long contexts are read (LOG.md: 75 to 90 %)"""
SCORES_FLOP_PER_S = 500e12
"""Of attention over long prompts (LOG.md: 480 to 520 TFLOP/s)"""


@dataclass(frozen=True)
class Costs:
    """What steps of a model take on `num_gpus` of one kind that share each layer.

    A step is a latency a layer, that no GPU shortens, plus memory and FLOP, which are divided, at
    the share of the ceilings that gpt-oss-20b reached with as many tokens, plus two all-reduces a
    layer. Of gpt-oss-20b on one GPU that is what was measured.
    """

    curves: Curves
    reference: ModelConfig
    model: ModelConfig
    num_gpus: int = 1
    _decodes: dict[int, float] = field(default_factory=dict)
    _ratios: dict[int, float] = field(default_factory=dict)

    @cached_property
    def layer_s(self) -> float:
        """Latency a layer: what a lone request's step took beyond its bytes."""
        (batch, step_s), *_ = self.curves.decode_s
        return (step_s - self._decode_floor(self.reference, batch)) / self.reference.num_layers

    def step_s(self, batch: int, context: float, tokens: int, offset: float) -> float:
        """A step of decodes, of prompts, or of both.

        context  keys that decodes see on average
        tokens   of prompts; offset: keys before them, on average
        """
        decode_s = self.decode_s(batch, context) if batch else 0.0
        if not tokens:
            return decode_s
        return max(self.prefill_s(tokens, offset), decode_s + self.more_s(tokens, offset))

    def decode_s(self, batch: int, context: float) -> float:
        """A token for each of so many requests."""
        if batch not in self._decodes:
            measured_s = interpolated(self.curves.decode_s, batch)
            own_s = self._decode_floor(self.model, batch)
            of_floor_s = measured_s - self.layer_s * self.reference.num_layers
            scaled_s = of_floor_s * own_s / self._decode_floor(self.reference, batch)
            self._decodes[batch] = self._shared(scaled_s, batch)
        more_keys = context - self.curves.context
        keys_s = more_keys * _key_bytes(self.model) / (KEYS_SHARE * self.curves.read_b_per_s)
        return max(0.0, self._decodes[batch] + batch * keys_s / self.num_gpus)

    def prefill_s(self, tokens: int, offset: float) -> float:
        """A step of prompts alone."""
        points = [point for point in self.curves.prefill_s if point[0] <= self.curves.context]
        beyond = max(0, tokens - int(points[-1][0]))
        measured_s = interpolated(points, tokens - beyond) + beyond * self.curves.token_s
        of_floor_s = measured_s - self.layer_s * self.reference.num_layers
        ratio = self._prompt_ratio(tokens)
        return self._shared(of_floor_s * ratio, tokens) + self._scores_s(tokens, offset)

    def more_s(self, tokens: int, offset: float) -> float:
        """What tokens of prompts add to a step that decodes anyway."""
        scaled_s = tokens * self.curves.token_s * self._prompt_ratio(tokens) / self.num_gpus
        passed_s = self.passed_s(tokens) - self.passed_s(0)
        return scaled_s + passed_s + self._scores_s(tokens, offset)

    def _shared(self, divided_s: float, tokens: int) -> float:
        """On all GPUs: what is divided, latencies, all-reduces."""
        latency_s = self.layer_s * self.model.num_layers
        return divided_s / self.num_gpus + latency_s + self.passed_s(tokens)

    def passed_s(self, tokens: int) -> float:
        """Two all-reduces a layer."""
        if self.num_gpus == 1:
            return 0.0
        nbytes = tokens * self.model.hidden_size * BF16
        sent = 2 * (self.num_gpus - 1) / self.num_gpus * nbytes
        return 2 * self.model.num_layers * (ALL_REDUCE_S + sent / NVLINK_B_PER_S)

    def _decode_floor(self, model: ModelConfig, batch: float) -> float:
        """Bytes of a step at the read ceiling, each token's experts drawn evenly."""
        missed = (1 - model.num_active_experts / model.num_experts) ** batch
        experts = model.num_experts * (1 - missed)
        work = decode_work(model, round(batch), self.curves.context, experts)
        return work.floor_us(self._ceilings()) / 1e6

    def _prompt_ratio(self, tokens: int) -> float:
        """The model's floor of a prompt over gpt-oss-20b's."""
        if tokens not in self._ratios:
            works = prefill_work(self.model, tokens), prefill_work(self.reference, tokens)
            own_us, reference_us = (work.floor_us(self._ceilings()) for work in works)
            self._ratios[tokens] = own_us / reference_us
        return self._ratios[tokens]

    def _scores_s(self, tokens: int, offset: float) -> float:
        """Attention beyond that of the measured prompts, which saw half of 1024 keys."""
        flop = 4 * self.model.num_heads * self.model.head_dim * _num_full(self.model) * tokens
        more_keys = max(0.0, offset - self.curves.context / 2)
        return flop * more_keys / SCORES_FLOP_PER_S / self.num_gpus

    def _ceilings(self) -> Ceilings:
        read, flop = self.curves.read_b_per_s / 1e12, self.curves.matmul_flop_per_s / 1e12
        return Ceilings(read, "", 0.0, flop)


def _key_bytes(model: ModelConfig) -> int:
    """Of one more key and value in every full-attention layer."""
    return BF16 * 2 * model.num_kv_heads * model.head_dim * _num_full(model)


def _num_full(model: ModelConfig) -> int:
    return model.windows.count(None)
