"""What each kernel of a decode step is for, from its symbol and its neighbours, and its work.

A product of few tokens has one symbol whatever it multiplies: which one it is shows in what comes
before and after it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from haast.bench.experts import BF16_BYTES, down_work, up_work
from haast.bench.rooflines import Work
from haast.config import ModelConfig

WORDS = (
    ("rms_norm", "norm"),
    ("norm", "norm"),
    ("qkv", "qkv"),
    ("rope", "rope"),
    ("attention_merge", "merge"),
    ("attention", "attention"),
    ("out_proj", "o"),
    ("router", "router"),
    ("route", "route"),
    ("moe_gather", "gather"),
    ("moe_up", "up"),
    ("moe_down", "down"),
    ("moe_combine", "combine"),
    ("lm_head", "head"),
    ("sample", "sample"),
    ("linear", "product"),
    ("gemm", "product"),
    ("gemv", "product"),
    ("nvjet", "product"),
    ("splitk", "product"),
)
"""Words of symbols -> parts of the network; a fused kernel may have several. The first fits"""
PRODUCTS = {"rope": "qkv", "attention": "qkv", "sample": "head"}
"""What a product is by the part that comes next; before routing and experts it is o or router"""
NEXT = (*PRODUCTS, "route", "up", "down")
LAST = ("qkv", "attention", "o", "router", "down", "head")
PARTIAL = "splitk"
"""In the symbol of the second kernel of one of the library's products, in lower case"""


@dataclass(frozen=True)
class DecodeShape:
    """A step of plain decodes."""

    config: ModelConfig
    batch: int
    context: int
    """keys of each request"""
    experts: tuple[int, ...]
    """distinct ones of each layer"""
    cache_bytes: int
    """of a number in the KV cache"""


def short_symbol(name: str) -> str:
    """`void at::native::fill<int>(int)` -> fill; a C symbol or a copy as it is."""
    if name.startswith("Mem"):
        return name
    plain = name.removeprefix("void ").replace("(anonymous namespace)::", "")
    return re.split(r"[<(]", plain)[0].split("::")[-1]


def told_apart(name: str, layer: int | None, config: ModelConfig) -> str:
    """A part's name; attention to a window is told apart from that to all keys."""
    is_window = layer is not None and config.windows[layer] is not None
    return f"{name}, window" if is_window and "attention" in name else name


def kernel_parts(symbols: Sequence[str]) -> list[tuple[str, ...]]:
    """Parts of the network that each kernel of a step computes, in order; () = none known."""
    raw = [_words(symbol) for symbol in symbols]
    found: list[tuple[str, ...]] = []
    for index, parts in enumerate(raw):
        if "product" in parts:
            role = _product(symbols[index], found, raw[index + 1 :])
            parts = tuple(role if part == "product" else part for part in parts)
        found.append(parts)
    return found


def kernel_works(
    parts: Sequence[tuple[str, ...]], shape: DecodeShape
) -> list[tuple[int | None, Work | None]]:
    """(layer, work) of each kernel; None before the first layer, and where nobody counts it.

    A layer begins with its qkv.
    """
    layer = -1
    found: list[tuple[int | None, Work | None]] = []
    for some in parts:
        layer += "qkv" in some
        works = [_work(part, max(layer, 0), shape) for part in some]
        known = [work for work in works if work is not None]
        total = sum(known[1:], known[0]) if known else None
        found.append((layer if layer >= 0 else None, total))
    return found


def _words(symbol: str) -> tuple[str, ...]:
    """Parts in a symbol's words, in the order of the words; of torch's own kernels none."""
    if "at::" in symbol:
        return ()
    left = symbol.lower()
    found: dict[str, int] = {}
    for word, part in WORDS:
        if word in left:
            found.setdefault(part, left.index(word))
            left = left.replace(word, " " * len(word))
    return tuple(sorted(found, key=lambda part: found[part]))


def _product(symbol: str, before: list[tuple[str, ...]], after: list[tuple[str, ...]]) -> str:
    """Which of the network's products it is."""
    past = [part for parts in reversed(before) for part in reversed(parts)]
    last = next((part for part in past if part in LAST), "")
    if PARTIAL in symbol.lower():
        return f"{last} sum"
    coming = next((part for parts in after for part in parts if part in NEXT), "sample")
    if coming in PRODUCTS:
        return PRODUCTS[coming]
    return "router" if last in ("o", "router") else "o"


def _work(part: str, layer: int, shape: DecodeShape) -> Work | None:
    """What a part of one layer cannot avoid."""
    config, tokens = shape.config, shape.batch
    hidden, heads = config.hidden_size, config.num_heads * config.head_dim
    products = {
        "qkv": (config.qkv_size, hidden),
        "o": (hidden, heads),
        "router": (config.num_experts, hidden),
        "head": (config.vocab_size, hidden),
    }
    if part in products:
        n, k = products[part]
        return Work(BF16_BYTES * (n * k + tokens * (n + k)), 2 * tokens * n * k)
    if part in ("up", "down"):
        return {"up": up_work, "down": down_work}[part](config, tokens, shape.experts[layer])
    if part == "attention":
        return _attention(layer, shape)
    moved = {
        "norm": (4 * tokens + 1) * hidden,  # the sum's terms, its result, the normalised one
        "rope": 2 * tokens * config.qkv_size,
        "sample": tokens * config.vocab_size,
        # logits; ids, weights, gather and scatter indices of four bytes
        "route": tokens * (config.num_experts + 8 * config.num_active_experts),
    }
    return Work(BF16_BYTES * moved[part], 0) if part in moved else None


def _attention(layer: int, shape: DecodeShape) -> Work:
    """Visible keys and values once, queries in, results out."""
    config = shape.config
    keys = min(config.windows[layer] or shape.context, shape.context)
    cached = 2 * keys * config.num_kv_heads * config.head_dim
    heads = config.num_heads * config.head_dim
    nbytes = shape.batch * (shape.cache_bytes * cached + 2 * BF16_BYTES * heads)
    return Work(nbytes, shape.batch * 4 * keys * heads)
