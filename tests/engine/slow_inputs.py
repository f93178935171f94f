"""A step's numbers in plain Python, token by token, and steps to try it on."""

import numpy as np

from haast.engine.inputs import SAMPLE_FIELDS
from haast.engine.request import Request, SamplingParams
from haast.engine.step import IN_FLIGHT, Step


def numbers_of(step, table_rows, settings, page_size) -> dict[str, list[int]]:
    """Field -> its numbers, without padding."""
    rows = {name: [] for name in ("kv_lens", "table_rows", "sample_index", "position", "seed")}
    tokens = {name: [] for name in ("input_ids", "input_rows", "positions")}
    slots = {"slot_mapping": [], "window_slot_mapping": []}
    bounds = [0]
    for row, request in enumerate(step.requests):
        is_decode = row < step.num_decodes
        stop = step.starts[row] + step.counts[row]
        for position in range(step.starts[row], stop):
            token = request.token_ids(position, position + 1)
            tokens["input_ids"] += step.input_ids[row : row + 1] if is_decode else token
            tokens["input_rows"].append(step.input_rows[row] if is_decode else -1)
            tokens["positions"].append(position)
            index, offset = divmod(position, page_size)
            slots["slot_mapping"].append(request.pages[index] * page_size + offset)
            slots["window_slot_mapping"].append(request.window_pages[index] * page_size + offset)
        bounds.append(bounds[-1] + step.counts[row])
        rows["kv_lens"].append(stop)
        rows["table_rows"].append(table_rows[row])
        if step.samples[row]:
            rows["sample_index"].append(bounds[-1] - 1)
            rows["position"].append(stop)
    drawn = {name: settings[:, 2 + i].tolist() for i, name in enumerate(SAMPLE_FIELDS)}
    rows["seed"] = settings[:, :2].flatten().tolist()
    return {**rows, **tokens, **slots, **drawn, "cu_seqlens_q": bounds}


def fields_of(words, layout) -> dict[str, list[int]]:
    return {name: words[begin:end].tolist() for name, (begin, end) in layout.spans.items()}


def random_request(random, page_size, num_prompt, num_output, window) -> Request:
    """Its pages cover all its tokens and one more; sliding ones start at the window."""
    request = Request(
        prompt_ids=random.choices(range(1000), k=num_prompt),
        params=SamplingParams(),
        seed=random.getrandbits(64),
        max_new_tokens=num_output + 10,
        stop_ids=frozenset(),
        output_ids=random.choices(range(1000), k=num_output),
    )
    count = request.num_tokens // page_size + 1
    request.pages = random.sample(range(500), count)
    request.window_pages = random.sample(range(500), count)
    request.window_start = max(0, request.num_tokens - window) // page_size
    request.window_pages[: request.window_start] = [None] * request.window_start
    return request


def random_step(random, page_size, num_decodes, num_chunks, has_guesses=False) -> Step:
    """Decodes, some of tokens in flight, then chunks, the last of them amid a prompt.

    has_guesses  whether some decodes have guesses after them
    """
    step = Step()
    for _ in range(num_decodes):
        request = random_request(random, page_size, random.randint(1, 300), 3, window=9)
        is_in_flight = random.random() < 0.5
        step.input_ids.append(IN_FLIGHT if is_in_flight else request.output_ids[-1])
        step.input_rows.append(random.randint(0, 7) if is_in_flight else -1)
        start = request.num_tokens - (not is_in_flight)
        add_row(step, request, start, 1, samples=True)
        if has_guesses:
            add_guesses(random, step, request, start + 1, page_size)
    for row in range(num_chunks):
        count = random.choice([1, 2, page_size - 1, page_size, page_size + 1, 2 * page_size + 3])
        start = random.choice([0, page_size, 2 * page_size])
        request = random_request(random, page_size, start + count, 0, window=count + 9)
        add_row(step, request, start, count, samples=row < num_chunks - 1)
    return step


def add_guesses(random, step, request, start, page_size):
    """After a decode, as many as its page has room for at most."""
    count = min(random.choice([0, 0, 1, 3]), -start % page_size)
    if count:
        step.drafts.append((len(step.requests) - 1, count))
    for position in range(start, start + count):
        step.input_ids.append(random.randrange(1000))
        step.input_rows.append(-1)
        add_row(step, request, position, 1, samples=True)


def add_row(step, request, start, count, samples):
    step.requests.append(request)
    step.starts.append(start)
    step.counts.append(count)
    step.samples.append(samples)
    step.num_tokens += count
    if samples:
        step.sampling.append(request)


def random_settings(random, count) -> np.ndarray:
    low, high = -(1 << 31), (1 << 31) - 1
    flat = [random.randint(low, high) for _ in range(count * (2 + len(SAMPLE_FIELDS)))]
    return np.array(flat, np.int32).reshape(count, 2 + len(SAMPLE_FIELDS))
