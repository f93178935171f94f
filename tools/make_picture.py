"""Records `haast generate` in a terminal as docs/generate.svg, the picture of the README."""

import os
import pty
import re
import subprocess
from pathlib import Path

from rich.console import Console
from rich.text import Text

COMMAND = 'haast generate --prompt "What is a bald eagle?" --temperature 0 --show-reasoning'
PICTURE = Path("docs/generate.svg")
WIDTH = 116


def record(command: str) -> str:
    """What a terminal of WIDTH columns shows of a command, ANSI codes included."""
    master, slave = pty.openpty()
    environment = os.environ | {"COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    child = subprocess.Popen(command, shell=True, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        shown += piece
    if child.wait():
        raise SystemExit(f"{command}: exit code {child.returncode}\n{shown.decode()}")
    return shown.decode().replace("\r\n", "\n")


def main() -> None:
    shown = record(COMMAND)
    kept = re.sub(r"\x1b\[\?25[lh]|\x1b\[\d*[AK]|[^\n]*\r", "", shown)
    # the progress bar erases itself; only what stays belongs in the picture
    kept = "\n".join(line for line in kept.split("\n") if "loading" not in line)
    kept = kept.replace(str(Path.cwd()) + "/", "").replace("\x1b[0m\x1b[2m", "")
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True)
    console.print(Text.from_ansi(f"$ {COMMAND}"))
    console.print(Text.from_ansi(kept.strip("\n")))
    PICTURE.parent.mkdir(exist_ok=True)
    svg = console.export_svg(title="haast")
    # the picture must not fetch fonts from anywhere
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
