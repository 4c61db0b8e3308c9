"""The images of a folder, with the tables and lists that its options name."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rscl_bench.archives.folder.options import FolderOptions
from rscl_bench.archives.folder.table import ImageNames, Row, Table, read_list, read_table
from rscl_bench.archives.folder.walk import in_one_form
from rscl_bench.archives.formats import DamagedFileError
from rscl_bench.errors import ArchiveError, SpecError


class Tables:
    """The images that the options take, and what tables and lists say on them.

    Args:
        root: Folder of the images.
        found: Path of each image by its path below root.
        options: The options.

    Attributes:
        root: Folder of the images.
        images: Paths below root of the images that ``select`` takes, in order.
        files: The tables and lists that were read.

    Raises:
        RsclError: If the table of ``select`` is missing or not valid.
    """

    def __init__(self, root: Path, found: Mapping[str, Path], options: FolderOptions):
        self.root, self._options = root, options
        self.files: list[Path] = []
        self._tables: dict[Path, Table] = {}
        self._names = ImageNames(found)
        self.images = tuple(found)
        if options.select:
            self._check_select()
            rows = self.rows(None, None)
            self.images = tuple(image for image in self.images if self._takes(rows[image]))

    def rows(
        self, table: str | None, image_column: str | None, needed: Collection[str] | None = None
    ) -> dict[str, Row]:
        """Return the row of each image that has one.

        Args:
            table: Path below root of the table; None for the table of the options.
            image_column: Column of that table that names the image; None for its first one, or for
                the one of the options where ``table`` is None.
            needed: Images that must have a row; None for all.

        Raises:
            RsclError: If the table is missing or not valid, or a needed image has no row.
        """
        opened = self.table(table)
        rows = opened.of_images(
            self._names,
            self.image_column(table, image_column),
            self._takes if self._is_own(table) else lambda _: True,
            self._options.rows_without_image == "leave-out",
        )
        for image in self.images if needed is None else needed:
            if image not in rows:
                raise ArchiveError(
                    f"{image} has no row in {opened.path}; add one, or narrow 'pattern'."
                )
        return {image: rows[image] for image in self.images if image in rows}

    def column(
        self,
        column: str,
        table: str | None,
        image_column: str | None,
        needed: Collection[str] | None = None,
    ) -> dict[str, str]:
        """Return the cell in one column of each image; the arguments are those of `rows`.

        Raises:
            RsclError: As `rows`, or if there is no such column.
        """
        self.table(table).require(column)
        return {image: row[column] for image, row in self.rows(table, image_column, needed).items()}

    def image_column(self, table: str | None, image_column: str | None) -> str:
        """Return the column that names the image; the arguments are those of `rows`.

        Raises:
            RsclError: If the table is missing or not valid, or has no such column.
        """
        if image_column is None and self._is_own(table):
            image_column = self._options.image_column
        opened = self.table(table)
        return opened.columns[0] if image_column is None else opened.require(image_column)

    def _is_own(self, table: str | None) -> bool:
        return table is None or table == self._options.table

    def table(self, table: str | None) -> Table:
        """Return a table, which is read once.

        Raises:
            ArchiveError: If it is missing or not valid.
        """
        name = table or self._options.table
        assert name is not None, "The options name no table."
        path = self.root / name
        if path not in self._tables:
            with _mended("correct 'table'"):
                self._tables[path] = read_table(path)
            self.files.append(path)
        return self._tables[path]

    def listed(self, file: str) -> list[str]:
        """Return the images of a list; those that ``select`` leaves out are not among them.

        Raises:
            ArchiveError: If the list is missing or not valid.
        """
        path = self.root / file
        self.files.append(path)
        taken = set(self.images)
        with _mended("correct splits.files"):
            return [image for image in read_list(path, self._names) if image in taken]

    def _check_select(self) -> None:
        table = self.table(None)
        for column, values in self._options.select.items():
            cells = {row[table.require(column)] for row in table.rows}
            for value in values:
                if in_one_form(value) not in cells:
                    raise SpecError(
                        f"No row of {table.path} has '{value:.60}' in column '{column}', which "
                        "'select' takes; correct 'select'."
                    )

    def _takes(self, row: Row) -> bool:
        return all(
            row[column] in map(in_one_form, values)
            for column, values in self._options.select.items()
        )


@contextmanager
def _mended(mend: str) -> Iterator[None]:
    """Say how to mend a file that does not exist or is empty."""
    try:
        yield
    except DamagedFileError as error:
        raise ArchiveError(f"{error}; put the file there, or {mend}.") from error
