"""The labels of images, from folders or from tables."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.folder.options import ColumnLabels, ColumnsLabels, FolderLabels
from rscl_bench.archives.folder.tables import Tables
from rscl_bench.archives.folder.walk import folder_at, in_one_form
from rscl_bench.errors import ArchiveError

#: Labels ``[L]`` of 0 and 1 by image.
LabelOfImage = dict[str, NDArray[np.uint8]]
ClassesAndLabels = tuple[tuple[str, ...], LabelOfImage]


def labels_of_images(
    rule: FolderLabels | ColumnsLabels | ColumnLabels,
    tables: Tables,
    images: Collection[str],
    needed: Collection[str],
) -> ClassesAndLabels:
    """Return the names of the L classes, and the labels of images.

    Args:
        rule: The rule of the options.
        tables: What tables say on the images.
        images: Paths below root of the images of all splits, which have all classes.
        needed: Those of them that must have labels.

    Raises:
        RsclError: If a table is missing or not valid, or an image has no valid label.
    """
    match rule:
        case FolderLabels():
            return _by_folder(rule, images)
        case ColumnsLabels():
            return _by_columns(rule, tables, needed)
        case ColumnLabels():
            cells = tables.column(rule.column, rule.table, rule.image_column, needed)
            cells = {image: cell for image, cell in cells.items() if image in images}
            return _by_column(rule, cells)


def _by_folder(rule: FolderLabels, images: Collection[str]) -> ClassesAndLabels:
    names: dict[str, list[str]] = {}
    for image in images:
        name = folder_at(image, rule.level)
        if name is None:
            raise ArchiveError(
                f"{image} has no folder {rule.level} below root to name its class; narrow "
                "'pattern', or choose another labels.level."
            )
        names[image] = [name]
    return _one_hot(names, rule.classes)


def _by_column(rule: ColumnLabels, cells: Mapping[str, str]) -> ClassesAndLabels:
    names: dict[str, list[str]] = {}
    for image, cell in cells.items():
        if rule.separator is None:
            names[image] = [cell]
        else:
            names[image] = [part.strip() for part in cell.split(rule.separator) if part.strip()]
        if names[image] == [""]:
            raise ArchiveError(
                f"{image} has no class in column '{rule.column}'; fill the cell, or give "
                "labels.separator where images may have no class."
            )
    return _one_hot(names, rule.classes)


def _one_hot(names: Mapping[str, Sequence[str]], stated: Sequence[str] | None) -> ClassesAndLabels:
    found = sorted({name for several in names.values() for name in several})
    classes = tuple(found) if stated is None else tuple(map(in_one_form, stated))
    places = {name: place for place, name in enumerate(classes)}
    labels: LabelOfImage = {}
    for image, several in names.items():
        labels[image] = np.zeros(len(classes), np.uint8)
        for name in several:
            if name not in places:
                raise ArchiveError(
                    f"{image} has the class '{name:.60}', which labels.classes lacks; add it "
                    "there, or narrow 'pattern'."
                )
            labels[image][places[name]] = 1
    absent = [name for name in classes if name not in set(found)]
    if absent:
        raise ArchiveError(
            f"No image has the class '{absent[0]:.60}' of labels.classes; fetch its images, or "
            "take it out."
        )
    return classes, labels


def _by_columns(rule: ColumnsLabels, tables: Tables, needed: Collection[str]) -> ClassesAndLabels:
    table = tables.table(rule.table)
    rows = tables.rows(rule.table, rule.image_column, needed)
    if rule.columns is None:
        key = tables.image_column(rule.table, rule.image_column)
        columns = tuple(column for column in table.columns if column != key)
    else:
        columns = tuple(table.require(in_one_form(column)) for column in rule.columns)
    return columns, {
        image: np.array([_number(row[c], image, c) > rule.above for c in columns], np.uint8)
        for image, row in rows.items()
    }


def _number(cell: str, image: str, column: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise ArchiveError(
            f"Column '{column}' has {cell[:60]!r} for {image}, which is no number; correct it, or "
            "name the columns of the classes in labels.columns."
        )
    return number
