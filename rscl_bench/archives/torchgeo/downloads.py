"""What a class of TorchGeo downloads and unpacks, done by this package's own code.

A class knows addresses, digests and folders, and mixes them with code of its own. So the class is
made with ``download=True`` while the functions of TorchGeo that download and unpack are replaced.
The first time is in an empty folder, and only notes what the class asks for. No class reaches the
network by itself: connections are refused while a class is made.
"""

import inspect
import os
import re
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rscl_bench.archives.download import DIGESTS, RemoteFile, download
from rscl_bench.archives.torchgeo import classes
from rscl_bench.archives.unpack import unpack_beside
from rscl_bench.errors import ArchiveError, RsclError, shown
from rscl_bench.progress import Reporter


class _OwnWayError(Exception):
    """A class of TorchGeo downloads with another program, or connects to a server by itself."""


def files_of(part: str, arguments: Mapping[str, Any]) -> list[RemoteFile]:
    """Return the files that a class downloads into an empty folder.

    Args:
        part: Name of the class.
        arguments: Arguments of its constructor, without the folder.

    Raises:
        ArchiveError: If the class downloads with another program or by code of its own, or fails
            before it asks for a file.
    """
    if not classes.takes(part, "download"):
        return []
    from torchgeo.datasets import DatasetNotFoundError, DependencyNotFoundError

    with TemporaryDirectory(prefix="rscl-bench-") as folder:
        noted = _Noted(Path(folder))
        try:
            _make(part, {**arguments, **_place(part, folder)}, noted)
        except _OwnWayError as error:
            raise _own_way(part, error) from error
        except (DependencyNotFoundError, ImportError) as error:
            raise ArchiveError(
                f"TorchGeo's {part} needs a package that is not installed "
                f"({shown(str(error).strip().splitlines()[0], 200)}); install it first."
            ) from error
        except DatasetNotFoundError:
            pass  # the class asks for nothing, or misses what it was not given
        except Exception as error:
            # A class that reads the files it asked for fails here in its own way.
            if not noted.files:
                reason = shown(f"{type(error).__name__}: {error}", 200)
                raise ArchiveError(
                    f"TorchGeo's {part} does not tell what it downloads ({reason}); fetch the "
                    "archive by hand."
                ) from error
        return noted.files


def complete(part: str, arguments: Mapping[str, Any], folder: Path, reporter: Reporter) -> None:
    """Let a class do the rest: join parts, unpack archives within archives, fetch what they name.

    What goes wrong otherwise shows when the archive is opened.

    Args:
        part: Name of the class.
        arguments: Arguments of its constructor, without the folder.
        folder: Folder of the archive.
        reporter: Told of the progress.

    Raises:
        ArchiveError: If a file cannot be downloaded or unpacked.
    """
    if not classes.takes(part, "download"):
        return
    place = folder.absolute()
    try:
        _make(part, {**arguments, **_place(part, str(place))}, _Done(place, reporter))
    except RsclError:
        raise
    except _OwnWayError as error:
        raise _own_way(part, error) from error
    except Exception as error:
        reporter.message(f"note: TorchGeo's {part} says {type(error).__name__}: {error}")


def _own_way(part: str, error: _OwnWayError) -> ArchiveError:
    return ArchiveError(
        f"TorchGeo's {part} downloads {error}, which `data fetch` does not; call "
        f"torchgeo.datasets.{part} with download=True in Python, or fetch the archive by hand."
    )


def _place(part: str, folder: str) -> dict[str, Any]:
    checked = {"checksum": True} if classes.takes(part, "checksum") else {}
    root = "root" if classes.takes(part, "root") else "paths"
    return {root: folder, "download": True, **checked}


class _Noted:
    """Notes what a class asks for, and does nothing."""

    def __init__(self, root: Path):
        self.root = root
        self.files: list[RemoteFile] = []

    def download_url(
        self,
        url: str,
        root: Any,
        filename: Any = None,
        md5: str | None = None,
        max_redirect_hops: int = 3,
        **digests: str | None,
    ) -> None:
        """Stand in for the function of this name in TorchGeo and torchvision."""
        if md5 is None and re.fullmatch(r"[0-9a-f]{32}", str(filename)):
            filename, md5 = None, filename  # BigEarthNetV2 of TorchGeo 0.8 passes it in this place
        known = {"md5": md5, **digests}
        digest = next((f"{name}:{known[name]}" for name in DIGESTS if known.get(name)), "")
        name = filename or url.rpartition("/")[2]  # with its query, as TorchGeo does
        self.download(url, Path(root).expanduser() / name, digest)

    def extract_archive(
        self, from_path: Any, to_path: Any = None, remove_finished: bool = False
    ) -> str:
        """Stand in for the function of this name in TorchGeo and torchvision."""
        archive = Path(from_path).expanduser()
        folder = Path(to_path).expanduser() if to_path else archive.parent
        self.unpack(archive, folder)
        return str(folder)

    def download_and_extract_archive(
        self,
        url: str,
        download_root: Any,
        extract_root: Any = None,
        filename: Any = None,
        md5: str | None = None,
        remove_finished: bool = False,
        **digests: str | None,
    ) -> None:
        """Stand in for the function of this name in TorchGeo and torchvision."""
        name = filename or url.rpartition("/")[2]  # with its query, as TorchGeo does
        self.download_url(url, download_root, name, md5, 3, **digests)
        self.extract_archive(Path(download_root) / name, extract_root or download_root)

    def which(self, name: Any) -> Any:
        """Stand in for TorchGeo's function that finds a program."""
        raise _OwnWayError(f"with the program {name}")

    def download(self, url: str, target: Path, digest: str) -> None:
        """Note a file."""
        self.files.append(RemoteFile(url, self._below(target), digest))

    def unpack(self, archive: Path, folder: Path) -> None:
        """Note where a file is unpacked."""
        path, into = self._below(archive), self._below(folder)
        self.files = [
            RemoteFile(file.url, file.path, file.digest, None, into) if file.path == path else file
            for file in self.files
        ]

    def _below(self, path: Path) -> str:
        absolute = Path(os.path.normpath(path.absolute()))  # links stay as they are
        if not absolute.is_relative_to(self.root):
            raise ArchiveError(f"TorchGeo's class writes to {path}, outside of {self.root}.")
        return absolute.relative_to(self.root).as_posix()


class _Done(_Noted):
    """Downloads and unpacks what a class asks for and is not there."""

    def __init__(self, root: Path, reporter: Reporter):
        super().__init__(root)
        self.reporter = reporter

    def download(self, url: str, target: Path, digest: str) -> None:
        """Download a file that is not there."""
        file = RemoteFile(url, self._below(target), digest)
        if not target.exists():
            with _connected():
                download(file, target, self.reporter.progress, self.reporter.message)

    def unpack(self, archive: Path, folder: Path) -> None:
        """Unpack an archive."""
        self._below(folder)
        self.reporter.message(f"unpacking {archive}")
        unpack_beside(archive, folder)


def _make(part: str, arguments: Mapping[str, Any], stand_in: _Noted) -> None:
    """Make a class, with its functions of the network and of archives replaced."""
    cls = classes.dataset_class(part)
    with ExitStack() as stack, warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        for module in _modules(cls):
            for name in (
                "download_url",
                "download_and_extract_archive",
                "extract_archive",
                "which",
            ):
                if hasattr(module, name):
                    stack.enter_context(_replaced(module, name, getattr(stand_in, name)))
        stack.enter_context(_disconnected())
        taken = inspect.signature(cls.__init__).parameters
        cls(**{name: value for name, value in arguments.items() if name in taken})


def _modules(cls: type) -> Iterator[Any]:
    """Yield the modules of a class and its bases that belong to TorchGeo, and its functions'."""
    names = [base.__module__ for base in cls.__mro__ if base.__module__.startswith("torchgeo")]
    for name in dict.fromkeys((*names, "torchgeo.datasets.utils")):
        yield sys.modules[name]


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


_CONNECT = socket.socket.connect


def _refuse(_socket: socket.socket, address: Any) -> None:
    raise _OwnWayError("by code of its own")


@contextmanager
def _disconnected() -> Iterator[None]:
    with _replaced(socket.socket, "connect", _refuse):
        yield


@contextmanager
def _connected() -> Iterator[None]:
    with _replaced(socket.socket, "connect", _CONNECT):
        yield
