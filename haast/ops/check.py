"""What kernels of any op ask of a tensor, said before anything is launched."""

import torch
from torch import Tensor

ALIGNMENT = 16
"""bytes, of what is copied 16 bytes at a time"""
FLOATS = (torch.bfloat16, torch.float32)


def check_tensor(
    name: str,
    value: Tensor,
    dtype: torch.dtype | tuple[torch.dtype, ...],
    *shape: int | None,
    alignment: int = ALIGNMENT,
) -> None:
    """A contiguous tensor of this dtype (or one of several) and shape (None: any size).

    Raises ValueError that names what differs.
    """
    dtypes = dtype if isinstance(dtype, tuple) else (dtype,)
    if value.dtype not in dtypes:
        raise ValueError(f"{name} must be {' or '.join(map(str, dtypes))}; got {value.dtype}")
    fits = value.ndim == len(shape) and all(
        want in (None, size) for want, size in zip(shape, value.shape, strict=True)
    )
    if not fits:
        wanted = ["*" if want is None else want for want in shape]
        raise ValueError(f"{name} must have shape {wanted}; got {list(value.shape)}")
    if not value.is_contiguous():
        raise ValueError(f"{name} must be contiguous; its strides are {value.stride()}")
    if value.device.type == "cuda" and value.data_ptr() % alignment:
        raise ValueError(f"{name} must begin at a multiple of {alignment} bytes in memory")


def check_devices(**tensors: Tensor) -> None:
    """All on the same device. Raises ValueError naming the first that is elsewhere."""
    (first, expected), *others = ((name, value.device) for name, value in tensors.items())
    for name, device in others:
        if device != expected:
            raise ValueError(f"{name} is on {device}, but {first} is on {expected}")
