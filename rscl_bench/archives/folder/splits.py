"""The rules that say in which split an image is."""

import re
from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Protocol

from rscl_bench.archives.folder.options import (
    ALL,
    ColumnSplits,
    FolderSplits,
    HashSplits,
    ListSplits,
    Parts,
)
from rscl_bench.archives.folder.tables import Tables
from rscl_bench.archives.folder.walk import folder_at, in_one_form
from rscl_bench.errors import ArchiveError

#: Split of each image; an image in no split is absent.
Split = dict[str, str]


def split_of_images(
    rule: ListSplits | ColumnSplits | FolderSplits | HashSplits | None, tables: Tables
) -> Split:
    """Return the split of every image that is in one.

    Args:
        rule: The rule of the options.
        tables: The images, and the tables and lists that say more on them.

    Raises:
        RsclError: If a table or list is missing or not valid, or the rule misses an image.
    """
    match rule:
        case None:
            return dict.fromkeys(tables.images, ALL)
        case ListSplits():
            return _by_list(rule, tables)
        case ColumnSplits():
            cells = tables.column(rule.column, rule.table, rule.image_column)
            what = f"column '{rule.column}'"
            return _by_value(rule.parts, rule.left_out, cells, what)
        case FolderSplits():
            names = {image: _folder(image, rule.level) for image in tables.images}
            return _by_value(rule.parts, rule.left_out, names, f"folder {rule.level}")
        case HashSplits():
            groups = groups_of_images(rule, tables)
            return {image: dealt(group, rule) for image, group in groups.items()}


def _by_list(rule: ListSplits, tables: Tables) -> Split:
    splits: Split = {}
    for split, file in rule.files.items():
        for image in tables.listed(file):
            if image in splits:
                raise ArchiveError(
                    f"{tables.root / file} lists {image}, which is in split '{splits[image]}' "
                    "already; delete one of the two lines."
                )
            splits[image] = split
    return splits


def _by_value(
    parts: Parts, left_out: tuple[str, ...], values: Mapping[str, str], what: str
) -> Split:
    owners = {in_one_form(value): split for split, named in parts.items() for value in named}
    known = {*owners, *map(in_one_form, left_out)}
    for image, value in values.items():
        if in_one_form(value) not in known:
            raise ArchiveError(
                f"{image} has '{value:.60}' as {what}, which is in no split; add it to a split in "
                "splits.parts, or to splits.left_out."
            )
    absent = sorted(known - {in_one_form(value) for value in values.values()})
    if absent:
        raise ArchiveError(
            f"No image has '{absent[0]:.60}' as {what}, which 'splits' names; fetch its images, "
            "or correct 'splits'."
        )
    return {
        image: owners[in_one_form(value)]
        for image, value in values.items()
        if in_one_form(value) in owners
    }


def _folder(image: str, level: int) -> str:
    name = folder_at(image, level)
    if name is None:
        raise ArchiveError(
            f"{image} has no folder {level} below root; narrow 'pattern', or choose another level."
        )
    return name


def groups_of_images(rule: HashSplits, tables: Tables) -> dict[str, str]:
    """Return the name of every image's group.

    Raises:
        RsclError: If a table is missing or not valid, or an image has no group.
    """
    makers: list[Callable[[str], tuple[str, ...]]] = []
    if rule.levels:
        makers.append(lambda image: tuple(_folder(image, level) for level in rule.levels))
    if rule.name is not None:
        pattern = re.compile(rule.name)
        makers.append(lambda image: _matched(image, pattern))
    if rule.column is not None:
        cells = tables.column(rule.column, rule.table, rule.image_column)
        makers.append(lambda image: (in_one_form(cells[image]),))
    if not makers:
        # Without the suffix, so that an image that is stored in another format stays in its split.
        return {image: str(PurePosixPath(image).with_suffix("")) for image in tables.images}
    return {image: "\0".join(sum((m(image) for m in makers), ())) for image in tables.images}


def _matched(image: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
    found = pattern.search(PurePosixPath(image).stem)
    if found is None:
        raise ArchiveError(
            f"The name of {image} does not fit splits.name = '{pattern.pattern}', so that it has "
            "no group; correct the expression, or narrow 'pattern'."
        )
    return tuple(group or "" for group in found.groups())


class Dealing(Protocol):
    """What decides the split of a group besides its name."""

    @property
    def shares(self) -> Mapping[str, float]:
        """Share of each split."""

    @property
    def key(self) -> str:
        """Any text; another key deals other groups."""


def dealt(group: str, rule: Dealing) -> str:
    """Return the split of a group: a function of its name, the key and the shares alone."""
    digest = blake2b(f"{rule.key}\0{group}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    above = 0.0
    for split, share in rule.shares.items():
        above += share
        if place < above:
            return split
    return split
