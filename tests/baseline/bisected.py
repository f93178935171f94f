"""What `git bisect run` runs: `haast baseline check`, whose commands measure product.json."""

import json
import sys
from pathlib import Path

from haast.__main__ import main
from haast.baseline import machine, running
from haast.baseline.errors import UnmeasuredError
from tests.baseline.made_up import coherence, decode, kernels, prefill


def run_case(case):
    product = json.loads(Path("product.json").read_text())
    if product["is_broken"]:
        raise UnmeasuredError("ended with code 1: SyntaxError")
    results = {
        "coherence": coherence(product["is_coherent"]),
        "decode": decode(b1=product["speed"], b64=70.0),
        "prefill": prefill(50.0),
        "kernels": kernels(),
    }
    return results[case.name]


if __name__ == "__main__":
    running.run_case = run_case
    machine.program_output = lambda command: "NVIDIA Test, 580.1, 9.0"
    main(["baseline", "check", *sys.argv[1:]])
