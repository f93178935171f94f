"""Root-mean-square normalisation: contracts in reference.py, kernels in preference order here."""

from haast.ops.dispatch import Op
from haast.ops.rms_norm import cuda_row, reference

rms_norm = Op("rms_norm", reference.rms_norm, (cuda_row.NORM,))
add_rms_norm = Op("add_rms_norm", reference.add_rms_norm, (cuda_row.ADD_NORM,))

__all__ = ["add_rms_norm", "rms_norm"]
