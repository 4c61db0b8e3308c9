"""Where the tiles of a run come from: real archives or sketches, and the cache of packed tiles."""

from pathlib import Path
from typing import TYPE_CHECKING

from rscl_bench.errors import ArchiveError
from rscl_bench.progress import Progress, Reporter, silent
from rscl_bench.spec import Edition, OnBadTile, Scenario, Source, Spec

if TYPE_CHECKING:  # a sweep's process reads an ArchiveSource before it imports NumPy
    from collections.abc import Sequence

    from rscl_bench.archives.adapter import DatasetAdapter
    from rscl_bench.tiles.store import TileStore


class ArchiveSource(Spec):
    """The archives of a run, and the cache into which their tiles are packed.

    Attributes:
        root: Folder that holds the archives.
        edition: Whether these archives are real or sketches.
        cache: Folder of all tile stores.
        on_bad_tile: Whether an image that cannot be used stops packing, or is left out, counted
            and listed.
    """

    root: Path
    edition: Edition
    cache: Path
    on_bad_tile: OnBadTile = "stop"

    def open(self, source: Source, with_labels: bool, progress: Progress = silent) -> "TileStore":
        """Open the tiles of one split, and pack them first where needed.

        Args:
            source: What to read, and how to cut the images.
            with_labels: Whether the store holds labels.
            progress: Called while packing.

        Raises:
            ArchiveError: If the archive is missing, partial or holds an unusable file.
            ArtefactError: If a stored tile has changed, or the cache is not writable.
        """
        from rscl_bench.tiles.packing import open_or_pack

        return open_or_pack(self.root, source, self.cache, with_labels, progress, self.on_bad_tile)


def find_archives(
    scenario: Scenario, data_root: Path | None, on_bad_tile: OnBadTile, reporter: Reporter
) -> ArchiveSource:
    """Find the archives of a scenario; render sketches of them where there is no data root.

    Archives that are part of this package are read from there, with and without a data root. They
    are real, so a scenario of such archives alone needs no data root.

    Args:
        scenario: The scenario.
        data_root: Folder of the archives; None for sketches of what is no part of the package.
        on_bad_tile: As in `ArchiveSource`.
        reporter: Told of rendering, and of sketches in the data root.

    Raises:
        ArchiveError: If the data root mixes real archives and sketches.
        ArtefactError: If the cache is not writable.
    """
    from rscl_bench.archives.lookup import outside_adapters

    return archives_of(outside_adapters(scenario), data_root, on_bad_tile, reporter)


def archives_of(
    adapters: "Sequence[type[DatasetAdapter]]",
    data_root: Path | None,
    on_bad_tile: OnBadTile,
    reporter: Reporter,
) -> ArchiveSource:
    """Find the archives of some datasets, none of them embedded; as in `find_archives`."""
    from rscl_bench.archives.adapter import SKETCH_MARKER
    from rscl_bench.archives.folder.embedded import EMBEDDED
    from rscl_bench.archives.sketch import render
    from rscl_bench.tiles.cache import cache_folder

    cache = cache_folder()

    def archives(root: Path, edition: Edition) -> ArchiveSource:
        return ArchiveSource(root=root, edition=edition, cache=cache, on_bad_tile=on_bad_tile)

    if not adapters:
        return archives(EMBEDDED, "real")
    if data_root is None:
        return archives(render(adapters, cache, reporter.progress), "sketch")
    folders = {data_root / adapter.folder for adapter in adapters}
    sketches = sorted(folder for folder in folders if (folder / SKETCH_MARKER).is_file())
    if not sketches:
        return archives(data_root, "real")
    if len(sketches) < sum(folder.is_dir() for folder in folders):
        raise ArchiveError(
            f"{sketches[0]} is a synthetic sketch beside real archives; put the real archive there."
        )
    reporter.message("These archives are synthetic sketches: this is the sketch edition.")
    return archives(data_root, "sketch")
