"""A Ray cluster of this machine with two replicas of haast-tiny, as `haast deploy` starts it."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Self

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
HOOK = "tests.integrations.loopback.listen_on_loopback"
START_S = 240
"""Patience on a busy machine; it takes a twentieth of that on an idle one"""


class Cluster:
    """What `haast deploy` started, in processes that know it by a folder in their environment."""

    def __init__(self, folder: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)
        self.output = []
        self._mark = f"RAY_TMPDIR={folder}".encode()
        self._options = ["--host", "127.0.0.1", "--port", str(port)]
        self._env = os.environ | {
            "PYTHONPATH": str(ROOT),
            "RAY_TMPDIR": folder,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(
                {"runtime_env": {"worker_process_setup_hook": HOOK}}
            ),
        }
        self._process: subprocess.Popen | None = None
        self._reading: threading.Thread | None = None
        self._address = ""

    def begin(self) -> Self:
        self._process = self._deploy()
        self._address = self._read_until_ready()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        return self

    def end(self) -> None:
        """Whatever there still is."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            if self._reading is not None:
                self._reading.join()
            self._process.stderr.close()

    def _deploy(self, *options: str) -> subprocess.Popen:
        """`haast deploy` of two replicas on the CPU."""
        command = [sys.executable, "-m", "haast", "deploy", "--replicas", "2"]
        command += ["--gpus-per-replica", "0", "--shutdown-timeout", "60"]
        return subprocess.Popen(
            [*command, *self._options, *options],
            env=self._env,
            cwd=ROOT,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def update(self, *options: str) -> None:
        """Deploy again; returns when all replicas are new."""
        process = self._deploy("--address", self._address, *options)
        _, told = process.communicate(timeout=START_S)
        assert process.returncode == 0, told

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def processes(self, name: str = "") -> list[int]:
        """Those of the cluster that are called so."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark in (folder / "environ").read_bytes().split(b"\0"):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found += [int(folder.name)] if name in command else []
            except OSError:
                continue  # it has ended, or is another user's
        return found

    def counts(self, name: str) -> dict[str, float]:
        """The sum of a metric's samples, a replica."""
        text = httpx.get(f"{self.url}/metrics", timeout=30).raise_for_status().text
        counts = defaultdict(float)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name:
                    counts[sample.labels["engine"]] += sample.value
        return dict(counts)

    def until(self, holds, patience_s: float = 60.0) -> None:
        end = time.monotonic() + patience_s
        while not holds():
            assert time.monotonic() < end, "".join(self.output[-40:])
            time.sleep(0.2)

    def _read_until_ready(self) -> str:
        watch = threading.Timer(START_S, self._process.kill)
        watch.start()
        try:
            for line in self._process.stderr:
                self.output.append(line)
                if match := re.search(r"haast: ready at .* --address (\S+) updates", line):
                    return match[1]
        finally:
            watch.cancel()
        raise AssertionError("".join(self.output))

    def _read(self) -> None:
        self.output += self._process.stderr


@pytest.fixture(scope="module")
def cluster():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # sockets want a short path
        started = Cluster(folder, port)
        try:
            yield started.begin()
        finally:
            started.end()
