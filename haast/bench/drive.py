"""`python -m haast.bench.drive OP --tokens N`: calls one op, for a profiler to watch.

Its last line says in JSON what the call cannot avoid: nbytes and flop.
"""

import argparse
import json
from dataclasses import asdict

import torch

from haast.bench.cases import BUILDERS, Draw, read_config
from haast.bench.experts import op_work
from haast.bench.machine import hopper, one_line
from haast.bench.rooflines import Work
from haast.bench.tables import find_op

WARMUP = 3
"""Calls before the one to look at"""


def drive(name: str, model: str, num_tokens: int) -> Work:
    """WARMUP calls of an op at a model's shapes and one more; what one of them cannot avoid."""
    op = find_op(name)
    config = read_config(model)
    with one_line():
        arguments = BUILDERS[name](Draw.on(hopper()), config, num_tokens)
        for _ in range(WARMUP + 1):
            op(*arguments)
    torch.cuda.synchronize()
    return op_work(name, config, arguments)


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("op")
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", type=int, required=True)
    options = parser.parse_args()
    print(json.dumps(asdict(drive(options.op, options.model, options.tokens))))


if __name__ == "__main__":
    main()
