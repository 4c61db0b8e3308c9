"""Archives of tests."""

from pathlib import Path

from rscl_bench.tiles.source import ArchiveSource


def sketches(root: Path, cache: Path) -> ArchiveSource:
    """Return sketch archives below a folder, packed into a cache."""
    return ArchiveSource(root=root, edition="sketch", cache=cache)
