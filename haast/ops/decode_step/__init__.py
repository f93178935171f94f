"""A whole decode step of one request: what the ops compute one by one, in one persistent kernel.

network  StepNetwork
inputs   StepInputs of one request with one new token; its key and value are put in their slots
returns  logits [1, V] bf16: embedding, layers, final norm and head, as `haast.model.gpt_oss` has
         them. Rounded where the ops round; terms of the experts are rounded to bf16 before they are
         added, as openai/gpt-oss gpt_oss/torch/model.py does. The same inputs give the same bits

Several ranks compute it together, each its heads and its part of the experts' intermediate axis.
They send each other their parts of o's and of down's results, and every rank adds up all of them in
the same way. Rank 0 tells the others which token it has sampled, and gets everyone's logits.

`tasks.py` says what each CTA of the kernel (cuda/decode_step.cu) computes; `twin.py` computes just
that in torch, which is how tests know that the parts make a whole.
"""

from haast.ops.decode_step.cuda_persistent import PERSISTENT, DecodeStep
from haast.ops.decode_step.network import (
    MAX_RANKS_VOCAB,
    StepInputs,
    StepLayer,
    StepNetwork,
    StepRanks,
    inbox_words,
    why_not,
)

__all__ = [
    "MAX_RANKS_VOCAB",
    "PERSISTENT",
    "DecodeStep",
    "StepInputs",
    "StepLayer",
    "StepNetwork",
    "StepRanks",
    "inbox_words",
    "why_not",
]
