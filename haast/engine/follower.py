"""A rank other than 0: `python -m haast.engine.follower FD`, started by `haast.engine.team.Team`.

It computes what rank 0 tells it, one model after the other, until that closes the link or is dead.
"""

import gc
import os
import sys

import torch

from haast.engine.footprint import usable_memory
from haast.engine.load import make_runner, out_of_memory, prepare
from haast.engine.runner import TorchRunner
from haast.engine.team import Join, Rest, Start
from haast.errors import HaastError
from haast.parallel.collectives import come_to
from haast.parallel.connect import connect
from haast.parallel.leader import Leader

LEEWAY_BYTES = 256 << 20
"""What libraries keep of a device from one model to the next is not the same on all ranks, and much
less than device_memory_utilization leaves"""


def main(fd: int) -> None:
    """Load, join, compute and rest; tells rank 0 why it cannot, in one line.

    fd  of the link
    """
    leader = Leader(fd)
    try:
        while True:
            _work(leader)
            _forget()
            leader.say_rested()
    except EOFError:
        return
    except HaastError as error:
        leader.say_failed(str(error))
    except torch.OutOfMemoryError as error:
        leader.say_failed(out_of_memory(error))
    except Exception as error:  # rank 0 tells it to whoever can do something about it
        leader.say_failed(f"{type(error).__name__}: {error}".splitlines()[0])


def _work(leader: Leader) -> None:
    """For one model."""
    runner = _join(leader)
    while runner is not None and not isinstance(message := leader.receive(), Rest):
        runner.compute(message)


def _forget() -> None:
    """Give the device back what the last model had of it."""
    gc.unfreeze()
    gc.collect()
    torch.cuda.empty_cache()


def _join(leader: Leader) -> TorchRunner | None:
    """None if the model is given up before all have loaded it."""
    start = leader.receive()
    if isinstance(start, Rest):
        return None
    assert isinstance(start, Start), start
    prepared = prepare(start.config, start.rank, start.plan)
    place = prepared.place
    _check_memory(start, place.devices)
    parameters = prepared.make_parameters(None)
    leader.say_ready()
    join, size = leader.receive(), len(place.devices)
    if isinstance(join, Rest):
        return None
    assert isinstance(join, Join), join
    store = come_to(join.port, size)
    ranks = connect(place.device, store, place.rank, size, prepared.config.hidden_size)
    runner = make_runner(prepared.model(parameters, ranks), start.plan)
    gc.collect()
    gc.freeze()  # a look at all there is for garbage takes 0.1 s, for which all ranks would wait
    leader.say_ready()
    return runner


def _check_memory(start: Start, devices: tuple[torch.device, ...]) -> None:
    """The plan was made from what is free on rank 0's device."""
    if devices[start.rank].type == "cpu":
        return
    memory = start.plan.memory
    needed = memory.weight_bytes + memory.workspace_bytes + memory.kv_bytes
    usable = usable_memory(start.config, devices, start.rank)
    if usable + LEEWAY_BYTES < needed:
        raise HaastError(
            f"memory is short: {usable / 1e9:.2f} GB may be used, but rank 0 plans for "
            f"{needed / 1e9:.2f} GB; free memory there, or name this device first"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]))
    # Not sys.exit: collectives that wait for a rank which is gone may keep the interpreter.
    os._exit(0)
