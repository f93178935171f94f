"""A follower that does as it is told, but computes nothing: `python -m ... FD`."""

import os
import signal
import sys
import time

from haast.parallel.leader import Leader


def main(fd: int) -> None:
    leader = Leader(fd)
    try:
        while True:
            order = leader.receive()
            if order == "ready":
                leader.say_ready()
            elif order == "rest":
                leader.say_rested()
            elif order == "pid":
                leader.say_failed(f"my pid is {os.getpid()}")
            elif order == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif order == "sleep":  # as in a collective that waits for a dead rank
                time.sleep(1000)
            else:
                os._exit(order)
    except EOFError:
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
