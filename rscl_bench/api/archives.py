"""Archives, packed tiles and the cache."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rscl_bench.api.arguments import as_data_root, as_scenario, output_folder
from rscl_bench.api.preparation import edition_line, report_older_tiles, reporting
from rscl_bench.errors import ArchiveError, SpecError

if TYPE_CHECKING:
    from rscl_bench.archives.fetching import ArchiveToFetch
    from rscl_bench.archives.folder.writing import MapDataset
    from rscl_bench.spec import OnBadTile, Scenario
    from rscl_bench.tiles.inventory import CacheEntry
    from rscl_bench.tiles.store import TileStore


def open_tiles(
    scenario: "str | Path | Scenario",
    *,
    data_root: str | Path | None = None,
    on_bad_tile: "OnBadTile" = "stop",
    verbose: bool = True,
) -> "dict[str, TileStore]":
    """Open all tiles of a scenario; pack tiles that are not packed yet.

    Args:
        scenario: As in `run`.
        data_root: As in `run`.
        on_bad_tile: As in `run`.
        verbose: As in `run`.

    Returns:
        The tile stores by ``task NAME`` and ``probe NAME ROLE``.

    Raises:
        ArchiveError: If an archive is missing, partial or holds an unusable file.
        ArtefactError: If stored tiles have changed, or the cache is not writable.
    """
    from rscl_bench.tiles.source import find_archives

    loaded, root = as_scenario(scenario), as_data_root(data_root)
    with reporting(verbose) as reporter:
        reporter.message(edition_line(loaded, root))
        archives = find_archives(loaded, root, on_bad_tile, reporter)
        stores = {
            f"task {task.name}": archives.open(task, False, reporter.progress)
            for task in loaded.tasks
        }
        for probe in loaded.probes:
            for role, split in probe.splits().items():
                store = archives.open(probe.source(split), True, reporter.progress)
                stores[f"probe {probe.name} {role}"] = store
        for name, store in stores.items():
            report_older_tiles(name, store, reporter)
    return stores


def write_dataset(
    name: str,
    splits: "Mapping[str, MapDataset]",
    *,
    data_root: str | Path | None = None,
    sensor: "str | Mapping[str, Any]",
    classes: Sequence[str] = (),
    verbose: bool = True,
) -> dict[str, Any]:
    """Write the samples of torch datasets as an archive, and return how a scenario names it.

    A dataset in memory has no files whose digests could stand in the identity of a run. This
    function therefore reads every sample once and writes its array below the data root. The runs
    then read these files, in this process and in those of a sweep. A later call with equal samples
    changes nothing; other samples are refused as long as the folder is there.

    Args:
        name: Folder below the data root, such as ``"mine"``.
        splits: A map-style dataset for each split. A sample is an image, ``(image, label)``, or a
            dictionary of TorchGeo with ``image`` and ``label`` or ``mask``. An image is a tensor
            ``[C, H, W]`` of whole numbers, or a picture of Pillow. A label is the number of a
            class, ``[L]`` of 0 and 1, or a mask ``[H, W]`` of class numbers, 255 where undefined.
        data_root: Folder of the archives; None for RSCL_DATA_ROOT.
        sensor: Name of a sensor, or its values: ``bands``, ``unit``, ``dtype``, ``scale``.
        classes: Names of the classes in the order of their numbers; without them, labels are left
            out.
        verbose: As in `run`.

    Returns:
        ``dataset`` and ``options`` of a `rscl_bench.spec.Task` or `rscl_bench.spec.Probe`.

    Raises:
        SpecError: If a name or the sensor is not valid, or there is no data root.
        ArchiveError: If a sample is not valid, or the folder holds other files.
        ArtefactError: If the folder cannot be written.
    """
    from rscl_bench.archives.folder.writing import write_samples

    root = as_data_root(data_root)
    if root is None:
        raise SpecError(f"Dataset '{name}' needs a folder: give data_root, or set RSCL_DATA_ROOT.")
    with reporting(verbose) as reporter:
        options = write_samples(name, splits, root, sensor, classes, reporter.progress)
    return {"dataset": "folder", "options": options}


def fetch(
    scenario: "str | Path | Scenario",
    *,
    data_root: str | Path | None = None,
    agree: "Callable[[list[ArchiveToFetch]], bool]",
    verbose: bool = True,
) -> None:
    """Download the archives of a scenario that can be downloaded, and unpack them.

    No other function downloads anything. An interrupted download resumes when the function is
    called again. Archives that ask for a login or a form are fetched by hand; the error says where.

    Args:
        scenario: As in `run`.
        data_root: Folder of the real archives. None takes the folder of RSCL_DATA_ROOT.
        agree: Called with the archives that would be downloaded; returns whether the user agrees
            with their licences and sizes, which `ArchiveToFetch.described` shows. It is not called
            if nothing can be downloaded.
        verbose: As in `run`.

    Raises:
        SpecError: If there is no data root, or the scenario is not valid.
        ArchiveError: If an archive is still missing or partial at the end.
        ArtefactError: If the data root cannot be written, or has too little room.
    """
    from rscl_bench.archives.fetching import fetch_archives, missing_archives
    from rscl_bench.archives.lookup import outside_adapters

    root, loaded = as_data_root(data_root), as_scenario(scenario)
    if not outside_adapters(loaded):
        with reporting(verbose) as reporter:
            reporter.message(f"{edition_line(loaded, root)} There is nothing to fetch.")
        return
    if root is None:
        raise SpecError("Give the folder for the archives with --data-root, or set RSCL_DATA_ROOT.")
    with reporting(verbose) as reporter:
        found = missing_archives(loaded, root, reporter)
    offered = [archive for archive in found if archive.files]
    agreed = not offered or agree(offered)
    with reporting(verbose) as reporter:
        by_hand = [archive for archive in found if not archive.files]
        failed = fetch_archives(found if agreed else by_hand, reporter)
        for sentence in failed[:-1]:
            reporter.message(sentence)
    if not agreed:
        failed.append("Nothing was downloaded, because the licences were not agreed to.")
    if failed:
        raise ArchiveError(failed[-1])


def cache_entries() -> "list[CacheEntry]":
    """Return what the cache holds: packed tiles, sketches and unfinished work.

    Returns:
        One entry per folder, with its size and, for tiles, when they were last opened.
    """
    from rscl_bench.tiles.cache import cache_folder
    from rscl_bench.tiles.inventory import entries

    return entries(cache_folder())


def clean_cache(entries: "Iterable[CacheEntry]") -> None:
    """Remove folders of the cache; what a run needs is packed or rendered again.

    Args:
        entries: Some of `cache_entries`.

    Raises:
        ArtefactError: If a folder cannot be removed.
    """
    from rscl_bench.tiles.inventory import remove

    remove(entries)


def render_sketches(
    scenario: "str | Path | Scenario", out: str | Path, *, verbose: bool = True
) -> Path:
    """Render the synthetic archives of a scenario, in their true layouts, into a folder.

    Args:
        scenario: As in `run`.
        out: Folder to write to.
        verbose: As in `run`.

    Returns:
        The data root, below ``out``.
    """
    from rscl_bench.archives.lookup import outside_adapters
    from rscl_bench.archives.sketch import render

    with reporting(verbose) as reporter:
        return render(
            outside_adapters(as_scenario(scenario)),
            output_folder(out),
            reporter.progress,
            "choose with --out a folder that is writable and has room",
        )
