"""Writes the header of a leaderboard in Markdown; the header explains the numbers."""

import json

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.collect import protocol_overrides
from rscl_bench.leaderboards.comparisons import LEAST_SEEDS
from rscl_bench.leaderboards.formats import ABSENT
from rscl_bench.leaderboards.rows import Row
from rscl_bench.leaderboards.statistics import RESAMPLES


def header(board: Board) -> str:
    """Return the title, the facts that hold for all records, and how to read the numbers."""
    key, layout, setting = board.key, board.layout, board.shared_setting
    stream = " → ".join(f"T{t} {task.name}" for t, task in enumerate(layout.tasks, 1))
    edition = (
        "real archives"
        if key.edition == "real"
        else "**sketch**: synthetic archives; the numbers say nothing about the real data"
    )
    changed = {
        f"{name}={json.dumps(value)}"
        for item in board.loaded
        for name, value in protocol_overrides(item.record).items()
    }
    overridden = f", with {', '.join(sorted(changed))}" if changed else ""
    versions = ", ".join(sorted({item.record.identity.code for item in board.loaded}))
    lines = [
        f"# {key.scenario}: protocol {key.protocol}",
        "",
        "Built from run records by rscl-bench; not to be edited.",
        "",
        f"- Scenario: {key.scenario}, version {key.version}: {stream}",
        f"- Edition: {edition}",
        f"- Protocol: {key.protocol} (digest {key.protocol_digest}){overridden}",
        *([f"- Trained in {setting[0]} on {setting[1]}"] if setting else []),
        f"- Code: rscl-bench {versions}",
        *_how_to_read(board),
        *_unknown_line(board),
        "",
    ]
    return "\n".join(lines)


def _how_to_read(board: Board) -> list[str]:
    upper = sorted({f"`{row.key.method}`" for row in board.rows if row.reference == "upper"})
    trained_at_once = f"; {', '.join(upper)}: trained on all tasks at once, an upper reference"
    return [
        "- Numbers: micro-mAP and macro-mAP in % on the test split of each probe after each task, "
        "mean over seeds ± half the width of the 95 % t interval of that mean, nothing after the "
        f"mean for one seed; {ABSENT} is undefined or not known",
        "- Test images: in brackets the 95 % percentile bootstrap interval of the mean over seeds, "
        f"{RESAMPLES:,} resamples of the test images, the same for all rows. It is the spread over "
        "images with the seeds as they are; ± is the spread over seeds with the images as they are",
        f"- Seeds: {_seeds(board)}",
        "- Rank: 1 + the number of methods that are separated above, by micro-mAP after the last "
        "task. Two methods are separated if both 95 % intervals of their difference exclude 0 on "
        "the same side: over seeds (paired t, common seeds) and over test images (paired "
        "bootstrap). So methods that nothing separates share a rank, and a method whose seeds "
        "differ much may rank above one with a higher mean. The intervals are per pair, not "
        f"corrected for the number of pairs. No rank: fewer than {LEAST_SEEDS} seeds, or a pair of "
        "methods that could not be compared. Ranks are within one precision and device",
        "- References, without a rank: `random-encoder` is the encoder before any training and "
        "`pixel-statistics` the mean and deviation of each band, so both are the same after every "
        f"task{trained_at_once if upper else ''}",
    ]


def _seeds(board: Board) -> str:
    expected = board.layout.identity.setting("seeds")
    short = [
        f"{_name(board, row)} ({row.seeds})"
        for row in board.rows
        if row.seeds is not None and row.seeds < expected
    ]
    missing = f"; fewer have {', '.join(short)}" if short else ""
    return f"the protocol asks for {expected} per row{missing}"


def _unknown_line(board: Board) -> list[str]:
    probes = [probe.name for probe in board.layout.probes]
    unknown = [
        _name(board, row)
        for row in board.rows
        if any((own := row.contrast(probe)) and own not in board.known for probe in probes)
    ]
    if not unknown:
        return []
    return [
        "- **Not known** over test images, since the image scores were neither beside the records "
        f"nor were their intervals stored: {', '.join(unknown)}"
    ]


def _name(board: Board, row: Row) -> str:
    shown = row.key[:1] if board.shared_setting else row.key
    return " ".join(part for part in shown if part)
