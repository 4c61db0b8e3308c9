"""The critical-difference diagram: methods by their scores, those that are not separated joined.

The classic diagram (J. Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets",
JMLR 7, 2006) joins methods by average ranks over data sets and a Nemenyi test. A leaderboard here
has one probe and several seeds. The axis is therefore the mean score, and the joins are the
leaderboard's own comparisons: corrected for all pairs, over seeds and over test images.
"""

from collections.abc import Collection, Sequence
from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rscl_bench.errors import SpecError
from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.columns import score_column
from rscl_bench.leaderboards.comparisons import compared_rows
from rscl_bench.leaderboards.export_choice import Kind, board_title, percentage
from rscl_bench.leaderboards.keys import RowKey
from rscl_bench.leaderboards.rows import Row
from rscl_bench.plots.style import GREY, drawing, fix_layout, new_figure
from rscl_bench.results.schema import ProbeRecord

#: Pairs of rows, and whether each is separated.
Judgements = dict[frozenset[RowKey], bool]


def judgements(board: Board, probe: ProbeRecord, kind: Kind) -> Judgements:
    """Return the judged pairs of a leaderboard: whether they are separated after correction."""
    lines = board.compared
    own = lines[(lines["probe"] == probe.name) & (lines["score"] == kind)]
    judged = own[own["separated"].notna()]
    return {
        frozenset(pair): bool(apart)
        for pair, apart in zip(compared_rows(judged), judged["separated"], strict=True)
    }


def judged_throughout(rows: Sequence[Row], judged: Judgements) -> tuple[list[Row], list[Row]]:
    """Return the rows whose pairs are all judged, and the others.

    As long as a pair is not judged, the row with the most such pairs is left out; among equals, the
    last.
    """
    kept = list(rows)
    while True:
        open_pairs = [
            pair
            for pair in combinations(kept, 2)
            if frozenset({pair[0].key, pair[1].key}) not in judged
        ]
        if not open_pairs:
            return kept, [row for row in rows if row not in kept]
        counts = [sum(row in pair for pair in open_pairs) for row in kept]
        del kept[max(range(len(kept)), key=lambda n: (counts[n], n))]


def joined_groups(
    rows: Sequence[RowKey], judged: Judgements, limit: int = 1000
) -> list[frozenset[RowKey]]:
    """Return the largest groups of rows in which no pair is separated, of two rows or more.

    These are the maximal cliques of the graph of pairs that are not separated (C. Bron and J.
    Kerbosch, "Algorithm 457: finding all cliques of an undirected graph", 1973).

    Args:
        rows: Rows whose pairs are all judged.
        judged: Whether each pair is separated.
        limit: Largest number of groups.

    Raises:
        SpecError: If there are more groups than ``limit``.
    """
    joined = {
        row: {other for other in rows if other != row and not judged[frozenset({row, other})]}
        for row in rows
    }
    groups: list[frozenset[RowKey]] = []
    stack: list[tuple[frozenset[RowKey], set[RowKey], set[RowKey]]] = [
        (frozenset(), set(rows), set())
    ]
    while stack:
        group, candidates, excluded = stack.pop()
        if not candidates and not excluded:
            groups.append(group)
            if len(groups) > limit:
                raise SpecError(
                    f"More than {limit} groups of methods are not separated; choose fewer methods."
                )
            continue
        pivot = max(sorted(candidates | excluded), key=lambda row: len(joined[row] & candidates))
        for row in sorted(candidates - joined[pivot]):
            stack.append((group | {row}, candidates & joined[row], excluded & joined[row]))
            candidates, excluded = candidates - {row}, excluded | {row}
    order = {row: number for number, row in enumerate(rows)}
    several = [group for group in groups if len(group) > 1]
    return sorted(several, key=lambda group: sorted(order[row] for row in group))


def draw_critical_difference(
    board: Board, rows: Sequence[Row], probe: ProbeRecord, kind: Kind
) -> Figure:
    """Draw the methods by their mean score after the last task, and join what is not separated.

    Every bar is one of `joined_groups`. A bar has a dot at each of its members; where a bar passes
    a method without a dot, the method does not belong to the group.

    Raises:
        SpecError: If fewer than two of the rows can be judged.
    """
    judged = judgements(board, probe, kind)
    kept, left_out = judged_throughout(rows, judged)
    if len(kept) < 2:
        raise SpecError(
            "A critical-difference diagram needs two methods that can be judged: three common "
            "seeds, and image scores beside their records or stored intervals over test images."
        )
    column = f"{score_column(len(board.layout.tasks), probe.name, kind)}.mean"
    scores = {row.key: percentage(board, row, column) for row in kept}
    kept = sorted(kept, key=lambda row: (-scores[row.key], row.key))
    groups = joined_groups([row.key for row in kept], judged)
    labels = {row.key: board.label(row) for row in kept}
    half = (len(kept) + 1) // 2
    with drawing():
        figure = new_figure(6.6, 1.35 + 0.17 * half + 0.13 * len(groups))
        axes = figure.add_subplot()
        _draw_axis(axes, [scores[row.key] for row in kept])
        _draw_names(axes, [row.key for row in kept], scores, labels, len(groups))
        for level, group in enumerate(groups):
            _draw_bar(axes, group, scores, _BAR_TOP - level * _BAR_STEP)
        axes.set_ylim(-(0.6 + _BAR_STEP * len(groups) + _NAME_STEP * half), 0.25)
        apart = sum(judged[frozenset(p)] for p in combinations([r.key for r in kept], 2))
        pairs = len(kept) * (len(kept) - 1) // 2
        axes.set_title(
            f"{board_title(board)}\n{probe.name} {kind}-mAP after the last task in %, mean over "
            f"seeds; {apart} of {pairs} pairs are separated",
            pad=12,
        )
        figure.supxlabel(_note(board, left_out), fontsize=6.5)
        fix_layout(figure)
    return figure


_BAR_TOP, _BAR_STEP, _NAME_STEP = -0.28, 0.22, 0.3


def _draw_axis(axes: Axes, scores: Sequence[float]) -> None:
    low, high = min(scores), max(scores)
    margin = 0.05 * (high - low) or 1.0
    axes.set_xlim(low - margin, high + margin)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["top"].set_visible(True)
    axes.spines["top"].set_position(("data", 0.0))
    axes.xaxis.set_ticks_position("top")
    axes.set_yticks([])


def _draw_names(
    axes: Axes,
    rows: Sequence[RowKey],
    scores: dict[RowKey, float],
    labels: dict[RowKey, str],
    bars: int,
) -> None:
    """Write the names left and right of the diagram, each with a line to its score."""
    first = -(0.5 + _BAR_STEP * bars)
    better = rows[: (len(rows) + 1) // 2]
    worse = rows[len(better) :]
    left, right = axes.get_xlim()
    sides = ((better, right, "left"), (worse[::-1], left, "right"))
    for names, edge, align in sides:
        for number, key in enumerate(names):
            y = first - _NAME_STEP * number
            axes.plot([scores[key]] * 2 + [edge], [0, y, y], color=GREY, lw=0.6, zorder=1)
            text = f"{labels[key]}  {scores[key]:.2f}"
            space = "  " if align == "left" else ""
            axes.text(edge, y, f"{space}{text}{'' if space else '  '}", ha=align, va="center")


def _draw_bar(axes: Axes, group: Collection[RowKey], scores: dict[RowKey, float], y: float) -> None:
    x = np.sort([scores[key] for key in group])
    axes.plot([x[0], x[-1]], [y, y], color="black", lw=2.2, solid_capstyle="round", zorder=2)
    axes.plot(x, np.full_like(x, y), "o", color="black", markersize=3.4, zorder=3)


def _note(board: Board, left_out: Sequence[Row]) -> str:
    """Say what a bar means, and which methods are not shown."""
    lines = [
        "A bar joins methods of which no pair is separated (paired over seeds, corrected after "
        "Benjamini and Hochberg\nfor all pairs of the leaderboard at 5 %, and over test images). A "
        "method without a dot on a bar does not belong to it."
    ]
    if left_out:
        names = ", ".join(board.label(row) for row in left_out[:8])
        more = f" and {len(left_out) - 8} more" if len(left_out) > 8 else ""
        lines.append(f"Not judged against all others, and so not shown: {names}{more}.")
    return "\n".join(lines)
