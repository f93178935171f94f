"""Run in every worker of Ray: the port of a replica that Ray opens on every interface is not."""


def listen_on_loopback() -> None:
    from ray.serve._private import replica

    replica.add_port_to_grpc_server = lambda server, _: server.add_insecure_port("127.0.0.1:0")
