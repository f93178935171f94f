"""What a result of the load says of itself, of the server and of the machine."""

from dataclasses import asdict
from datetime import date
from typing import Any

import uvloop

from haast.bench.checkout import commit, program_output
from haast.bench.load.prompts import Requests
from haast.bench.load.target import Target, model_name, server_version

LOCAL = ("localhost", "127.0.0.1", "::1")
_GPU = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")


def served_model(target: Target) -> str:
    """The first model that the server names. Raises LoadError."""
    return uvloop.run(model_name(target))


def about(target: Target, requests: Requests) -> dict[str, Any]:
    """What the JSON result begins with. The GPU is told of a server on this machine only."""
    is_local = target.host in LOCAL
    gpu, driver = first_gpu(program_output(_GPU)) if is_local else (None, None)
    return {
        "bench": "serve",
        "date": date.today().isoformat(),
        "commit": commit(),
        "gpu": gpu,
        "driver": driver,
        "server": str(target),
        "server_version": uvloop.run(server_version(target)),
        **asdict(requests),
    }


def first_gpu(listing: str | None) -> tuple[str | None, str | None]:
    """Name and driver in the first line of nvidia-smi's CSV."""
    name, _, driver = (listing or "").partition("\n")[0].partition(", ")
    return name or None, driver or None
