"""What `git bisect run` runs: `haast baseline check`, whose commands go to ./product.

A commit's product stands for the haast that would be checked out, and prints what that measured.
"""

import os
import sys

from haast.__main__ import main
from haast.baseline import machine

if __name__ == "__main__":
    sys.executable = os.path.abspath("product")
    machine.program_output = lambda command: "NVIDIA Test, 580.1, 8.6"
    main(["baseline", "check", *sys.argv[1:]])
