"""Dense matrix product: contract in reference.py, kernels in preference order here."""

from haast.ops.dispatch import Op
from haast.ops.linear import cuda_mma, cuda_wgmma, library, reference

linear = Op(
    "linear",
    reference.linear,
    (cuda_mma.MMA, cuda_wgmma.WGMMA, library.CUBLAS, library.FIXED),
)

__all__ = ["linear"]
