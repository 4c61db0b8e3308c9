"""Tests of the pages of leaderboards: what they state, and that they are whole and safe."""

import csv
import re
import shlex
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from helpers.html import Node, colours_of, contrast, parsed_page
from helpers.paths import ROOT
from helpers.records import FOLDER, record_of, save
from hypothesis import given
from hypothesis import strategies as st

from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.leaderboards.board import Board, make_board
from rscl_bench.leaderboards.build import build_leaderboard
from rscl_bench.leaderboards.collapse import mean_spread
from rscl_bench.leaderboards.costs import training_operations
from rscl_bench.leaderboards.keys import LoadedRecord, group_key, row_key
from rscl_bench.leaderboards.page.canvas import spread_out
from rscl_bench.leaderboards.page.details import repeating_command
from rscl_bench.leaderboards.page.document import leaderboard_page
from rscl_bench.leaderboards.page.index import index_page
from rscl_bench.leaderboards.page.prose import prose
from rscl_bench.leaderboards.page.scale import scale_of
from rscl_bench.leaderboards.page.scatter import Point, front_of
from rscl_bench.leaderboards.page.series import all_series
from rscl_bench.leaderboards.rows import Row
from rscl_bench.resolve import parse_assignments, resolve_run
from rscl_bench.results.files import find_records
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import FlopsRecord, RunRecord, SpreadRecord

PUBLISHED = sorted((ROOT / "leaderboards").glob("*/*/index.html"))
of_every_table = pytest.mark.parametrize(
    "path", PUBLISHED, ids=lambda path: "-".join(path.parts[-3:-1])
)
DOMAINS = {"outer": None, "own-sea": "sea", "own-land": "land"}


def board_of(records: list[RunRecord]) -> Board:
    loaded = [LoadedRecord(Path(f"{place}.json"), record) for place, record in enumerate(records)]
    loaded.sort(key=lambda item: (row_key(item.record), item.seed))
    return make_board(group_key(records[0]), loaded, {})


def records_of_domains() -> list[RunRecord]:
    return [
        record_of(method=method, seed=seed, probes=DOMAINS, finals=(0.3 + better, 0.4 - seed / 50))
        for better, method in ((0.0, "one"), (0.1, "two"))
        for seed in range(3)
    ]


# Numbers


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def written(line: dict[str, str], name: str) -> str:
    """Return what a cell of the page must say by the columns of leaderboard.csv."""
    if name.endswith(".image"):
        low, high = (line[f"{name}_{end}"] for end in ("low", "high"))
        return f"[{low}, {high}]" if low else "–"
    if f"{name}.mean" in line:
        half = line[f"{name}.ci95"]
        return (line[f"{name}.mean"] or "–") + (f" ± {half}" if half else "")
    return line[name] or "–"


def texts_of(table: Node) -> list[list[str]]:
    """Return the texts of a table by row."""
    return [
        [cell.text for cell in row.children if isinstance(cell, Node)] for row in table.all("tr")
    ]


def cells_of(page: Node) -> Iterator[tuple[int, str, str]]:
    """Yield number of the row, column and text of the cells that leaderboard.csv has, too."""
    table = page.one("table", id="methods-table")
    head, body = (node for node in table.children if isinstance(node, Node))
    names = [cell.attributes.get("data-name", "") for cell in head.all("th")]
    for number, row in enumerate(body.children):
        assert isinstance(row, Node)
        cells = [cell for cell in row.children if isinstance(cell, Node)]
        assert len(cells) == len(names)
        for name, cell in zip(names, cells, strict=True):
            if name:
                yield number, name, cell.text


@of_every_table
def test_numbers_of_a_published_page_equal_the_csv(path: Path) -> None:
    lines = csv_rows(path.with_name("leaderboard.csv"))
    cells = list(cells_of(parsed_page(path.read_text(encoding="utf-8"))))
    for row, name, text in cells:
        assert text == written(lines[row], name), (row, name)
    names = {name for _, name, _ in cells}
    shown = {re.sub(r"\.(mean|std|ci95|image_low|image_high)$", "", column) for column in lines[0]}
    left_out = {n for n in shown - names if not n.endswith((".final.micro", ".final.macro"))}
    assert left_out == {
        *("method", "precision", "device", "reference"),
        *("images_per_second", "flop_utilisation", "peak_memory_gib", "trainable_parameters"),
        *("gflops_with_gradient", "gflops_without_gradient"),
    }


@of_every_table
def test_names_and_costs_of_a_published_page_equal_the_csv(path: Path) -> None:
    page = parsed_page(path.read_text(encoding="utf-8"))
    lines = csv_rows(path.with_name("leaderboard.csv"))
    names = [node.text for node in page.one("table", id="methods-table").all("summary")]
    assert names == [line["method"] for line in lines]
    (costs,) = (node for node in page.all("table") if "costs" in node.classes)
    rows = [
        [cell.text for cell in row.children if isinstance(cell, Node)] for row in costs.all("tr")
    ]
    expected = [
        [
            line["method"],
            line["device"],
            line["seeds"],
            *(value or "–" for value in list(line.values())[4:]),
        ]
        for line in csv_rows(path.with_name("costs.csv"))
    ]
    assert [row[:-1] for row in rows[1:]] == expected


@of_every_table
def test_drawn_points_are_those_of_the_table(path: Path) -> None:
    """The title of every line of a chart states the numbers of the columns T1, T2, ..."""
    page = parsed_page(path.read_text(encoding="utf-8"))
    lines = csv_rows(path.with_name("leaderboard.csv"))
    tasks = sum(column.endswith(".micro.mean") and column[0] == "T" for column in lines[0])
    drawn = 0
    for chart in page.all("svg"):
        found = re.match(
            r"(.+), (micro|macro)-mAP over the tasks", chart.attributes.get("aria-label", "")
        )
        for line in (g for g in chart.all("g") if found and "series" in g.classes):
            assert found
            probe, kind = found.groups()
            method, _, values = next(line.all("title")).text.rpartition(": ")
            own = next(row for row in lines if row["method"] == method)
            count = len(values.split(", "))
            assert values.split(", ") == [
                own[f"T{task}.{probe}.{kind}.mean"] for task in range(1, count + 1)
            ]
            drawn += count
    assert drawn == 2 * tasks * len(lines)


def test_heat_map_is_the_matrix_of_scores() -> None:
    """Rows are states of the encoder, columns probes in the order of their tasks."""
    board = board_of(records_of_domains())
    page = parsed_page(leaderboard_page(board))
    figures = [node for node in page.all("figure") if "heat" in node.classes]
    names = [next(figure.all("figcaption")).text for figure in figures]
    assert names == 2 * ["one (3 seeds)", "two (3 seeds)"]
    first = figures[1]
    assert texts_of(first) == [
        ["after", "own-sea", "own-land", "outer (outside)"],
        ["untrained", "20.00", "20.00", "20.00"],
        ["T1 sea", "40.00", "40.00", "40.00"],
        ["T2 land", "38.00", "38.00", "38.00"],
    ]
    own = [c.text for c in first.all("td") if "own" in c.classes]
    assert own == ["40.00", "38.00"]
    steps = [c.classes[0] for c in first.all("td")]
    assert steps[:3] == 3 * ["h0"]
    assert steps[3:6] == 3 * ["h8"]


def test_table_without_domains_says_why_there_is_no_heat_map() -> None:
    page = leaderboard_page(board_of([record_of()]))
    assert "No probe of this scenario belongs to the domain of a task" in page
    assert 'class="heat' not in page


def test_operations_are_those_of_all_steps() -> None:
    flops = FlopsRecord(
        with_gradient=1000,
        without_gradient=10,
        strategies_with_gradient=500,
        strategies_without_gradient=200,
    )
    record = record_of(steps=(4, 4)).model_copy(update={"flops": flops})
    board = board_of([record])
    (row,) = (row for row in board.rows if row.reference is None)
    # Batches of 4: strategies add their operations from the second task on.
    assert training_operations(row) == 4 * (4 * 1010 + 4 * 1710)


def test_operations_of_uncounted_strategies_are_not_known() -> None:
    flops = FlopsRecord(with_gradient=1000, without_gradient=10)
    plain = record_of().model_copy(update={"flops": flops})
    mixed = record_of(method="two", parameters={"strategies": [{"name": "er"}]})
    mixed = mixed.model_copy(update={"flops": flops})
    one, two = (row for row in board_of([plain, mixed]).rows if row.reference is None)
    assert training_operations(one) == 4 * 8 * 1010
    assert training_operations(two) is None


def test_spread_is_the_mean_over_seeds() -> None:
    def with_spread(seed: int, std: float | None) -> RunRecord:
        rows = tuple(
            {} if std is None else {"outer": SpreadRecord(std=std + task, effective_rank=2.0)}
            for task in range(3)
        )
        return record_of(seed=seed).model_copy(update={"spread": rows})

    def row_of(records: list[RunRecord]) -> Row:
        return next(row for row in board_of(records).rows if row.reference is None)

    spread = mean_spread(row_of([with_spread(0, 0.25), with_spread(1, 0.75)]), "outer", 2)
    assert spread == (2.5, 2.0)
    assert mean_spread(row_of([with_spread(0, 0.25), with_spread(1, None)]), "outer", 2) is None
    assert mean_spread(row_of([record_of()]), "outer", 1) is None


# Commands


@pytest.mark.parametrize("method", ["cosmae", "finetune"])
def test_command_of_a_row_repeats_its_runs(method: str) -> None:
    found = find_records([ROOT / "leaderboards" / "records" / "shift4" / "cpu"]).records
    paths = [path for path in found if path.name.startswith(f"{method}-seed")]
    records = [read_record(path) for path in paths]
    board = board_of(records)
    (row,) = (row for row in board.rows if row.key.method == method)
    words = shlex.split(repeating_command(row))
    options = dict(pairwise(words))
    assert words[:2] == ["rscl-bench", "sweep"]
    assert [int(seed) for seed in options["--seeds"].split(",")] == [0, 1, 2]
    spec = resolve_run(
        load_scenario(options["--scenario"]),
        load_method(options["--methods"]),
        options["--protocol"],
    )
    assert (
        spec.method.model_dump(mode="json")["objective"] == records[0].identity.method["objective"]
    )


def test_command_of_a_row_has_its_settings() -> None:
    settings = {
        "objective.mask_ratio": 0.5,
        "training.betas": [0.9, 0.99],
        "objective.views": "a b",
    }
    board = board_of([record_of(overrides=settings)])
    (row,) = (row for row in board.rows if row.reference is None)
    words = shlex.split(repeating_command(row))
    given_back = [after for word, after in pairwise(words) if word == "--set"]
    assert parse_assignments(given_back) == settings


# The document


@of_every_table
def test_published_page_is_small(path: Path) -> None:
    assert path.stat().st_size < 2**20


def addresses(page: Node) -> list[tuple[str, str]]:
    return [
        (name, value)
        for node in page.all()
        for name, value in node.attributes.items()
        if name in ("src", "href", "action", "xlink:href", "srcset", "data", "poster")
    ]


@of_every_table
def test_published_page_loads_nothing_and_links_to_files_that_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    page = parsed_page(text)
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "url(" not in text
    found = addresses(page)
    assert {name for name, _ in found} == {"href"}
    for _, target in found:
        assert (path.parent / target).is_file(), target


def test_pages_are_well_formed_and_their_ids_are_unique() -> None:
    for text in (
        leaderboard_page(board_of(records_of_domains())),
        *(path.read_text(encoding="utf-8") for path in PUBLISHED),
    ):
        bare = re.sub(r"(<style>|<script>).*?(</style>|</script>)", r"\1\2", text, flags=re.DOTALL)
        ElementTree.fromstring(bare)
        page = parsed_page(text)
        ids = [node.attributes["id"] for node in page.all() if "id" in node.attributes]
        assert len(set(ids)) == len(ids)
        assert page.one("html").attributes["lang"] == "en"


def test_every_chart_has_a_name_and_a_description() -> None:
    page = parsed_page(leaderboard_page(board_of(records_of_domains())))
    charts = [node for node in page.all("svg") if "aria-hidden" not in node.attributes]
    assert charts
    for chart in charts:
        title, description = (
            next(c.text for c in chart.children if isinstance(c, Node) and c.tag == tag)
            for tag in ("title", "desc")
        )
        assert title
        assert description
        assert chart.attributes["role"] == "img"
    for region in (n for n in page.all("div") if "scroll" in n.classes):
        assert region.attributes["tabindex"] == "0"
        assert region.attributes["aria-label"]
    for table in page.all("table"):
        for head in next(table.all("thead")).all("th"):
            assert head.attributes["scope"] == "col"


def test_equal_records_give_equal_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    records = records_of_domains()
    first = leaderboard_page(board_of(records))
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert leaderboard_page(board_of(records[::-1])) == first
    later = datetime(2026, 11, 27, tzinfo=UTC)
    moved = [
        r.model_copy(update={"provenance": r.provenance.model_copy(update={"started": later})})
        for r in records
    ]
    assert leaderboard_page(board_of(moved)) == first


def test_policy_allows_the_own_style_and_script_alone() -> None:
    page = parsed_page(leaderboard_page(board_of([record_of()])))
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for tag in ("style", "script"):
        digest = b64encode(sha256(page.one(tag).text.encode()).digest()).decode()
        assert rules[f"{tag}-src"] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert not [node for node in page.all() if "style" in node.attributes]


# Colours


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_texts_and_lines_have_enough_contrast(theme: int) -> None:
    """WCAG 2.2, level AA: 4.5 for texts, 3 for lines, points and states."""
    style = parsed_page(leaderboard_page(board_of([record_of()]))).one("style").text
    palettes = colours_of(style)
    assert len(palettes) == 2
    colours = palettes[theme]
    series = [f"s{place}" for place in range(8)]
    for name in ("text", "muted", "link", "warn", "sx", "ref", *series):
        for ground in ("page", "panel"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    assert contrast(colours["page"], colours["link"]) >= 4.5  # the chosen button
    for step in range(9):
        assert contrast(colours[f"h{step}"], colours[f"t{step}"]) >= 4.5, step
    for state in ("better", "worse"):
        assert contrast(colours[state], colours["page"]) >= 3, state


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


# Parts


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=12).map(sorted),
    st.floats(1, 30),
)
def test_labels_keep_their_order_and_their_distance(wanted: list[float], gap: float) -> None:
    places = spread_out(wanted, gap, 0.0, 100.0)
    least = min(gap, 100.0 / max(len(wanted) - 1, 1))
    assert all(two - one >= least - 1e-6 for one, two in pairwise(places))
    assert all(-1e-6 <= place <= 100.0 + 1e-6 for place in places)
    if all(two - one >= least for one, two in pairwise(wanted)):
        assert places == pytest.approx(wanted)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
def test_scale_has_round_ends_around_its_values(values: list[float]) -> None:
    scale = scale_of(values, 0.0, 100.0)
    assert scale is not None
    assert scale.low <= min(values) <= max(values) <= scale.high
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 12
    assert all(scale.low - 1e-6 <= tick <= scale.high + 1e-6 for tick in ticks)
    assert scale(scale.low) == 0.0
    assert scale(scale.high) == 100.0


def test_scale_needs_a_value() -> None:
    assert scale_of([float("nan")], 0.0, 1.0) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=10))
def test_front_holds_the_points_that_none_beats(pairs: list[tuple[int, int]]) -> None:
    one = all_series(board_of([record_of()]))[-1]
    shown = [Point(one, cost, quality, quality, quality) for cost, quality in pairs]
    front = {(p.cost, p.quality) for p in front_of(shown)}
    best, expected = -1, set()
    for cost in sorted({cost for cost, _ in pairs}):
        top = max(quality for own, quality in pairs if own == cost)
        if top > best:
            expected.add((cost, top))
            best = top
    assert front == expected


def test_sentences_are_those_of_the_markdown_table() -> None:
    shown = prose(r"a \[b\] &lt;c&gt; `d <e>` **f** [g](costs.csv) \*h\* :&#47;&#47;x")
    assert shown == (
        "a [b] &lt;c&gt; <code>d &lt;e&gt;</code> <strong>f</strong> "
        '<a href="costs.csv">g</a> *h* ://x'
    )
    assert prose("[x](javascript:alert)") == "[x](javascript:alert)"


# The list of tables


def test_list_shows_all_tables_of_the_folder(tmp_path: Path) -> None:
    save(tmp_path / "records", "one", 1.0, seeds=1)
    build_leaderboard(tmp_path / "records", tmp_path / "out")
    first = (tmp_path / "out" / "index.html").read_bytes()
    save(tmp_path / "other", "two", 1.0, seeds=1, scenario="coast")
    build_leaderboard(tmp_path / "other", tmp_path / "out")
    page = parsed_page((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    links = [value for _, value in addresses(page)]
    assert links == ["coast-v1-sketch/quick/index.html", f"{FOLDER}/index.html"]
    assert all((tmp_path / "out" / link).is_file() for link in links)
    (tmp_path / "out" / "coast-v1-sketch" / "quick" / "leaderboard.csv").write_text("not,ours\n")
    assert "coast-v1-sketch/quick/index.html" in index_page(tmp_path / "out")
    build_leaderboard(tmp_path / "records", tmp_path / "again")
    assert (tmp_path / "again" / "index.html").read_bytes() == first
