"""One op = one contract, one reference, n kernels, one table; this picks the row that runs."""

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Generic, ParamSpec, TypeVar

from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

REFERENCE = "reference"
ALIGNMENT_BITS = 15
"""Of an address: how a tensor lies with respect to 16 bytes, which kernels ask for"""
MOST_KEPT = 4096
"""Choices an op remembers"""
_pins: ContextVar[Mapping[str, str] | None] = ContextVar("haast_op_pins", default=None)


@dataclass(frozen=True)
class Kernel(Generic[P, R]):
    """A row of an op's table."""

    name: str
    fn: Callable[P, R]
    rejects: Callable[P, str | None]
    """Why it cannot serve this call, or None. Reads shapes, dtypes and layouts, never data; raises
    ValueError if no kernel could, because the arguments break the contract."""
    symbols: Callable[P, tuple[str, ...]]
    """CUDA kernels that this call launches, in order. Reads what `rejects` reads."""
    because: str
    """The bench result that earned it this place."""
    is_default: bool = True
    """Whether it may run without being pinned"""


@dataclass(frozen=True)
class Verdict:
    """What `Op.table` says of one implementation and one call."""

    name: str
    runs: bool
    reason: str | None
    """why it does not run"""
    symbols: tuple[str, ...]
    """CUDA kernels it launches, or would"""
    because: str


class Op(Generic[P, R]):
    """Callable. Runs the first kernel of the table that accepts the call.

    The reference runs only when pinned by name. If nothing accepts: LookupError with every
    kernel's reason. A kernel whose signature differs from the contract's is a TypeError here.
    """

    def __init__(
        self, name: str, reference: Callable[P, R], kernels: tuple[Kernel[P, R], ...] = ()
    ) -> None:
        self.name = name
        self.reference = reference
        self.kernels = kernels
        self._chosen: dict[Hashable, Callable[P, R]] = {}
        contract = inspect.signature(reference)
        for kernel in kernels:
            if inspect.signature(kernel.fn) != contract:
                raise TypeError(
                    f"{self.name}: {kernel.name} does not have the signature {contract}"
                )

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.choose(*args, **kwargs)(*args, **kwargs)

    def choose(self, *args: P.args, **kwargs: P.kwargs) -> Callable[P, R]:
        """The implementation that this call runs.

        Kernels read shapes, dtypes and layouts only, so the answer to one call is remembered for
        all that look the same: asking takes longer than most kernels.
        """
        pinned = (_pins.get() or {}).get(self.name)
        if pinned == REFERENCE:
            return self.reference
        look = (pinned, *map(look_of, args), *((name, look_of(v)) for name, v in kwargs.items()))
        chosen = self._chosen.get(look)
        if chosen is None:
            if len(self._chosen) >= MOST_KEPT:
                self._chosen.clear()
            chosen = self._chosen[look] = self._choose(pinned, *args, **kwargs)
        return chosen

    def _choose(self, pinned: str | None, *args: P.args, **kwargs: P.kwargs) -> Callable[P, R]:
        if pinned not in (None, *self.implementations):
            known = ", ".join(self.implementations)
            raise LookupError(f"{self.name} has no implementation '{pinned}'; it has {known}")
        reasons = []
        for kernel in self.kernels:
            if pinned != kernel.name and (pinned is not None or not kernel.is_default):
                continue
            reason = kernel.rejects(*args, **kwargs)
            if reason is None:
                return kernel.fn
            reasons.append(f"{kernel.name}: {reason}")
        raise LookupError(f"no kernel of {self.name} accepts this call: {reasons or 'none exists'}")

    def table(self, *args: P.args, **kwargs: P.kwargs) -> list[Verdict]:
        """Every implementation and whether an unpinned call would run it, in preference order."""
        verdicts: list[Verdict] = []
        chosen: str | None = None
        why = "runs only when pinned"
        for kernel in self.kernels:
            reason = kernel.rejects(*args, **kwargs)
            symbols = () if reason else kernel.symbols(*args, **kwargs)
            if reason is None and not kernel.is_default:
                reason = why
            elif reason is None and chosen:
                reason = f"{chosen} comes first"
            elif reason is None:
                chosen = kernel.name
            verdict = Verdict(kernel.name, reason is None, reason, symbols, kernel.because)
            verdicts.append(verdict)
        return [*verdicts, Verdict(REFERENCE, False, why, (), "what the op means, in plain torch")]

    @property
    def has_kernels(self) -> bool:
        """Whether a kernel may run without being pinned."""
        return any(kernel.is_default for kernel in self.kernels)

    @property
    def implementations(self) -> tuple[str, ...]:
        """Names that can be pinned."""
        return (*(kernel.name for kernel in self.kernels), REFERENCE)


def look_of(value: Any) -> Hashable:
    """All that a kernel may ask of an argument."""
    if isinstance(value, Tensor):
        at = value.data_ptr() & ALIGNMENT_BITS
        return value.shape, value.stride(), value.dtype, value.device, at
    kind: Any = type(value)
    names = _fields_of(kind)
    return (kind, *(look_of(getattr(value, name)) for name in names)) if names else value


@cache
def _fields_of(kind: Any) -> tuple[str, ...]:
    """Of a dataclass; none of other types."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else ()


@contextmanager
def pin(choices: Mapping[str, str]) -> Iterator[None]:
    """Within the block, op name -> the one implementation of it that may run."""
    token = _pins.set({**(_pins.get() or {}), **choices})
    try:
        yield
    finally:
        _pins.reset(token)
