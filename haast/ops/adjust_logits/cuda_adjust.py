"""Penalties and masks in one pass, biases one by one. See cuda/adjust_logits.cu."""

import torch
from torch import Tensor

from haast.cuda.launcher import launch
from haast.ops.adjust_logits.reference import Biases, Masks, Penalties
from haast.ops.check import FLOATS, check_devices, check_tensor
from haast.ops.dispatch import Kernel
from haast.ops.hopper import why_no_kernels

_MODULE = "adjust_logits"
_THREADS = 256
_GROUP = 8
_INT, _FLOAT = torch.int32, torch.float32


def _small(name: str, value: Tensor, dtype: torch.dtype, size: int | None) -> None:
    check_tensor(name, value, dtype, size, alignment=dtype.itemsize)


def _check(
    logits: Tensor, penalties: Penalties | None, masks: Masks | None, biases: Biases | None
) -> None:
    check_tensor("logits", logits, FLOATS, None, None)
    num_rows, vocab = logits.shape
    if penalties is not None:
        check_tensor("history", penalties.history, torch.int16, None, vocab)
        _small("history_row", penalties.history_row, _INT, num_rows)
        for name in ("repetition", "presence", "frequency"):
            _small(name, getattr(penalties, name), _FLOAT, num_rows)
        check_devices(logits=logits, **vars(penalties))
    if masks is not None:
        check_tensor("allowed", masks.allowed, _INT, None, -(-vocab // 32))
        _small("mask_row", masks.mask_row, _INT, num_rows)
        check_devices(logits=logits, **vars(masks))
    if biases is not None:
        _small("row", biases.row, _INT, None)
        _small("token_id", biases.token_id, _INT, len(biases.row))
        _small("value", biases.value, _FLOAT, len(biases.row))
        check_devices(logits=logits, **vars(biases))


def _rejects(
    logits: Tensor, penalties: Penalties | None, masks: Masks | None, biases: Biases | None
) -> str | None:
    _check(logits, penalties, masks, biases)
    return why_no_kernels(logits.device)


def _symbols(
    logits: Tensor, penalties: Penalties | None, masks: Masks | None, biases: Biases | None
) -> tuple[str, ...]:
    if not logits.numel():
        return ()
    suffix = "bf16" if logits.dtype == torch.bfloat16 else "fp32"
    dense = (f"adjust_logits_{suffix}",) if penalties is not None or masks is not None else ()
    single = (f"bias_logits_{suffix}",) if biases is not None and len(biases.row) else ()
    return dense + single


def _run(
    logits: Tensor, penalties: Penalties | None, masks: Masks | None, biases: Biases | None
) -> None:
    num_rows, vocab = logits.shape
    for symbol in _symbols(logits, penalties, masks, biases):
        if symbol.startswith("adjust"):
            p, m = penalties, masks
            seen = (p.history, p.history_row, p.repetition, p.presence, p.frequency) if p else ()
            allowed = (m.allowed, m.mask_row) if m else ()
            args = (*(seen or (None,) * 5), *(allowed or (None,) * 2), -(-vocab // 32), vocab)
            grid = (-(-vocab // (_THREADS * _GROUP)), num_rows, 1)
        else:
            assert biases is not None
            args = (biases.row, biases.token_id, biases.value, len(biases.row), vocab)
            grid = (-(-len(biases.row) // _THREADS), 1, 1)
        launch(_MODULE, symbol, grid=grid, block=_THREADS, shared_bytes=0, args=(logits, *args))


def _rejects_count(history: Tensor, history_row: Tensor, token_ids: Tensor) -> str | None:
    check_tensor("history", history, torch.int16, None, None)
    _small("history_row", history_row, _INT, None)
    _small("token_ids", token_ids, torch.int64, len(history_row))
    check_devices(history=history, history_row=history_row, token_ids=token_ids)
    return why_no_kernels(history.device)


def _symbols_count(history: Tensor, history_row: Tensor, token_ids: Tensor) -> tuple[str, ...]:
    return ("count_tokens",) if len(history_row) else ()


def _count(history: Tensor, history_row: Tensor, token_ids: Tensor) -> None:
    num_rows = len(history_row)
    for symbol in _symbols_count(history, history_row, token_ids):
        launch(
            _MODULE,
            symbol,
            grid=-(-num_rows // _THREADS),
            block=_THREADS,
            shared_bytes=0,
            args=(history, history_row, token_ids, num_rows, history.shape[1]),
        )


ADJUST = Kernel("cuda_adjust", _run, _rejects, _symbols, because="1.9 us at 1 row, 38-55 us at 256")
COUNT_TOKENS = Kernel(
    "cuda_adjust", _count, _rejects_count, _symbols_count, because="1.1 us, where torch sorts"
)
