"""The command line, called as a user calls it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from rscl_bench.cli import app
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord

#: Runs the command line. A shell's background job, and `nohup`, start with signals ignored.
START = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "[signal.signal(n, signal.SIG_DFL) for n in (signal.SIGHUP, signal.SIGQUIT)]; "
    "from rscl_bench.cli import main; main()"
)
ONE_EPOCH = ("--device", "cpu", "--set", "training.epochs=1")


def spawn(*arguments: str | Path, **options: Any) -> "subprocess.Popen[str]":
    """Start the command line in a new process.

    Args:
        arguments: The arguments of the command line.
        options: Options of `subprocess.Popen`; both outputs are pipes if left out.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", options.pop("script", START), *map(str, arguments)]
    return subprocess.Popen(command, text=True, **{**pipes, **options})


def call(*arguments: str | Path) -> Result:
    """Run the command line in this process; every error that is not a user's error is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def error_lines(result: Result) -> list[str]:
    """Return the lines of standard error without notes on code that is run."""
    return [line for line in result.stderr.splitlines() if not line.startswith("note: ")]


def refused(*arguments: str | Path) -> str:
    """Return the one sentence with which a command fails."""
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    lines = error_lines(result)
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert lines[0].endswith(".")
    return lines[0].removeprefix("error: ")


def records_in(folder: Path) -> list[RunRecord]:
    return [read_record(path) for path in sorted(folder.rglob("record.json"))]
