"""How decodes share their pages: `Units` of haast/cuda/attention_decode.cu again, in Python. Needs
no GPU."""

import random
import re
from types import SimpleNamespace

import pytest
import torch

from haast.cuda.build import SOURCES
from haast.ops.attention import cuda_decode
from haast.ops.attention.cuda_decode import num_splits

LEAST_SPLIT, MAX_SPLITS = cuda_decode._LEAST_SPLIT, cuda_decode._MAX_SPLITS


def test_host_and_kernel_split_alike():
    found = {}
    for name in ("attention.cuh", "attention_decode.cu"):
        found |= re.findall(r"constexpr int (\w+) = (\d+);", (SOURCES / name).read_text())
    assert (found["LEAST_SPLIT"], found["MAX_SPLITS"]) == (str(LEAST_SPLIT), str(MAX_SPLITS))


def parts(pages, heads, ctas):
    """(CTA, request, head, first page, pages, split, splits) of all units.

    pages  of each request
    """
    listed = [max(1, own) for own in pages]
    heads_of = [(request, head) for request in range(len(pages)) for head in range(heads)]
    total = heads * sum(listed)
    most = min(total // LEAST_SPLIT, (MAX_SPLITS - 2) * total // max(1, *pages))
    workers = max(1, min(ctas, most))

    def worker_of(place):
        return ((place + 1) * workers - 1) // total

    begins = [total * worker // workers for worker in range(workers + 1)]
    at = 0
    for request, head in heads_of:
        first, last = worker_of(at), worker_of(at + listed[request] - 1)
        for worker in range(first, last + 1):
            begin = max(at, begins[worker])
            end = min(at + pages[request], begins[worker + 1])
            yield worker, request, head, begin - at, end - begin, worker - first, last - first + 1
        at += listed[request]


def cases():
    draw = random.Random(0)
    for widest in (3, 4, 9, 33, 300, 1024):
        for heads in (1, 2, 8):
            for count in (1, 2, 7, 64):
                yield heads, [widest, *(draw.randint(0, widest) for _ in range(count - 1))]


@pytest.mark.parametrize("ctas", [78, 132, 264])
def test_every_page_is_somebodys_and_splits_fit(ctas):
    for heads, pages in cases():
        table = SimpleNamespace(page_table=torch.empty(1, max(pages), device="meta"))
        room = num_splits(table, None)
        found = {}
        for cta, request, head, first, count, split, splits in parts(pages, heads, ctas):
            assert 0 <= cta < ctas and splits <= room
            found.setdefault((request, head), []).append((first, count, split))
        assert len(found) == heads * len(pages)
        for (request, _), units in found.items():
            ends = [first + count for first, count, _ in units]
            assert [first for first, *_ in units] == [0, *ends[:-1]] and ends[-1] == pages[request]
            assert [split for *_, split in units] == list(range(len(units)))


def test_runs_are_equal():
    """To a page, however unlike the requests are."""
    pages = [1, 300, 7, 64, 9]
    runs = {}
    for cta, *_, count, _, _ in parts(pages, 8, 264):
        runs[cta] = runs.get(cta, 0) + count
    assert len(runs) == 264 and max(runs.values()) - min(runs.values()) <= 1


def test_a_window_and_few_pages_are_not_split():
    for width, window, expected in ((2, None, 1), (3, None, 3), (4, None, 3), (1000, None, 32)):
        table = SimpleNamespace(page_table=torch.empty(1, width, device="meta"))
        assert num_splits(table, window) == expected and num_splits(table, 128) == 1
