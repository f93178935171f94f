"""`python -m haast.bench.start_process JSON`: starts a model, to its first tokens, and tells when.

The JSON holds began_ns (time.monotonic_ns before this process was started), input (tokens of the
prompt) and wishes (fields of EngineConfig). Imports only the standard library before it counts.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haast.engine.wake import importing, wake
from haast.errors import HaastError

TOKENS = 4
"""Of the answer: of steps that are CUDA graphs the second is run, one captured, one replayed"""


class Clock:
    """Phases one after the other, and what is timed apart inside of them.

    phases  (name, seconds), in order; they add up to the time since began_ns
    """

    def __init__(self, began_ns: int, now_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.phases: list[tuple[str, float]] = []
        self._now_ns = now_ns
        self._last_ns = began_ns
        self._inside: dict[str, int] = {}

    def end(self, name: str) -> None:
        """What was not timed apart since the last end is this phase, the rest phases before it."""
        now_ns = self._now_ns()
        rest_ns = now_ns - self._last_ns - sum(self._inside.values())
        self.phases += [(inner, ns / 1e9) for inner, ns in self._inside.items()]
        self.phases.append((name, rest_ns / 1e9))
        self._last_ns = now_ns
        self._inside = {}

    def apart(
        self, name: str, function: Callable[..., Any], wait: Callable[[], object] = lambda: None
    ) -> Callable[..., Any]:
        """The function, its calls timed under this name until `wait` has returned."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began_ns = self._now_ns()
            try:
                result = function(*args, **kwargs)
                wait()
                return result
            finally:
                took_ns = self._now_ns() - began_ns
                self._inside[name] = self._inside.get(name, 0) + took_ns

        return timed


def start(clock: Clock, wishes: dict[str, Any], input_len: int) -> dict[str, Any]:
    """Load a model as `haast.llm.LLM` does and run one prompt; what kind of start it was."""
    wake(wishes["devices"])
    with importing():
        import torch

        clock.end("import torch")
        from haast.cuda import launcher
        from haast.engine import loading
        from haast.engine.load import Loaded, assemble, prepare
        from haast.grammars import LlGrammars
        from haast.harmony import Tokenizer
        from haast.model import weights
        from haast.mxfp4 import HopperLayout

        clock.end("other imports")
    has_gpu = wishes["devices"] != "cpu" and torch.cuda.is_available()
    wait: Callable[[], object] = torch.cuda.synchronize if has_gpu else lambda: None
    torch.zeros(1, device="cuda" if has_gpu else "cpu")
    wait()
    clock.end("CUDA context")
    path = wishes["model_path"]
    prepared = prepare(_config(wishes | {"model_path": path and Path(path)}))
    clock.end("plan")
    model = loading.Loading(prepared)
    clock.end("dummy weights begun")
    tokenizer = Tokenizer(prepared.tokenizer)
    clock.end("tokenizer")
    grammars = LlGrammars(tokenizer, prepared.config.vocab_size)
    weights.read_in_parts = clock.apart("reading files", weights.read_in_parts)
    HopperLayout.swizzle = clock.apart("swizzle", HopperLayout.swizzle, wait)  # type: ignore[method-assign]

    def after_weights(*args: Any, **kwargs: Any) -> Loaded:
        wait()
        clock.end("weights")
        return assemble(*args, **kwargs)

    loading.assemble = after_weights  # type: ignore[attr-defined]
    loaded = model.finish(tokenizer.stop_ids, grammars)
    wait()
    clock.end("KV cache, engine")
    launcher._kernel = clock.apart("cubins", launcher._kernel)  # type: ignore[assignment]
    _answer(clock, loaded.engine, input_len, prepared.config.vocab_size)
    return {
        "model": prepared.plan.model_path.name,
        "load_format": wishes["load_format"],
        "device": prepared.plan.device,
        "weight_bytes": prepared.plan.memory.weight_bytes,
        "torch": torch.__version__,
    }


def _config(wishes: dict[str, Any]) -> Any:
    from haast.config import EngineConfig

    return EngineConfig(**wishes)


def _answer(clock: Clock, engine: Any, input_len: int, vocab_size: int) -> None:
    """A phase a token."""
    from haast.engine.request import SamplingParams

    prompt = [7919 * i % vocab_size for i in range(1, 1 + input_len)]
    params = SamplingParams(temperature=0, max_new_tokens=TOKENS, ignore_eos=True)
    engine.submit(prompt, params)
    names = iter(["first token", *(f"token {n}" for n in range(2, 1 + TOKENS))])
    while engine.has_work:
        for _ in engine.step():
            clock.end(next(names))


def main(argument: str) -> None:
    """The command line above; the last line that it prints is JSON."""
    asked = json.loads(argument)
    clock = Clock(asked["began_ns"])
    clock.end("interpreter")
    try:
        facts = start(clock, asked["wishes"], asked["input"])
    except HaastError as error:
        sys.exit(str(error))
    print(json.dumps({**facts, "phases": clock.phases}))


if __name__ == "__main__":
    main(sys.argv[1])
