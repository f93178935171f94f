"""`haast doctor`: can this machine run gpt-oss?"""

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from haast.doctor.finding import Finding

MARKS = {"ok": "+", "bad": "x", "note": "-"}
PORT = 8000
"""Of `haast serve`"""


@click.command("doctor", short_help="Say whether this machine can run gpt-oss.")
@click.option(
    "--devices",
    type=click.Choice(["gpu", "cpu"]),
    default="gpu",
    show_default=True,
    help="gpu = a Hopper GPU with our kernels; cpu = plain torch, good for haast-tiny.",
)
@click.option("--port", type=click.IntRange(1, 65535), default=PORT, show_default=True)
def command(devices: str, port: int) -> None:
    """One line each: + is as it should be, x is not, - is what one can do without; below it what to
    do. Exit code: 0 without an x, else 1. Loads every kernel, and no weights."""
    found = _findings(devices, port)
    width = max(len(finding.what) for finding in found)
    for finding in found:
        click.echo(f"{MARKS[finding.state]} {finding.what:{width}}  {finding.text}")
        if finding.remedy:
            click.echo(f"  {'':{width}}  > {finding.remedy}")
    lacking = [finding.what for finding in found if finding.state == "bad"]
    where = "on the CPU" if devices == "cpu" else "with its kernels"
    click.echo(f"not ready: {', '.join(lacking)}" if lacking else f"ready to run {where}")
    sys.exit(1 if lacking else 0)


def _findings(devices: str, port: int) -> list["Finding"]:
    from haast.doctor.fits import fit_findings
    from haast.doctor.gpu import gpu_findings, why_no_gpu
    from haast.doctor.host import host_findings

    has_gpu = devices == "gpu" and why_no_gpu() is None
    gpu = gpu_findings() if devices == "gpu" else []
    return [*gpu, *fit_findings("gpu" if has_gpu else "cpu"), *host_findings(port)]
