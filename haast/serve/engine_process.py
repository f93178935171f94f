"""The engine process: `python -m haast.serve.engine_process FOLDER`, started by `EngineClient`.

It has no other way to end well than the end of its standard input: whoever started it has closed
it, or is dead.
"""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from threading import Thread
from time import perf_counter

import msgspec

from haast.config import EngineConfig
from haast.engine.engine import Engine, EngineDeadError
from haast.engine.wake import importing, wake
from haast.errors import HaastError
from haast.serve.engine_loop import Channel, EngineLoop
from haast.serve.messages import (
    EngineInfo,
    Found,
    FromEngine,
    Progress,
    Ready,
    Start,
    Unloadable,
    to_plain,
)

Tell = Callable[[FromEngine], None]
Loader = Callable[[EngineConfig, Tell], tuple[Engine, EngineInfo]]


def load_engine(config: EngineConfig, tell: Tell) -> tuple[Engine, EngineInfo]:
    """As `haast.llm.LLM` does. Raises HaastError, in one line, for what the user can mend."""
    wake(config.devices)
    with importing():  # torch, for whom tests do not wait
        from haast.engine.load import prepare
        from haast.engine.loading import Loading
        from haast.grammars import LlGrammars
        from haast.harmony import Tokenizer

    started = perf_counter()
    progress = lambda done, total: tell(Progress(done, total))
    prepared = prepare(config)
    tell(Found(str(prepared.tokenizer)))
    plan = prepared.plan
    with Loading(prepared, progress) as loading:
        tokenizer = Tokenizer(prepared.tokenizer)
        grammars = LlGrammars(tokenizer, prepared.config.vocab_size)
        loaded = loading.finish(tokenizer.stop_ids, grammars)
    if loaded.runner.team is not None:
        loaded.runner.team.when_failed(_leave_with_rank)
    return loaded.engine, EngineInfo(
        model_path=str(plan.model_path),
        found=prepared.found,
        tokenizer=str(prepared.tokenizer),
        max_length=plan.max_length,
        max_batch_size=plan.max_batch_size,
        vocab_size=prepared.config.vocab_size,
        kv_tokens=plan.memory.kv_tokens,
        plan=msgspec.to_builtins(asdict(plan), enc_hook=to_plain),
        load_s=perf_counter() - started,
    )


def main(folder: Path, load: Loader = load_engine) -> int:
    """Serve until standard input ends.

    folder   of the two sockets
    load     makes the engine
    returns  exit status: 2 if the engine cannot be loaded as wished, 1 if it died
    """
    Thread(target=_leave_with_parent, args=(folder,), daemon=True).start()
    channel = Channel(folder)
    try:
        return _serve(channel, load)
    finally:
        channel.close()


def _serve(channel: Channel, load: Loader) -> int:
    (start,) = channel.receive(None)
    assert isinstance(start, Start), start
    try:
        engine, info = load(start.config, channel.send)
    except HaastError as error:
        channel.send(Unloadable(str(error)))
        return 2
    channel.send(Ready(info))
    try:
        EngineLoop(engine, channel).run()
    except EngineDeadError as error:
        print(error, file=sys.stderr, flush=True)
    return 1


def _leave_with_rank(reason: str) -> None:
    """An idle engine would notice with the next request only, one that waits for a GPU never."""
    print(f"haast: {reason}", file=sys.stderr, flush=True)
    os._exit(1)


def _leave_with_parent(folder: Path) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)  # a parent that was killed could not
    os._exit(0)


if __name__ == "__main__":
    # Not sys.exit: what a broken device left behind may keep the interpreter from ending.
    os._exit(main(Path(sys.argv[1])))
