"""Logits of a given text, computed the way a prompt is."""

import secrets

import torch
from torch import Tensor

from haast.engine.load import Loaded
from haast.engine.request import Request, RequestError, SamplingParams
from haast.engine.step import Step

CHUNK = 512
"""Tokens whose logits are on the device at a time"""


@torch.inference_mode()
def score(loaded: Loaded, token_ids: list[int]) -> Tensor:
    """What the model expects after each token of a text: [len(token_ids), V] fp32 on the host.

    No cached prefix is used, since every position is asked for.
    Raises RequestError if the text is not shorter than max_length, or if requests are running.
    """
    engine, runner = loaded.engine, loaded.runner
    if engine.has_work:
        raise RequestError("requests are running; exhaust or close their stream first")
    params = SamplingParams(max_new_tokens=1)
    request = engine.intake.requests(token_ids, params, salt=secrets.token_hex())[0]
    is_admitted = engine.kv.admit(request, 0, 0)
    assert is_admitted, request
    rows = []
    try:
        while request.num_computed < len(token_ids):
            rows.append(_next_rows(loaded, request))
    finally:
        runner.forget(request)
        engine.kv.release(request)
    return torch.cat(rows)


def _next_rows(loaded: Loaded, request: Request) -> Tensor:
    """Logits of the next chunk."""
    engine, left = loaded.engine, request.num_tokens - request.num_computed
    most = min(CHUNK, engine.limits.max_batch_input_tokens)
    count = min(left, most, engine.kv.room(request, window_reserve=0))
    step = Step()
    step.requests, step.starts, step.counts = [request], [request.num_computed], [count]
    step.samples, step.num_tokens = [False], count
    has_pages = engine.kv.extend(request, request.num_computed + count)
    assert has_pages and count, request
    request.num_computed += count
    return loaded.runner.logits(step).float().cpu()
