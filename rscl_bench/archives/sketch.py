"""Renders sketches, small synthetic archives in the published layouts, once into the cache."""

import os
import shutil
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from rscl_bench import registry
from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.canonical import canonical_json
from rscl_bench.errors import ArtefactError
from rscl_bench.progress import Progress, silent
from rscl_bench.randomness import numpy_generator
from rscl_bench.scratch import scratch_folder

#: Version of all sketches: raised when an adapter draws other pixels or files.
VERSION = 3


def render(
    adapters: Sequence[type[DatasetAdapter]],
    cache: Path,
    progress: Progress = silent,
    mend: str = "set RSCL_CACHE to a folder that is writable and has room",
) -> Path:
    """Render the sketch archives that the cache lacks.

    Args:
        adapters: The classes of the datasets, each once.
        cache: Cache folder.
        progress: Called with (what, done, total) after each dataset.
        mend: What to do if the folder cannot be written, for the message.

    Returns:
        The data root that holds the sketches.

    Raises:
        ArtefactError: If the cache is not writable.
        SpecError: If a dataset has no sketch.
    """
    common = cache / f"sketch-v{VERSION}"
    root = common.with_name(f"{common.name}{_suffix(adapters)}")
    try:
        for done, adapter in enumerate(adapters, start=1):
            if not adapter.has_sketch():
                adapter.write_sketch(root, numpy_generator(VERSION))  # raises
            if root != common and registry.code_digest(adapter) is None:
                _render_one(adapter, common)
                _copy(adapter.folder, common, root)
            else:
                _render_one(adapter, root)
            progress("rendering sketch archives", done, len(adapters))
    except OSError as error:
        raise ArtefactError(
            f"The sketch archives cannot be written below {root} ({error}); {mend}."
        ) from error
    return root


def _suffix(adapters: Sequence[type[DatasetAdapter]]) -> str:
    """Return a key of the datasets whose code is given by path; empty if there is none.

    An edited file, or another class of the same folder, draws its sketch into another root.
    """
    codes = [(adapter.__qualname__, registry.code_digest(adapter)) for adapter in adapters]
    by_path = sorted({(name, code) for name, code in codes if code is not None})
    return f"-{sha256(canonical_json(by_path)).hexdigest()[:16]}" if by_path else ""


def _render_one(adapter: type[DatasetAdapter], root: Path) -> None:
    def draw(work: Path) -> None:
        adapter.write_sketch(work, numpy_generator(VERSION, "sketch", adapter.name))

    _make(root, adapter.folder, draw)


def _copy(folder: str, common: Path, root: Path) -> None:
    def link(work: Path) -> None:
        shutil.copytree(common / folder, work / folder, copy_function=_link)

    _make(root, folder, link)


def _make(root: Path, folder: str, write: Callable[[Path], None]) -> None:
    """Make a folder below a root by writing it elsewhere first, if it does not exist."""
    root.mkdir(parents=True, exist_ok=True)
    if (root / folder).is_dir():
        return
    with scratch_folder(root, "sketching") as work:
        write(work)
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        try:
            (work / folder).rename(root / folder)
        except OSError:
            if not (root / folder).is_dir():  # another process has not made it either
                raise


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # the file system has no hard links
        shutil.copy2(source, target)
