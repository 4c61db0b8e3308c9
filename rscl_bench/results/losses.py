"""The file of a run's losses, for curves: ``losses.csv`` beside the record.

The file is no part of the record, of its identity or of a digest. It exists while a run trains, so
that an unfinished run can be drawn.
"""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError

FILE = "losses.csv"
#: Values of a step that are averaged: the whole loss, the objective's loss, and the sum of the
#: terms that strategies add.
PARTS = ("loss", "objective", "strategies")
COLUMNS = ("task", "task_name", "first_step", "last_step", "learning_rate", *PARTS)


def write_losses(frame: pd.DataFrame, path: Path) -> None:
    """Write the losses of a run, whole or not at all.

    Args:
        frame: A line per window of consecutive steps, with the columns `COLUMNS`:

            - ``task``, ``task_name``: number of the task, from 1, and its name;
            - ``first_step``, ``last_step``: the steps of the window, from 1 in every task;
            - ``learning_rate``: the rate of the last of these steps;
            - ``loss``, ``objective``, ``strategies``: means over these steps of the whole loss,
              of the objective's part and of the terms of strategies.
        path: Path of the file.

    Raises:
        ArtefactError: If the file cannot be written.
    """
    write_atomic(path, frame.to_csv(index=False, columns=list(COLUMNS), lineterminator="\n"))


def read_losses(path: Path) -> pd.DataFrame:
    """Read a file of losses; see `write_losses`.

    Raises:
        ArtefactError: If the file is missing, or is no file of losses.
    """
    try:
        frame = pd.read_csv(path)
        frame = frame[list(COLUMNS)].astype(
            dict.fromkeys(("task", "first_step", "last_step"), "int64")
            | dict.fromkeys(("learning_rate", *PARTS), "float64")
        )
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error.strerror or error}).") from error
    except (KeyError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise ArtefactError(
            f"{path} is no file of losses ({' '.join(str(error).split())[:120]}); run again to "
            "write it."
        ) from error
    return frame


def find_losses(sources: Iterable[Path]) -> list[Path]:
    """Return the files of losses among the sources and below folders, sorted.

    A record, or a run's folder, stands for the file beside the record.

    Raises:
        ArtefactError: If a source does not exist, or there is no file of losses.
    """
    found: set[Path] = set()
    for source in sources:
        if source.is_dir():
            found |= set(source.rglob(FILE))
        elif source.name == FILE and source.is_file():
            found.add(source)
        elif source.is_file():
            found |= {path for path in [source.with_name(FILE)] if path.is_file()}
        else:
            raise ArtefactError(f"There is no file or folder '{source}'; give a path to runs.")
    if not found:
        raise ArtefactError(
            f"There is no {FILE} among these runs; runs of version 0.4.0 and later write it, and "
            "published records come without it."
        )
    return sorted(found)
