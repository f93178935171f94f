"""One array of a step's numbers, against the same in plain Python."""

from random import Random

import numpy as np
import pytest

from haast.engine.inputs import ALIGNMENT, NOWHERE, SAMPLE_FIELDS, TOKEN_FIELDS, Layout, pack

from .slow_inputs import fields_of, numbers_of, random_settings, random_step

ROW_FIELDS = ("kv_lens", "table_rows")
SLOTS = ("slot_mapping", "window_slot_mapping")


def packed(random, step, page_size, layout):
    """What pack makes of a step, and what it must be where the step fills the layout."""
    rows = random.sample(range(64), len(step.requests))
    settings = random_settings(random, len(step.sampling))
    words = pack(step, rows, settings, page_size, layout)
    assert words.dtype == np.int32 and len(words) == layout.num_words
    return fields_of(words, layout), numbers_of(step, rows, settings, page_size)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 3, 0), (8, 8, 8), (1001, 5, 4), (3, 3, 3)])
def test_fields_are_aligned_and_apart(sizes):
    layout = Layout(*sizes)
    tokens, requests, samples = sizes
    lengths = dict.fromkeys((*SAMPLE_FIELDS, "sample_index", "position"), samples)
    lengths |= dict.fromkeys(TOKEN_FIELDS, tokens) | dict.fromkeys(ROW_FIELDS, requests)
    lengths |= {"seed": 2 * samples, "cu_seqlens_q": requests + 1}
    assert {name: end - begin for name, (begin, end) in layout.spans.items()} == lengths
    assert all(begin % ALIGNMENT == 0 for begin, _ in layout.spans.values()) and ALIGNMENT == 4
    words = [word for begin, end in layout.spans.values() for word in range(begin, end)]
    assert len(set(words)) == len(words) and max(words) == layout.num_words - 1


def test_no_layout_of_smaller_parts_is_longer():
    """The inbox is made for the largest."""
    random, largest = Random(0), Layout(300, 40, 40)
    for _ in range(200):
        requests = random.randint(1, 40)
        layout = Layout(random.randint(requests, 300), requests, random.randint(0, requests))
        assert layout.num_words <= largest.num_words


@pytest.mark.parametrize("has_guesses", [False, True])
@pytest.mark.parametrize("page_size", [4, 64, 128])
@pytest.mark.parametrize("decodes, chunks", [(1, 0), (5, 0), (0, 1), (0, 3), (1, 1), (6, 4)])
def test_pack_equals_the_slow_way(page_size, decodes, chunks, has_guesses):
    for seed in range(20):
        random = Random(seed)
        step = random_step(random, page_size, decodes, chunks, has_guesses)
        layout = Layout(step.num_tokens, len(step.requests), len(step.sampling))
        got, expected = packed(random, step, page_size, layout)
        assert got == expected, seed


@pytest.mark.parametrize("decodes, size", [(1, 2), (3, 4), (5, 16), (4, 4)])
def test_a_batch_is_filled_with_its_first_row(decodes, size):
    for seed in range(20):
        random = Random(seed)
        step = random_step(random, 64, decodes, 0)
        got, expected = packed(random, step, 64, Layout(size, size, size))
        missing = size - decodes
        for name in ("input_ids", "input_rows", "positions", *ROW_FIELDS):
            assert got[name] == expected[name] + expected[name][:1] * missing, name
        for name in SLOTS:
            assert got[name] == expected[name] + [NOWHERE] * missing, name
        assert got["cu_seqlens_q"] == [*range(size + 1)]
        for name in ("sample_index", "position", "seed", *SAMPLE_FIELDS):
            assert got[name][: len(expected[name])] == expected[name], name


@pytest.mark.parametrize("room", [1, 5, 64])
def test_tokens_too_many_are_written_nowhere(room):
    for seed in range(20):
        random = Random(seed)
        step = random_step(random, 64, 0, 1)
        step.samples, step.sampling = [True], step.requests[:]
        got, expected = packed(random, step, 64, Layout(step.num_tokens + room, 1, 1))
        for name in (*ROW_FIELDS, "cu_seqlens_q", "sample_index", "position"):
            assert got[name] == expected[name], name
        for name in TOKEN_FIELDS:
            assert got[name][: step.num_tokens] == expected[name], name
        for name in SLOTS:
            assert got[name][step.num_tokens :] == [NOWHERE] * room
        assert got["input_rows"][step.num_tokens :] == [-1] * room


def test_a_step_is_not_changed():
    random = Random(3)
    step = random_step(random, 64, 3, 2)
    before = [(r.pages[:], r.window_pages[:], r.output_ids[:]) for r in step.requests]
    packed(random, step, 64, Layout(step.num_tokens, 5, len(step.sampling)))
    assert [(r.pages, r.window_pages, r.output_ids) for r in step.requests] == before
