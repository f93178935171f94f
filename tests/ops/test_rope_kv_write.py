"""Rotated queries come back, rotated keys and plain values land in their slots and nowhere else."""

import pytest
import torch

from haast import ops
from haast.ops.rope import rotate

from .pinned import normal, reference

rope_kv_write = reference(ops.rope_kv_write)
HEADS, KV_HEADS, HEAD_DIM, PAGE_SIZE, NUM_PAGES = 6, 2, 4, 3, 4


def call(slots, positions, dtype=torch.float32):
    """qkv, what the op returns, and both caches; -1 and -2 where nothing was written."""
    qkv = normal(len(slots), (HEADS + 2 * KV_HEADS) * HEAD_DIM, dtype=dtype)
    angle = normal(20, HEAD_DIM // 2, seed=2)
    caches = torch.full((2, NUM_PAGES, KV_HEADS, PAGE_SIZE, HEAD_DIM), -1.0, dtype=dtype)
    caches[1] = -2
    positions = torch.tensor(positions, dtype=torch.int32)
    tables = angle.cos(), angle.sin()
    slots = torch.tensor(slots, dtype=torch.int32)
    q = rope_kv_write(qkv, positions, *tables, *caches, slots)
    heads = qkv.view(len(slots), HEADS + 2 * KV_HEADS, HEAD_DIM)
    return heads, q, caches, (positions, *tables)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_slot(dtype):
    slots = [11, 0, -1, 4, 3]
    heads, q, caches, turn = call(slots, [7, 0, 19, 1, 7], dtype)
    assert q.dtype == dtype and torch.equal(q, rotate(heads[:, :HEADS], *turn))
    keys = rotate(heads[:, HEADS : HEADS + KV_HEADS], *turn)
    for slot in range(NUM_PAGES * PAGE_SIZE):
        page, offset = divmod(slot, PAGE_SIZE)
        got = caches[:, page, :, offset]
        if slot in slots:
            token = slots.index(slot)
            assert torch.equal(got[0], keys[token]), slot
            assert torch.equal(got[1], heads[token, HEADS + KV_HEADS :]), slot
        else:
            assert (got[0] == -1).all() and (got[1] == -2).all(), slot


def test_every_number_is_rounded_to_the_nearest_of_e4m3():
    """All of bf16 against a list of the codes: ties to the even one, saturated, NaN stays NaN."""
    every = torch.arange(1 << 16).to(torch.int16).view(torch.bfloat16)
    num_tokens = len(every) // KV_HEADS // HEAD_DIM
    qkv = torch.zeros(num_tokens, (HEADS + 2 * KV_HEADS) * HEAD_DIM, dtype=torch.bfloat16)
    qkv[:, -KV_HEADS * HEAD_DIM :] = every.view(num_tokens, -1)
    pages = num_tokens // 64
    caches = torch.zeros(2, pages, KV_HEADS, 64, HEAD_DIM, dtype=torch.float8_e4m3fn)
    tables, ints = torch.ones(2, 1, HEAD_DIM // 2), torch.arange(num_tokens, dtype=torch.int32)
    rope_kv_write(qkv, ints * 0, *tables, *caches, ints)
    got = caches[1].transpose(1, 2).flatten().view(torch.uint8).int()
    magnitudes = torch.tensor([code_value(code) for code in range(127)], dtype=torch.float64)
    is_nan = every.isnan()
    sizes = every.double().abs().clamp(max=448)[~is_nan]
    distance = (sizes[:, None] - magnitudes).abs()
    is_near = distance == distance.amin(1, keepdim=True)
    is_best = is_near & (is_near.sum(1, keepdim=True) == 1) | is_near & (torch.arange(127) % 2 == 0)
    assert (is_best.sum(1) == 1).all()
    assert torch.equal(got[~is_nan] & 127, is_best.int().argmax(1).int())
    assert torch.equal(got[~is_nan] >= 128, every[~is_nan].signbit())
    assert (got[is_nan] & 127 == 127).all()


def code_value(code):
    """Of a code 0..126: four exponent bits with bias 7, three of mantissa."""
    exponent, mantissa = code >> 3, code & 7
    return mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def test_position_zero_turns_nothing_and_others_do():
    heads, q, _, _ = call([0, 1], [0, 5])
    cos = normal(20, HEAD_DIM // 2, seed=2).cos()
    assert not torch.equal(q[1], heads[1, :HEADS]) and not torch.equal(cos[0], cos[5])


def test_no_tokens():
    _, q, caches, _ = call([], [])
    assert q.shape == (0, HEADS, HEAD_DIM) and (caches[0] == -1).all()
