"""Notes which files TorchGeo opens, and refuses that it writes any.

TorchGeo's classes have no common way to say which files an item is read from. What they open is
therefore observed: Python's own opening of files by an audit hook, and the opening by GDAL and HDF5
by a wrapper around the function that TorchGeo calls. The hook stays for the whole process, because
Python removes none; outside of `noted` it returns at once.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rscl_bench.errors import ArchiveError

#: Functions by module that open a file whose path is their first argument.
_OPENERS = {
    "rasterio": ("open",),
    "h5py": ("File",),
    "geopandas": ("read_file", "read_parquet"),
    "pandas": ("read_parquet",),
    "xarray": ("open_dataset",),
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MAKING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink")
_PACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")


class Opened:
    """The files below a folder that were opened, in the order of their first opening.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path):
        self._root = str(root.absolute()) + os.sep
        self._paths: dict[str, None] = {}
        self._by_gdal: set[str] = set()

    @property
    def paths(self) -> list[Path]:
        """The files, each once; packed archives such as ZIP files are left out."""
        return [Path(path) for path in self._paths if not is_packed(path)]

    @property
    def by_gdal(self) -> list[Path]:
        """The files among them that GDAL opened."""
        return [path for path in self.paths if str(path) in self._by_gdal]

    def add(self, path: Any, by_gdal: bool = False) -> None:
        """Note a file, if it lies below the folder."""
        inside = self._inside(path)
        if inside is not None and Path(inside).is_file():
            self._paths[inside] = None
            if by_gdal:
                self._by_gdal.add(inside)

    def refuse_writing(self, path: Any) -> None:
        """Raise an error if a file below the folder is to be written."""
        inside = self._inside(path)
        if inside is None:
            return
        packed = [opened for opened in self._paths if is_packed(opened)]
        mend = (
            f"unpack {packed[-1]} with rscl-bench data unpack"
            if packed
            else "fetch the archive whole with rscl-bench data fetch"
        )
        raise ArchiveError(
            f"TorchGeo would write {inside}, but a run writes nothing into the data root; {mend}."
        )

    def _inside(self, path: Any) -> str | None:
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        absolute = str(Path(os.fsdecode(path)).absolute())
        return absolute if absolute.startswith(self._root) else None


def is_packed(path: str | Path) -> bool:
    """Return whether a file is a packed archive by its suffix."""
    return str(path).lower().endswith(_PACKED)


@contextmanager
def noted(root: Path) -> Iterator[Opened]:
    """Note the files below a folder that this thread opens within a block.

    Args:
        root: The folder.

    Yields:
        The opened files, filled while the block runs.

    Raises:
        ArchiveError: If the block would write below the folder.
    """
    _install()
    opened = Opened(root)
    before, _local.opened = getattr(_local, "opened", None), opened
    try:
        with ExitStack() as stack:
            for module_name, functions in _OPENERS.items():
                module = sys.modules.get(module_name)
                for function in functions if module is not None else ():
                    wrapper = _noting(getattr(module, function), module_name == "rasterio")
                    stack.enter_context(patch.object(module, function, wrapper))
            yield opened
    finally:
        _local.opened = before


_local = threading.local()
_installed = threading.Event()


def _install() -> None:
    if not _installed.is_set():
        _installed.set()
        sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    opened: Opened | None = getattr(_local, "opened", None)
    if opened is None:
        return
    if event == "open":
        path, _mode, flags = arguments
        if isinstance(flags, int) and flags & _WRITING:
            opened.refuse_writing(path)
        else:
            opened.add(path)
    elif event in _MAKING and not (event == "os.mkdir" and Path(arguments[0]).is_dir()):
        opened.refuse_writing(arguments[0])


def _noting(function: Any, by_gdal: bool) -> Any:
    """Return a function that notes its first argument; of a class, a subclass that does."""
    if isinstance(function, type):

        class Noting(function):  # type: ignore[misc]  # checks of the class still hold
            def __init__(self, path: Any, *arguments: Any, **keywords: Any):
                _note(path, by_gdal)
                super().__init__(path, *arguments, **keywords)

        return Noting

    def noting(path: Any, *arguments: Any, **keywords: Any) -> Any:
        _note(path, by_gdal)
        return function(path, *arguments, **keywords)

    return noting


def _note(path: Any, by_gdal: bool) -> None:
    opened: Opened | None = getattr(_local, "opened", None)
    if opened is not None:
        opened.add(path, by_gdal)
