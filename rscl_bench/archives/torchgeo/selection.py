"""Chooses items of a TorchGeo dataset: by their files, by dealt splits, and by number.

Every choice is a function of an item's group: the path of its first file below the archive's folder
without suffix, and of a raster with coordinates its block too. It depends neither on the order of
the items nor on the other items, so that further files never move an item into another split.
"""

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from hashlib import blake2b

from rscl_bench.archives.folder.splits import dealt
from rscl_bench.archives.torchgeo.options import TorchGeoOptions
from rscl_bench.errors import ArchiveError


def chosen_items(
    groups: Sequence[str], split: str, options: TorchGeoOptions, title: str
) -> list[int]:
    """Return the indices of the items that the options choose, in their order.

    Args:
        groups: Group of every item.
        split: The split of the scenario.
        options: The options.
        title: Name of the dataset and its place, for messages.

    Raises:
        ArchiveError: If a pattern fits no item, or the patterns leave none.
    """
    indices = _fitting(groups, options, title)
    if options.splits is not None:
        rule = options.splits
        indices = [index for index in indices if dealt(groups[index], rule) == split]
    if options.at_most is not None and len(indices) > options.at_most:
        indices = _drawn(groups, indices, options.at_most)
    return indices


def _fitting(groups: Sequence[str], options: TorchGeoOptions, title: str) -> list[int]:
    """Return the items that fit a pattern of ``only``, and none of ``without``."""
    kept = set(range(len(groups)))
    if options.only:
        kept &= set().union(*(_matched(groups, one, "only", title) for one in options.only))
    for pattern in options.without or ():
        kept -= _matched(groups, pattern, "without", title)
    if not kept:
        raise ArchiveError(f"options.only and options.without leave no item of {title}.")
    return sorted(kept)


def _matched(groups: Sequence[str], pattern: str, option: str, title: str) -> set[int]:
    found = {index for index, group in enumerate(groups) if fnmatchcase(group, pattern)}
    if not found:
        raise ArchiveError(
            f"No item of {title} fits '{pattern}' of options.{option}; the first item is "
            f"{groups[0]} (without suffix), and * stands for any text."
        )
    return found


def _drawn(groups: Sequence[str], indices: Sequence[int], count: int) -> list[int]:
    """Return ``count`` of the items with the lowest hashes; those of one group are numbered."""
    seen: Counter[str] = Counter()
    hashes: dict[int, bytes] = {}
    for index in indices:
        text = f"at most\0{groups[index]}\0{seen[groups[index]]}"
        hashes[index] = blake2b(text.encode(), digest_size=8).digest()
        seen[groups[index]] += 1
    return sorted(sorted(indices, key=hashes.__getitem__)[:count])
