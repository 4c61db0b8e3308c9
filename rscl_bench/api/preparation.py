"""What precedes every run: the edition, the notes, the packed tiles, the reporter."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rscl_bench.engine.parent import ParentRun
    from rscl_bench.engine.prepare import PreparedRun
    from rscl_bench.progress import Reporter
    from rscl_bench.spec import OnBadTile, RunSpec, Scenario
    from rscl_bench.tiles.source import ArchiveSource
    from rscl_bench.tiles.store import TileStore


def report_notes(specs: "Iterable[RunSpec]", reporter: "Reporter") -> None:
    """Report each note of the runs once."""
    for note in dict.fromkeys(note for spec in specs for note in spec.notes):
        reporter.message(f"note: {note}")


def edition_line(scenario: "Scenario", data_root: Path | None) -> str:
    """Return the line that says which edition of the archives a command reads."""
    from rscl_bench.archives.lookup import outside_adapters

    if not outside_adapters(scenario):
        return f"The real images of {scenario.name} are part of rscl-bench: no data root is read."
    if data_root is not None:
        return f"Archives of {scenario.name} from {data_root}."
    return (
        f"Sketch edition of {scenario.name}: small synthetic images, whose scores say nothing "
        "about real images. For real archives give --data-root DIR or set RSCL_DATA_ROOT."
    )


@contextmanager
def reporting(verbose: bool) -> "Iterator[Reporter]":
    """Yield the reporter of a command: the console, or one that is silent."""
    if verbose:
        from rscl_bench.console import reporter

        with reporter() as shown:
            yield shown
    else:
        from rscl_bench.progress import SilentReporter

        yield SilentReporter()


def prepare_run(
    spec: "RunSpec",
    data_root: Path | None,
    device: str,
    on_bad_tile: "OnBadTile",
    reporter: "Reporter",
    parent: "ParentRun | None" = None,
) -> "tuple[PreparedRun, ArchiveSource]":
    """Open the tiles of a run; pack tiles that are not packed yet."""
    from rscl_bench.engine.initial import init_lines
    from rscl_bench.engine.prepare import open_run
    from rscl_bench.tiles.source import find_archives

    archives = find_archives(spec.scenario, data_root, on_bad_tile, reporter)
    prepared = open_run(spec, archives, device, reporter.progress, parent)
    for line in [] if prepared.init is None else init_lines(prepared.init):
        reporter.message(line)
    for name, store in prepared.named_stores().items():
        report_older_tiles(name, store, reporter)
        if store.blank:
            reporter.message(f"note: {store.blank} of {len(store)} tiles in {store.path} are blank")
        if store.missing_share:
            reporter.message(
                f"note: {store.missing_share:.2%} of the pixels of {name} are declared as missing "
                "(nodata); they are filled and left out of mean and deviation"
            )
        if store.skipped:
            reporter.message(
                f"note: {len(store.skipped)} images of {name} cannot be used and were left out: "
                f"{', '.join(store.skipped)}"
            )
    return prepared, archives


def report_older_tiles(name: str, store: "TileStore", reporter: "Reporter") -> None:
    """Report that tiles of an older version are packed again."""
    if store.older:
        reporter.message(
            f"note: the tiles of {name} were packed by an older version, and are packed again; "
            "`rscl-bench data clean --unused` frees the old ones"
        )
