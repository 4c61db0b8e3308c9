"""What the command line prints: progress, tables, and the first line of a run."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from rscl_bench.results.record import RunRecord

PLAIN_SECONDS = 10.0


class PlainReporter:
    """Lines for logs and pipes: a part's end, and in between at most one line every 10 s."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._last = 0.0

    def progress(self, what: str, done: int, total: int) -> None:
        """Print how far a part is and how long it will still take."""
        now = time.monotonic()
        started = self._started.setdefault(what, now)
        if done < total and now - max(self._last, started) < PLAIN_SECONDS:
            return
        self._last = now
        if done >= total:
            self.message(f"{what}: done ({total})")
        else:
            left = (now - started) / max(done - 1, 1) * (total - done)
            self.message(f"{what}: {done} of {total}, about {left:.0f} s left")

    def message(self, text: str) -> None:
        """Print one line."""
        print(text, flush=True)


class BarReporter:
    """Bars with the time left, for a terminal."""

    def __init__(self, console: Console, bars: Progress):
        self._console, self._bars = console, bars
        self._tasks: dict[str, TaskID] = {}

    def progress(self, what: str, done: int, total: int) -> None:
        """Move the part's bar."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done)

    def message(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(text, highlight=False, soft_wrap=True)


@contextmanager
def reporter() -> Iterator[PlainReporter | BarReporter]:
    """Give bars on a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty():
        yield PlainReporter()
        return
    console = Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bars:
        yield BarReporter(console, bars)


def print_run(record: "RunRecord") -> None:
    """Print the table of a run: lower references, then one row per task."""
    from rscl_bench.results.run_table import run_table

    rows = run_table(record)
    probes = [probe.name for probe in record.probes]
    print(
        f"{record.identity.method['name']} on {record.identity.scenario.name} "
        f"({record.identity.edition} edition, protocol {record.identity.protocol_name}, "
        f"seed {record.identity.seed}); mAP in %, test split"
    )
    table = Table()
    table.add_column("after task")
    for probe in probes:
        table.add_column(f"{probe} micro-mAP", justify="right")
        table.add_column(f"{probe} macro-mAP", justify="right")
    table.add_column("training s", justify="right")
    table.add_column("images/s", justify="right")
    for row in rows:
        cells = [row.name]
        for probe in probes:
            score = row.scores[probe]
            cells += [_percent(score.micro), _percent(score.macro)]
        cells += [_number(row.train_seconds, 1), _number(row.images_per_second, 0)]
        table.add_row(*cells)
    # A pipe has no width of its own; a table cut at 80 columns could not be read by a program.
    width = None if sys.stdout.isatty() else 60 + 30 * len(probes)
    Console(width=width).print(table)


def print_names(title: str, rows: list[tuple[str, str]]) -> None:
    """Print names with one line each under a title."""
    print(f"{title}:")
    wide = max((len(name) for name, _ in rows), default=0)
    for name, summary in rows:
        print(f"  {name:<{wide}}  {summary}")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
