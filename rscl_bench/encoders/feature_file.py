"""Writes features row by row as CSV, Parquet or NumPy's npy; a file is whole or not there."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rscl_bench.atomic import replacing
from rscl_bench.errors import SpecError, unknown

if TYPE_CHECKING:
    import pandas as pd

#: Takes the keys and the features ``[B, D]`` float32 of the next rows.
Write = Callable[[Sequence[str | int], NDArray[np.float32]], None]
SUFFIXES = (".csv", ".parquet", ".npy")
#: The keys of the rows of ``NAME.npy`` are in ``NAME.rows.csv``.
ROWS = ".rows.csv"


def check_file(path: Path) -> None:
    """Refuse a file that cannot become one of features, before anything is long.

    Raises:
        SpecError: If the name ends otherwise than `SUFFIXES`, or pyarrow is missing for Parquet.
    """
    if path.suffix not in SUFFIXES:
        raise unknown("kind of a file of features", path.suffix or path.name, SUFFIXES)
    if path.suffix == ".parquet":
        _pyarrow()


def columns(width: int) -> list[str]:
    """Return the names of the columns of features."""
    return [f"f{number}" for number in range(width)]


@contextmanager
def writing(path: Path, key: str, width: int, at_most: int) -> Iterator[Write]:
    """Open a file of features, which takes its place at the end of the block.

    Args:
        path: The file; its suffix is one of `SUFFIXES`.
        key: Name of the column of keys, ``path`` or ``tile``.
        width: Width D of a feature.
        at_most: Largest number of rows.

    Yields:
        A function that appends rows.

    Raises:
        SpecError: As `check_file`.
        ArtefactError: If the file cannot be written.
    """
    check_file(path)
    kinds = {".csv": _csv, ".parquet": _parquet}
    if path.suffix == ".npy":
        # The keys go first: features without keys would be of no use.
        with replacing(path) as file, replacing(path.with_suffix(ROWS)) as rows:
            yield from _npy(file, rows, key, width, at_most)
        return
    with replacing(path) as file:
        yield from kinds[path.suffix](file, key, width)


def table_of(fill: Callable[[Write], object], key: str, width: int) -> "pd.DataFrame":
    """Return features as a table with a column of keys and columns of float32.

    Args:
        fill: Called with a function that appends rows.
        key: Name of the column of keys.
        width: Width D of a feature.
    """
    import pandas as pd

    keys: list[str | int] = []
    parts: list[NDArray[np.float32]] = []

    def write(more: Sequence[str | int], features: NDArray[np.float32]) -> None:
        keys.extend(more)
        parts.append(features)

    fill(write)
    features = np.concatenate(parts) if parts else np.empty((0, width), np.float32)
    table = pd.DataFrame(features, columns=columns(width))
    table.insert(0, key, keys)
    return table


def _csv(file: BinaryIO, key: str, width: int) -> Iterator[Write]:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow([key, *columns(width)])

    def write(keys: Sequence[str | int], features: NDArray[np.float32]) -> None:
        # str of a float32 is the shortest text that gives back its bits.
        rows = zip(keys, features.astype(str), strict=True)
        table.writerows([key, *values] for key, values in rows)

    try:
        yield write
    finally:
        text.detach()  # which flushes


def _parquet(file: BinaryIO, key: str, width: int) -> Iterator[Write]:
    arrow = _pyarrow()
    from pyarrow import parquet

    kind = arrow.string() if key == "path" else arrow.int64()
    schema = arrow.schema([(key, kind), *((name, arrow.float32()) for name in columns(width))])
    with parquet.ParquetWriter(file, schema) as table:

        def write(keys: Sequence[str | int], features: NDArray[np.float32]) -> None:
            arrays = [arrow.array(keys, kind), *map(arrow.array, np.ascontiguousarray(features.T))]
            table.write_table(arrow.table(arrays, schema=schema))

        yield write


def _npy(file: BinaryIO, rows: BinaryIO, key: str, width: int, at_most: int) -> Iterator[Write]:
    text = io.TextIOWrapper(rows, encoding="utf-8", newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow([key])
    written = 0
    _write_header(file, at_most, width)

    def write(keys: Sequence[str | int], features: NDArray[np.float32]) -> None:
        nonlocal written
        table.writerows([key] for key in keys)
        file.write(features.astype("<f4").tobytes())
        written += len(features)

    try:
        yield write
    finally:
        text.detach()  # which flushes
    file.seek(0)
    _write_header(file, written, width)  # of equal length: NumPy leaves room for the number


def _write_header(file: BinaryIO, count: int, width: int) -> None:
    shape = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
    np.lib.format.write_array_header_1_0(file, shape)


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SpecError(
            "Parquet needs pyarrow, which is not installed: pip install 'rscl-bench[parquet]', or "
            "write .csv or .npy."
        ) from error
    module: ModuleType = pyarrow
    return module
