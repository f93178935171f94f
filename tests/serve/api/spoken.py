"""What a model says, as the token ids of haast-tiny's vocabulary."""

from collections.abc import Callable, Sequence

from haast.engine.request import SamplingParams, TokenLogprobs
from haast.harmony import Tokenizer
from haast.model.locate import demo_folder
from haast.serve.client import Tokens

from ..fake_client import tokens

TOKENIZER = Tokenizer(demo_folder() / "tokenizer.json")
SPECIAL = TOKENIZER.special
NEXT = [SPECIAL.end, SPECIAL.start, *TOKENIZER.encode("assistant")]


def message(channel: str, text: str, recipient: str = "") -> list[int]:
    """A message up to its end marker; recipient: of a tool call."""
    header = TOKENIZER.encode(f" to={recipient}") if recipient else []
    header += [SPECIAL.channel, *TOKENIZER.encode(channel)]
    header += TOKENIZER.encode(" json") if recipient else []
    return [*header, SPECIAL.message, *TOKENIZER.encode(text)]


def call(text: str, name: str = "functions.lookup") -> list[int]:
    return [*message("commentary", text, name), SPECIAL.call]


def thought_and_said(thought: str, said: str) -> list[int]:
    return [*message("analysis", thought), *NEXT, *message("final", said), SPECIAL.return_]


def logprobs_of(token_id: int, count: int) -> TokenLogprobs:
    top = tuple((token_id + i, -0.5 - i) for i in range(count))
    return TokenLogprobs(-0.5, top)


def news(
    token_ids: Sequence[int], params: SamplingParams, *, end: str = "stop", at_once: int = 1
) -> list[Tokens]:
    """The ids so many at a time, to every answer."""
    told = []
    for start in range(0, len(token_ids), at_once):
        part = token_ids[start : start + at_once]
        scored = None
        if params.logprobs is not None:
            scored = tuple(logprobs_of(i, params.logprobs) for i in part)
        is_last = start + at_once >= len(token_ids)
        for index in range(params.n):
            reason = end if is_last else None
            told.append(tokens(*part, index=index, end=reason, cached=2, logprobs=scored))
    return told


def says(token_ids: Sequence[int], **how) -> Callable[..., list[Tokens]]:
    """A script for FakeClient."""
    return lambda _prompt, params: news(token_ids, params, **how)
