"""A network of your own: gpt-oss whose logits are softly capped, as Gemma 2 does.

Set `"architectures": ["GptOssSoftcapForCausalLM"]` in the config.json of a gpt-oss checkpoint, then

    haast generate --model-path FOLDER --custom-architectures examples/custom_architecture.py \\
        --prompt "What is a bald eagle?"

A module for --custom-architectures exports ARCHITECTURES. An Architecture is a name that a
config.json may give and a subclass of GptOss; it may also take the place of one haast knows.
"""

from torch import Tensor

from haast.model.gpt_oss import GptOss
from haast.model.registry import Architecture

CAP = 30.0


class GptOssSoftcap(GptOss):
    """gpt-oss with c tanh(logits / c) in place of its logits."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states [N, H] -> scores of every token [N, V], same dtype, none beyond CAP."""
        logits = super().logits(hidden)
        return (CAP * (logits.float() / CAP).tanh()).to(logits.dtype)


ARCHITECTURES = [Architecture("GptOssSoftcapForCausalLM", GptOssSoftcap)]
