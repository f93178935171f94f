"""What the load client costs an event: python -m tests.bench.load_cost

A server in another process streams one-token events as fast as both can, and then at a pace.
"""

import asyncio
import multiprocessing

import uvloop

from haast.bench.load.level import run_level
from haast.bench.load.prompts import Requests
from haast.bench.load.rows import row
from haast.bench.load.target import parse_url

from .streaming_server import Scripted, stream

NUM_TOKENS = 256
PAUSES_S = (0.0, 0.005, 0.01, 0.02)
CONCURRENCIES = (1, 64, 256, 1024)


def serve(pause_s: float, port) -> None:
    """The other process; tells its port."""
    played = stream(NUM_TOKENS, pause_s)

    async def run() -> None:
        server = await asyncio.start_server(Scripted(lambda *_: played).handle, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


def measure(concurrency: int, port: int) -> dict:
    target = parse_url(f"http://127.0.0.1:{port}", None)
    asked = Requests("m", input_len=8, output_len=NUM_TOKENS)
    bodies = [asked.body(number) for number in range(4 * concurrency)]
    return row(uvloop.run(run_level(target, asked, concurrency, bodies, 60.0)))


def main() -> None:
    print("at once  pause ms   events/s  client CPU %  CPU us an event  gap p50 ms  p99 ms")
    for pause_s in PAUSES_S:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        server = context.Process(target=serve, args=(pause_s, theirs), daemon=True)
        server.start()
        port = ours.recv()
        for concurrency in CONCURRENCIES:
            found = measure(concurrency, port)
            rate, gap = found["events"] / found["wall_s"], found["itl_s"]
            print(
                f"{concurrency:7d}  {1e3 * pause_s:8.1f}  {rate:9.0f}  "
                f"{found['client_cpu_percent']:12.1f}  "
                f"{1e4 * found['client_cpu_percent'] / rate:15.1f}  "
                f"{1e3 * gap['p50']:10.2f}  {1e3 * gap['p99']:6.2f}",
                flush=True,
            )
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
