"""The grouped benchmark under the name it had before: the same flags as `haast bench grouped`."""

import sys

from haast.__main__ import main

main(["bench", "grouped", *sys.argv[1:]])
