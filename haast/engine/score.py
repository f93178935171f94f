"""Logits of a given text, computed the way a prompt is."""

import torch
from torch import Tensor

from haast import ops
from haast.engine.batch import step_tensors
from haast.engine.generator import PREFILL_CHUNK, Generator, RequestError
from haast.engine.request import Request, SamplingParams


@torch.inference_mode()
def score(generator: Generator, token_ids: list[int]) -> Tensor:
    """What the model expects after each token of a text: [len(token_ids), V] fp32 on the host.

    Raises RequestError if the text is longer than the engine's max_length or requests are running.
    """
    request = Request(
        prompt_ids=token_ids,
        params=SamplingParams(),
        seed=0,
        max_new_tokens=0,
        stop_ids=frozenset(),
    )
    generator.check(request)
    if generator.has_work:
        raise RequestError("requests are running; exhaust or close their stream first")
    rows = []
    with ops.pin(generator.plan.pins), generator.holding_pages(request):
        while request.num_computed < len(token_ids):
            ids, meta = step_tensors([request], PREFILL_CHUNK, generator.model.device)
            hidden = generator.model.forward(ids, meta, generator.kv)
            rows.append(generator.model.logits(hidden).cpu())
            request.num_computed += len(ids)
    return torch.cat(rows)
