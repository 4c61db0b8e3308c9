"""Follows a page as a reader does: writes its files, and runs its commands and Python in order."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from helpers.pages import Block, code_blocks
from helpers.paths import ROOT

_FILE = re.compile(r"`([\w-]+\.(?:py|toml))`:$")
_NUMBER = re.compile(r"[-–]?\d[\d,.]*")
_FRAME = re.compile(r"[\s│┃━┏┓┡┩╇┳└┘┴─┼┤├┬┐┌╭╮╰╯]+")


class Step(NamedTuple):
    """One block that was run, its output, and the output that the page shows; empty if none."""

    code: str
    output: str
    promised: str


def follow(text: str, folder: Path) -> Iterator[Step]:
    """Run the blocks of a page in a folder, one after the other.

    A block of text after a block of commands or Python is the output that the page promises.

    Raises:
        AssertionError: If a command or a Python block fails.
    """
    blocks = code_blocks(text)
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if match := _FILE.search(block.line_before):
            folder.joinpath(match[1]).write_text(block.code, encoding="utf-8")
        elif block.language in ("console", "python"):
            promised = after.code if after is not None and after.language == "text" else ""
            yield Step(block.code, _output(block, folder), promised)


def lines_without_numbers(text: str) -> list[str]:
    """Return the lines of an output, without numbers, frames of tables and empty lines."""
    lines = (_NUMBER.sub("#", _FRAME.sub(" ", line)).strip() for line in text.splitlines())
    return [line for line in lines if line]


def _output(block: Block, folder: Path) -> str:
    command = ["bash", "-euc", block.code] if block.language == "console" else [sys.executable, "-"]
    scripts = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "RSCL_CACHE": str(folder / "cache"),
        "COLUMNS": "120",
    }
    environment.pop("RSCL_DATA_ROOT", None)
    result = subprocess.run(
        command,
        input=block.code if block.language == "python" else None,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{block.code}\n{result.stdout}\n{result.stderr}"
    return result.stdout
