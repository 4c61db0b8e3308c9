"""Puts the page of a leaderboard together: one file without network, readable without script."""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from markupsafe import Markup

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.columns import KINDS
from rscl_bench.leaderboards.comparisons import LEAST_SEEDS
from rscl_bench.leaderboards.page.collapse_part import collapse_table
from rscl_bench.leaderboards.page.colours import colour_style
from rscl_bench.leaderboards.page.costs_part import chart_costs, cost_charts, cost_table
from rscl_bench.leaderboards.page.curve import curves
from rscl_bench.leaderboards.page.header import page_header
from rscl_bench.leaderboards.page.heatmap import heatmaps
from rscl_bench.leaderboards.page.markup import element, joined
from rscl_bench.leaderboards.page.matrix import separations_part
from rscl_bench.leaderboards.page.series import Series, all_series
from rscl_bench.leaderboards.page.table import methods_table
from rscl_bench.leaderboards.page.views import (
    View,
    has_domains,
    selector_style,
    selectors,
    shown_in,
    views,
)

#: With more rows, a browser draws charts only as they come into sight.
_MANY = 60


def leaderboard_page(board: Board) -> str:
    """Return a leaderboard as one HTML file; equal boards give equal bytes.

    Args:
        board: The leaderboard.
    """
    series = all_series(board)
    key = board.key
    content = [
        page_header(board),
        element(
            "main",
            _controls(board),
            *_sections(board, series),
            class_="many" if len(series) > _MANY else None,
        ),
        element(
            "footer", element("p", f"Built from run records by rscl-bench {key.code} records.")
        ),
    ]
    title = f"{key.scenario}, protocol {key.protocol}: rscl-bench leaderboard"
    return document(title, content, selector_style(board), _resource("script.js"))


def document(title: str, content: list[Markup], extra_style: str, script: str = "") -> str:
    """Return a whole document that loads nothing.

    The content security policy names the digests of style and script, so that a browser runs
    nothing else and opens no connection, whatever a record says.

    Args:
        title: Title of the document.
        content: Parts of the body.
        extra_style: Rules after those of all pages.
        script: The script; empty for none.
    """
    style = "\n".join([colour_style(), _resource("style.css"), extra_style])
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'"
    )
    policy += f"; script-src '{_digest(script)}'" if script else ""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(style)),
    )
    scripts = [element("script", Markup(script))] if script else []
    body = element("body", joined(part + "\n" for part in content), *scripts)
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _digest(text: str) -> str:
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _controls(board: Board) -> Markup:
    """Return the selectors, and the filter, which only the script shows."""
    search = element(
        "label", element("span", "Filter methods"), element("input", type="search", id="filter")
    )
    enough = element("input", type="checkbox", id="enough", data_least=LEAST_SEEDS)
    few = element("label", enough, f"at least {LEAST_SEEDS} seeds")
    count = element("output", "", id="count", aria_live="polite")
    return element(
        "form",
        selectors(board),
        element("div", search, few, count, class_="filters", hidden="hidden"),
        class_="controls",
        aria_label="What is shown",
    )


def _sections(board: Board, series: list[Series]) -> list[Markup]:
    shown = views(board)
    costs = chart_costs(board, series)
    by_probe = [view for view in shown if view.probe is not None]
    return [
        _section(
            "methods",
            "Methods",
            "Means over seeds ± half the 95 % t interval, in brackets the 95 % interval over test "
            "images. A name opens to its seeds, records, command and recipe. Pale rows have too "
            "few seeds for a comparison.",
            [methods_table(board, series)],
        ),
        _section(
            "curves",
            "Over the tasks",
            "The mean over seeds after each task, with the 95 % interval over seeds. References "
            "are dashed. The pointer on a line, a point or a row shows one method alone.",
            [_by_probe(board, [(view, curves(board, view, series)) for view in by_probe])],
        ),
        _section(
            "domains",
            "Every domain after every task, R[t][j]",
            "A row is a state of the encoder, a column a probe. Framed cells are the task's own "
            "domain: what stands below them shows what later tasks changed. Colours are by column: "
            "the stronger the colour, the larger the score of this probe.",
            _heat_parts(board, series),
        ),
        _section(
            "costs",
            "Quality against cost",
            "Operations are those of an image times the images of all steps, strategies included. "
            "Hours compare on one device only, and only if nothing else ran on it. The line joins "
            "the methods that no other one beats in both means; it is not a test.",
            [
                *(shown_in(view, cost_charts(view, series, costs)) for view in shown),
                cost_table(board, series),
            ],
        ),
        _section(
            "separated",
            "Which methods are separated",
            "After the last task, over common seeds and over test images, corrected for all pairs "
            "of the probe and score (Benjamini and Hochberg).",
            [
                _by_probe(
                    board, [(view, separations_part(board, view, series)) for view in by_probe]
                )
            ],
        ),
        _section(
            "collapse",
            "Collapse",
            "std is 1 for features that fill the sphere and 0 for features that are all equal. "
            "The effective rank lies between 1 and the number of dimensions.",
            _collapse_parts(board, shown, series),
        ),
    ]


def _by_probe(board: Board, parts: list[tuple[View, Markup]]) -> Markup:
    """Return parts of single probes; the view of the mean over domains shows them all."""
    also = " p0" if has_domains(board) else ""
    return element(
        "div",
        *(
            element("div", element("h3", view.title), part, class_=f"{view.marks}{also}")
            for view, part in parts
        ),
        class_="charts",
    )


def _section(name: str, title: str, lead: str, content: list[Markup]) -> Markup:
    heading = element("h2", title, id=name)
    return element(
        "section", heading, element("p", lead, class_="lead"), *content, aria_labelledby=name
    )


def _heat_parts(board: Board, series: list[Series]) -> list[Markup]:
    if not has_domains(board):
        return [
            element(
                "p",
                "No probe of this scenario belongs to the domain of a task, so there is no such "
                "matrix. Every task is seen through an outside probe.",
            )
        ]
    return [
        element("div", heatmaps(board, kind, series), class_=f"v {kind} {_all_measures(board)}")
        for kind in KINDS
    ]


def _all_measures(board: Board) -> str:
    return " ".join(f"p{view.position}" for view in views(board)[:: len(KINDS)])


def _collapse_parts(board: Board, shown: list[View], series: list[Series]) -> list[Markup]:
    return [
        element(
            "div",
            collapse_table(board, view, series),
            class_=f"v p{view.position} {' '.join(KINDS)}",
        )
        for view in shown[:: len(KINDS)]
    ]
