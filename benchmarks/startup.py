"""Start-up time of the command over that of an empty interpreter."""

import subprocess
import sys

from benchmarks.ratio import Ratio, in_turn, over


def measure(_device_name: str, rounds: int) -> list[Ratio]:
    """Return the ratios of start-up; a command that trains must at least import torch."""

    def python(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    def nothing() -> None:
        python("-c", "pass")

    def answer() -> None:
        python("-m", "rscl_bench.cli", "--help")

    def torch() -> None:
        python("-c", "import torch")

    bare, helped = in_turn(nothing, answer, rounds)
    imported, again = in_turn(torch, answer, rounds)
    note = f"--help answers in {min(helped):.2f} s"
    return [
        Ratio("start-up", "--help over an empty interpreter", over(helped, bare), note=note),
        Ratio("start-up", "--help over importing torch", over(again, imported), most=0.5),
    ]
