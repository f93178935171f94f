"""Which implementation of each op runs at a model's shapes, and why the others do not."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from haast.bench.cases import BUILDERS, Draw
from haast.bench.machine import BenchError
from haast.config import ModelConfig
from haast.ops import OPS, Op, Verdict


@dataclass(frozen=True)
class OpTable:
    """An op's verdicts for one number of tokens."""

    op: str
    num_tokens: int
    verdicts: tuple[Verdict, ...]

    @property
    def symbols(self) -> tuple[str, ...]:
        """CUDA kernels that the call launches, in order; none if nothing accepts it."""
        return next((v.symbols for v in self.verdicts if v.runs), ())


def signature(op: Op[Any, Any]) -> str:
    """`moe_up(x, weight, bias, routing, limit)`."""
    return f"{op.name}({', '.join(inspect.signature(op.reference).parameters)})"


def op_table(op: Op[Any, Any], config: ModelConfig, num_tokens: int) -> OpTable:
    """The verdict on each implementation; no GPU is needed, no tensor holds data."""
    arguments = BUILDERS[op.name](Draw.on(torch.device("meta")), config, num_tokens)
    return OpTable(op.name, num_tokens, tuple(op.table(*arguments)))


def survey(config: ModelConfig, tokens: Sequence[int]) -> list[tuple[Op[Any, Any], list[OpTable]]]:
    """Every op with its verdicts for each number of tokens; none where it has no kernels."""
    return [
        (op, [op_table(op, config, count) for count in tokens] if op.has_kernels else [])
        for op in OPS
    ]


def find_op(name: str, ops: Sequence[Op[Any, Any]] = OPS) -> Op[Any, Any]:
    """An op that has kernels, by its name. Raises BenchError that names those there are."""
    found = {op.name: op for op in ops if op.has_kernels}
    if name not in found:
        known = ", ".join(found) or "none yet"
        raise BenchError(f"no op '{name}' with kernels; there are {known}")
    return found[name]


def find_ops(names: Sequence[str]) -> list[Op[Any, Any]]:
    """Those ops, or if none is named all that have kernels. Raises BenchError as find_op does."""
    return [find_op(name) for name in names] or [op for op in OPS if op.has_kernels]


def launched(op: Op[Any, Any], config: ModelConfig, num_tokens: int) -> tuple[str, ...]:
    """CUDA kernels of a call, in order. Raises BenchError with every reason if none runs."""
    table = op_table(op, config, num_tokens)
    if not table.symbols:
        reasons = "; ".join(f"{v.name}: {v.reason or 'a library'}" for v in table.verdicts)
        raise BenchError(f"no kernel of ours runs {op.name} at {num_tokens} tokens ({reasons})")
    return table.symbols
