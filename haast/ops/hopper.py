"""Where kernels can run: the one place that knows."""

from functools import cache

import torch

from haast.cuda.build import why_not_built

CAPABILITY = (9, 0)
"""Compute capability of the GPUs that kernels are made for"""


_why_not_built = cache(why_not_built)
"""Asked at every call of a kernel; a process does not see a later build"""


def why_no_kernels(device: torch.device) -> str | None:
    """Why no kernel can run on a device, or None. The meta device asks for a hypothetical GPU."""
    if device.type == "meta":
        return None
    if device.type != "cuda":
        return f"kernels need a Hopper GPU, this is {device}"
    capability = torch.cuda.get_device_capability(device)
    if capability != CAPABILITY:
        return "kernels need compute capability {}.{}, {} has {}.{}".format(
            *CAPABILITY, device, *capability
        )
    return _why_not_built()
