"""The commands of `rscl-bench data`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rscl_bench import api
from rscl_bench.cli.application import data_app
from rscl_bench.cli.options import DataRootOption, OnBadOption, ScenarioOption, announce_code
from rscl_bench.errors import SpecError, unknown
from rscl_bench.interruption import Interrupted
from rscl_bench.user_paths import user_path

if TYPE_CHECKING:
    from rscl_bench.archives.fetching import ArchiveToFetch


@data_app.command()
def prepare(
    scenario: ScenarioOption,
    data_root: DataRootOption = None,
    on_bad_tile: OnBadOption = "stop",
) -> None:
    """Pack all tiles of a scenario, so that runs start without packing."""
    announce_code(scenario)
    stores = api.open_tiles(scenario, data_root=data_root, on_bad_tile=on_bad_tile)
    for name, store in stores.items():
        shape = "×".join(map(str, store.tiles.shape[1:]))
        print(f"{name}: {len(store)} tiles of {shape} {store.tiles.dtype}, {store.blank} all zero")
        if store.missing_share:
            print(f"{name}: {store.missing_share:.2%} declared as missing (nodata), filled")
        if store.skipped:
            print(f"{name}: left out {len(store.skipped)}: {', '.join(store.skipped)}")


@data_app.command()
def fetch(
    scenario: Annotated[
        str | None, typer.Argument(help="A known scenario, or a path to a TOML.")
    ] = None,
    named: Annotated[
        str | None, typer.Option("--scenario", help="The scenario, as other commands take it.")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            "--data-root", envvar="RSCL_DATA_ROOT", help="Folder to download the archives into."
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Agree with the licences that are shown; do not ask.")
    ] = False,
) -> None:
    """Download the archives of a scenario that their publishers serve without a login.

    Licence and size of each archive are shown first. The same command resumes an interrupted
    download. Other archives are fetched by hand: the command says where, under which licence and
    into which folder, and its exit status is then 1. No other command downloads anything.
    """
    given = [name for name in (scenario, named) if name is not None]
    if len(given) != 1:
        raise SpecError("Name one scenario, such as `rscl-bench data fetch rs4`.")
    announce_code(*given)

    def agree(archives: "list[ArchiveToFetch]") -> bool:
        for line in (line for archive in archives for line in archive.described()):
            print(line)
        try:
            return yes or typer.confirm("Download these archives under their licences?")
        except typer.Abort as error:
            if sys.stdin.isatty():
                raise
            raise SpecError(
                "Nobody answered, so nothing was downloaded; add --yes to agree with the licences."
            ) from error

    try:
        api.fetch(given[0], data_root=data_root, agree=agree)
    except Interrupted as error:
        raise Interrupted(error.signal, "what has arrived") from error


@data_app.command()
def verify(
    scenario: ScenarioOption,
    data_root: DataRootOption = None,
    on_bad_tile: OnBadOption = "stop",
) -> None:
    """Check that the archives of a scenario are complete and its packed tiles unchanged."""
    announce_code(scenario)
    from rscl_bench.tiles.store import verify as verify_bytes

    stores = api.open_tiles(scenario, data_root=data_root, on_bad_tile=on_bad_tile)
    for name, store in stores.items():
        verify_bytes(store.path)
        print(f"{name}: {len(store)} tiles, SHA-256 {store.digest}, source {store.source_digest}")


@data_app.command(name="list")
def list_cache() -> None:
    """List packed tiles, sketches and unfinished work in the cache, with their sizes."""
    from rscl_bench.console import print_cache
    from rscl_bench.tiles.cache import cache_folder

    print_cache(api.cache_entries(), cache_folder())


@data_app.command()
def clean(
    everything: Annotated[bool, typer.Option("--all", help="Remove everything.")] = False,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Remove tiles and sketch of one dataset.")
    ] = None,
    unused: Annotated[
        bool,
        typer.Option(
            "--unused",
            help="Remove what no run needs: of older versions, of archives that are gone, and "
            "unfinished work.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove packed tiles and sketches from the cache; runs make them again when needed."""
    from rscl_bench.console import human_size, print_cache
    from rscl_bench.tiles.cache import cache_folder

    if everything + (dataset is not None) + unused != 1:
        raise SpecError("Say what to remove: give one of --all, --dataset NAME and --unused.")
    found = api.cache_entries()
    names = {entry.dataset for entry in found}
    if dataset is not None and dataset not in names:
        raise unknown("dataset in the cache", dataset, names)
    chosen = [e for e in found if everything or (unused and e.unused) or e.dataset == dataset]
    print_cache(chosen, cache_folder())
    if chosen and (yes or typer.confirm("Remove these folders?")):
        api.clean_cache(chosen)
        print(f"removed: {human_size(sum(entry.size for entry in chosen))}")


@data_app.command()
def unpack(
    archive: Annotated[Path, typer.Argument(help="A ZIP or TAR file.", exists=True)],
    into: Annotated[Path, typer.Option(help="Folder to make; it must not exist, or be empty.")],
    max_ratio: Annotated[
        int,
        typer.Option(min=1, help="Times its own size, plus 4 GiB, that the archive may unpack to."),
    ] = 20,
) -> None:
    """Unpack a downloaded archive; refuse one that writes elsewhere or grows too far."""
    from rscl_bench.archives.unpack import unpack as unpacked

    into = user_path(into, "The folder")
    count = unpacked(archive, into, max_ratio)
    print(f"{count} files in {into}")


@data_app.command()
def sketch(
    scenario: ScenarioOption,
    out: Annotated[
        Path, typer.Option(help="Folder to write to; the data root is below it, as printed.")
    ],
) -> None:
    """Render a scenario's synthetic archives, in the true layouts, into a folder."""
    announce_code(scenario)
    print(f"sketch archives: {api.render_sketches(scenario, out)}")
