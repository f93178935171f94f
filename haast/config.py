"""ModelConfig: what the network is. EngineConfig: what the user wishes. Plan: what was decided."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from haast.errors import ConfigError
from haast.speculative_config import SpeculativeConfig

__all__ = [
    "CACHE_FORMATS",
    "PAGE_SIZES",
    "CacheFormat",
    "ConfigError",
    "Encoding",
    "EncodingWish",
    "EngineConfig",
    "LoadFormat",
    "MemoryPlan",
    "ModelConfig",
    "OpChoice",
    "Plan",
    "RopeConfig",
    "SpeculativeConfig",
]

Encoding = Literal["mxfp4", "bfloat16"]
EncodingWish = Literal["auto", "mxfp4", "float4_e2m1fnx2", "bfloat16"]
LoadFormat = Literal["auto", "dummy"]
CacheFormat = Literal["bfloat16", "float8_e4m3fn"]
CACHE_FORMATS: tuple[CacheFormat, ...] = ("bfloat16", "float8_e4m3fn")
PAGE_SIZES = (64, 128, 256)


@dataclass(frozen=True)
class RopeConfig:
    """YaRN rotary embedding."""

    theta: float
    factor: float
    beta_fast: float
    beta_slow: float
    original_max_length: int
    truncate: bool


@dataclass(frozen=True)
class ModelConfig:
    """The shapes and constants of one gpt-oss network; letters as in ARCHITECTURE.md."""

    architecture: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_experts: int
    num_active_experts: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    windows: tuple[int | None, ...]
    """per layer, keys visible including self; None = all"""
    rope: RopeConfig
    swiglu_limit: float
    rms_norm_eps: float
    max_length: int

    @property
    def qkv_size(self) -> int:
        """Rows of the fused query-key-value projection."""
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim


@dataclass(frozen=True)
class EngineConfig:
    """The user's wishes. None means: decide for me."""

    model_path: Path | None = None
    devices: str | None = None
    """cpu, gpu or gpu:N; gpu:N,M,... or Nxcpu split the model over several GPUs of this machine, or
    N processes on its CPU; None = the first GPU if there is one, else the CPU"""
    quantization_encoding: EncodingWish = "auto"
    max_length: int | None = None
    max_batch_size: int | None = None
    """None: 256 on a GPU, 8 on the CPU"""
    device_memory_utilization: float = 0.9
    chat_template: Path | None = None
    custom_architectures: tuple[str, ...] = ()
    load_format: LoadFormat = "auto"
    max_batch_input_tokens: int = 8192
    """tokens that one step computes at most, over all its requests"""
    enable_in_flight_batching: bool = True
    """whether a step may decode some requests and read the prompts of others"""
    enable_prefix_caching: bool = True
    """whether a request finds keys and values that an earlier one computed for the same prefix"""
    deterministic: bool = False
    """whether a request's tokens and log-probabilities depend on it alone, to the bit: not on what
    shares its batch, on chunks or on cached prefixes. Slower; takes a GPU with kernels"""
    shortlist_head: bool = False
    """whether steps of few rows find their tokens by an 8-bit shadow of the language-model head
    wherever that gives the same tokens; takes half the head's memory besides it"""
    kv_cache_page_size: int = 128
    kv_cache_format: CacheFormat = "bfloat16"
    """of keys and values; float8_e4m3fn takes half the memory and keeps 3 bits of mantissa"""
    max_queue_size: int = 4096
    """requests that may wait; further ones are refused"""
    speculative_config: SpeculativeConfig | None = None
    """how next tokens are guessed, to be verified several a step; None = they are not"""

    def __post_init__(self) -> None:
        if not 0 < self.device_memory_utilization <= 1:
            raise ConfigError(
                "device_memory_utilization must lie in (0, 1]; "
                f"got {self.device_memory_utilization:g}"
            )
        for name in ("max_batch_size", "max_length", "max_batch_input_tokens", "max_queue_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1; got {value}")
        if self.max_batch_input_tokens < (self.max_batch_size or 1):
            raise ConfigError(
                "max_batch_input_tokens must be at least max_batch_size, so that every request can "
                f"decode; got {self.max_batch_input_tokens} and {self.max_batch_size}"
            )
        if self.shortlist_head and self.deterministic:
            raise ConfigError(
                "shortlist_head and deterministic exclude each other: with the latter the head is "
                "computed in another order"
            )
        if self.kv_cache_page_size not in PAGE_SIZES:
            raise ConfigError(
                f"kv_cache_page_size must be {', '.join(map(str, PAGE_SIZES[:-1]))} or "
                f"{PAGE_SIZES[-1]}; got {self.kv_cache_page_size}"
            )
        if self.kv_cache_format not in CACHE_FORMATS:
            raise ConfigError(
                f"kv_cache_format must be {' or '.join(CACHE_FORMATS)}; got {self.kv_cache_format}"
            )


@dataclass(frozen=True)
class OpChoice:
    """Which implementation of an op runs, and why."""

    op: str
    implementation: str | None
    """the one that is pinned; None = the first kernel of the op's table that accepts the call"""
    because: str


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes and what they buy."""

    available_bytes: int
    weight_bytes: int
    workspace_bytes: int
    """what a step of max_batch_input_tokens and its logits take besides, and CUDA graphs"""
    kv_bytes: int
    naive_kv_bytes: int
    """what as many positions would take if sliding layers kept all of them"""
    page_size: int
    num_pages: int
    """of full-attention layers"""
    num_window_pages: int
    """of sliding layers"""
    num_full_length: int
    """requests of max_length that fit at once"""
    cache_format: CacheFormat = "bfloat16"
    """of keys and values; with bfloat16 the cache has the dtype that the network computes in"""

    @property
    def kv_tokens(self) -> int:
        return self.num_pages * self.page_size


@dataclass(frozen=True)
class RankPlan:
    """What one of several ranks has of the model."""

    device: str
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    """of every expert"""
    num_tokens: int
    """of the vocabulary, whose scores it computes"""
    weight_bytes: int


@dataclass(frozen=True)
class Plan:
    """What will run. Made once, printed at start, never written to."""

    model_path: Path
    architecture: str
    layout: str
    files: tuple[str, ...]
    encoding: Encoding
    is_swizzled: bool
    """whether MXFP4 experts are held in the order that kernels read, not as stored"""
    device: str
    max_length: int
    max_batch_size: int
    """requests computed at a time; fewer than wished for if memory is short"""
    max_batch_input_tokens: int
    enable_in_flight_batching: bool
    enable_prefix_caching: bool
    max_queue_size: int
    has_graphs: bool
    """whether decode steps are replayed as CUDA graphs"""
    ops: tuple[OpChoice, ...]
    memory: MemoryPlan
    has_shadow_head: bool = False
    """whether steps of few rows may find their tokens by a shadow of the head"""
    speculative_config: SpeculativeConfig | None = None
    max_drafts: int = 0
    """guesses that one step verifies at most, over all its requests"""
    warning: str | None = None
    """what to tell the user before anything runs, in one line"""
    ranks: tuple[RankPlan, ...] = ()
    """processes that compute the model together, none if there is only this one; `memory` is that
    of rank 0, which has the most"""

    @property
    def pins(self) -> dict[str, str]:
        """Op name -> implementation, for `haast.ops.pin`; ops left to their kernels have none."""
        return {c.op: c.implementation for c in self.ops if c.implementation is not None}
