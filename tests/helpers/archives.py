"""Archives for tests."""

from pathlib import Path

from rscl_bench import registry
from rscl_bench.archives.adapter import SKETCH_MARKER
from rscl_bench.tiles.source import ArchiveSource

#: The registered datasets that draw a sketch; all others read what options describe.
SKETCHED = sorted(
    name
    for name in registry.BUILTIN["datasets"]
    if not registry.load("datasets", name).declared_by_options
)


def sketches(root: Path, cache: Path) -> ArchiveSource:
    """Return sketch archives below a folder, packed into a cache."""
    return ArchiveSource(root=root, edition="sketch", cache=cache)


def allow_missing_files(archive: Path) -> None:
    """Let the marker of a sketch list no files, so that the sketch may lack some."""
    marker = archive / SKETCH_MARKER
    header = marker.read_text(encoding="utf-8").splitlines()[0]
    marker.unlink()  # it may be hard-linked
    marker.write_text(f"{header}\n", encoding="utf-8")
