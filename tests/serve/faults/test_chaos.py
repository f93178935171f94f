"""Many clients at once that do what comes to their minds, against a real server."""

import asyncio
import time
from random import Random

from .conftest import LONG, Answer, Client, request, run

NUM_CLIENTS = 12
SECONDS = 2.0
SEED = 4


def some_body(random: Random) -> dict:
    return LONG | {
        "prompt": random.choice(["Hello", ["a", "b", "c"]]),
        "max_tokens": random.randint(1, 15),
        "n": random.randint(1, 3),
        "stream": random.random() < 0.7,
        "stop": random.choice([None, ["a"]]),
        "temperature": 1.0,
    }


async def misbehave(client: Client, random: Random) -> None:
    data = request("/v1/completions", some_body(random))
    match random.randrange(5):
        case 0:
            await client.send(data[: random.randint(1, len(data) - 1)])
        case 1:
            await client.send(data)
            await asyncio.sleep(random.random() / 2)
        case 2:
            await client.send(data)
            client.writer.transport.pause_reading()
            await asyncio.sleep(random.random())
        case 3:
            await client.send(data * 3)
            await client.reader.read(random.randint(1, 3000))
        case 4:
            await client.send(random.randbytes(random.randint(1, 500)) + b"\r\n\r\n")


async def behave(client: Client, random: Random) -> int:
    body = some_body(random)
    await client.send(request("/v1/completions", body, None, "connection: close"))
    answer: Answer = await client.end()
    if body["stream"] and answer.status == 200:
        assert answer.is_whole and not answer.error, answer.body[-300:]
    return answer.status


def test_whoever_behaves_is_served(unharmed):
    statuses = []

    async def live(number: int, until: float) -> None:
        random = Random(SEED * NUM_CLIENTS + number)
        while time.monotonic() < until:
            client = await Client.connect(unharmed.port)
            try:
                if number % 4:
                    await misbehave(client, random)
                else:
                    statuses.append(await behave(client, random))
            except ConnectionError:
                assert number % 4, "the server closed on a client that did nothing wrong"
            finally:
                client.reset() if random.random() < 0.5 else client.close()

    async def work():
        until = time.monotonic() + SECONDS
        await asyncio.gather(*(live(number, until) for number in range(NUM_CLIENTS)))

    run(work())
    assert set(statuses) == {200} and len(statuses) >= NUM_CLIENTS // 4
