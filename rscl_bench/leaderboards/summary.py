"""Makes the short table of a leaderboard that a terminal shows, from its CSV file."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rscl_bench.leaderboards.columns import KINDS, domain_column, score_column
from rscl_bench.leaderboards.formats import ABSENT

_FINAL = re.compile(r"T(?P<task>\d+)\.(?P<probe>.+)\.micro\.image_low")
_FORGETTING = domain_column("forgetting", "micro")


@dataclass(frozen=True)
class Summary:
    """The short table of one leaderboard.

    Attributes:
        title: Folder of the leaderboard, such as ``scene4-v2/cpu``.
        sketch: Whether the images are synthetic.
        columns: Titles of the columns.
        rows: Cells of the rows, in the order of the leaderboard.
    """

    title: str
    sketch: bool
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def summary(path: Path) -> Summary:
    """Return method, seeds, final scores, forgetting where defined, and ranks.

    Args:
        path: The file ``leaderboard.csv`` of a leaderboard.
    """
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    matches = [match for match in map(_FINAL.fullmatch, lines[0]) if match]
    finals = [(int(match["task"]), match["probe"]) for match in matches]
    scores = {
        f"{probe} {kind}-mAP": score_column(task, probe, kind)
        for task, probe in finals
        for kind in KINDS
    }
    if any(line.get(f"{_FORGETTING}.mean") for line in lines):
        scores["forgetting, micro"] = _FORGETTING
    several = len({line["precision"] for line in lines if line["precision"]}) > 1
    names = ["method", "precision", "seeds"] if several else ["method", "seeds"]
    ranks = {f"rank, {probe}": f"{probe}.rank" for _, probe in finals}
    rows = [
        (
            *(line[name] or ABSENT for name in names),
            *(_mean(line, column) for column in scores.values()),
            *(line[column] or ABSENT for column in ranks.values()),
        )
        for line in lines
    ]
    folder = path.parent
    return Summary(
        title=f"{folder.parent.name}/{folder.name}",
        sketch=folder.parent.name.endswith("-sketch"),
        columns=(*names, *scores, *ranks),
        rows=rows,
    )


def _mean(line: Mapping[str, str], column: str) -> str:
    """Return ``mean ± half the width of the t interval``, in percent."""
    half = line[f"{column}.ci95"]
    return (line[f"{column}.mean"] or ABSENT) + (f" ± {half}" if half else "")
