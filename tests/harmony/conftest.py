"""The real vocabulary, and openai-harmony as the oracle."""

import gzip
from importlib.metadata import distribution
from pathlib import Path

import openai_harmony
import pytest

import haast
from haast.harmony import Tokenizer

TOKENIZER_PATH = Path(haast.__file__).parent / "data" / "gpt-oss-20b" / "tokenizer.json.xz"


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(TOKENIZER_PATH)


@pytest.fixture(scope="session")
def encoding(tmp_path_factory):
    """openai-harmony's encoding, its vocabulary from the bpe-openai package: no download."""
    folder = tmp_path_factory.mktemp("vocabulary")
    packed = distribution("bpe-openai").locate_file("bpe_openai/data/o200k_base.tiktoken.gz")
    (folder / "o200k_base.tiktoken").write_bytes(gzip.decompress(Path(packed).read_bytes()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_ENCODINGS_BASE", str(folder))
        return openai_harmony.load_harmony_encoding("HarmonyGptOss")
