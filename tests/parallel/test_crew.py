"""Followers that outlive a model, played by some that compute nothing."""

import gc
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch.distributed as dist

from haast.config import ConfigError
from haast.parallel import crew as module
from haast.parallel.crew import Crew
from haast.parallel.followers import Followers
from haast.parallel.gpu import check_group_is_free
from haast.parallel.leader import READY

from ..serve.conftest import is_alive
from .test_followers import FAKE, NAMES, own, until  # noqa: F401

START = partial(Followers, FAKE, NAMES)
REST = "rest"


@pytest.fixture
def crew(own):  # noqa: F811
    """Engaged, met; nothing is left of it."""
    crew = Crew()
    crew.engage(NAMES, START)
    crew.has_met = True
    yield crew
    del crew._followers
    gc.collect()
    until(lambda: own() == [])


def reason(crew, names=NAMES):
    with pytest.raises(ConfigError) as error:
        crew.engage(names, START)
    assert "\n" not in str(error.value)
    return str(error.value)


def pids(followers):
    return [follower.process.pid for follower in followers._all]


def test_the_next_model_has_the_same_processes(crew):
    first = crew._followers
    pids_before = pids(first)
    for _ in range(3):
        assert not crew.is_resting
        assert crew.rest(REST) and crew.is_resting
        assert crew.engage(NAMES, START) is first
    assert pids(first) == pids_before and first.failure is None


def test_one_model_at_a_time(crew):
    told = "another model of this process is on several GPUs; one can be at a time"
    assert reason(crew) == reason(crew, ["gpu:5", "gpu:6"]) == told
    assert not crew.is_resting and crew.rest(REST)
    crew.engage(NAMES, START)


class Garbage:
    """A model that has the crew and that only garbage collection can end."""

    def __init__(self, crew):
        self.crew, self.itself = crew, self

    def __del__(self):
        self.crew.rest(REST)


def test_a_model_that_is_garbage_is_cleared_away(crew):
    gc.collect()
    Garbage(crew)
    assert crew.engage(NAMES, START) is crew._followers


def test_other_devices(crew):
    crew.rest(REST)
    assert reason(crew, ["gpu:0", "gpu:3"]) == (
        "this process had a model on gpu:0, gpu:1, gpu:2 and can have none on gpu:0, gpu:3; "
        "start another process"
    )
    crew.engage(NAMES, START)


def gone(why):
    return (
        f"the other ranks of this process are gone ({why}), and it can have no new ones; "
        "start another process"
    )


def test_one_that_dies_at_rest_is_told_at_the_next_start(crew):
    """And to nobody before, since nobody needs it."""
    told, followers = [], crew._followers
    followers.when_failed(told.append)
    crew.rest(REST)
    os.kill(pids(followers)[1], signal.SIGKILL)
    until(lambda: followers.failure)
    expected = gone("rank 2 (gpu:2) was killed by SIGKILL")
    assert reason(crew) == reason(crew, ["gpu:0", "gpu:3"]) == expected and told == []
    assert crew.is_resting


def test_one_that_does_not_come_to_rest_is_ended(crew, own, monkeypatch):  # noqa: F811
    monkeypatch.setattr(module, "REST_S", 0.5)
    crew.rest("sleep")
    assert reason(crew) == gone("rank 1 (gpu:1) has not rested within 0.5 s")
    until(lambda: own() == [])


def test_one_that_died_at_work(crew):
    """Also while the model that had it is still there."""
    os.kill(pids(crew._followers)[0], signal.SIGKILL)
    until(lambda: crew._followers.failure)
    why = gone("rank 1 (gpu:1) was killed by SIGKILL")
    assert reason(crew) == why
    assert not crew.rest(REST)
    crew.leave()
    assert reason(crew) == why and not crew.is_resting


def test_what_was_said_of_the_last_model_is_forgotten(crew):
    followers = crew._followers
    followers.tell("ready")
    crew.rest(REST)
    crew.engage(NAMES, START)
    assert not any(said.is_set() for each in followers._all for said in each.said.values())
    followers.tell("ready")
    followers.wait_for(READY)


def test_those_that_this_process_has_not_met_are_replaced(crew):
    first, crew.has_met = crew._followers, False
    first.close()
    crew.leave()
    assert crew.engage(NAMES, START) is not first
    assert crew.rest(REST) and crew.engage(NAMES, START)


PARENT = f"""
from functools import partial
from haast.parallel.crew import Crew
from haast.parallel.followers import Followers
crew = Crew()
made = crew.engage({NAMES!r}, partial(Followers, {FAKE!r}, {NAMES!r}))
crew.has_met = True
crew.rest({REST!r})
print(*(f.process.pid for f in made._all), flush=True)
"""


def test_they_leave_with_their_process():
    made = subprocess.run([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, timeout=60)
    left = [int(pid) for pid in made.stdout.split()]
    assert made.returncode == 0 and len(left) == 2
    until(lambda: not any(map(is_alive, left)))


def test_a_process_group_of_somebody_else(monkeypatch):
    check_group_is_free()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    with pytest.raises(ConfigError, match="^torch's default process group is in use in this"):
        check_group_is_free()
