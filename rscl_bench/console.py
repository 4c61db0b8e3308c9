"""Print progress and tables: live on a terminal, as plain lines in a log or pipe."""

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from rscl_bench.output import say

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from pydantic import JsonValue

    from rscl_bench.encoders.encoder_scores import EncoderScores
    from rscl_bench.results.schema import RunRecord
    from rscl_bench.results.tuning import Tuning
    from rscl_bench.sweeps.pool import Run
    from rscl_bench.sweeps.stage_result import StageResult
    from rscl_bench.tiles.inventory import CacheEntry

Split = Literal["test", "val"]
SPLIT_NAMES: dict[Split, str] = {"test": "test split", "val": "validation split"}
PLAIN_SECONDS = 10.0


_WHOLE = "whole run"


class PlainReporter:
    """Prints lines for logs and pipes: every 10 s of a phase, and at the end of the phase."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._last = 0.0
        self._whole = ""

    def whole(self, share: float, seconds_left: float) -> None:
        """Note the remaining time of the whole run, for the next line."""
        self._whole = f"; whole run: {share:.0%} done, about {clock_time(seconds_left)} left"

    def progress(self, what: str, done: int, total: int) -> None:
        """Print the progress of a phase, and the remaining time of the phase and of the run."""
        now = time.monotonic()
        started = self._started.setdefault(what, now)
        if done < total and now - max(self._last, started) < PLAIN_SECONDS:
            return
        self._last = now
        if done >= total:
            self.message(f"{what}: done ({total})")
        else:
            left = (now - started) / max(done - 1, 1) * (total - done)
            self.message(f"{what}: {done} of {total}, about {left:.0f} s left{self._whole}")

    def message(self, text: str) -> None:
        """Print one line."""
        say(text)


class BarReporter:
    """Shows a progress bar and the remaining time of every phase on a terminal."""

    def __init__(self, console: Console, bars: Progress):
        self._console, self._bars = console, bars
        self._tasks: dict[str, TaskID] = {}

    def progress(self, what: str, done: int, total: int) -> None:
        """Update the bar of a phase."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total)
        self._bars.update(self._tasks[what], completed=done)

    def whole(self, share: float, seconds_left: float) -> None:
        """Show the whole run, its probings included, in a bar of its own."""
        text = f"whole run, about {clock_time(seconds_left)} left"
        if _WHOLE not in self._tasks:
            self._tasks[_WHOLE] = self._bars.add_task(text, total=100)
        self._bars.update(self._tasks[_WHOLE], completed=round(100 * share), description=text)

    def message(self, text: str) -> None:
        """Print one line above the bars."""
        self._console.print(text, highlight=False, soft_wrap=True)


@contextmanager
def reporter() -> Iterator[PlainReporter | BarReporter]:
    """Yield a reporter: bars on a terminal, plain lines elsewhere."""
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


class PlainSweep:
    """Prints lines for logs and pipes: every 10 s of a run, and at the end of the run."""

    def __init__(self, runs: "Sequence[Run]", split: Split):
        self._split = split
        self._last: dict[str, float] = {}
        for run in runs:
            if run.record is not None:
                self.changed(run)

    def changed(self, run: "Run") -> None:
        """Print the state of a run that has ended, or that has printed no line for 10 s."""
        if run.state == "failed":
            say(f"{run.name}: failed: {run.reason}")
        elif run.record is not None:
            scores = _final_scores(run.record, self._split)
            split = SPLIT_NAMES[self._split]
            say(f"{run.name}: {run.state}, micro-mAP on the {split}: {scores}")
        elif run.phase:
            now = time.monotonic()
            if now - self._last.setdefault(run.name, now) >= PLAIN_SECONDS:
                self._last[run.name] = now
                say(f"{run.name}: {_progress(run)}, {_left(run)} left")


class LiveSweep:
    """Shows all runs in one table on a terminal, without waiting runs if the rows do not fit."""

    def __init__(self, runs: "Sequence[Run]", column: str, split: Split, height: int | None):
        self._runs, self._column, self._split, self.height = runs, column, split, height

    def __rich__(self) -> Table:
        """Return the current table."""
        counts = Counter(run.state for run in self._runs)
        caption = ", ".join(f"{count} {state}" for state, count in counts.items())
        table = Table(caption=caption)
        for title in (self._column, "seed", "state", "progress", "time left"):
            table.add_column(title)
        table.add_column(f"final micro-mAP in %, {SPLIT_NAMES[self._split]}")
        for run in self._shown():
            running = run.state == "running"
            table.add_row(
                run.label,
                str(run.job.spec.seed),
                run.state,
                _progress(run) if running else "",
                _left(run) if running else "",
                "" if run.record is None else _final_scores(run.record, self._split),
            )
        return table

    def _shown(self) -> "list[Run]":
        if self.height is None or len(self._runs) <= self.height:
            return list(self._runs)
        order = ("running", "failed", "done", "waiting", "recorded before")
        urgent = sorted(range(len(self._runs)), key=lambda n: order.index(self._runs[n].state))
        return [self._runs[number] for number in sorted(urgent[: self.height])]


@contextmanager
def sweep_view(
    runs: "Sequence[Run]", column: str, split: Split
) -> "Iterator[Callable[[Run], None]]":
    """Yield a callback for changed runs: a live table on a terminal, lines elsewhere.

    Args:
        runs: All runs, in the order of the table.
        column: Title of the column of labels.
        split: The split whose final scores are shown.
    """
    if not sys.stdout.isatty():
        yield PlainSweep(runs, split).changed
        return
    console = Console()
    table = LiveSweep(runs, column, split, max(1, console.height - 6))
    with Live(table, console=console):  # rich redraws the table four times a second
        try:
            yield lambda run: None
        finally:
            table.height = None  # the last table on the screen has all rows


def print_failures(runs: "Sequence[Run]") -> None:
    """Print the failed runs with their reasons and logs."""
    failed = [run for run in runs if run.state == "failed"]
    if failed:
        print(f"{len(failed)} of {len(runs)} runs failed:", file=sys.stderr)
    for run in failed:
        print(f"  {run.name}: {run.reason}\n    log: {run.log}", file=sys.stderr)


def print_tuning(tuning: "Tuning") -> None:
    """Print the validation score of every setting of a grid, and the chosen setting."""
    print("Final micro-mAP in %, validation split, mean over seeds and probes:")
    for setting in tuning.settings:
        mark = "*" if setting.values == tuning.choice else " "
        print(f"  {mark} {100 * setting.score:.2f}  {_assignments(setting.values)}")
    print(f"choice (of settings with equal scores, the first): {_assignments(tuning.choice)}")
    print("To use the choice, write:")
    for line in tuning.write:
        print(f"  {line}")


def print_stage(result: "StageResult") -> None:
    """Print how many runs of a study's stage are recorded, and the time that the others need.

    The time is the mean of the recorded runs of the stage, in hours of one run after another.
    """
    recorded = [run.record for run in result.runs if run.record is not None]
    left = len(result.runs) - len(recorded)
    line = f"{result.stage.name}: {len(recorded)} of {len(result.runs)} runs recorded"
    if left and recorded:
        hours = sum(record.seconds.total for record in recorded) / len(recorded) * left / 3600
        line += f", {left} to do, about {hours:.1f} h one after another"
    print(line)
    for machine in sorted({record.provenance.processor or "?" for record in recorded}):
        seeds = {
            record.identity.seed
            for record in recorded
            if (record.provenance.processor or "?") == machine
        }
        print(f"  seeds {', '.join(map(str, sorted(seeds)))} on {machine}")
    for path in result.tunings:
        print(f"  choice: {path}")


def print_power(table: "pd.DataFrame") -> None:
    """Print the separable differences: a table for each leaderboard, a line for each measure."""
    print(
        "Difference in points that is separated with a probability of 80 %: by one comparison at "
        "5 % / after Holm's correction for all pairs."
    )
    width = table["measure"].str.len().max()
    for (folder, pairs), lines in table.groupby(["table", "pairs"], sort=False):
        counts = list(dict.fromkeys(lines["seeds"]))
        print(f"\n{folder}, {pairs} pairs of methods")
        print(f"{'':{width}}  spread" + "".join(f"{f'{count} seeds':>13}" for count in counts))
        for measure, own in lines.groupby("measure", sort=False):
            both = zip(own["uncorrected"], own["corrected"], strict=True)
            cells = "".join(f"{f'{one:.1f} / {two:.1f}':>13}" for one, two in both)
            print(f"{measure:{width}}  {own['spread'].iloc[0]:6.2f}{cells}")


def print_run(record: "RunRecord") -> None:
    """Print the table of a run: the rows of the references, then one row per task.

    Below the table are the continual metrics that the record defines, and for a sketch edition a
    line that its scores are no result.
    """
    from rscl_bench.leaderboards.formats import SKETCH_WARNING, percent
    from rscl_bench.leaderboards.run_table import run_table

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
            # A probe that trains the encoder has no score for pixel statistics.
            score = row.scores.get(probe)
            maps = (None, None) if score is None else (score.micro, score.macro)
            cells += map(percent, maps)
        cells += [_number(row.train_seconds, 1), _number(row.images_per_second, 0)]
        table.add_row(*cells)
    # A pipe has no width, and without a width rich would cut the table at 80 columns.
    width = None if sys.stdout.isatty() else 60 + 30 * len(probes)
    Console(width=width).print(table)
    for line in _continual_lines(record):
        print(line)
    if record.identity.edition == "sketch":
        print(SKETCH_WARNING)


def print_probed(probed: "EncoderScores") -> None:
    """Print the scores of an encoder on the probes of a scenario, beside those of its record."""
    from rscl_bench.leaderboards.formats import SKETCH_WARNING, percent

    print(
        f"{probed.encoder.file} on {probed.scenario.name} ({probed.edition} edition, protocol "
        f"{probed.protocol_name}); mAP in %"
    )
    table = Table()
    table.add_column("probe")
    titles = ["test micro-mAP", "test macro-mAP", "val micro-mAP"]
    titles += [] if probed.recorded is None else ["recorded test micro-mAP"]
    for title in titles:
        table.add_column(title, justify="right")
    for result in probed.probes:
        score = result.score
        val = None if score.val is None else score.val.micro
        maps = [score.test.micro, score.test.macro, val]
        if probed.recorded is not None:
            maps.append(probed.recorded[result.name].test.micro)
        table.add_row(result.name, *map(percent, maps))
    width = None if sys.stdout.isatty() else 120
    Console(width=width).print(table)
    if probed.equals_record is not None:
        same = "equal" if probed.equals_record else "differ from"
        print(f"These scores {same} those of the run's record.")
    if probed.edition == "sketch":
        print(SKETCH_WARNING)


#: What each continual metric is, beside its numbers.
_CONTINUAL = {
    "forgetting": "fall of a domain's score from its best to the end, mean over earlier domains",
    "backward_transfer": "a domain's score at the end minus that right after its own task",
    "forward_transfer": "a domain's score before its own task minus that of the untrained encoder",
}


def _continual_lines(record: "RunRecord") -> list[str]:
    """Return a line for each continual metric that is defined."""
    from rscl_bench.leaderboards.formats import percent

    micro, macro = record.continual.micro, record.continual.macro
    return [
        f"{name.replace('_', ' ')}: {percent(getattr(micro, name))} micro-mAP, "
        f"{percent(getattr(macro, name))} macro-mAP (points; {meaning})"
        for name, meaning in _CONTINUAL.items()
        if getattr(micro, name) is not None
    ]


def print_leaderboards(files: "Sequence[Path]") -> None:
    """Print the short table of every leaderboard.

    Args:
        files: Files of the leaderboards; others than ``leaderboard.csv`` are left out.
    """
    from rscl_bench.leaderboards.formats import SKETCH_WARNING
    from rscl_bench.leaderboards.summary import summary

    for path in files:
        if path.name != "leaderboard.csv":
            continue
        short = summary(path)
        print(f"{short.title}: mAP in % after the last task, test split, ± 95 % over seeds")
        table = Table()
        for column in short.columns:
            names = ("method", "precision")
            table.add_column(column, justify="left" if column in names else "right")
        for row in short.rows:
            table.add_row(*row)
        width = None if sys.stdout.isatty() else 60 + 20 * len(short.columns)
        Console(width=width, markup=False, highlight=False).print(table)
        if short.sketch:
            print(SKETCH_WARNING)


def print_names(title: str, rows: list[tuple[str, str]]) -> None:
    """Print a title, and one line for each name."""
    print(f"{title}:")
    wide = max((len(name) for name, _ in rows), default=0)
    for name, summary in rows:
        print(f"  {name:<{wide}}  {summary}")


def print_cache(entries: "Sequence[CacheEntry]", cache: "Path") -> None:
    """Print one line for each folder of the cache, and their total size."""
    for entry in entries:
        what = f"{entry.kind} {entry.dataset} {entry.split}".rstrip()
        tiles = "" if entry.tiles is None else f", {entry.tiles} tiles"
        used = "" if entry.used is None else f", last used {entry.used:%Y-%m-%d %H:%M} UTC"
        unused = f", not needed: {entry.unused}" if entry.unused else ""
        print(f"{what}: {human_size(entry.size)}{tiles}{used}{unused}")
        print(f"  {entry.path.relative_to(cache)}")
    print(f"{len(entries)} folders, {human_size(sum(e.size for e in entries))}, in {cache}")


def human_size(size: int) -> str:
    """Return a number of bytes with a binary unit, such as ``1.5 GiB``."""
    value, units = float(size), iter(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"))
    unit = next(units)
    while value >= 1024 and unit != "PiB":
        value, unit = value / 1024, next(units)
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def _final_scores(record: "RunRecord", split: Split) -> str:
    """Return the micro-mAP after the last task, for all probes that have the split."""
    from rscl_bench.leaderboards.formats import percent

    maps = {name: getattr(score, split) for name, score in record.scores[-1].items()}
    return ", ".join(f"{n} {percent(m.micro)}" for n, m in maps.items() if m is not None)


def _progress(run: "Run") -> str:
    return f"{run.phase}: {run.done} of {run.total}" if run.phase else "starting"


def _left(run: "Run") -> str:
    seconds = run.seconds_left()
    return "unknown" if seconds is None else clock_time(seconds)


def clock_time(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds, such as ``0:12:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _assignments(values: "Mapping[str, JsonValue]") -> str:
    return " ".join(f"{key}={json.dumps(value)}" for key, value in values.items())


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
