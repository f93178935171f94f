"""`haast bench allreduce` from start to end, rehearsed on the CPU over gloo."""

import pytest

from haast.bench import allreduce
from haast.bench.allreduce import HEADING, measure, row_line
from haast.bench.machine import BenchError
from haast.parallel.collectives import GlooRanks
from haast.parallel.followers import RankError

from ..serve.conftest import children


def test_rows_are_added_up_and_timed():
    rows = measure("2xcpu", 64, (1, 5))
    assert [row["rows"] for row in rows] == [1, 5] and children() == []
    for row in rows:
        assert row["us"].keys() == {"alone", "gloo"} and row["us"]["gloo"] > row["us"]["alone"] > 0
        assert len(row_line(row)) == len(HEADING)
        assert row_line(row).split()[1:3] == ["-", "-"]


def test_a_wrong_sum_is_told(monkeypatch):
    joined = GlooRanks.add_rms_norm
    wrong = lambda self, x, delta, weight, eps: joined(self, x, 1.5 * delta, weight, eps)
    monkeypatch.setattr(GlooRanks, "add_rms_norm", wrong)
    with pytest.raises(BenchError, match="^gloo of 3 rows is wrong by "):
        measure("2xcpu", 64, (3,))
    assert children() == []


def test_one_device_adds_up_nothing():
    with pytest.raises(BenchError, match="^devices 'cpu' are one; name several"):
        measure("cpu", 64, (1,))


def test_an_error_ends_all_ranks(monkeypatch):
    monkeypatch.setattr(allreduce, "_row", lambda *_: 1 / 0)
    monkeypatch.setattr("haast.parallel.followers.EXPLAIN_S", 0.1)
    with pytest.raises(RankError, match="^rank 0: ZeroDivisionError"):
        measure("2xcpu", 64, (1,))
    assert children() == []
