"""Finds the files of every item of a TorchGeo dataset without reading every item.

Three items are read, and the files that they open are noted. The class keeps its items in lists of
names, paths or numbers. A pattern over these lists that gives exactly the files of the three items
gives those of all others. Every later reading is checked against it, so that a wrong pattern is an
error and never a wrong digest. Where no pattern fits, the dataset depends on every file below its
root.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rscl_bench.archives.torchgeo.opened_files import is_packed

#: Numbers stand in file names with up to this many leading zeros.
_WIDEST = 8
_DEEPEST = 3
#: A shorter text stands in a path by chance.
_SHORTEST = 2


@dataclass(frozen=True)
class ItemFiles:
    """The files that the items of a dataset are read from.

    Attributes:
        by_item: Files of each item, in the order in which they are opened. If no pattern was found,
            the first file of item 0 for each item.
        known: Whether the files of each item are known; if not, items depend on ``others`` too.
        others: Files that the dataset depends on as a whole, sorted.
    """

    by_item: list[tuple[Path, ...]]
    known: bool
    others: tuple[Path, ...]

    @cached_property
    def _shared(self) -> frozenset[Path]:
        return frozenset(self.others)

    def foreign(self, index: int, opened: Iterable[Path]) -> set[Path]:
        """Return which of the files that item ``index`` opened are not its own."""
        return set(opened).difference(self.by_item[index], self._shared)


def find(
    dataset: Any, root: Path, common: Sequence[Path], opened_by: Callable[[int], list[Path]]
) -> ItemFiles:
    """Find the files of every item.

    Args:
        dataset: The TorchGeo dataset; it has at least one item.
        root: The folder of the archive.
        common: Files that the dataset opened when it was made, such as tables of labels.
        opened_by: Reads an item, and returns the files below ``root`` that it opened.
    """
    count = len(dataset)
    shared = set(common)
    read = {
        index: [path for path in opened_by(index) if path not in shared]
        for index in sorted({0, count // 2, count - 1})
    }
    others = tuple(sorted(shared))
    if shared and not any(read.values()):  # one file holds all items
        return ItemFiles([(max(others, key=_size),)] * count, True, others)
    if all(read.values()):
        for search in (_by_pattern, _by_folder):
            for numbers in (False, True):
                found = search(root, read, _leaves(dataset, count, numbers), count)
                if found is not None:
                    return ItemFiles(found, True, others)
    every = tuple(all_files(root))
    first = next(iter(read[0]), None) or max(every, key=_size)
    return ItemFiles([(first,)] * count, False, every)


def _size(path: Path) -> int:
    return path.stat().st_size


def all_files(root: Path) -> Iterator[Path]:
    """Yield every file below a folder, sorted; hidden files and packed archives are left out."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and not is_packed(name):
                yield Path(folder, name)


#: The texts of one place in the items of a dataset, by index.
_Leaf = Callable[[int], str]


def _leaves(dataset: Any, count: int, numbers: bool) -> list[_Leaf]:
    """Return the texts that a dataset keeps for its items.

    Args:
        dataset: The dataset.
        count: Its number of items.
        numbers: Whether numbers are texts too, with and without leading zeros.
    """
    leaves: list[_Leaf] = []
    for values in _columns(dataset, count):
        leaves += _within(values, values[0], numbers, 0)
    if numbers:
        leaves += _number(lambda index: index) + _number(lambda index: index + 1)
    return leaves


def _columns(dataset: Any, count: int) -> Iterator[Sequence[Any]]:
    """Yield what the dataset keeps in lists and tables of one entry for each item."""
    for value in vars(dataset).values():
        if hasattr(value, "columns") and hasattr(value, "iloc") and len(value) == count:
            yield from (value[column].tolist() for column in value.columns)
        elif hasattr(value, "tolist") and getattr(value, "shape", (0,))[0:1] == (count,):
            yield value.tolist()
        elif isinstance(value, list | tuple) and len(value) == count:
            yield value


def _within(values: Sequence[Any], first: Any, numbers: bool, depth: int) -> list[_Leaf]:
    """Return the texts within the entries of a list, given the first entry."""
    if isinstance(first, str | os.PathLike):
        return _text(lambda index: os.fspath(values[index]).strip())
    if isinstance(first, int) and not isinstance(first, bool):
        return _number(lambda index: values[index]) if numbers else []
    if depth == _DEEPEST or not isinstance(first, dict | list | tuple):
        return []
    keys = list(first) if isinstance(first, dict) else range(len(first))
    leaves: list[_Leaf] = []
    for key in keys:
        inner = _Inner(values, key)
        leaves += _within(inner, first[key], numbers, depth + 1)
    return leaves


class _Inner(Sequence[Any]):
    """The values under one key of the entries of a list."""

    def __init__(self, values: Sequence[Any], key: Any):
        self.values, self.key = values, key

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> Any:
        return self.values[index][self.key]


def _text(value: Callable[[int], str]) -> list[_Leaf]:
    return [
        value,
        lambda index: str(Path(value(index)).absolute()),
        lambda index: Path(value(index)).name,
        lambda index: Path(value(index)).stem,
    ]


def _number(value: Callable[[int], int]) -> list[_Leaf]:
    def padded(width: int) -> _Leaf:
        return lambda index: f"{value(index):0{width}d}"

    return [padded(width) for width in range(_WIDEST, 0, -1)]


#: What an entry of another kind than the first raises.
_IRREGULAR = (LookupError, TypeError, ValueError, AttributeError)
#: A path as literal parts and texts of the item.
_Pattern = list[str | _Leaf]


def _by_pattern(
    root: Path, read: dict[int, list[Path]], leaves: list[_Leaf], count: int
) -> list[tuple[Path, ...]] | None:
    """Return the files of all items by patterns; None if these do not give the files read."""
    first = [_pattern(str(path), str(root), leaves) for path in read[0]]
    try:
        for index, paths in read.items():
            if [_filled(pattern, index) for pattern in first] != [str(path) for path in paths]:
                return None
        return [tuple(Path(_filled(p, index)) for p in first) for index in range(count)]
    except _IRREGULAR:
        return None


def _by_folder(
    root: Path, read: dict[int, list[Path]], leaves: list[_Leaf], count: int
) -> list[tuple[Path, ...]] | None:
    """Return all files below a folder of each item, where an item is read from some of them."""
    longest = min(len(path.relative_to(root).parts) for path in read[0]) - 1
    for depth in range(longest, 0, -1):
        folders = dict.fromkeys(
            root.joinpath(*path.relative_to(root).parts[:depth]) for path in read[0]
        )
        patterns = [_pattern(str(folder), str(root), leaves) for folder in folders]
        if any(all(isinstance(part, str) for part in pattern) for pattern in patterns):
            continue  # one folder of several items
        try:
            if all(_lie_in(paths, patterns, index) for index, paths in read.items()):
                return [
                    tuple(file for p in patterns for file in all_files(Path(_filled(p, index))))
                    for index in range(count)
                ]
        except _IRREGULAR:
            continue
    return None


def _lie_in(paths: list[Path], patterns: "list[_Pattern]", index: int) -> bool:
    folders = [Path(_filled(pattern, index)) for pattern in patterns]
    return all(any(path.is_relative_to(folder) for folder in folders) for path in paths)


def _pattern(path: str, root: str, leaves: list[_Leaf]) -> _Pattern:
    """Replace in a path each part that is a text of item 0, the longest text first."""
    below: _Pattern = [path[len(root) + 1 :]]
    texts = [(leaf(0), leaf) for leaf in leaves]
    for text, leaf in sorted(texts, key=lambda pair: -len(pair[0])):
        if text == path:
            return [leaf]
        if len(text) >= _SHORTEST:
            below = [new for part in below for new in _split(part, text, leaf)]
    return [root + os.sep, *below]


def _split(part: str | _Leaf, text: str, leaf: _Leaf) -> list[str | _Leaf]:
    if not isinstance(part, str) or text not in part:
        return [part]
    pieces: list[str | _Leaf] = []
    for number, piece in enumerate(part.split(text)):
        pieces += [leaf, piece] if number else [piece]
    return [piece for piece in pieces if piece != ""]


def _filled(pattern: _Pattern, index: int) -> str:
    return "".join(part if isinstance(part, str) else part(index) for part in pattern)
