"""The application: errors and signals as one line, the exit status, the groups of commands."""

import errno
import io
import signal
import sys
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from rscl_bench.cores import let_threads_sleep
from rscl_bench.errors import RsclError
from rscl_bench.interruption import Interrupted, raising
from rscl_bench.output import discard_unwritten, reader_gone

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Commands(TyperGroup):
    """Prints a user's error as one sentence without a traceback, and exits with status 1.

    Every signal that ends a command is an exception within it, so that its ``finally`` blocks
    remove temporary files and show the cursor. The exit status is then 128 plus the number of the
    signal.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        let_threads_sleep()
        with raising() as watch:
            try:
                return super().invoke(ctx)
            except (KeyboardInterrupt, SystemExit, RsclError, OSError) as error:
                came = watch.signal
                watch.signal = came or signal.SIGINT  # the next signal ends the process at once
                if came is not None and not isinstance(error, KeyboardInterrupt):
                    # An error that the signal caused, such as the end of a worker that got it too.
                    error = Interrupted(came)
                _explain(error)
                raise


def _explain(error: BaseException) -> None:
    """Exit with a line on standard error, if the error is none of the code."""
    if isinstance(error, KeyboardInterrupt):
        exit_with(exit_status(error), how_interrupted(error))
    if isinstance(error, RsclError):
        exit_with(1, f"error: {error}")
    if isinstance(error, SystemExit):
        exit_with(1, f"error: Code outside of rscl-bench called sys.exit({error.code!r}).")
    if isinstance(error, OSError) and error.filename is not None:
        exit_with(1, f"error: {error.filename} cannot be used ({error.strerror}).")
    if isinstance(error, BrokenPipeError) and reader_gone(sys.stdout):
        exit_with(128 + signal.SIGPIPE)  # as other programs
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:  # all other files have names
        exit_with(1, f"error: The output cannot be written ({error.strerror}).")


def exit_with(status: int, line: str = "") -> NoReturn:
    """Print a line on standard error, if it can be written, and exit."""
    if line:
        with suppress(OSError):  # the terminal may be gone
            print(line, file=sys.stderr, flush=True)
    raise typer.Exit(status)


def exit_status(error: KeyboardInterrupt) -> int:
    """Return 128 plus the number of the signal."""
    return error.status if isinstance(error, Interrupted) else 128 + signal.SIGINT


def how_interrupted(error: KeyboardInterrupt) -> str:
    """Return the line about an interruption: the signal, and how to resume."""
    where = error.where if isinstance(error, Interrupted) else ""
    advice = f"the same command resumes from {where}" if where else "nothing was recorded"
    return f"interrupted by {signal.Signals(exit_status(error) - 128).name}; {advice}"


app = typer.Typer(
    cls=Commands,
    name="rscl-bench",
    help="Continual self-supervised learning in remote sensing, measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


data_app = typer.Typer(
    help="Fetch, pack, verify or sketch the archives of a scenario; look after the cache."
)


leaderboard_app = typer.Typer(help="Tables from run records.")


submit_app = typer.Typer(help="Submit runs to a published table, and check submissions.")


app.add_typer(data_app, name="data", no_args_is_help=True)


app.add_typer(leaderboard_app, name="leaderboard", no_args_is_help=True)


app.add_typer(submit_app, name="submit", no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        import rscl_bench

        print(f"rscl-bench {rscl_bench.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Continual self-supervised learning in remote sensing, measured."""


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # for terminals that cannot show "–"
    status: str | int | None = 0
    try:
        app()
    except SystemExit as ended:
        status = ended.code
    lost = discard_unwritten(sys.stdout)
    if lost is not None and not status:
        broken = isinstance(lost, BrokenPipeError)
        status = 128 + signal.SIGPIPE if broken else 1
        if not broken:
            with suppress(OSError):
                reason = lost.strerror or lost
                print(f"error: The output cannot be written ({reason}).", file=sys.stderr)
    discard_unwritten(sys.stderr)
    sys.exit(status)
