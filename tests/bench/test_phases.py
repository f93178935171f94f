"""Phases of the persistent kernel from made-up stamps."""

from dataclasses import replace

import pytest
import torch

from haast.bench.cases import read_config
from haast.bench.kernel_roles import DecodeShape
from haast.bench.phases import median_stamps, phase_spans

REAL = read_config("gpt-oss-20b")
TWO = replace(REAL, num_layers=2, windows=(128, None))
SHAPE = DecodeShape(TWO, 1, 1000, (4, 4), 2)
NAMES = ["x", "qkv", "attention", "o", "router", "up", "gated", "down"]
ORIGIN = 1_760_000_000_000_000_000
"""ns since 1970: more than a double tells apart"""
FIRST = (100, 5100, 7100, 9100, 12_100, 20_100, 21_100, 26_100)
SECOND = tuple(26_100 + end for end in FIRST)


def stamps(*ctas):
    """Of each CTA the ends in two layers and those of x and head, in ns; None = has none."""
    found = torch.zeros(len(ctas), 65, 8, dtype=torch.int64)
    for cta, layers in enumerate(ctas):
        for layer, ends in enumerate(layers):
            for phase, end in enumerate(ends):
                found[cta, layer, phase] = 0 if end is None else ORIGIN + end
    return found


def one_cta():
    return [[*FIRST], [*SECOND], [53_000, 90_100]]


def test_names_times_and_layers():
    spans = phase_spans(stamps(one_cta()), SHAPE, 95.0)
    windowed = ["attention, window" if name == "attention" else name for name in NAMES]
    assert [span.name for span in spans] == [*windowed, *NAMES, "x", "head"]
    assert [span.details.get("layer") for span in spans] == [0] * 8 + [1] * 8 + [None] * 2
    expected = [5.0, 5.0, 2.0, 2.0, 3.0, 8.0, 1.0, 5.0, 0.1, 5.0]  # the first holds the rest
    assert [span.own_us for span in spans[:10]] == pytest.approx(expected, abs=1e-6)
    assert spans[0].start_us == 0.0 and spans[-1].end_us == 95.0
    for span, after in zip(spans, spans[1:], strict=False):
        assert span.end_us == after.start_us


def test_a_phase_ends_when_its_last_cta_does():
    """The second CTA is 3 us late in qkv, has no down rows, and was the last with up."""
    second = one_cta()
    second[0][1] = 8100
    second[0][2], second[0][5], second[0][6] = 7_050, 22_100, None
    spans = phase_spans(stamps(one_cta(), second), SHAPE, 90.0)
    found = {span.name: span for span in spans[:8]}
    assert found["qkv"].own_us == pytest.approx(8.0)
    assert found["attention, window"].own_us == 0.0, "ends no earlier than the phase before"
    assert found["up"].own_us == pytest.approx(10.0) and found["gated"].own_us == 0.0


def test_a_stamped_run_that_took_longer_is_shortened():
    spans = phase_spans(stamps(one_cta()), SHAPE, 45.0)
    assert spans[0].own_us == 0.0 and spans[-1].end_us == 45.0
    assert spans[1].own_us == pytest.approx(2.5) and spans[5].own_us == pytest.approx(4.0)


def test_bytes():
    work = {span.name: span.work for span in phase_spans(stamps(one_cta()), SHAPE, 90.0)}
    assert work["x"].nbytes == work["gated"].nbytes == 0
    assert work["qkv"].nbytes == pytest.approx(2 * 5120 * 2880, rel=1e-3)
    assert work["o"].nbytes == pytest.approx(2 * 2880 * 4096, rel=1e-3)
    assert work["router"].nbytes == pytest.approx(2 * 32 * 2880, rel=0.05)
    assert work["up"].nbytes == pytest.approx(4 * 5760 * 2880 * 17 / 32, rel=0.01)
    assert work["down"].nbytes == pytest.approx(4 * 2880 * 2880 * 17 / 32, rel=0.01)
    assert work["head"].nbytes == pytest.approx(2 * 201_088 * 2880, rel=1e-3)
    keys = {"attention": 1000, "attention, window": 128}
    for name, count in keys.items():
        assert work[name].nbytes == 2 * 2 * count * 512 + 2 * 2 * 4096


def test_stamps_that_lack_a_phase():
    cta = one_cta()
    cta[1][3] = None
    with pytest.raises(ValueError, match="a phase of the step has no stamps"):
        phase_spans(stamps(cta), SHAPE, 90.0)


def test_a_head_that_other_kernels_compute():
    cta = one_cta()
    cta[2] = (53_000,)
    spans = phase_spans(stamps(cta), SHAPE, 60.0)
    assert [span.name for span in spans[-2:]] == ["down", "x"] and spans[-1].end_us == 60.0
    assert spans[-1].own_us == pytest.approx(0.8)


def test_the_median_of_runs():
    runs = [stamps([[0], [], [0, end]]) for end in (70, 90, 50, 80)]
    assert median_stamps(runs) is runs[0] and median_stamps(runs[:1]) is runs[0]
