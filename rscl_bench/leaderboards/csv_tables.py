"""Writes tables as CSV, with line feeds as newlines. An undefined value is empty."""

import pandas as pd

from rscl_bench.leaderboards.board import Board, leaderboard_frame
from rscl_bench.leaderboards.formats import points, significant, two_decimals
from rscl_bench.leaderboards.values import COSTS


def leaderboard_csv(board: Board) -> str:
    """Return `leaderboard_frame` as CSV: two decimals for scores, four digits for costs."""
    frame = leaderboard_frame(board)
    for column in frame.select_dtypes("float64"):
        frame[column] = frame[column].map(significant if column in COSTS else two_decimals)
    return frame.to_csv(index=False, lineterminator="\n")


def comparisons_csv(compared: pd.DataFrame) -> str:
    """Return `comparisons` as CSV: differences in points with four decimals."""
    numbers = ["difference", "seed_low", "seed_high", "image_low", "image_high"]
    text = {column: compared[column].map(points) for column in numbers}
    text["p"] = compared["p"].map("{:.4g}".format, na_action="ignore")
    text["separated"] = compared["separated"].astype(object).map({True: "yes", False: "no"})
    return compared.assign(**text).to_csv(index=False, lineterminator="\n")
