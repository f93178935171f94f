"""What it costs to tell: `python -m tests.serve.message_cost [BATCH]`, with nothing computed.

Processor time a step of the engine process that goes to messages (waiting for the socket excluded,
as there is none), its engine left out; and what the server's side can take in, a task a request.
"""

import asyncio
import sys
import time
from array import array
from pathlib import Path
from tempfile import TemporaryDirectory

import zmq

from haast.config import EngineConfig
from haast.engine.request import SamplingParams
from haast.serve.engine_loop import Channel, EngineLoop
from haast.serve.messages import Submit, outbox_address

from .conftest import fake
from .fake_engine_process import make_engine

STEPS = 900
WISHES = {"max_length": 1000, "max_queue_size": 4096}


def cost_in_engine(batch, logprobs):
    """Milliseconds a step in turns of the loop, and in engine.step alone, over the same steps."""
    with TemporaryDirectory() as folder:
        context = zmq.Context()
        server = context.socket(zmq.PULL)
        server.set_hwm(0)
        server.bind(outbox_address(Path(folder)))
        loop = EngineLoop(
            make_engine(EngineConfig(max_batch_size=batch, **WISHES)), Channel(Path(folder))
        )
        params = SamplingParams(max_new_tokens=990, logprobs=logprobs)
        for number in range(batch):
            loop._submit(Submit(number, array("i", [number, 1]).tobytes(), params, 0, None))
        in_step = 0.0
        step = loop.engine.step

        def timed():
            nonlocal in_step
            start = time.thread_time()
            outputs = step()
            in_step += time.thread_time() - start
            return outputs

        loop.engine.step = timed
        for _ in range(20):
            loop.turn()
        in_step, start, start_all = 0.0, time.thread_time(), time.process_time()
        for _ in range(STEPS):
            loop.turn()
        total = time.thread_time() - start
        others = time.process_time() - start_all - total
        loop.channel._context.destroy(linger=0)
        context.destroy(linger=0)
    return [1000 * t / STEPS for t in (total - in_step, in_step, others)]


async def cost_in_server(batch):
    """Milliseconds of the server's processor a step, and steps a second, with consumers that only
    count."""
    num_tokens, num_news = 0, 0

    async def consume(client, number):
        nonlocal num_tokens, num_news
        async for tokens in client.generate([number, 1], SamplingParams(max_new_tokens=900)):
            num_tokens += len(tokens.token_ids)
            num_news += 1

    async with fake(max_batch_size=batch, **WISHES) as client:
        start, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(consume(client, i) for i in range(batch)))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        assert num_tokens == 900 * batch
        return 1000 * cpu / 900, 900 / wall, num_tokens / wall, num_tokens / num_news


if __name__ == "__main__":
    for batch in map(int, sys.argv[1:] or ["1", "64", "256"]):
        for logprobs in (None, 5):
            told, step, others = cost_in_engine(batch, logprobs)
            print(
                f"batch {batch}, logprobs {logprobs}: {told:.3f} ms a step to tell "
                f"(zmq's thread and the like {others:.3f}), {step:.3f} in engine.step"
            )
        cpu, steps, tokens, size = asyncio.run(cost_in_server(batch))
        print(
            f"batch {batch}, server: {cpu:.3f} ms of its processor a step, {steps:.0f} steps/s, "
            f"{tokens:.0f} tokens/s, {size:.2f} tokens taken at a time"
        )
