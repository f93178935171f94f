"""Decode steps of haast-tiny in the persistent kernel of several GPUs, a process each; the last
line says in JSON what came of it.

python3 -m tests.parallel.step_on_ranks 2                   (needs as many Hopper GPUs)
python3 -m tests.parallel.step_on_ranks 2 build/delays      (kernels that tests.cuda.delays built)
"""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import torch

from haast.config import EngineConfig
from haast.cuda.build import CUBINS
from haast.engine.load import prepare
from haast.ops import DecodeStep
from haast.parallel.collectives import come_to, meeting_place
from haast.parallel.connect import connect

from ..cuda.delays import Cubins
from ..ops.one_request import OneRequest

LENGTHS = (1, 33, 70, 150, 1000, 3000)
REPLAYS = 2000
TURN = 16
"""Replays before each of which one rank is late, then another"""
LATEST = 200_000
"""Cycles that it is late at most: several steps"""


@torch.inference_mode()
def compute(rank, size, store):
    """On each rank the same."""
    device = torch.device("cuda", rank)
    hidden_size = prepare(EngineConfig(devices=f"gpu:{rank}")).config.hidden_size
    ranks = connect(device, store, rank, size, hidden_size)
    found = {"distances": {}, "differing_hidden_states": 0}
    for length in LENGTHS:
        one, step = request(length, rank, size, ranks)
        expected = one.op_by_op()
        one.inputs.samples.mul_(rank == 0)  # the others know no token
        logits = step(one.inputs)
        if rank == 0:  # which has them all
            found["distances"][length] = distance(logits, expected)
            told(f"{length} keys", found["distances"][length])
        all_hidden = ranks.gather(step.hidden(one.inputs)).view(size, -1)
        found["differing_hidden_states"] += (all_hidden != all_hidden[0]).sum().item()
    found |= replayed(rank, size, ranks)
    torch.cuda.synchronize()
    ranks.close()
    return found


def request(length, rank, size, ranks):
    """A request and the step of this rank's share; its newest key is not in the share's cache."""
    one = OneRequest(length, f"gpu:{rank}")
    one.forget_newest()
    return one, DecodeStep(one.share(size, rank), ranks.step_ranks)


def replayed(rank, size, ranks):
    """Steps whose bits differ; ranks take turns to be late."""
    one, step = request(300, rank, size, ranks)
    expected = step(one.inputs).clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        logits = step(one.inputs)
    different = torch.zeros((), dtype=torch.int64, device=expected.device)
    late = torch.Generator().manual_seed(0)
    for turn in range(REPLAYS // TURN):
        cycles = int(torch.randint(LATEST, (), generator=late))
        if turn % size == rank:
            torch.cuda._sleep(cycles)
        for _ in range(TURN):
            if rank == 0:
                logits.zero_()
            graph.replay()
            if rank == 0:
                different += (logits != expected).any()
    if rank == 0:
        told("steps that differ", different.item())
    return {"replays": REPLAYS, "different": different.item(), "us": step_us(graph)}


def step_us(graph):
    """Of one replay among many."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(200):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    return 1e3 * begin.elapsed_time(end) / 200


def distance(a, b):
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


def told(*what):
    print(*what, file=sys.stderr, flush=True)


def main(size, cubins):
    """Rank 0, which starts the others; the highest exit status of theirs."""
    store, port = meeting_place(size)
    others = [
        subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(size), cubins, str(rank), str(port)]
        )
        for rank in range(1, size)
    ]
    try:
        print(json.dumps(compute(0, size, store)), flush=True)
        return max(other.wait(20) for other in others)
    finally:
        for other in others:
            other.kill()


def run(size, cubins=str(CUBINS), *place):
    """As rank 0, or as the rank that it named, which is to come to a port."""
    size = int(size)
    with Cubins(Path(cubins)).used():
        if not place:
            return main(size, cubins)
        rank, port = map(int, place)
        compute(rank, size, come_to(port, size))
        return 0


if __name__ == "__main__":
    code = 1
    try:
        code = run(*sys.argv[1:])
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)  # what NCCL still has to do may keep the interpreter
