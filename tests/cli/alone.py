"""Run where there is no network: starts `haast serve`, asks it once, prints what it heard.

Arguments are those of `haast serve`. Looking a host name up, or connecting to anything but this
machine, fails and is told in the output.
"""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import urllib.request

REFUSE = """
import socket, sys
def refuse(*arguments, **options):
    sys.stderr.write(f"network: {arguments}\\n")
    raise OSError("no network")
connect = socket.socket.connect
def connect_here(self, address):
    here = isinstance(address, (str, bytes)) or address[0] in ("127.0.0.1", "::1")
    return connect(self, address) if here else refuse(address)
socket.socket.connect = connect_here
socket.getaddrinfo = socket.gethostbyname = refuse
"""
UP, SIOCSIFFLAGS = 1, 0x8914


def loopback_up() -> None:
    """In a network namespace of its own not even that is up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", UP)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)


def main(folder: str, own_network: bool, *arguments: str) -> None:
    if own_network:
        loopback_up()
    with open(os.path.join(folder, "sitecustomize.py"), "w") as file:
        file.write(REFUSE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([folder, *sys.path])}
    command = [sys.executable, "-m", "haast", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        [*command, *arguments], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        lines = []
        while line := process.stderr.readline():
            lines.append(line)
            if "ready at" in line:
                break
        body = {"messages": [{"role": "user", "content": "What is a piano?"}], "max_tokens": 5}
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        answer = {}
        if process.poll() is None:
            with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=60) as response:
                answer = json.load(response)
        process.send_signal(signal.SIGTERM)
        lines += process.stderr.readlines()
    json.dump({"answer": answer, "lines": lines, "code": process.returncode}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "unshare", *sys.argv[3:])
