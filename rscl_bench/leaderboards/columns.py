"""Names the columns of a leaderboard."""

from rscl_bench.leaderboards.keys import RowKey

KINDS = ("micro", "macro")
DOMAIN_METRICS = (
    "final_average",
    "average_incremental",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
)
OUTSIDE_METRICS = ("final", "mean_over_tasks", "gain_over_random")
PARTS = ("mean", "std", "ci95")
#: Names of the index levels of a leaderboard.
KEYS = list(RowKey._fields)


def score_column(task: int, probe: str, kind: str) -> str:
    """Return the column of a score after a task; tasks are counted from 1."""
    return f"T{task}.{probe}.{kind}"


def domain_column(metric: str, kind: str) -> str:
    """Return the column of a continual metric over the probes of the tasks' domains."""
    return f"continual.{metric}.{kind}"


def outside_column(probe: str, metric: str, kind: str) -> str:
    """Return the column of a continual metric of one outside probe."""
    return f"{probe}.{metric}.{kind}"
