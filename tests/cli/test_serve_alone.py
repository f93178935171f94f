"""`haast serve` as a process without a network: the baseline's flags, and what it logs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import haast.harmony
from haast.model.locate import demo_folder

ROOT = Path(__file__).parents[2]
BASELINE = [
    *("--model-path", demo_folder(), "--quantization-encoding", "float4_e2m1fnx2"),
    *("--devices", "cpu", "--device-memory-utilization", "0.9", "--max-batch-size", "512"),
    *("--chat-template", Path(haast.harmony.__file__).with_name("chat_template.jinja")),
    *("--max-length", "640", "--enable-in-flight-batching", "--pretty-print-config"),
    *("--custom-architectures", ROOT / "examples" / "custom_architecture.py"),
]


def may_unshare() -> bool:
    """Whether processes may have a network of their own here."""
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "--map-root-user", "--net", "true"]
    return subprocess.run(tried, capture_output=True).returncode == 0


def test_it_starts_answers_and_ends_without_a_network(tmp_path):
    own_network = may_unshare()
    command = ["unshare", "--map-root-user", "--net"] if own_network else []
    command += [sys.executable, "-m", "tests.cli.alone", tmp_path]
    command += ["unshare" if own_network else "refuse", *BASELINE]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=environment, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout)
    assert told["answer"]["usage"]["completion_tokens"] == 5, told["lines"]
    assert told["code"] == 0
    text = "".join(told["lines"])
    assert "network" not in text
    assert re.search(r"^  device +cpu$", text, re.M) and re.search(
        r"^  encoding +mxfp4$", text, re.M
    )
    assert told["lines"][-1].startswith("haast: ready at "), "nothing is said of a request"
    assert not re.search("warning|error|traceback", text, re.I)
