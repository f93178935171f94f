"""What a Serve config may say, and what becomes of it."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from haast.config import EngineConfig
from haast.errors import HaastError
from haast.integrations.ray_serve import ROUTER, Wishes, app
from haast.serve.service import Settings


def built(**args):
    """The deployment of replicas, and what its replicas are made with."""
    application = app(Wishes(**args))
    (replicas,) = application._bound_deployment.init_args
    deployment = replicas._bound_deployment
    return deployment, deployment.init_args


def test_a_config_of_plain_values():
    engine = {"model_path": "gpt-oss-20b", "max_batch_size": 64, "load_format": "dummy"}
    deployment, (config, settings) = built(engine=engine, replicas=3, drain_s=7)
    assert config.model_path == Path("gpt-oss-20b") and config.devices == "gpu:0"
    assert settings == Settings(("gpt-oss-20b",))
    assert deployment.num_replicas == 3 and deployment.ray_actor_options["num_gpus"] == 1
    assert deployment.max_ongoing_requests == 80
    assert deployment._deployment_config.graceful_shutdown_timeout_s == 7
    assert deployment._deployment_config.request_router_config.request_router_class == ROUTER


@pytest.mark.parametrize("gpus, devices", [(0, "cpu"), (1, "gpu:0"), (4, "gpu:0,1,2,3")])
def test_devices_follow_from_the_gpus(gpus, devices):
    deployment, (config, settings) = built(gpus_per_replica=gpus)
    assert config.devices == devices and settings.models == ("haast-tiny",)
    assert deployment.ray_actor_options["num_gpus"] == gpus
    assert deployment.max_ongoing_requests == (320 if gpus else 10)


def test_autoscaling():
    deployment, _ = built(replicas=2, max_replicas=6)
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 6)
    assert scaling.target_ongoing_requests == 192
    deployment, _ = built(replicas=2, max_replicas=6, target_requests=10)
    assert deployment._deployment_config.autoscaling_config.target_ongoing_requests == 10


@pytest.mark.parametrize(
    "args, told",
    [
        ({"replica": 2}, "replica"),
        ({"replicas": 0}, "replicas"),
        ({"engine": {"model": "x"}}, "unknown: model; known: model_path"),
        ({"settings": {"model": "x"}}, "unknown: model; known: models"),
        ({"engine": {"max_batch_size": "many"}}, "max_batch_size"),
    ],
)
def test_mistakes_are_told(args, told):
    with pytest.raises(ValidationError, match=told):
        Wishes(**args)


def test_wishes_that_contradict_each_other():
    with pytest.raises(HaastError, match="max_replicas is 1, less than replicas, which is 2"):
        built(replicas=2, max_replicas=1)
    with pytest.raises(HaastError, match="devices follows from gpus_per_replica"):
        built(engine=EngineConfig(devices="cpu"))
