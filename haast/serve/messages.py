"""What the server and the engine process tell each other. Token ids only; no text of users."""

from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from haast.config import EngineConfig, Plan
from haast.engine.request import FinishReason, SamplingParams, TokenLogprobs


class EngineDownError(RuntimeError):
    """The engine process does not run, or cannot run another step; its text says why.

    retry_s  when it may be worth while to ask again
    """

    def __init__(self, reason: str, retry_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_s = retry_s


class Tokens(NamedTuple):
    """News of one answer to a call; the last of an answer is the one with a finish reason.

    index          which of the params.n answers
    token_ids      all new ones since the last news; may be none in the last
    logprobs       one a token if the call asks for them, else None
    finish_reason  stop, length, cancelled or error
    cached_tokens  prompt tokens that were found in the prefix cache
    error          why it ended, if that was an error
    number         which of all answers, for `EngineClient.cancel`
    """

    index: int  # type: ignore[assignment]  # tuple.index: nobody searches in this one
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] | None
    finish_reason: FinishReason | None
    cached_tokens: int
    error: str | None
    number: int = -1


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What was loaded.

    model_path  folder of the checkpoint or of the config.json
    found       which weights were found and from which files, in one line
    tokenizer   path of the tokenizer file
    plan        `haast.config.Plan` as plain data
    load_s      seconds from wishes to ready
    """

    model_path: str
    found: str
    tokenizer: str
    max_length: int
    max_batch_size: int
    vocab_size: int
    kv_tokens: int
    plan: dict[str, Any]
    load_s: float

    @property
    def decided(self) -> Plan:
        """The plan as it was made."""
        return msgspec.convert(self.plan, Plan, dec_hook=from_plain)


class EngineStats(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """How the engine is doing; all that is counted is counted since it started.

    num_waiting     requests that do not run yet or any more
    kv_usage        share of the KV cache that requests hold, in [0, 1]
    prefix_queries  prompt tokens of the requests that were admitted
    prefix_hits     those of them whose keys and values were cached
    short_steps     steps whose logits came by way of a shadow head
    dead_because    why there is no engine, yet or any more
    num_drafts, num_draft_tokens, num_accepted_tokens, accepted_per_position
                    of guesses, see `haast.engine.drafts.DraftCounts`
    """

    num_running: int = 0
    num_waiting: int = 0
    kv_usage: float = 0.0
    prefix_queries: int = 0
    prefix_hits: int = 0
    num_preemptions: int = 0
    steps: int = 0
    short_steps: int = 0
    dead_because: str | None = None
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    accepted_per_position: tuple[int, ...] = ()


class Start(msgspec.Struct, tag=True, array_like=True):
    """The first message to the engine process."""

    config: EngineConfig


class Submit(msgspec.Struct, tag=True, array_like=True):
    """Generate the params.n answers to a prompt.

    number  of the first answer; the others have the numbers after it
    prompt  token ids as int32, of this machine's byte order
    """

    number: int
    prompt: bytes
    params: SamplingParams
    priority: int
    salt: str | None


class Cancel(msgspec.Struct, tag=True, array_like=True):
    """Forget answers; those that have ended are not an error."""

    numbers: list[int]


class Progress(msgspec.Struct, tag=True, array_like=True):
    """Bytes of weights that have been loaded, and in all."""

    done: int
    total: int


class Found(msgspec.Struct, tag=True, array_like=True):
    """The model is there and its loading begins; where its tokenizer is."""

    tokenizer: str


class Ready(msgspec.Struct, tag=True, array_like=True):
    """The model is loaded."""

    info: EngineInfo


class Unloadable(msgspec.Struct, tag=True, array_like=True):
    """Something is wrong with wishes or files, in one line; the process ends."""

    message: str


class Refused(msgspec.Struct, tag=True, array_like=True):
    """A call that was not taken: the queue is full, or it could never run."""

    number: int
    is_queue_full: bool
    message: str


class News(msgspec.Struct, array_like=True):
    """All that a step gave one answer, where that is more than a token or has more to it."""

    number: int
    token_ids: list[int]
    logprobs: list[TokenLogprobs]
    finish_reason: FinishReason | None
    cached_tokens: int
    error: str | None


class Stepped(msgspec.Struct, tag=True, array_like=True):
    """What a step gave all answers: tokens one each of `numbers`, which come first; then `news`."""

    numbers: list[int]
    token_ids: list[int]
    news: list[News]
    stats: EngineStats | None = None


class Dead(msgspec.Struct, tag=True, array_like=True):
    """The device cannot run another step; the process ends."""

    reason: str


ToEngine = Start | Submit | Cancel
FromEngine = Found | Progress | Ready | Unloadable | Refused | Stepped | Dead


def to_plain(value: Any) -> Any:
    """For msgspec: a path as text."""
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} cannot be sent")


def from_plain(kind: type, value: Any) -> Any:
    """For msgspec: the inverse of `to_plain`."""
    assert kind is Path, kind
    return Path(value)


def inbox_address(folder: Path) -> str:
    """Where the engine process listens."""
    return f"ipc://{folder}/to-engine"


def outbox_address(folder: Path) -> str:
    """Where the server listens."""
    return f"ipc://{folder}/from-engine"
