"""A row held in the shared memory of eight CTAs. See cuda/sample.cu."""

import torch
from torch import Tensor

from haast.cuda.launcher import launch
from haast.ops.check import FLOATS, check_devices, check_tensor
from haast.ops.dispatch import Kernel
from haast.ops.hopper import why_no_kernels
from haast.ops.sample.reference import Sampling

_CTAS, _WARPS, _GROUP = 8, 16, 8
_SLICE_LIMIT = (227 - 14) * 1024
"""bytes of logits that a CTA can hold beside its bins"""


def _check(logits: Tensor, sampling: Sampling) -> None:
    check_tensor("logits", logits, FLOATS, None, None)
    if logits.shape[1] == 0:
        raise ValueError(f"logits must have at least one token; got {list(logits.shape)}")
    dtypes = {
        "temperature": torch.float32,
        "top_k": torch.int32,
        "top_p": torch.float32,
        "min_p": torch.float32,
        "seed": torch.int64,
        "position": torch.int32,
    }
    for name, dtype in dtypes.items():
        check_tensor(name, getattr(sampling, name), dtype, len(logits), alignment=dtype.itemsize)
    check_devices(logits=logits, **{name: getattr(sampling, name) for name in dtypes})


def _groups(vocab: int) -> int:
    """Groups of eight tokens that a warp holds."""
    return -(-vocab // (_CTAS * _WARPS * _GROUP))


def _slice_bytes(logits: Tensor) -> int:
    return _WARPS * _groups(logits.shape[1]) * _GROUP * logits.element_size()


def _rejects(logits: Tensor, sampling: Sampling) -> str | None:
    _check(logits, sampling)
    if _slice_bytes(logits) > _SLICE_LIMIT:
        most = _SLICE_LIMIT // logits.element_size() // (_WARPS * _GROUP) * _CTAS * _WARPS * _GROUP
        return f"takes up to {most} tokens in {logits.dtype}, got {logits.shape[1]}"
    return why_no_kernels(logits.device)


def _symbols(logits: Tensor, sampling: Sampling) -> tuple[str, ...]:
    if len(logits) == 0:
        return ()
    return ("sample_bf16",) if logits.dtype == torch.bfloat16 else ("sample_fp32",)


def _run(logits: Tensor, sampling: Sampling) -> Tensor:
    num_rows, vocab = logits.shape
    token_ids = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
    for symbol in _symbols(logits, sampling):
        launch(
            "sample",
            symbol,
            grid=(_CTAS, num_rows, 1),
            block=_WARPS * 32,
            shared_bytes=_slice_bytes(logits),
            args=(
                *(logits, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p),
                *(sampling.seed, sampling.position, token_ids, vocab, _groups(vocab)),
            ),
        )
    return token_ids


SAMPLE = Kernel(
    "cuda_cluster",
    _run,
    _rejects,
    _symbols,
    because="greedy, plain, filtered: 2.8, 5.4, 16-25 us at 1 row, 40, 59, 179-258 us at 256",
)
