"""The same weights in transformers and in haast: haast-tiny, and random asymmetric ones."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
from torch import Tensor

from haast.config import Encoding, EngineConfig
from haast.engine.load import Loaded, assemble
from haast.engine.plan import Source, make_plan
from haast.model import write_checkpoint
from haast.model.checkpoint import open_checkpoint
from haast.model.gpt_oss import GptOss
from haast.model.locate import demo_folder
from haast.model.weights import load_parameters

from ..model.helpers import CPU, write_config

MAX_LENGTH = 512


@dataclass(frozen=True)
class Pair:
    """One set of weights: where transformers and where we read it from."""

    theirs: Path
    ours: Path

    @cached_property
    def window(self) -> int:
        return next(filter(None, open_checkpoint(self.ours).config.windows))

    @cached_property
    def fp32(self):
        return self.transformers(torch.float32)

    def prompt(self, length: int, seed: int = 0) -> list[int]:
        """Random ordinary tokens."""
        draw = torch.Generator().manual_seed(seed + 1000 * length)
        return torch.randint(0, 290, (length,), generator=draw).tolist()

    def transformers(self, dtype: torch.dtype):
        from transformers import GptOssForCausalLM, Mxfp4Config

        options = {"dtype": dtype, "attn_implementation": "eager"}
        if open_checkpoint(self.theirs).layout.encoding == "mxfp4":
            options["quantization_config"] = Mxfp4Config(dequantize=True)
        model = GptOssForCausalLM.from_pretrained(self.theirs, **options).eval()
        assert {parameter.dtype for parameter in model.parameters()} == {dtype}
        return model

    def haast(self, dtype: torch.dtype, encoding: Encoding, max_batch_size: int = 1) -> Loaded:
        """Our engine over these weights; keys and values are cached in the same dtype."""
        checkpoint = open_checkpoint(self.ours)
        wishes = EngineConfig(max_length=MAX_LENGTH, max_batch_size=max_batch_size)
        source = Source(checkpoint.folder, checkpoint.layout.name, ())
        plan = make_plan(wishes, checkpoint.config, source, encoding, CPU)
        parameters = load_parameters(checkpoint, encoding, CPU).to(dtype)
        return assemble(GptOss(checkpoint.config, parameters, MAX_LENGTH), plan, frozenset())


@torch.inference_mode()
def their_logits(model, token_ids: list[int]) -> Tensor:
    """[len(token_ids), V] fp32."""
    return model(torch.tensor([token_ids])).logits[0].float()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tensors are tiny, and the test processes share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def random_pair(tmp_path_factory) -> Pair:
    folder = tmp_path_factory.mktemp("parity")
    like = write_config(folder / "config.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_checkpoint, "_write_tokenizer", lambda out: None)
        for layout in ("hf", "bf16"):
            write_checkpoint.make_checkpoint(like, folder / layout, layout=layout, seed=11)
    return Pair(theirs=folder / "bf16", ours=folder / "hf")


@pytest.fixture(scope="session")
def pair(request, random_pair) -> Pair:
    """Parametrised indirectly by `haast-tiny` and `random`."""
    demo = demo_folder()
    return {"haast-tiny": Pair(demo, demo), "random": random_pair}[request.param]
