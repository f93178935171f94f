"""Rank 0 and the processes of the others: whoever dies, hangs or is closed."""

import gc
import os
import signal
import subprocess
import sys
import time

import pytest

from haast.parallel import followers as module
from haast.parallel.followers import Followers, RankError
from haast.parallel.leader import READY

from ..serve.conftest import children, is_alive, no_child_is_left  # noqa: F401

FAKE = "tests.parallel.fake_follower"
NAMES = ["gpu:0", "gpu:1", "gpu:2"]
PATIENCE_S = 30.0


@pytest.fixture
def own():
    """Children since then: a server of other tests may be one until the end of all."""
    before = {*children()}
    return lambda: [pid for pid in children() if pid not in before]


@pytest.fixture
def followers(own):
    """Two, of which both have answered once."""
    made = Followers(FAKE, NAMES)
    made.tell("ready")
    made.wait_for(READY)
    yield made
    made.close()


def until(holds):
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.01)


def tell_one(followers, rank, order):
    followers.tell_each(lambda number: order if number == rank else "ready")


def failure_of(followers):
    until(lambda: followers.failure)
    return followers.failure


def test_they_are_ready_when_told_and_only_then(followers, own):
    followers.tell("ready")
    followers.wait_for(READY)
    assert len(own()) == 2 and followers.failure is None


@pytest.mark.parametrize(
    "order, how",
    [
        (3, "ended with exit status 3"),
        ("kill", "was killed by SIGKILL"),
    ],
)
def test_one_that_dies_ends_all(followers, own, order, how):
    if order == "kill":
        os.kill(followers._all[1].process.pid, signal.SIGKILL)
    else:
        tell_one(followers, 2, order)
    assert failure_of(followers) == f"rank 2 (gpu:2) {how}"
    until(lambda: own() == [])
    with pytest.raises(RankError, match=r"^rank 2 \(gpu:2\) "):
        followers.tell("ready")


def test_one_that_says_why_it_cannot_go_on(followers):
    pid = followers._all[0].process.pid
    tell_one(followers, 1, "pid")
    assert failure_of(followers) == f"rank 1 (gpu:1): my pid is {pid}"
    with pytest.raises(RankError):
        followers.wait_for(READY)


def test_one_that_stands_still_is_found(followers, own, monkeypatch):
    monkeypatch.setattr(module, "SILENCE_S", 2.0)
    tell_one(followers, 1, "stop")
    assert failure_of(followers) == "rank 1 (gpu:1) hangs: nothing came from it for 2 s"
    until(lambda: own() == [])


def test_one_that_only_waits_does_not_hang(followers, monkeypatch):
    monkeypatch.setattr(module, "SILENCE_S", 4.0)
    tell_one(followers, 1, "sleep")
    time.sleep(4.5)
    assert followers.failure is None


def test_a_wait_for_the_device_that_is_too_long(followers, monkeypatch):
    monkeypatch.setattr(module, "WAIT_S", 0.5)
    with followers.waiting():
        pass
    time.sleep(0.6)
    assert followers.failure is None
    with followers.waiting():
        assert failure_of(followers).startswith("ranks wait for each other for longer than 0.5")


def test_an_error_of_rank_0_is_explained_by_the_rank_that_caused_it(followers):
    os.kill(followers._all[0].process.pid, signal.SIGKILL)
    found = followers.explained(RuntimeError("connection closed by peer"))
    assert str(found) == "rank 1 (gpu:1) was killed by SIGKILL"


def test_an_error_of_rank_0_alone_ends_the_others(followers, own, monkeypatch):
    monkeypatch.setattr(module, "EXPLAIN_S", 0.1)
    assert str(followers.explained(MemoryError("none"))) == "rank 0: MemoryError: none"
    until(lambda: own() == [])


def test_the_engine_is_told_at_once(followers):
    told = []
    followers.when_failed(told.append)
    tell_one(followers, 2, 1)
    until(lambda: told)
    assert told == ["rank 2 (gpu:2) ended with exit status 1"]


@pytest.mark.parametrize("order", ["ready", "sleep", "stop"])
def test_whoever_is_closed_leaves(followers, own, order, monkeypatch):
    monkeypatch.setattr(module, "LEAVE_S", 0.5)
    followers.tell(order)
    followers.close()
    assert own() == [] and followers.failure is None


def test_they_leave_when_nobody_knows_them_any_more(own):
    made = Followers(FAKE, NAMES)
    made.tell("ready")
    made.wait_for(READY)
    assert len(own()) == 2
    del made
    gc.collect()
    assert own() == []


PARENT = f"""
import os, signal
from haast.parallel.followers import Followers
from haast.parallel.leader import READY
made = Followers({FAKE!r}, ["a", "b", "c"])
made.tell("ready")
made.wait_for(READY)
made.tell("sleep")
print(*(f.process.pid for f in made._all), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_they_leave_when_rank_0_is_killed():
    made = subprocess.run([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, timeout=60)
    pids = [int(pid) for pid in made.stdout.split()]
    assert made.returncode == -signal.SIGKILL and len(pids) == 2
    until(lambda: not any(map(is_alive, pids)))


STUCK = f"""
import time
from haast.parallel.followers import Followers
made = Followers({FAKE!r}, ["a", "b"], is_stuck=lambda: True)
made.tell(7)
time.sleep(60)
"""


def test_a_device_that_waits_for_ever_is_left():
    made = subprocess.run([sys.executable, "-c", STUCK], stderr=subprocess.PIPE, timeout=60)
    assert made.returncode == 1
    assert made.stderr.decode().splitlines() == ["haast: rank 1 (b) ended with exit status 7"]
