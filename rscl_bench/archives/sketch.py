"""Renders sketches, small synthetic archives in the published layouts, once into the cache."""

from pathlib import Path

from rscl_bench import registry
from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.errors import ArtefactError
from rscl_bench.progress import Progress, silent
from rscl_bench.randomness import numpy_generator
from rscl_bench.scratch import scratch_folder
from rscl_bench.spec import Scenario

#: Version of all sketches: raised when an adapter draws other pixels or files.
VERSION = 2


def datasets_of(scenario: Scenario) -> list[str]:
    """Return the datasets of the tasks and probes of a scenario, each once, in order."""
    tasks = [task.dataset for task in scenario.tasks]
    probes = [probe.dataset for probe in scenario.probes]
    return list(dict.fromkeys(tasks + probes))


def render(
    datasets: list[str],
    cache: Path,
    progress: Progress = silent,
    mend: str = "set RSCL_CACHE to a folder",
) -> Path:
    """Render the sketch archives that the cache lacks.

    Args:
        datasets: Registered names, or ``file.py:Class``.
        cache: Cache folder.
        progress: Called with (what, done, total) after each dataset.
        mend: How the user chooses another folder, for the message of a failure.

    Returns:
        The data root that holds the sketches.

    Raises:
        ArtefactError: If the cache is not writable.
        SpecError: If a dataset has no sketch.
    """
    root = cache / f"sketch-v{VERSION}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for done, name in enumerate(datasets, start=1):
            adapter: type[DatasetAdapter] = registry.load("datasets", name)
            if not adapter.has_sketch():
                adapter.write_sketch(root, numpy_generator(VERSION))  # raises
            if not (root / adapter.folder).is_dir():
                _render_one(adapter, root)
            progress("rendering sketch archives", done, len(datasets))
    except OSError as error:
        raise ArtefactError(
            f"The sketch archives cannot be written below {root} ({error}); {mend} that is "
            "writable and has room."
        ) from error
    return root


def _render_one(adapter: type[DatasetAdapter], root: Path) -> None:
    with scratch_folder(root, "sketching") as work:
        adapter.write_sketch(work, numpy_generator(VERSION, "sketch", adapter.name))
        try:
            (work / adapter.folder).rename(root / adapter.folder)
        except OSError:
            if not (root / adapter.folder).is_dir():  # another process has not rendered it either
                raise
