"""Kernels that come late on purpose, and what shows that none touches memory too early.

python3 -m tests.cuda.delays build --cubins build/delays     (needs a compiler, no GPU)
python3 -m tests.cuda.delays run --cubins build/delays       (needs a Hopper GPU, no compiler)
"""

import argparse
import json
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from haast import ops
from haast.bench.whole_model import random_prompts, run
from haast.config import EngineConfig
from haast.cuda import launcher
from haast.cuda.build import SOURCES, build
from haast.engine.load import assemble, prepare
from haast.engine.loading import load
from haast.engine.request import SamplingParams
from haast.model.locate import packaged_folder

PLANTED = Path(__file__).parent / "planted"
FOLDER = Path(__file__).parents[2] / "build/delays"
DELAYS = "-DHAAST_DELAYS"
NUM_LAYERS = 4
STEPS = {1: 2000, 8: 1000, 16: 600, 64: 300, 96: 200}
"""Requests at a time -> tokens of each"""
PROMPT = 150
KERNELS = ("planted_right", "planted_reads_early", "planted_writes_early")
CHAIN = 16
"""Launches of a planted kernel in a graph"""
CTAS, THREADS = 132, 256


def build_all(folder: Path) -> None:
    """Our kernels with delays, and the planted ones with them beside."""
    folder = folder.resolve()
    (folder / PLANTED.name).mkdir(parents=True, exist_ok=True)
    build(SOURCES, folder, (DELAYS,))
    build(PLANTED, folder / PLANTED.name, (DELAYS, f"-I{SOURCES}"))


class Cubins:
    """The cubins of a folder, each loaded once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._library = cache(launcher._library.__wrapped__)
        self._kernel = cache(launcher._kernel.__wrapped__)

    @contextmanager
    def used(self):
        """Kernels launched within the block are these; graphs keep theirs."""
        before = launcher.CUBINS, launcher._library, launcher._kernel
        launcher.CUBINS, launcher._library, launcher._kernel = (
            self.folder,
            self._library,
            self._kernel,
        )
        try:
            yield
        finally:
            launcher.CUBINS, launcher._library, launcher._kernel = before


# ---- planted kernels


def expected(num_launches, size):
    """What a chain of right kernels makes of zeros [size] int32."""
    at = torch.arange(size, dtype=torch.int64)
    value = torch.zeros_like(at)
    for _ in range(num_launches):
        value = (3 * value.flip(0) + at) % (1 << 32)
    return value.where(value < 1 << 31, value - (1 << 32)).int()


def chain(symbol, buffers):
    """A graph of launches that read one of two buffers and write the other, in turns."""

    def launches():
        for i in range(CHAIN):
            args = (buffers[i % 2], buffers[1 - i % 2], buffers[0].numel())
            launcher.launch("planted", symbol, grid=CTAS, block=THREADS, shared_bytes=0, args=args)

    launches()  # loads the module
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launches()
    return graph


def count_wrong(folder, symbol, replays):
    """Of so many replays of a chain from zeros on, those whose result is another one."""
    size = CTAS * THREADS
    with Cubins(folder / PLANTED.name).used():
        buffers = [torch.zeros(size, dtype=torch.int32, device="cuda") for _ in range(2)]
        graph = chain(symbol, buffers)
        right = expected(CHAIN, size).cuda()
        wrong = torch.zeros((), dtype=torch.int64, device="cuda")
        for _ in range(replays):
            for buffer in buffers:
                buffer.zero_()
            graph.replay()
            wrong += (buffers[CHAIN % 2] != right).any()
        return int(wrong)


# ---- a model


def small_config(folder):
    """gpt-oss-20b with fewer layers: kernels of its real sizes."""
    fields = json.loads((packaged_folder("gpt-oss-20b") / "config.json").read_text())
    fields["num_hidden_layers"] = NUM_LAYERS
    fields["layer_types"] = fields["layer_types"][:NUM_LAYERS]
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


def engines():
    """Two engines over one model, and its config."""
    longest = PROMPT + max(STEPS.values())
    with TemporaryDirectory() as folder:
        prepared = prepare(
            EngineConfig(
                model_path=small_config(Path(folder)),
                load_format="dummy",
                max_batch_size=max(STEPS),
                max_length=longest,
                device_memory_utilization=0.2,
                enable_prefix_caching=False,
            )
        )
        first = load(prepared, frozenset())
    return first, assemble(first.model, prepared.plan, frozenset()), prepared.config


@contextmanager
def noted_logits():
    """A list of checksums of the logits of every step within the block."""
    found, sample = [], ops.sample

    def noted(logits, sampling):
        token_ids = sample(logits, sampling)
        bits = logits.view(torch.int16).long()
        found.append((bits * torch.arange(1, 1 + bits.shape[1], device=bits.device)).sum())
        return token_ids

    ops.sample = noted
    try:
        yield found
    finally:
        ops.sample = sample


def generate(loaded, config, batch, num_tokens):
    """Tokens of a batch of greedy and sampled requests, checksums of logits, keys and values."""
    caches = [tensor for layer in loaded.runner.kv.layers for tensor in layer]
    for tensor in caches:
        tensor.zero_()
    requests = []
    for index, prompt in enumerate(random_prompts(config, batch, PROMPT, batch)):
        params = {"temperature": float(index % 2), "seed": index, "ignore_eos": True}
        requests += loaded.engine.submit(
            prompt, SamplingParams(max_new_tokens=num_tokens, **params)
        )
    with noted_logits() as sums:
        for _ in run(loaded):
            pass
    assert all(request.finish_reason == "length" for request in requests)
    return [request.output_ids for request in requests], torch.stack(sums), caches


def differences(folder, steps=STEPS):
    """Of each batch size what delays changed, in words; nothing should."""
    ordinary, late, config = engines()
    cubins, found = Cubins(folder), {}
    for batch, num_tokens in steps.items():
        tokens, sums, caches = generate(ordinary, config, batch, num_tokens)
        with cubins.used():
            late_tokens, late_sums, late_caches = generate(late, config, batch, num_tokens)
        pairs = zip(caches, late_caches, strict=True)
        changed = [
            i // 2
            for i, (a, b) in enumerate(pairs)
            if not torch.equal(a.view(torch.int16), b.view(torch.int16))
        ]
        steps_changed = (sums != late_sums).nonzero().flatten().tolist()
        said = [f"keys or values of layer {layer}" for layer in sorted(set(changed))]
        if steps_changed:
            said.append(f"logits of {len(steps_changed)} steps from {steps_changed[0]}")
        said += ["tokens"] * (tokens != late_tokens)
        found[batch] = said
    return found


def main():
    """The command lines above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["build", "run"])
    parser.add_argument("--cubins", type=Path, default=FOLDER)
    parser.add_argument("--replays", type=int, default=2000, help="of each planted kernel")
    options = parser.parse_args()
    if options.what == "build":
        build_all(options.cubins)
        return
    planted = {name: count_wrong(options.cubins, name, options.replays) for name in KERNELS}
    print(json.dumps({"replays": options.replays, "wrong": planted}), flush=True)
    changed = differences(options.cubins)
    print(json.dumps({"steps": sum(STEPS.values()), "changed": changed}))
    right, *races = planted.values()
    sys.exit(bool(right or not all(races) or any(changed.values())))


if __name__ == "__main__":
    main()
