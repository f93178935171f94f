"""What few requests ask for: penalties, biases, a minimum length, log-probabilities."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress

import torch
from torch import Tensor

from haast import ops
from haast.engine.request import Request, TokenLogprobs
from haast.engine.step import Step

FIRST_ROWS = 8
Logprobs = list[TokenLogprobs | None]


@dataclass(frozen=True)
class _Wishes:
    """Of one request; None where it has none."""

    history_row: int | None
    bias: dict[int, float]
    min_tokens: int
    logprobs: int | None


class Extras:
    """Keeps what those requests need on the device; others cost nothing here."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self.vocab_size = vocab_size
        self.device = device
        self.history: Tensor | None = None
        self._free_rows: list[int] = []
        self._wishes: dict[Request, _Wishes] = {}

    def enter(self, request: Request) -> None:
        """Called when a request begins, or begins again after a preemption."""
        params = request.params
        has_penalties = (
            params.repetition_penalty != 1 or params.presence_penalty or params.frequency_penalty
        )
        bias = dict(params.logit_bias or {})
        if has_penalties or bias or params.min_tokens or params.logprobs is not None:
            row = self._new_history(request) if has_penalties else None
            self._wishes[request] = _Wishes(row, bias, params.min_tokens, params.logprobs)

    def leave(self, request: Request) -> None:
        wishes = self._wishes.pop(request, None)
        if wishes is not None and wishes.history_row is not None:
            self._free_rows.append(wishes.history_row)

    def are_wanted(self, step: Step) -> bool:
        """Whether any row that samples has wishes."""
        return bool(self._wishes) and any(r in self._wishes for r in step.sampling)

    def sample(
        self, step: Step, logits: Tensor, sampling: ops.Sampling, masks: ops.Masks | None = None
    ) -> tuple[Tensor, Callable[[], Logprobs] | None]:
        """Token ids of a step's sampling rows, and what later gives their log-probabilities.

        logits  [B, V]; raw log-probabilities are taken of them before they are changed
        masks   of the step's masked rows
        """
        wishes = [self._wishes.get(request) for request in step.sampling] if self._wishes else []
        if not any(wishes):
            if masks is not None:
                ops.adjust_logits(logits, None, masks, None)
            return ops.sample(logits, sampling), None
        most = max((w.logprobs for w in wishes if w and w.logprobs is not None), default=None)
        raw = logits if most is None else logits.clone()
        penalties = self._penalties(step, wishes)
        biases = self._biases(step, wishes)
        if penalties is not None or masks is not None or biases is not None:
            ops.adjust_logits(logits, penalties, masks, biases)
        token_ids = ops.sample(logits, sampling)
        if penalties is not None:
            ops.count_tokens(penalties.history, penalties.history_row, token_ids)
        if most is None:
            return token_ids, None
        found = [_on_host(part) for part in ops.logprobs(raw, token_ids, most)]
        return token_ids, _later(found, wishes)

    def _new_history(self, request: Request) -> int:
        if not self._free_rows:
            old = self.history
            count = FIRST_ROWS if old is None else len(old)
            more = ops.empty_history(count, self.vocab_size, self.device)
            self.history = more if old is None else torch.cat((old, more))
            self._free_rows = list(range(len(self.history) - count, len(self.history)))
        row = self._free_rows.pop()
        assert self.history is not None
        prompt, output = (
            torch.tensor(ids, dtype=torch.int64, device=self.device)
            for ids in (list(request.prompt_ids), request.output_ids)
        )
        ops.reset_history(self.history, row, prompt, output)
        return row

    def _penalties(self, step: Step, wishes: list[_Wishes | None]) -> ops.Penalties | None:
        rows = [-1 if w is None or w.history_row is None else w.history_row for w in wishes]
        if self.history is None or max(rows) < 0:
            return None
        params = [request.params for request in step.sampling]
        return ops.Penalties(
            history=self.history,
            history_row=self._tensor(rows, torch.int32),
            repetition=self._tensor([p.repetition_penalty for p in params], torch.float32),
            presence=self._tensor([p.presence_penalty for p in params], torch.float32),
            frequency=self._tensor([p.frequency_penalty for p in params], torch.float32),
        )

    def _biases(self, step: Step, wishes: list[_Wishes | None]) -> ops.Biases | None:
        stops = [s + c for s, c in zip(step.starts, step.counts, strict=True)]
        positions = list(compress(stops, step.samples))
        entries: list[tuple[int, int, float]] = []
        for row, wish in enumerate(wishes):
            if wish is None:
                continue
            request = step.sampling[row]
            bias = wish.bias
            num_new = positions[row] - len(request.prompt_ids)
            if num_new < wish.min_tokens and request.constraint is None:  # whose mask does it
                bias = bias | dict.fromkeys(request.end_ids, float("-inf"))
            entries += [(row, token_id, value) for token_id, value in bias.items()]
        if not entries:
            return None
        rows, token_ids, values = zip(*entries, strict=True)
        return ops.Biases(
            row=self._tensor(rows, torch.int32),
            token_id=self._tensor(token_ids, torch.int32),
            value=self._tensor(values, torch.float32),
        )

    def _tensor(self, values: object, dtype: torch.dtype) -> Tensor:
        made = torch.tensor(values, dtype=dtype, pin_memory=self.device.type == "cuda")
        return made.to(self.device, non_blocking=True)


def _on_host(tensor: Tensor) -> Tensor:
    """On its way to the host, without waiting."""
    if not tensor.is_cuda:
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _later(found: list[Tensor], wishes: list[_Wishes | None]) -> Callable[[], Logprobs]:
    """Reads logprob [B], top ids [B, k] and top logprobs [B, k] once they have arrived."""

    def read() -> Logprobs:
        logprobs, top_ids, top_logprobs = (tensor.tolist() for tensor in found)
        given: Logprobs = []
        for row, wish in enumerate(wishes):
            if wish is None or wish.logprobs is None:
                given.append(None)
                continue
            pairs = zip(top_ids[row], top_logprobs[row], strict=True)
            given.append(TokenLogprobs(logprobs[row], tuple(pairs)[: wish.logprobs]))
        return given

    return read
