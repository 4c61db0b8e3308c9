"""Makes the head of a leaderboard's page: what it is, and how to read it."""

from markupsafe import Markup

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.formats import SKETCH_WARNING
from rscl_bench.leaderboards.markdown_header import facts
from rscl_bench.leaderboards.page.markup import element, joined
from rscl_bench.leaderboards.page.prose import prose

#: Facts that are shown at once; the others open.
_FIRST = ("Edition", "Protocol", "Code", "Precision", "Seeds")
_FILES = (
    "leaderboard.md",
    "leaderboard.csv",
    "comparisons.csv",
    "costs.csv",
    "scores.csv",
    "image-intervals.jsonl",
)


def page_header(board: Board) -> Markup:
    """Return title, stream of tasks, facts, and how to read the numbers."""
    key = board.key
    listed = [fact.partition(":")[::2] for fact in facts(board)]
    first = [(name, said.split(";")[0]) for name, said in listed if name in _FIRST]
    more = [pair for pair in listed if pair not in first and pair[0] != "Scenario"]
    methods = sum(row.reference != "lower" for row in board.rows)
    tasks = [
        element("li", element("span", element("b", f"T{number}"), " ", task.name))
        for number, task in enumerate(board.layout.tasks, 1)
    ]
    parts = [
        element("p", element("a", "All tables", href="../../index.html"), class_="up"),
        element(
            "h1", key.scenario, element("small", f" version {key.version}, protocol {key.protocol}")
        ),
        element("ol", *tasks, class_="stream", aria_label="Tasks, in the order of training"),
        element(
            "p",
            f"{methods} methods, {len(board.loaded)} runs, {len(board.layout.probes)} "
            f"{'probe' if len(board.layout.probes) == 1 else 'probes'}. ",
            "Score: mean average precision in %; higher is better.",
            class_="lead",
        ),
        _facts(first),
        element(
            "details",
            element("summary", "How to read the numbers, and how they were made"),
            _facts(more),
        ),
        element(
            "p",
            "Files: ",
            joined(element("a", name, href=name) + " " for name in _FILES),
            class_="files",
        ),
    ]
    if key.edition == "sketch":
        parts.insert(2, element("p", SKETCH_WARNING, class_="warning", role="note"))
    return element("header", *parts)


def _facts(listed: list[tuple[str, str]]) -> Markup:
    entries = [
        element("div", element("dt", prose(name)), element("dd", prose(statement.strip())))
        for name, statement in listed
    ]
    return element("dl", *entries, class_="facts")
