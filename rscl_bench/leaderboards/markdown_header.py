"""Writes the header of a leaderboard in Markdown; the header explains the numbers."""

import json
from collections import Counter

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.comparisons import LEAST_SEEDS
from rscl_bench.leaderboards.corrections import RATE
from rscl_bench.leaderboards.escaping import markdown_code, markdown_text
from rscl_bench.leaderboards.formats import ABSENT, two_decimals
from rscl_bench.leaderboards.keys import protocol_overrides
from rscl_bench.leaderboards.machines import machine_name, machine_of
from rscl_bench.leaderboards.pixels import decoders_of, pixels_of
from rscl_bench.leaderboards.rows import Row
from rscl_bench.leaderboards.statistics import RESAMPLES
from rscl_bench.leaderboards.tunings import declared_choice, learning_rate, tuned
from rscl_bench.results.agreement import equal_methods
from rscl_bench.results.marks import MarkName
from rscl_bench.results.tuning import Tuning


def header(board: Board) -> str:
    """Return the title, the facts that hold for all records, and how to read the numbers."""
    return "\n".join(
        [
            f"# {board.key.scenario}: protocol {board.key.protocol}",
            "",
            "Built from run records by rscl-bench; not to be edited.",
            "",
            *(f"- {fact}" for fact in facts(board)),
            "",
        ]
    )


def facts(board: Board) -> list[str]:
    """Return what holds for all records and how to read the numbers: ``subject: statement``."""
    key, layout = board.key, board.layout
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
    overridden = f", with {markdown_code(', '.join(sorted(changed)))}" if changed else ""
    return [
        f"Scenario: {key.scenario}, version {key.version}: {stream}",
        f"Edition: {edition}",
        f"Protocol: {key.protocol} (digest {key.protocol_digest}){overridden}",
        f"Code: rscl-bench {markdown_text(key.code)}",
        f"Precision: {', '.join(board.precisions)}{_precision_note(board)}",
        f"Machines: {_machines(board)}",
        *_pixel_line(board),
        *_tuning_lines(board),
        f"Marks: {_marks(board)}",
        *_how_to_read(board),
        *_unknown_line(board),
        *_equal_line(board),
    ]


def _precision_note(board: Board) -> str:
    if len(board.precisions) == 1:
        return ""
    return "; rows of two precisions are compared, and such pairs are marked ‡"


def _machines(board: Board) -> str:
    """Return the machines with their number of runs, and how they differ."""
    runs = Counter(machine_of(item.record) for item in board.loaded)
    listed = [
        f"{markdown_text(machine_name(machine))}: {count} runs"
        for machine, count in sorted(runs.items(), key=lambda item: machine_name(item[0]))
    ]
    several = ""
    if len(listed) > 1:
        points = two_decimals(100 * board.spread.untrained)
        several = (
            ". Another machine gives other last bits, which training amplifies; the untrained "
            f"encoders of one seed differ by up to {points} points. Scores of all machines are "
            "compared, times are not"
        )
    return "; ".join(listed) + several


#: What a mark says of a row.
MARK_MEANINGS: dict[MarkName, str] = {
    "self-run": "self-run: nobody but who ran it has checked the row",
    "recomputed": "recomputed: its scores were computed again from the scores of its images",
    "reproduced": "reproduced: its encoder was moreover probed again on another machine",
}


def _marks(board: Board) -> str:
    """Say how far the rows are checked; the mark of a row is the weakest of its runs."""
    if len(board.marks) == 1:
        return f"every row is {MARK_MEANINGS[board.marks[0]].replace('the row', 'it')}"
    return "; ".join(MARK_MEANINGS[mark] for mark in board.marks)


def _pixel_line(board: Board) -> list[str]:
    """Say where equal files were decoded to different pixels, and what that changes."""
    decoders: dict[tuple[tuple[str, str], ...], set[str]] = {}
    for item in board.loaded:
        names = ", ".join(decoders_of(item.record)) or "decoders not recorded"
        decoders.setdefault(pixels_of(item.record), set()).add(names)
    if len(decoders) == 1:
        return []
    groups = sorted(markdown_text(" or ".join(sorted(names))) for names in decoders.values())
    pixels, untrained = (two_decimals(100 * difference) for difference in board.spread)
    return [
        f"Pixels: equal files, decoded in {len(groups)} ways: {'; '.join(groups)}. The scores of "
        f"pixel statistics differ by up to {pixels} points between them, those of the untrained "
        f"encoders of one seed by up to {untrained} points"
    ]


def _tuning_lines(board: Board) -> list[str]:
    """Say how the learning rates were set, and which parameters were chosen from which grid."""
    trained = [row for row in board.rows if row.reference != "lower"]
    rates: dict[str, list[str]] = {}
    for row in trained:
        for rate in {json.dumps(learning_rate(run.record)) for run in row.runs.values()}:
            rates.setdefault(rate, []).append(markdown_text(board.label(row)))
    common = max(rates, key=lambda rate: len(rates[rate]))
    others = [
        f"{markdown_text(rate)}: {', '.join(rates[rate])}"
        for rate in sorted(rates)
        if rate != common
    ]
    chosen = [
        f"{markdown_text(board.label(row))}: {_grid(tuning, row)}"
        for row in trained
        for tuning in tuned(row, board.tunings)
    ]
    for row in trained:
        stated = declared_choice(next(iter(row.runs.values())).record)
        if stated is not None:
            chosen.append(
                f"{markdown_text(board.label(row))}: training settings, {markdown_text(stated)}"
            )
    exceptions = f", other than {'; '.join(others)}" if others else ""
    return [
        f"Learning rate: {markdown_text(common)}{exceptions}",
        f"Chosen on validation splits: {'; '.join(chosen) if chosen else 'no grid is stored'}. "
        "Other values are those of the recipe and of the protocol",
    ]


def _grid(tuning: Tuning, row: Row) -> str:
    grids = [
        f"{markdown_code(key)} from "
        f"{markdown_text(', '.join(json.dumps(value) for value in values))}"
        for key, values in tuning.grid.items()
    ]
    seeds = sorted({run.seed for run in tuning.settings[0].runs})
    shared = " (also reported)" if set(seeds) & set(row.runs) else ""
    return f"{' and '.join(grids)} with seed {', '.join(map(str, seeds))}{shared}"


def _equal_line(board: Board) -> list[str]:
    """Name methods with equal scores, which may be one method under two names."""
    equal = equal_methods(
        (board.label(row), item.record)
        for row in board.rows
        if row.reference != "lower"
        for item in row.runs.values()
    )
    if not equal:
        return []
    groups = "; ".join(" = ".join(map(markdown_text, names)) for names in equal)
    return [f"Equal scores after all tasks, at every common seed: {groups}"]


def _how_to_read(board: Board) -> list[str]:
    joint = {row.key.method for row in board.rows if row.reference == "upper"}
    upper = [markdown_code(method) for method in sorted(joint)]
    trained_at_once = (
        f"; {', '.join(upper)}: trained on all tasks at once, an upper reference by custom. Other "
        "methods see the last task last and may end above it"
    )
    return [
        "Numbers: micro-mAP and macro-mAP in % on the test split of each probe after each task, "
        "mean over seeds ± half the width of the 95 % t interval of that mean, nothing after the "
        f"mean for one seed; {ABSENT} is undefined or not known",
        "Test images: in brackets the 95 % percentile bootstrap interval of the mean over seeds, "
        f"{RESAMPLES:,} resamples of the test images, the same for all rows. It is the spread over "
        "images with the seeds as they are; ± is the spread over seeds with the images as they are",
        f"Seeds: {_seeds(board)}",
        "Separated: two rows whose difference after the last task has an adjusted p value of at "
        f"most {RATE} (paired t test over common seeds, adjusted for all pairs of the probe after "
        "Benjamini and Hochberg) and a 95 % interval over test images (paired bootstrap) that "
        "excludes 0 on the side of the difference",
        *_correction_lines(board),
        "Rank: 1 + the number of methods that are separated above, by micro-mAP. Methods that "
        "nothing separates share a rank, so equal ranks mean that no difference was shown, and not "
        "that there is none. A method whose seeds differ much may rank above one with a higher "
        f"mean. No rank: fewer than {LEAST_SEEDS} seeds, or not comparable with the ranked methods",
        "References, without a rank: `random-encoder` is the encoder before any training and "
        "`pixel-statistics` the mean and deviation of each band, so both are the same after every "
        f"task{trained_at_once if upper else ''}",
    ]


def _correction_lines(board: Board) -> list[str]:
    """Say how many pairs of each probe survive which correction."""
    lines = []
    for probe in [probe.name for probe in board.layout.probes]:
        own = board.compared[
            (board.compared["probe"] == probe) & (board.compared["score"] == "micro")
        ]
        judged = own[own["separated"].notna()]
        if judged.empty:
            lines.append(f"Corrections, {probe}: no pair can be judged")
            continue
        plain, holm, bh = (int((judged[name] <= RATE).sum()) for name in ("p", "p_holm", "p_bh"))
        lines.append(
            f"Corrections, {probe}: of {len(judged)} pairs, {plain} have p ≤ {RATE}; {holm} "
            f"remain after Holm's correction and {bh} after Benjamini and Hochberg's, at a rate of "
            f"{100 * RATE:.0f} %"
        )
    return lines


def _seeds(board: Board) -> str:
    expected = board.layout.identity.setting("seeds")
    short = [
        f"{markdown_text(board.label(row))} ({row.seeds})"
        for row in board.rows
        if row.seeds is not None and row.seeds < expected
    ]
    missing = f"; fewer have {', '.join(short)}" if short else ""
    return f"the protocol asks for {expected} per row{missing}"


def _unknown_line(board: Board) -> list[str]:
    probes = [probe.name for probe in board.layout.probes]
    unknown = [
        markdown_text(board.label(row))
        for row in board.rows
        if any((own := row.contrast(probe)) and own not in board.known for probe in probes)
    ]
    if not unknown:
        return []
    return [
        "**Not known** over test images, since the image scores were neither beside the records "
        f"nor were their intervals stored: {', '.join(unknown)}"
    ]
