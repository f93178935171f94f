"""`haast deploy`: the application on a Ray cluster, or on one of this machine alone."""

import logging
import os
import re
import signal
import socket
import threading
from dataclasses import dataclass

from haast.errors import HaastError
from haast.integrations.ray_serve import Wishes, app

NAME = "haast"
"""Of the application; deploying it again updates it"""
STORE_BYTES = 256 << 20
"""Ray's object store on a machine of our own; only requests of 100 kB and more pass through it"""
REACH_S = 5.0
"""How long the head of a cluster may take to be reached"""
_log = logging.getLogger(__name__)
_ALONE = {
    # Ray listens on 127.0.0.1 then, and not on every interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class Where:
    """Which cluster, and where it listens for clients.

    address  as `ray.init` takes it, such as auto; None = a cluster of this machine alone, for as
             long as this process runs
    """

    address: str | None
    host: str
    port: int

    @property
    def is_alone(self) -> bool:
        return self.address is None or self.address.startswith(("127.0.0.1:", "localhost:"))


def deploy(wishes: Wishes, where: Where) -> str:
    """Deploy, or update without dropping a request; returns once all replicas are there.

    returns  address of the cluster
    Raises HaastError if there is no Ray, no such cluster, or a replica cannot start.
    """
    if where.is_alone:
        for name, value in _ALONE.items():
            os.environ.setdefault(name, value)
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise HaastError(f"Ray Serve is missing ({error}): pip install 'haast[ray]'") from None

    application = app(wishes)
    try:
        _join(wishes, where.address)
        log = {
            "log_level": logging.getLevelName(_log.getEffectiveLevel()),
            "enable_access_log": _log.isEnabledFor(logging.DEBUG),
        }
        http = {"host": where.host, "port": where.port}
        serve.start(http_options=http, logging_config=log)
        serve.run(application, name=NAME, route_prefix="/", logging_config=log)
    except RuntimeError as error:
        raise HaastError(f"cannot deploy: {_why_none_starts() or error}") from None
    except (ConnectionError, ValueError) as error:
        raise HaastError(f"cannot deploy: {error}") from None
    return str(ray.get_runtime_context().gcs_address)


def _why_none_starts() -> str:
    """What ended the last replica, which Ray has at the end of a traceback; or nothing."""
    from ray import serve

    application = serve.status().applications.get(NAME)
    told = application.deployments["Replica"].message if application else ""
    errors = re.findall(r"^[\w.]*Error: (.+)$", told, re.MULTILINE)
    return errors[-1] if errors else ""


def _join(wishes: Wishes, address: str | None) -> None:
    import ray

    if address is not None:
        _check_reachable(address)
        ray.init(address, logging_level=logging.WARNING)
        return
    # While they are replaced, new fronts run beside the old ones.
    num_processes = max(wishes.replicas, wishes.max_replicas or 0) + 2 * wishes.fronts
    ray.init(
        "local",
        num_cpus=max(os.cpu_count() or 1, num_processes),  # a CPU each is what Ray sets aside
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        logging_level=logging.WARNING,
    )
    wanted = wishes.replicas * wishes.gpus_per_replica
    found = ray.cluster_resources().get("GPU", 0)  # type: ignore[no-untyped-call]
    if found < wanted:
        raise HaastError(
            f"replicas x gpus_per_replica is {wanted}, but this machine has {found:.0f} GPUs"
        )


def _check_reachable(address: str) -> None:
    """Ray itself takes minutes to find out. Raises ConnectionError."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), REACH_S).close()
    except OSError as error:
        raise ConnectionError(f"no Ray cluster at {address}: {error}") from None


def wait_for_signal() -> None:
    """Until SIGTERM or SIGINT; a second one is as it is without Ray, which has its own handlers."""
    told = threading.Event()

    def tell(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        told.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, tell)
    told.wait()


def shut_down() -> None:
    """End the application, once its answers have ended, and the cluster that `deploy` started."""
    import ray
    from ray import serve

    serve.delete(NAME)
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()
