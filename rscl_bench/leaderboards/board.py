"""Makes one leaderboard: rows, means over seeds, intervals, comparisons and ranks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from rscl_bench.leaderboards.columns import KEYS, KINDS, score_column
from rscl_bench.leaderboards.comparisons import comparisons, pairs
from rscl_bench.leaderboards.costs import costs_by_row
from rscl_bench.leaderboards.image_intervals import Contrast, Intervals, image_intervals
from rscl_bench.leaderboards.keys import GroupKey, LoadedRecord, RowKey
from rscl_bench.leaderboards.ranks import ranks
from rscl_bench.leaderboards.references import ReferenceSpread, reference_spread
from rscl_bench.leaderboards.rows import Row, leaderboard_rows
from rscl_bench.leaderboards.statistics import Interval
from rscl_bench.leaderboards.values import over_seeds, run_values
from rscl_bench.results.marks import MARKS, MarkName
from rscl_bench.results.schema import RunRecord
from rscl_bench.results.tuning import Tuning


@dataclass(frozen=True)
class Board:
    """The content of one leaderboard.

    Attributes:
        key: Key of the group of records.
        loaded: Records of the group.
        rows: Rows in the order of the table.
        means: Means over seeds from `over_seeds`, as fractions, in the order of ``rows``.
        known: Known intervals over test images, by contrast.
        compared: Compared pairs of rows, from `comparisons`.
        ranks: Ranks by row and probe, from `ranks`.
        spread: Largest differences between scores that no training touches.
        tunings: Stored tunings of the scenario and protocol.
    """

    key: GroupKey
    loaded: Sequence[LoadedRecord]
    rows: Sequence[Row]
    means: pd.DataFrame
    known: Mapping[Contrast, Intervals]
    compared: pd.DataFrame
    ranks: pd.DataFrame
    spread: ReferenceSpread
    tunings: Sequence[Tuning]

    @property
    def layout(self) -> RunRecord:
        """One record of the group; all records have its tasks and probes."""
        return self.loaded[0].record

    @property
    def precisions(self) -> list[str]:
        """Precisions of the trained rows, sorted."""
        return sorted({row.key.precision for row in self.rows if row.reference != "lower"})

    @property
    def marks(self) -> list[MarkName]:
        """Marks of the trained rows, from the weakest to the strongest."""
        present = {row.mark for row in self.rows}
        return [mark for mark in MARKS if mark in present]

    def label(self, row: Row) -> str:
        """Return the name of a row, with its precision where the trained rows have several."""
        shown = row.key[:1] if len(self.precisions) == 1 else row.key
        return " ".join(part for part in shown if part)

    def bootstrap_interval(self, row: Row, probe: str, kind: str) -> Interval | None:
        """Return the interval over test images of a row's final score; None if not known."""
        contrast = row.contrast(probe)
        intervals = self.known.get(contrast) if contrast else None
        return intervals[KINDS.index(kind)] if intervals else None


def make_board(
    key: GroupKey,
    loaded: Sequence[LoadedRecord],
    stored: Mapping[Contrast, Intervals],
    tunings: Sequence[Tuning] = (),
) -> Board:
    """Make the leaderboard of one group of records.

    Lower references come first, then upper references, then methods. Upper references and methods
    are sorted by falling micro-mAP after the last task, averaged over probes; rows with equal
    averages are sorted by key.

    Args:
        key: Key of the group.
        loaded: Records of the group, sorted by row and seed.
        stored: Stored intervals, for records without image scores beside them.
        tunings: Stored tunings of the scenario and protocol.

    Raises:
        ArtefactError: If records contradict each other, or a file of image scores does not belong
            to its record.
    """
    layout = loaded[0].record
    unordered = leaderboard_rows(loaded, stored)
    values = run_values(unordered, loaded)
    means = over_seeds(values)
    last = [f"{score_column(len(layout.tasks), p.name, 'micro')}.mean" for p in layout.probes]
    finals = means[last].mean(axis="columns").to_dict()  # `mean` leaves out undefined scores

    def order(row: Row) -> tuple[bool, bool, float, RowKey]:
        final = finals[row.key]
        return row.reference is None, math.isnan(final), -final, row.key

    lower = [row for row in unordered if row.reference == "lower"]
    rows = [*lower, *sorted((row for row in unordered if row not in lower), key=order)]
    known = image_intervals(_contrasts(rows, layout), loaded, stored)
    compared = comparisons(rows, values, layout, known)
    return Board(
        key=key,
        loaded=loaded,
        rows=rows,
        means=means.reindex(pd.MultiIndex.from_tuples([row.key for row in rows], names=KEYS)),
        known=known,
        compared=compared,
        ranks=ranks(rows, compared),
        spread=reference_spread(rows, loaded),
        tunings=tunings,
    )


def leaderboard_frame(board: Board) -> pd.DataFrame:
    """Return the columns of ``leaderboard.csv``; numbers are not rounded, scores are in percent."""
    layout = board.layout
    probes = [probe.name for probe in layout.probes]
    frame = pd.DataFrame(index=board.means.index)
    frame["device"] = [device_name(row) for row in board.rows]
    frame["seeds"] = pd.array([row.seeds for row in board.rows], dtype="Int64")
    frame["reference"] = [row.reference or "" for row in board.rows]
    frame["mark"] = [row.mark or "" for row in board.rows]
    for probe in probes:
        frame[f"{probe}.rank"] = board.ranks.get(probe, pd.NA)
    image_ends = {
        f"{score_column(len(layout.tasks), probe, kind)}.image_{end}": [
            getattr(board.bootstrap_interval(row, probe, kind), end, None) for row in board.rows
        ]
        for probe in probes
        for kind in KINDS
        for end in Interval._fields
    }
    intervals = pd.DataFrame(image_ends, index=frame.index, dtype="float64")
    scores = board.means.join(intervals)
    costs = costs_by_row(board.rows).set_index(frame.index)
    integer_types = {**{f"{p}.rank": "Int64" for p in probes}, "trainable_parameters": "Int64"}
    joined = frame.join(100 * scores).join(costs)
    return joined.astype(integer_types).copy().reset_index()  # the copy is not fragmented


def device_name(row: Row) -> str:
    """Return the device of a row; the number of devices if there are several."""
    return f"{len(row.devices)} devices" if len(row.devices) > 1 else "".join(row.devices)


def _contrasts(rows: Sequence[Row], layout: RunRecord) -> list[Contrast]:
    """Return the contrasts of all intervals that the tables show."""
    comparable = pairs(rows)
    return [
        contrast
        for probe in [probe.name for probe in layout.probes]
        for contrast in (
            *(row.contrast(probe) for row in rows),
            *(pair.contrast(probe) for pair in comparable),
        )
        if contrast
    ]
