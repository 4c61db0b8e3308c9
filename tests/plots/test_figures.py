"""Figures: their values, their files, and that equal records give equal bytes."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.paths import ROOT
from helpers.records import record_of, save
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from rscl_bench.errors import SpecError
from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.export_choice import choose_board, choose_probes, choose_rows
from rscl_bench.plots.critical_difference import draw_critical_difference
from rscl_bench.plots.curves import curve, draw_curves
from rscl_bench.plots.loss import draw_losses, run_name
from rscl_bench.plots.matrix import draw_matrix, score_matrix
from rscl_bench.plots.pareto import draw_pareto, pareto_front, points
from rscl_bench.plots.style import FORMATS, figure_bytes, is_dark, looks, write_figure
from rscl_bench.results.losses import COLUMNS, write_losses
from rscl_bench.results.record import read_record, write_record

RECORDS = ROOT / "leaderboards" / "records" / "shift4"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def board() -> Board:
    """The published records of shift4: four methods, three seeds, five probes."""
    return choose_board(RECORDS)


def drawn(board: Board, kind: str) -> Figure:
    rows, probes = choose_rows(board, []), choose_probes(board, [])
    draw = {
        "matrix": lambda: draw_matrix(board, rows[0], probes, "micro"),
        "curves": lambda: draw_curves(board, rows, probes[:2], "macro"),
        "pareto": lambda: draw_pareto(board, rows, None, "micro", "operations"),
        "critical-difference": lambda: draw_critical_difference(board, rows, probes[0], "micro"),
    }
    return draw[kind]()


def texts(figure: Figure) -> list[str]:
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


@pytest.mark.parametrize("kind", ["matrix", "curves", "pareto", "critical-difference"])
def test_equal_records_give_equal_bytes(board: Board, kind: str) -> None:
    one, two = drawn(board, kind), drawn(board, kind)
    svg = figure_bytes(one, "svg")
    assert svg == figure_bytes(two, "svg") == figure_bytes(one, "svg")
    assert ElementTree.fromstring(svg).tag == f"{SVG}svg"
    assert b"<dc:date>" not in svg
    assert b"http://" not in svg.replace(b"http://www.w3.org/", b"").replace(
        b"http://purl.org/", b""
    ).replace(b"http://creativecommons.org/", b"")


def test_pdf_and_png_have_equal_bytes(board: Board) -> None:
    starts = {"pdf": b"%PDF", "png": b"\x89PNG"}
    for form in FORMATS[1:]:
        content = figure_bytes(drawn(board, "matrix"), form)
        assert content == figure_bytes(drawn(board, "matrix"), form)
        assert content.startswith(starts[form])
        assert b"CreationDate" not in content


def test_a_style_of_the_user_changes_no_byte(board: Board) -> None:
    import matplotlib as mpl

    before = figure_bytes(drawn(board, "matrix"), "svg")
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": None, "axes.facecolor": "black"}):
        assert figure_bytes(drawn(board, "matrix"), "svg") == before
        assert mpl.rcParams["font.size"] == 30


@pytest.mark.parametrize("kind", ["matrix", "curves", "pareto", "critical-difference"])
def test_no_text_lies_outside_of_the_file_or_on_another(board: Board, kind: str) -> None:
    figure = drawn(board, kind)
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    boxes = [
        (text.get_text(), text.get_window_extent(renderer))
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_text().strip() and text.get_visible()
    ]
    for number, (text, box) in enumerate(boxes):
        for other, second in boxes[number + 1 :]:
            overlap = min(box.x1, second.x1) - max(box.x0, second.x0)
            height = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert overlap <= 1 or height <= 1, (text, other)


def test_matrix_holds_the_means_of_the_records(board: Board) -> None:
    (row,) = choose_rows(board, ["cosmae"])
    probes = choose_probes(board, [])
    records = [read_record(path) for path in RECORDS.rglob("cosmae-seed?-????????????????.json")]
    records = [record for record in records if record.identity.method["name"] == "cosmae"]
    assert len(records) == 3
    for kind in ("micro", "macro"):
        expected = [
            [
                np.mean([100 * getattr(r.scores[t][probe.name].test, kind) for r in records])
                for probe in probes
            ]
            for t in range(5)
        ]
        np.testing.assert_allclose(score_matrix(board, row, probes, kind), expected)


def test_matrix_shows_every_value_and_the_order_of_domains(board: Board) -> None:
    (row,) = choose_rows(board, ["cosmae"])
    probes = choose_probes(board, [])
    figure = draw_matrix(board, row, probes, "micro")
    shown = texts(figure)
    for value in score_matrix(board, row, probes, "micro").ravel():
        assert f"{value:.1f}" in shown
    (axes,) = figure.axes
    titles = [label.get_text().replace("\n", "") for label in axes.get_xticklabels()]
    assert titles == ["aid", "hurricane-damage", "hit-uav", "mstar", "ucmerced"]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["random-encoder", "aid", "hurricane-damage", "hit-uav", "mstar"]


def test_undefined_score_is_a_hatched_cell(tmp_path: Path) -> None:
    for seed in (0, 1):
        record = record_of(seed=seed, random=0.1 + seed / 100, finals=(0.4, None))
        write_record(record, tmp_path / f"{seed}.json")
    board = choose_board(tmp_path)
    (row,) = choose_rows(board, [])
    probes = choose_probes(board, [])
    assert np.isnan(score_matrix(board, row, probes, "micro")[2, 0])
    figure = draw_matrix(board, row, probes, "micro")
    assert "–" in texts(figure)
    assert any(patch.get_hatch() for patch in figure.axes[0].patches)


def test_curve_has_mean_and_half_width(board: Board) -> None:
    (row,) = choose_rows(board, ["finetune"])
    (probe,) = choose_probes(board, ["ucmerced"])
    values = curve(board, row, probe, "micro")
    table = pd.read_csv(ROOT / "leaderboards" / "shift4-v1" / "cpu" / "leaderboard.csv")
    line = table.set_index("method").loc["finetune"]
    for task in range(1, 5):
        assert values.loc[task, "mean"] == pytest.approx(
            line[f"T{task}.ucmerced.micro.mean"], abs=0.005
        )
        assert values.loc[task, "half"] == pytest.approx(
            line[f"T{task}.ucmerced.micro.ci95"], abs=0.005
        )


def test_curves_show_methods_and_lower_references(board: Board) -> None:
    shown = texts(drawn(board, "curves"))
    for name in ("er", "cosmae", "ewc", "finetune", "random-encoder", "pixel-statistics"):
        assert name in shown


def test_pareto_front_is_that_of_the_definition() -> None:
    values = [(1.0, 5.0), (2.0, 6.0), (2.0, 5.5), (3.0, 6.0), (1.0, 5.0), (0.5, 1.0)]
    assert pareto_front(values) == [True, True, False, False, True, True]
    rng = np.random.default_rng(0)
    many = [(float(a), float(b)) for a, b in rng.integers(0, 6, (60, 2))]
    for (price, good), on in zip(many, pareto_front(many), strict=True):
        better = [(p, g) for p, g in many if p <= price and g >= good and (p < price or g > good)]
        assert on is not bool(better)


def test_pareto_has_the_operations_of_strategies(board: Board) -> None:
    known, absent = points(board, choose_rows(board, []), None, "micro", "operations")
    assert not absent
    costs = {point.label: point.cost for point in known}
    assert costs["cosmae"] > costs["finetune"]  # a teacher passes too
    qualities = {point.label: point.quality for point in known}
    table = pd.read_csv(ROOT / "leaderboards" / "shift4-v1" / "cpu" / "leaderboard.csv")
    expected = table.set_index("method")["continual.final_average.micro.mean"]
    for name, quality in qualities.items():
        assert quality == pytest.approx(expected[name], abs=0.005)


def test_operations_that_were_not_counted_are_not_drawn(tmp_path: Path) -> None:
    """Old records count the objective's operations alone, which would flatter a strategy."""
    for method in ("one", "two"):
        save(tmp_path, method, 0.4 if method == "one" else 0.5)
    board = choose_board(tmp_path)
    rows = choose_rows(board, [])
    known, absent = points(board, rows, board.layout.probes[0], "micro", "operations")
    assert (known, sorted(absent)) == ([], ["one", "two"])
    with pytest.raises(SpecError, match="try `--cost hours`"):
        draw_pareto(board, rows, board.layout.probes[0], "micro", "operations")


def test_hours_of_two_devices_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "one", 0.4)
    save(tmp_path, "two", 0.5, device="Other CPU")
    board = choose_board(tmp_path)
    with pytest.raises(SpecError, match="hours compare within one device only"):
        draw_pareto(board, choose_rows(board, []), board.layout.probes[0], "micro", "hours")
    figure = draw_pareto(
        board, choose_rows(board, ["two"]), board.layout.probes[0], "micro", "hours"
    )
    assert "hours of training on Other CPU" in texts(figure)


def test_lines_differ_in_colour_and_marker() -> None:
    seventy_seven = looks(77)  # all pairs of seven colours and eleven markers
    assert len({(look.colour, look.marker) for look in seventy_seven}) == 77


def test_text_on_a_colour_has_contrast() -> None:
    assert is_dark((0.0, 0.0, 0.4, 1.0))
    assert not is_dark((1.0, 1.0, 0.8, 1.0))


def test_file_needs_a_known_ending(board: Board, tmp_path: Path) -> None:
    figure = drawn(board, "matrix")
    with pytest.raises(SpecError, match=r"does not end with \.svg, \.pdf or \.png"):
        write_figure(figure, tmp_path / "matrix.jpeg")
    write_figure(figure, tmp_path / "matrix", "png")
    assert (tmp_path / "matrix").read_bytes().startswith(b"\x89PNG")


def test_loss_curves_show_runs_and_tasks(tmp_path: Path) -> None:
    record = record_of(method="mine", seed=3)
    lines = [
        (task, name, first, first + 1, 1e-3, 1.0 / first, 0.9 / first, 0.1 / first)
        for task, name in ((1, "sea"), (2, "land"))
        for first in (1, 3, 5)
    ]
    done, going = tmp_path / "done", tmp_path / "method" / "seed4-0123"
    for folder in (done, going):
        folder.mkdir(parents=True)
        write_losses(pd.DataFrame(lines, columns=list(COLUMNS)), folder / "losses.csv")
    write_record(record, done / "record.json")
    paths = [done / "losses.csv", going / "losses.csv"]
    assert [run_name(path) for path in paths] == [
        "mine, seed 3",
        "method, seed 4 (not finished)",
    ]
    figure = draw_losses(paths)
    assert {" sea", " land", "mine, seed 3"} <= set(texts(figure))
    (axes,) = figure.axes
    x, y = (np.asarray(values) for values in axes.lines[0].get_data())
    assert list(x) == [1.5, 3.5, 5.5, 7.5, 9.5, 11.5]
    assert list(y) == pytest.approx([1, 1 / 3, 1 / 5] * 2)
    assert figure_bytes(figure, "svg") == figure_bytes(draw_losses(paths), "svg")
    with pytest.raises(SpecError, match="at most 12 curves"):
        draw_losses(paths * 7)


def test_choice_of_leaderboard_probe_and_method(tmp_path: Path) -> None:
    save(tmp_path / "a", "one", 0.4)
    save(tmp_path / "b", "one", 0.4, scenario="other")
    with pytest.raises(SpecError, match="choose one with --scenario and --protocol"):
        choose_board(tmp_path)
    assert choose_board(tmp_path, "other").key.scenario == "other"
    assert choose_board(tmp_path, "toy", "quick").key.protocol == "quick"
    with pytest.raises(SpecError, match="did you mean 'other'"):
        choose_board(tmp_path, "othr")
    with pytest.raises(SpecError, match="protocol among these records"):
        choose_board(tmp_path, "toy", "slow")
    board = choose_board(tmp_path, "toy")
    with pytest.raises(SpecError, match="Unknown probe"):
        choose_probes(board, ["inner"])
    with pytest.raises(SpecError, match="Unknown method"):
        choose_rows(board, ["two"])
