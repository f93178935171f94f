"""Whether every kernel of every cubin loads on this GPU."""

from pathlib import Path

import torch

from haast.cuda.build import CUBINS
from haast.cuda.context import bind_thread, check


def count_loading(device: int, cubins: Path = CUBINS) -> tuple[int, int]:
    """(cubins, kernels in them), all loaded once on that GPU and unloaded again.

    Raises KernelError that names the first that does not load.
    """
    from cuda.bindings import driver

    torch.cuda.init()  # type: ignore[no-untyped-call]
    bind_thread(driver, device)
    num_kernels = 0
    paths = sorted(cubins.glob("*.cubin"))
    for path in paths:
        why = f"{path.name} does not load"
        library = check(driver.cuLibraryLoadData(path.read_bytes(), [], [], 0, [], [], 0), why)
        # A damaged file may pass as one without kernels, of which the driver then lists none.
        count = check(driver.cuLibraryGetKernelCount(library), why)
        for kernel in check(driver.cuLibraryEnumerateKernels(count, library), why):
            check(driver.cuKernelGetFunction(kernel), f"a kernel of {path.name} does not load")
        check(driver.cuLibraryUnload(library), path.name)
        num_kernels += count
    return len(paths), num_kernels
