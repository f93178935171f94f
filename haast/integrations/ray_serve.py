"""Ray Serve: replicas of haast on one machine or many, behind one endpoint with OpenAI's API.

`haast.integrations.ray_serve:app` is an import path for a Serve config; its `args` are `Wishes`.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from haast.config import EngineConfig
from haast.errors import HaastError
from haast.integrations.front import Front
from haast.integrations.replica import Replica
from haast.serve.service import Settings

if TYPE_CHECKING:
    from ray.serve import Application

ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
"""Sends what has one session to one replica, or the next with room: Ray's, which needs no memory of
what went where, so that any number of fronts agree. Its prefix-aware one wants vLLM's packages"""
NEXT_REPLICAS = 1 << 10
"""How many others are tried when the replica of a session is full: all of them"""
LARGE = 1 << 14
"""Requests that a front has open at most"""
USUAL_BATCH = {True: 256, False: 8}
"""Whether on a GPU -> requests that an engine computes at a time if nobody wishes for a number"""


class Wishes(BaseModel):
    """What is deployed.

    engine            as on the command line of `haast serve`; `devices` follows from the GPUs
    settings          likewise; `models` is the model path if not given
    replicas          engines, or if max_replicas is given the fewest
    max_replicas      the most: replicas come and go with the requests that are open and waiting
    gpus_per_replica  0 = the CPU
    target_requests   open requests a replica that autoscaling aims at; None = 3/4 of its batch
    fronts            processes that answer clients; each passes on some thousand tokens a second
    drain_s           how long a replica that is to go may finish its answers
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: EngineConfig = EngineConfig()
    settings: Settings | None = None
    replicas: int = Field(default=1, ge=1)
    max_replicas: int | None = None
    gpus_per_replica: int = Field(default=1, ge=0)
    target_requests: float | None = Field(default=None, gt=0)
    fronts: int = Field(default=1, ge=1)
    drain_s: float = Field(default=300, ge=0)

    @field_validator("engine", "settings", mode="before")
    @classmethod
    def _refuse_unknown(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic passes over what a dataclass does not know."""
        kind = {"engine": EngineConfig, "settings": Settings}[str(info.field_name)]
        if isinstance(value, Mapping):
            known = [field.name for field in fields(kind)]
            unknown = ", ".join(map(str, set(value) - {*known}))
            if unknown:
                raise ValueError(f"unknown: {unknown}; known: {', '.join(known)}")
        return value

    @property
    def batch_size(self) -> int:
        """Requests that a replica computes at a time."""
        return self.engine.max_batch_size or USUAL_BATCH[self.gpus_per_replica > 0]


def app(args: Wishes) -> "Application":
    """The application that Ray Serve runs. Raises HaastError without the extra, haast[ray]."""
    try:
        from ray import serve
    except ImportError as error:
        raise HaastError(f"Ray Serve is missing ({error}): pip install 'haast[ray]'") from None

    replicas: Any = serve.deployment(Replica, **_replica_options(args))
    front: Any = serve.deployment(
        serve.ingress()(Front),
        num_replicas=args.fronts,
        max_ongoing_requests=LARGE,
        graceful_shutdown_timeout_s=args.drain_s,
        max_surge_percent=100,  # new ones are there before the old ones go
    )
    bound = replicas.bind(_engine_config(args), _settings(args))
    application: Application = front.bind(bound)
    return application


def _replica_options(args: Wishes) -> dict[str, Any]:
    """Of the deployment of replicas; a Serve config may change them again."""
    options = {
        "ray_actor_options": {"num_gpus": args.gpus_per_replica},
        # Further requests go to the next replica, or wait in a front, where autoscaling sees them.
        "max_ongoing_requests": args.batch_size + args.batch_size // 4,
        "max_queued_requests": args.engine.max_queue_size,
        "graceful_shutdown_timeout_s": args.drain_s,
        "graceful_shutdown_wait_loop_s": 0.5,
        "max_constructor_retry_count": 3,
        "request_router_config": {
            "request_router_class": ROUTER,
            "request_router_kwargs": {"num_fallback_replicas": NEXT_REPLICAS},
        },
    }
    if args.max_replicas is None:
        return options | {"num_replicas": args.replicas}
    if args.max_replicas < args.replicas:
        raise HaastError(
            f"max_replicas is {args.max_replicas}, less than replicas, which is {args.replicas}"
        )
    return options | {
        "autoscaling_config": {
            "min_replicas": args.replicas,
            "max_replicas": args.max_replicas,
            "target_ongoing_requests": args.target_requests or 0.75 * args.batch_size,
        }
    }


def _engine_config(args: Wishes) -> EngineConfig:
    """Ray shows a replica its own GPUs only, as 0, 1, ..."""
    if args.engine.devices is not None:
        raise HaastError("devices follows from gpus_per_replica; leave it out")
    numbers = ",".join(map(str, range(args.gpus_per_replica)))
    return replace(args.engine, devices=f"gpu:{numbers}" if numbers else "cpu")


def _settings(args: Wishes) -> Settings:
    path = args.engine.model_path
    return args.settings or Settings((str(path) if path else "haast-tiny",))
