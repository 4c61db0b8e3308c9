"""The options of the dataset `folder`: which images, which sensor, which labels, which splits.

All paths are relative to the folder of the images, so that no options depend on where it lies.
"""

import re
from collections.abc import Mapping
from math import isclose
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from rscl_bench.archives.adapter import UNDEFINED
from rscl_bench.archives.declared_sensor import SensorChoice
from rscl_bench.archives.files import MAX_PIXELS, Nodata
from rscl_bench.archives.folder.walk import in_one_form
from rscl_bench.spec import Positive, ProtocolName, Spec

#: The split of a folder without split rules.
ALL = "all"


def _relative(text: str) -> str:
    """Refuse a path that leads out of its folder, or that depends on a machine."""
    parts = PurePosixPath(text).parts
    outside = ".." in parts or PurePosixPath(text).is_absolute() or text.startswith("~")
    if not text.strip() or outside or re.match(r"[A-Za-z]:", text) or "\\" in text or "\0" in text:
        raise ValueError(
            f"{text!r:.60} is no path below a folder; write names joined by '/', without '..', '~' "
            "or a drive"
        )
    return text


def _level(number: int) -> int:
    if number == 0:
        raise ValueError(
            "folders are counted from 1, the first below root, or from -1, the one of the image"
        )
    return number


def _regular(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"{text!r:.60} is no regular expression ({error})") from error
    if not groups:
        raise ValueError(f"{text!r:.60} has no group; put the part to take in parentheses")
    return text


def _distinct(names: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    if names is not None and len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise ValueError(f"{twice!r} stands there twice; name each once")
    return names


Relative = Annotated[str, AfterValidator(_relative)]
Level = Annotated[int, Field(ge=-100, le=100), AfterValidator(_level)]
Names = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1), AfterValidator(_distinct)
]
#: Split to the values of a column, or names of folders, that form the split.
Parts = Annotated[dict[ProtocolName, Names], Field(min_length=1)]
_Share = Annotated[float, Field(gt=0, le=1)]


class _OfTable(Spec):
    """What is read from a table.

    Attributes:
        table: A table of its own; None for the table of the options.
        image_column: Column of that table that names the image; None for its first column.
    """

    table: Relative | None = None
    image_column: str | None = None


class FolderLabels(Spec):
    """The label of an image is the name of a folder.

    Attributes:
        level: Which folder: 1 is the first below root, -1 the one that holds the image.
        classes: Names of these folders in the order of the classes; None for all that hold images,
            sorted.
    """

    by: Literal["folder"]
    level: Level = -1
    classes: Names | None = None


class ColumnsLabels(_OfTable):
    """One column of numbers for each class.

    Attributes:
        columns: The columns, which name the classes; None for all columns but that of the image.
        above: An image shows a class whose number lies above this one.
    """

    by: Literal["columns"]
    columns: Names | None = None
    above: float = 0.0


class ColumnLabels(_OfTable):
    """One column that names the class or classes of an image.

    Attributes:
        column: The column.
        separator: Text between several classes; None for one class for each image.
        classes: The classes in order; None for all that the column names, sorted.
    """

    by: Literal["column"]
    column: str
    separator: Annotated[str, Field(min_length=1)] | None = None
    classes: Names | None = None


class MaskLabels(Spec):
    """A picture of class numbers for each image.

    Attributes:
        path: Path of the mask, with ``{stem}`` and ``{name}`` of the image, ``{folder}`` for its
            folder below root, and ``{1}``, ``{2}``, ``{-1}`` for one folder of that.
        classes: Names of the classes.
        values: Value of each class in the masks; None for 0, 1, 2 and so on.
        ignored: Values of pixels without a class.
        threshold: Least value of the last class in masks of two parts, such as 128. Of two classes,
            the first is the rest; with one class, the rest has none.
    """

    by: Literal["mask"]
    path: Relative
    classes: Annotated[Names, Field(max_length=UNDEFINED)]
    values: Annotated[tuple[int, ...], AfterValidator(_distinct)] | None = None
    ignored: tuple[int, ...] = ()
    threshold: Positive | None = None

    @field_validator("path")
    @classmethod
    def _names_the_image(cls, path: str) -> str:
        places = re.findall(r"\{([^{}]*)\}", path)
        wrong = [p for p in places if not re.fullmatch(r"stem|name|folder|-?[1-9]\d?", p)]
        if wrong or re.sub(r"\{[^{}]*\}", "", path).count("{") or not places:
            given = f"'{{{wrong[0]}}}' is unknown" if wrong else f"{path!r:.60} names no image"
            raise ValueError(f"{given}; write {{stem}}, {{name}}, {{folder}}, or {{1}}, {{-1}}")
        return path

    @model_validator(mode="after")
    def _values_agree(self) -> "MaskLabels":
        if self.threshold is not None and (self.values is not None or self.ignored):
            raise ValueError("a threshold leaves no place for values or ignored; drop one of them")
        if self.threshold is not None and len(self.classes) > 2:
            raise ValueError("a threshold parts two classes; name one or two")
        if self.values is not None and len(self.values) != len(self.classes):
            raise ValueError(
                f"there are {len(self.values)} values for {len(self.classes)} classes; give one "
                "for each"
            )
        both = sorted({*self.class_values()} & {*self.ignored})
        if both:
            raise ValueError(f"the value {both[0]} is a class and ignored; choose one")
        return self

    def class_values(self) -> tuple[int, ...]:
        """Return the value of each class in the masks."""
        return self.values if self.values is not None else tuple(range(len(self.classes)))


class ListSplits(Spec):
    """The images of a split are listed in a text, one a line.

    Attributes:
        files: Text of each split. An image that no text lists is in no split.
    """

    by: Literal["list"]
    files: Annotated[dict[ProtocolName, Relative], Field(min_length=1)]


class ColumnSplits(_OfTable):
    """A column of a table names the split of each image.

    Attributes:
        column: The column.
        parts: Values of the column that form each split.
        left_out: Values of images that are in no split.
    """

    by: Literal["column"]
    column: str
    parts: Parts = Field(default={"train": ("train",), "val": ("val",), "test": ("test",)})
    left_out: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _disjoint(self) -> "ColumnSplits":
        _require_disjoint(self.parts, self.left_out)
        return self


class FolderSplits(Spec):
    """A folder, such as a place, belongs to one split.

    Attributes:
        level: Which folder: 1 is the first below root, -1 the one that holds the image.
        parts: Names of the folders that form each split.
        left_out: Names of folders whose images are in no split.
    """

    by: Literal["folder"]
    level: Level = 1
    parts: Parts
    left_out: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _disjoint(self) -> "FolderSplits":
        _require_disjoint(self.parts, self.left_out)
        return self


class HashSplits(_OfTable):
    """Groups of images are dealt to the splits by a keyed hash of the group's name.

    The split of a group depends on its name and the key alone. Further images never move others. A
    share is that of the groups on average; few groups miss it by far.

    Attributes:
        shares: Share of each split; the shares sum to 1.
        key: Any text; another key deals other groups.
        levels: Folders whose names form the group: 1 is the first below root, -1 the one that
            holds the image.
        name: Regular expression whose groups, searched in the image's name without suffix, form
            the group.
        column: Column of a table whose value forms the group. Without levels, name and column,
            every image is a group.
    """

    by: Literal["hash"]
    shares: Annotated[dict[ProtocolName, _Share], Field(min_length=1)]
    key: str = ""
    levels: tuple[Level, ...] = ()
    name: Annotated[str, AfterValidator(_regular)] | None = None
    column: str | None = None

    @model_validator(mode="after")
    def _shares_are_whole(self) -> "HashSplits":
        total = sum(self.shares.values())
        if not isclose(total, 1, abs_tol=1e-9):
            raise ValueError(f"the shares sum to {total:g}; let them sum to 1")
        if self.column is None and (self.table or self.image_column):
            raise ValueError("a table without column has no effect; name the column of the group")
        return self


def _require_disjoint(parts: Mapping[str, tuple[str, ...]], left_out: tuple[str, ...]) -> None:
    owners: dict[str, str] = {}
    for part, values in [*parts.items(), ("left_out", left_out)]:
        for value in map(in_one_form, values):
            if owners.setdefault(value, part) != part:
                raise ValueError(f"'{value}' is in {owners[value]} and in {part}; choose one")


Labels = Annotated[
    FolderLabels | ColumnsLabels | ColumnLabels | MaskLabels, Field(discriminator="by")
]
Splits = Annotated[ListSplits | ColumnSplits | FolderSplits | HashSplits, Field(discriminator="by")]


class FolderOptions(Spec):
    """What a folder of images holds."""

    root: Annotated[Relative, Field(description="folder of the images, below the data root")]
    embedded: Annotated[
        bool,
        Field(
            description="whether `root` is a folder of images in this package, which needs no data "
            "root"
        ),
    ] = False
    pattern: Annotated[
        Relative,
        Field(
            description="which files below root are images: names joined by `/`, with `*` and `?`, "
            "and `**` for any folders; without a suffix, JPEG, PNG, TIFF and NumPy files"
        ),
    ] = "**/*"
    sensor: Annotated[
        SensorChoice,
        Field(
            description="name of a sensor (`rscl-bench list sensors`), or a table of its `bands`, "
            "each with `name`, `wavelength_nm`, `width_nm` and `kind`, and `unit`, `dtype`, "
            "`scale` and `gsd_m`"
        ),
    ]
    labels: Annotated[
        Labels | None,
        Field(
            description="where labels come from, a table with `by`: `folder`, `columns`, `column` "
            "or `mask`"
        ),
    ] = None
    splits: Annotated[
        Splits | None,
        Field(
            description="how images are split, a table with `by`: `list`, `column`, `folder` or "
            "`hash`; without it, all images are in the split `all`"
        ),
    ] = None
    table: Annotated[
        Relative | None,
        Field(
            description="file below root with one row for each image, in CSV with commas, "
            "semicolons or tabs"
        ),
    ] = None
    image_column: Annotated[
        str | None,
        Field(
            description="column of the table that names the image, by path, name or name without "
            "suffix; by default the first"
        ),
    ] = None
    select: Annotated[
        dict[str, Names],
        Field(description="column of the table to the values of the images that are taken"),
    ] = Field(default={})
    rows_without_image: Annotated[
        Literal["refuse", "leave-out"],
        Field(description="what happens to a row of a table that names no image"),
    ] = "refuse"
    nodata: Annotated[
        Nodata,
        Field(
            description="pixels that a TIFF declares as missing: filled and left out of the "
            "statistics, refused, or kept as measurements"
        ),
    ] = "fill"
    max_pixels: Annotated[Positive, Field(description="largest number of pixels of an image")] = (
        MAX_PIXELS
    )

    @model_validator(mode="after")
    def _table_is_named(self) -> "FolderOptions":
        if self.table is not None:
            return self
        for field, rule in (("labels", self.labels), ("splits", self.splits)):
            column = getattr(rule, "column", None) or isinstance(rule, ColumnsLabels)
            if isinstance(rule, _OfTable) and column and rule.table is None:
                raise ValueError(f"'{field}' reads a table; name it in 'table'")
        if self.select or self.image_column is not None:
            raise ValueError("'select' and 'image_column' read a table; name it in 'table'")
        return self

    def split_names(self) -> tuple[str, ...]:
        """Return the names of the splits."""
        match self.splits:
            case None:
                return (ALL,)
            case ListSplits(files=named):
                return tuple(named)
            case HashSplits(shares=shares):
                return tuple(shares)
            case ColumnSplits(parts=parts) | FolderSplits(parts=parts):
                return tuple(parts)
