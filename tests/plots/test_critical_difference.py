"""The groups of a critical-difference diagram, against networkx and by hand."""

from itertools import combinations
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from helpers.records import save

from rscl_bench.errors import SpecError
from rscl_bench.leaderboards.comparisons import separations
from rscl_bench.leaderboards.export_choice import choose_board, choose_rows
from rscl_bench.leaderboards.keys import RowKey
from rscl_bench.plots.critical_difference import (
    Judgements,
    draw_critical_difference,
    joined_groups,
    judged_throughout,
    judgements,
)


def keys(count: int) -> list[RowKey]:
    return [RowKey(f"m{number:02}", "fp32") for number in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_the_maximal_cliques(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = keys(int(rng.integers(2, 12)))
    share = rng.uniform(0.05, 0.9)
    judged: Judgements = {
        frozenset(pair): bool(rng.uniform() < share) for pair in combinations(rows, 2)
    }
    graph = nx.Graph()
    graph.add_nodes_from(rows)
    graph.add_edges_from(tuple(pair) for pair, apart in judged.items() if not apart)
    expected = {frozenset(clique) for clique in nx.find_cliques(graph) if len(clique) > 1}
    groups = joined_groups(rows, judged)
    assert set(groups) == expected
    assert len(groups) == len(expected)


def test_groups_need_not_be_neighbours_in_score() -> None:
    """The middle method is separated from both others, which are joined with each other."""
    a, b, c = keys(3)
    judged = {frozenset({a, b}): True, frozenset({b, c}): True, frozenset({a, c}): False}
    assert joined_groups([a, b, c], judged) == [frozenset({a, c})]


def test_too_many_groups_are_refused() -> None:
    rows = keys(16)  # eight separated pairs: 2⁸ groups
    judged = {
        frozenset(pair): rows.index(pair[0]) // 2 == rows.index(pair[1]) // 2
        for pair in combinations(rows, 2)
    }
    assert len(joined_groups(rows, judged)) == 256
    with pytest.raises(SpecError, match="More than 255 groups"):
        joined_groups(rows, judged, limit=255)


def test_diagram_joins_what_the_leaderboard_does_not_separate(tmp_path: Path) -> None:
    for method, quality in (("bad", 0.3), ("good", 0.6), ("better", 0.62)):
        save(tmp_path, method, quality, seeds=5, spread=0.004)
    save(tmp_path, "single", 0.5, seeds=1)
    board = choose_board(tmp_path)
    probe = board.layout.probes[0]
    judged = judgements(board, probe, "micro")
    rows = choose_rows(board, [])
    kept, left_out = judged_throughout(rows, judged)
    assert [row.key.method for row in left_out] == ["single"]
    apart = {frozenset(pair) for pair in separations(board.compared)}
    assert {pair for pair, separated in judged.items() if separated} == apart
    assert any("bad" in {key.method for key in pair} for pair in apart)
    figure = draw_critical_difference(board, rows, probe, "micro")
    shown = [text.get_text().strip() for text in figure.axes[0].texts]
    assert len(shown) == len(kept) == 3
    bars = [line for line in figure.axes[0].lines if line.get_linewidth() == 2.2]
    assert len(bars) == len(joined_groups([row.key for row in kept], judged))
    with pytest.raises(SpecError, match="needs two methods that can be judged"):
        draw_critical_difference(board, rows[:1], probe, "micro")
