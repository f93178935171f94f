"""Descriptors that tell the copy engine how a tensor lies in memory."""

from functools import lru_cache

from torch import Tensor

from haast.cuda.context import KernelError

_MOST_KEPT = 4096
_WORD = 4
ROW_COLUMNS = 64
"""of a copy of `row_map`"""


def block_map(storage: Tensor, box_rows: int) -> bytes:
    """For copies of box_rows blocks, one below the other.

    storage   [..., rows, columns, bytes] uint8, contiguous on a GPU, bytes a multiple of 16 up to
              1024; leading axes continue the rows
    returns   a kernel parameter; blocks arrive packed, coordinates are (0, column, row)
    Raises KernelError if the driver refuses.
    """
    columns, nbytes = storage.shape[-2:]
    rows = storage.shape[:-2].numel()
    sizes = (nbytes // _WORD, columns, rows)
    strides = (nbytes, columns * nbytes)
    return _encode("UINT32", storage.data_ptr(), sizes, strides, (sizes[0], 1, box_rows), "NONE")


def row_map(x: Tensor, box_rows: int) -> bytes:
    """For copies of box_rows rows x 64 columns in the 128-byte swizzle; zero lies outside.

    x         [rows, columns] bf16, contiguous on a GPU, columns a multiple of 8
    box_rows  up to 256
    returns   a kernel parameter; coordinates are (column, row)
    Raises KernelError if the driver refuses.
    """
    rows, columns = x.shape
    strides = (columns * x.element_size(),)
    box = (ROW_COLUMNS, box_rows)
    return _encode("BFLOAT16", x.data_ptr(), (columns, rows), strides, box, "128B")


def page_map(cache: Tensor, positions: int) -> bytes:
    """For copies of some positions of one head's page, in the swizzle of as many bytes as a row
    has: 128 or 64.

    cache      [num_pages, heads, page_size, 64] bf16 or float8_e4m3fn, contiguous on a GPU
    positions  of a copy: a divisor of page_size, at most 256
    returns  a kernel parameter; coordinates are (0, (page * heads + head) * page_size)
    Raises KernelError if the driver refuses.
    """
    columns = cache.shape[3]
    rows = cache.shape[:3].numel()
    width = columns * cache.element_size()
    box = (columns, positions)
    kind = "UINT8" if cache.element_size() == 1 else "BFLOAT16"
    return _encode(kind, cache.data_ptr(), (columns, rows), (width,), box, f"{width}B")


def query_map(q: Tensor, box_heads: int, box_rows: int) -> bytes:
    """For copies of some heads of some rows, a head 128 bytes, in the 128-byte swizzle.

    q        [rows, heads, 64] bf16, contiguous on a GPU; rows outside read as zero
    returns  a kernel parameter; coordinates are (0, head, row)
    Raises KernelError if the driver refuses.
    """
    rows, heads, columns = q.shape
    width = columns * q.element_size()
    sizes, strides = (columns, heads, rows), (width, heads * width)
    return _encode("BFLOAT16", q.data_ptr(), sizes, strides, (columns, box_heads, box_rows), "128B")


@lru_cache(maxsize=_MOST_KEPT)
def _encode(
    dtype: str,
    address: int,
    sizes: tuple[int, ...],
    strides: tuple[int, ...],
    box: tuple[int, ...],
    swizzle: str,
) -> bytes:
    """Sizes and box innermost first, in elements; strides of all but the innermost, in bytes."""
    from cuda.bindings import driver

    dtypes, swizzles = driver.CUtensorMapDataType, driver.CUtensorMapSwizzle
    promotions, fills = driver.CUtensorMapL2promotion, driver.CUtensorMapFloatOOBfill
    error, descriptor = driver.cuTensorMapEncodeTiled(
        getattr(dtypes, f"CU_TENSOR_MAP_DATA_TYPE_{dtype}"),
        len(sizes),
        address,
        [driver.cuuint64_t(size) for size in sizes],
        [driver.cuuint64_t(stride) for stride in strides],
        [driver.cuuint32_t(size) for size in box],
        [driver.cuuint32_t(1)] * len(sizes),
        driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        getattr(swizzles, f"CU_TENSOR_MAP_SWIZZLE_{swizzle}"),
        promotions.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        fills.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    if error:
        raise KernelError(f"no tensor map for {sizes} at {address:#x}: {error.name}")
    return b"".join(int(word).to_bytes(8, "little") for word in descriptor.opaque)
