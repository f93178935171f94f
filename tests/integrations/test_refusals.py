"""What `haast deploy` refuses before a cluster is there."""

import json
import os
import socket
from unittest import mock

import pytest
from click.testing import CliRunner

from haast.cli.deploy import command
from haast.errors import HaastError


def refused(*options):
    """The one line that it ends with."""
    with mock.patch.dict(os.environ):
        error = CliRunner().invoke(command, options).exception
    assert isinstance(error, HaastError), error
    return str(error)


def test_no_cluster():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        told = refused("--address", address, "--gpus-per-replica", "0")
    assert told.startswith(f"cannot deploy: no Ray cluster at {address}: ") and "refused" in told


def test_the_printed_config_tells_no_key():
    options = ("--pretty-print-config", "--api-key", "secret", "--replicas", "3")
    with mock.patch.dict(os.environ):
        told = CliRunner().invoke(command, (*options, "--devices", "cpu")).output
    shown = json.loads(told)
    assert shown["replicas"] == 3 and shown["settings"]["api_keys"] == 1 and "secret" not in told


@pytest.mark.parametrize(
    "options, told",
    [
        (("--devices", "cpu"), "devices follows from gpus_per_replica; leave it out"),
        (
            ("--replicas", "3", "--max-replicas", "2"),
            "max_replicas is 2, less than replicas, which is 3",
        ),
    ],
)
def test_options_that_contradict(options, told):
    assert refused(*options) == told


def test_gpus_of_a_replica_have_one_name():
    with mock.patch.dict(os.environ):
        result = CliRunner().invoke(command, ("--tensor-parallel-size", "2"))
    why = "Error: --tensor-parallel-size is 2; --gpus-per-replica says that here"
    assert result.exit_code == 2 and result.output.splitlines()[-1] == why
