"""Tables with one row for each image, and lists of images.

A row names its image by the path below root, by the end of this path, or by the name of the file,
each with or without the suffix.
"""

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from rscl_bench.archives.folder.walk import in_one_form
from rscl_bench.archives.lists import read_text
from rscl_bench.errors import ArchiveError, unknown

#: The cells of a row, stripped and in composed Unicode, by the name of the column.
Row = Mapping[str, str]
_DELIMITERS = (",", "\t", ";")


class ImageNames:
    """Finds an image by the ways in which tables and lists write its name.

    Args:
        images: Paths of the images below root, with ``/`` and in composed Unicode.
    """

    def __init__(self, images: Iterable[str]):
        self._images = tuple(images)

    @cached_property
    def _found(self) -> dict[str, list[str]]:
        """The images by each of their names; many folders have neither tables nor lists."""
        found: dict[str, list[str]] = {}
        for image in self._images:
            for name in _names(image):
                found.setdefault(name, []).append(image)
        return found

    def find(self, written: str, where: str) -> str | None:
        """Return the image that a text names, or None if it names none.

        Args:
            written: The text.
            where: Place of the text, for the message.

        Raises:
            ArchiveError: If the text names several images.
        """
        name = in_one_form(written.strip()).removeprefix("./")
        images = self._found.get(name) or self._found.get(name.replace("\\", "/"), [])
        if len(images) > 1:
            raise ArchiveError(
                f"{where} names both {images[0]} and {images[1]} by '{written:.60}'; write paths "
                "below root there, or narrow 'pattern'."
            )
        return images[0] if images else None


def _names(image: str) -> Iterable[str]:
    """Return the ends of a path at its folders, each with and without the suffix."""
    ends = [image]
    while "/" in ends[-1]:
        ends.append(ends[-1].partition("/")[2])
    suffix = PurePosixPath(image).suffix
    return dict.fromkeys([*ends, *(end.removesuffix(suffix) for end in ends)])


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        path: The file.
        columns: Names of the columns.
        lines: Number of the line in which each row begins.
        rows: The rows.
    """

    path: Path
    columns: tuple[str, ...]
    lines: tuple[int, ...]
    rows: tuple[Row, ...]

    def require(self, column: str) -> str:
        """Return the name of a column.

        Raises:
            SpecError: If there is no such column.
        """
        if column not in self.columns:
            raise unknown(f"column of {self.path}", column, self.columns)
        return column

    def of_images(
        self,
        images: ImageNames,
        column: str,
        takes: Callable[[Row], bool],
        spare_rows: bool,
    ) -> dict[str, Row]:
        """Return the row of each image that has one.

        Args:
            images: The images.
            column: The column that names the image.
            takes: Whether the image of a row is taken, so that it must be there.
            spare_rows: Whether rows that name no image are left out.

        Raises:
            ArchiveError: If a row names no image or several, or an image has two rows.
        """
        found: dict[str, int] = {}
        absent: list[str] = []
        for index, row in enumerate(self.rows):
            where = f"Line {self.lines[index]} of {self.path}"
            image = images.find(row[column], where)
            if image is None:
                absent += [row[column]] if takes(row) else []
            elif image in found:
                earlier = self.lines[found[image]]
                raise ArchiveError(
                    f"{where} is a second row for {image}, after line {earlier}; delete one."
                )
            else:
                found[image] = index
        if absent and not spare_rows:
            raise ArchiveError(
                f"{len(absent)} of {len(self.rows)} rows of {self.path} name no image that "
                f"'pattern' finds, the first '{absent[0]:.80}' in column '{column}'; fetch the "
                "images, name another 'image_column', or set rows_without_image = \"leave-out\"."
            )
        return {image: self.rows[index] for image, index in found.items()}


def read_table(path: Path) -> Table:
    """Read a table with a header: CSV with commas, semicolons or tabs.

    The delimiter is the one that stands most often in the header.

    Raises:
        ArchiveError: If the file is missing or no such table.
    """
    text = read_text(path)
    header = text.lstrip().partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    lines, rows, begins = [], [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append(begins)
                rows.append([in_one_form(cell.strip()) for cell in cells])
            begins = reader.line_num + 1
    except csv.Error as error:
        raise ArchiveError(
            f"Line {begins} of {path} is no row of a table ({error}); mend it."
        ) from error
    columns = rows[0]
    _require_columns(path, columns)
    for line, row in zip(lines, rows, strict=True):
        if len(row) != len(columns):
            raise ArchiveError(
                f"Line {line} of {path} has {len(row)} cells where the header has {len(columns)}; "
                "mend it."
            )
    named = tuple(dict(zip(columns, row, strict=True)) for row in rows[1:])
    return Table(path, tuple(columns), tuple(lines[1:]), named)


def _require_columns(path: Path, columns: Sequence[str]) -> None:
    twice = [name for index, name in enumerate(columns) if name in columns[:index]]
    if twice:
        raise ArchiveError(f"{path} has two columns '{twice[0]}'; rename one.")


def read_list(path: Path, images: ImageNames) -> list[str]:
    """Read a list of images, one a line.

    What follows a name behind a space, a comma or a tab is left out, unless a file is named so.

    Raises:
        ArchiveError: If the file is missing, or a line names no image, several, or one again.
    """
    listed: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"Line {number} of {path}"
        image = images.find(line, where)
        if image is None:
            image = images.find(re.split(r"[\t, ]", line.strip())[0], where)
        if image is None:
            raise ArchiveError(
                f"{where} is '{line.strip():.80}', which names no image that 'pattern' finds; "
                "fetch the image, or correct the line."
            )
        if image in listed:
            raise ArchiveError(f"{where} lists {image} again, after line {listed[image]}.")
        listed[image] = number
    return list(listed)
