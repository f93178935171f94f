"""What a machine has and needs besides a GPU."""

import errno
import socket
from pathlib import Path

import torch

from haast.bench.machine import BenchError
from haast.bench.ncu import find_ncu
from haast.bench.processor import cpu_name, num_cores
from haast.doctor.finding import Finding, bad, note, ok
from haast.engine.device import free_memory
from haast.engine.load import PACKAGED_TOKENIZER
from haast.harmony.tokenizer import Tokenizer, TokenizerError
from haast.model.checkpoint import open_checkpoint
from haast.model.locate import DEMO, demo_folder
from haast.model.safetensors_file import CheckpointError

REINSTALL = "a file of the package is damaged; install it again: pip install --force-reinstall"
SENTENCE = "A bald eagle is 3.5 feet tall; ¿qué es? 白头鹰 🦅"


def host_findings(port: int) -> list[Finding]:
    """port  where a server would listen"""
    return [cpu(), demo(demo_folder()), tokenizer(PACKAGED_TOKENIZER), ncu(), free_port(port)]


def cpu() -> Finding:
    free = free_memory(torch.device("cpu"))
    return ok("CPU", f"{cpu_name()}, {num_cores()} cores, {free / 1e9:.1f} GB free")


def demo(folder: Path) -> Finding:
    """Its headers; `haast coherence` tells whether it makes sense."""
    try:
        open_checkpoint(folder)
    except CheckpointError as error:
        return bad(DEMO, str(error), REINSTALL)
    return ok(DEMO, "bundled and whole; haast coherence asks it")


def tokenizer(path: Path) -> Finding:
    """The vocabulary that comes with the package: no network is needed for gpt-oss's."""
    try:
        found = Tokenizer(path)
    except TokenizerError as error:
        return bad("tokenizer", str(error), REINSTALL)
    if found.decode(found.encode(SENTENCE)) != SENTENCE:
        return bad("tokenizer", f"{path} does not give back the text it is given", REINSTALL)
    return ok("tokenizer", f"bundled, {found.vocab_size:,} tokens, needs no network")


def ncu() -> Finding:
    """Only `haast profile` wants it."""
    try:
        return ok("ncu", find_ncu())
    except BenchError as error:
        return note("ncu", "not found", f"{error}; only haast profile needs it")


def free_port(port: int) -> Finding:
    """Whether a server could listen there."""
    what = f"port {port}"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("0.0.0.0", port))
            # another listener may share the address and not the queue
            tried.listen(1)
        except OSError as error:
            text = "taken" if error.errno == errno.EADDRINUSE else str(error.strerror)
            return note(what, text, "serve on another: haast serve --port")
    return ok(what, "free")
