"""Writes tables as CSV, with line feeds as newlines. An undefined value is empty."""

import pandas as pd

from rscl_bench.leaderboards.board import Board, leaderboard_frame
from rscl_bench.leaderboards.costs import COSTS, costs_by_device
from rscl_bench.leaderboards.escaping import csv_file
from rscl_bench.leaderboards.formats import points, significant, two_decimals
from rscl_bench.leaderboards.frame import records_frame


def leaderboard_csv(board: Board) -> str:
    """Return `leaderboard_frame` as CSV: two decimals for scores, four digits for costs."""
    frame = leaderboard_frame(board)
    for column in frame.select_dtypes("float64"):
        frame[column] = frame[column].map(significant if column in COSTS else two_decimals)
    return csv_file(frame)


def comparisons_csv(compared: pd.DataFrame) -> str:
    """Return `comparisons` as CSV: differences in points with four decimals."""
    numbers = ["difference", "seed_low", "seed_high", "image_low", "image_high"]
    text = {column: compared[column].map(points) for column in numbers}
    for column in ("p", "p_bh", "p_holm"):
        text[column] = compared[column].map("{:.4g}".format, na_action="ignore")
    text["separated"] = compared["separated"].astype(object).map({True: "yes", False: "no"})
    return csv_file(compared.assign(**text))


def costs_csv(board: Board) -> str:
    """Return `costs_by_device` as CSV, with four digits."""
    frame = costs_by_device(board.rows)
    written = {column: frame[column].map(significant) for column in COSTS}
    written["trainable_parameters"] = frame["trainable_parameters"].map("{:.0f}".format)
    return csv_file(frame.assign(**written))


def scores_csv(board: Board) -> str:
    """Return `records_frame` of the leaderboard's records as CSV, with all digits."""
    frame = records_frame(item.record for item in board.loaded)
    return csv_file(frame)
