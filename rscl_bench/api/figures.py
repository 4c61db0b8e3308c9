"""Draw figures of records and runs, and export tables for papers."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rscl_bench.api.arguments import record_paths
from rscl_bench.errors import SpecError, unknown
from rscl_bench.user_paths import user_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rscl_bench.leaderboards.export import Format
    from rscl_bench.leaderboards.export_choice import Kind
    from rscl_bench.plots.style import Format as FigureFormat

FigureKind = Literal["curves", "matrix", "pareto", "critical-difference", "loss"]
FIGURES: tuple[FigureKind, ...] = ("curves", "matrix", "pareto", "critical-difference", "loss")


def plot(
    figure: FigureKind,
    records: "str | Path | Iterable[str | Path]",
    *,
    scenario: str | None = None,
    protocol: str | None = None,
    probes: Sequence[str] = (),
    methods: Sequence[str] = (),
    score: "Kind" = "micro",
    cost: Literal["operations", "hours"] = "operations",
    out: str | Path | None = None,
    format: "FigureFormat | None" = None,
) -> "Figure":
    """Draw a figure of records, or of the losses of runs.

    Equal records give equal bytes with one version of matplotlib.

    Args:
        figure: ``curves``: a score over the tasks. ``matrix``: the score of each probe after each
            task, of one method. ``pareto``: quality against cost. ``critical-difference``: methods
            by their score, joined where they are not separated. ``loss``: the training loss of
            runs.
        records: One folder or record file, or several of them; for ``loss``, folders of runs.
        scenario: Name of the scenario, if the records have several.
        protocol: Name of the protocol, if the records have several.
        probes: Names of probes. Empty: all; for ``critical-difference`` and ``pareto`` the first,
            and for ``pareto`` the final average where tasks have probes of their domains.
        methods: Names of methods, as in the leaderboard; all if empty.
        score: ``micro`` or ``macro``.
        cost: For ``pareto``: ``operations`` per image, or ``hours`` within one device.
        out: File to write; nothing is written if None.
        format: ``svg``, ``pdf`` or ``png``; None takes the ending of ``out``.

    Returns:
        The figure, of matplotlib.

    Raises:
        SpecError: If a name is unknown, or there is nothing to draw.
        ArtefactError: If a record is damaged, or the file cannot be written.
    """
    from rscl_bench.plots.loss import draw_losses
    from rscl_bench.plots.style import write_figure
    from rscl_bench.results.losses import find_losses

    if figure not in FIGURES:
        raise unknown("figure", figure, FIGURES)
    paths = record_paths(records)
    if figure == "loss":
        drawn = draw_losses(find_losses(paths))
    else:
        drawn = _of_board(figure, paths, scenario, protocol, probes, methods, score, cost)
    if out is not None:
        write_figure(drawn, user_path(out, "The file of the figure"), format)
    return drawn


def _of_board(
    figure: FigureKind,
    paths: Sequence[Path],
    scenario: str | None,
    protocol: str | None,
    probes: Sequence[str],
    methods: Sequence[str],
    score: "Kind",
    cost: Literal["operations", "hours"],
) -> "Figure":
    from rscl_bench.leaderboards.export_choice import choose_board, choose_probes, choose_rows
    from rscl_bench.plots.critical_difference import draw_critical_difference
    from rscl_bench.plots.curves import draw_curves
    from rscl_bench.plots.matrix import draw_matrix
    from rscl_bench.plots.pareto import draw_pareto

    board = choose_board(paths, scenario, protocol)
    chosen, rows = choose_probes(board, probes), choose_rows(board, methods)
    if figure == "curves":
        return draw_curves(board, rows, chosen, score)
    if figure == "matrix":
        if len(rows) > 1:
            names = ", ".join(board.label(row) for row in rows)
            raise SpecError(f"A matrix is of one method; choose one with --method: {names}.")
        return draw_matrix(board, rows[0], chosen, score)
    if figure == "critical-difference":
        return draw_critical_difference(board, rows, chosen[0], score)
    domains = not probes and any(probe.task is not None for probe in chosen)
    return draw_pareto(board, rows, None if domains else chosen[0], score, cost)


def export(
    records: "str | Path | Iterable[str | Path]",
    format: "Format",
    *,
    scenario: str | None = None,
    protocol: str | None = None,
    probes: Sequence[str] = (),
    methods: Sequence[str] = (),
    score: "Kind | None" = None,
    columns: Sequence[str] = (),
) -> str:
    """Return a leaderboard as a table for a paper, or the scores of records as a long CSV.

    Args:
        records: One folder or record file, or several of them.
        format: ``latex`` (package booktabs), ``markdown``, or ``csv-long``: the rows of
            ``scores.csv``, one per run, task, probe, split and score.
        scenario: Name of the scenario; needed if the records have several, except for ``csv-long``.
        protocol: Name of the protocol; likewise.
        probes: Names of probes; all if empty.
        methods: Names of methods, as in the leaderboard; all if empty.
        score: ``micro`` or ``macro``. None is ``micro``, and both for ``csv-long``.
        columns: Columns of a table, see `rscl_bench.leaderboards.export.COLUMNS`; empty for those
            that fit the probes.

    Raises:
        SpecError: If a name is unknown.
        ArtefactError: If a record is damaged or contradicts another.
    """
    from rscl_bench.leaderboards.escaping import csv_file
    from rscl_bench.leaderboards.export import FORMATS, export_table, long_csv
    from rscl_bench.leaderboards.export_choice import choose_board
    from rscl_bench.leaderboards.export_text import latex_table, markdown_table

    paths = record_paths(records)
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if format == "csv-long":
        if columns:
            raise SpecError("A long CSV has fixed columns; leave --columns out.")
        return csv_file(
            long_csv(
                paths,
                scenario=scenario,
                protocol=protocol,
                probes=probes,
                methods=methods,
                kind=score,
            )
        )
    table = export_table(
        choose_board(paths, scenario, protocol),
        probes=probes,
        methods=methods,
        kind=score or "micro",
        columns=columns,
    )
    return latex_table(table) if format == "latex" else markdown_table(table)
