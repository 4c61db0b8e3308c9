"""What has to be downloaded for a scenario, and the downloading."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.archives.download import DownloadError, RemoteFile, check_room, download, size_of
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.archives.unpack import unpack_beside
from rscl_bench.errors import ArchiveError, RsclError
from rscl_bench.progress import Reporter
from rscl_bench.spec import Scenario


@dataclass(frozen=True)
class Part:
    """One split of an archive, as a scenario reads it."""

    split: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class ArchiveToFetch:
    """An archive that is missing or partial.

    Attributes:
        adapter: Its adapter.
        folder: Its folder, below the data root.
        parts: What the scenario reads of it and cannot open.
        files: Files to download; empty if the archive must be fetched by hand.
        missing: Sentence on what is missing, and where to fetch it by hand.
    """

    adapter: type[DatasetAdapter]
    folder: Path
    parts: tuple[Part, ...]
    files: tuple[RemoteFile, ...]
    missing: str

    @property
    def size(self) -> int | None:
        """Bytes to download; None if the size of a file is unknown."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def described(self) -> list[str]:
        """Return lines on licence, files and size, for the user who has to agree."""
        if not self.files:
            return [self.missing]
        hosts = dict.fromkeys(urlsplit(file.url).hostname or "?" for file in self.files)
        size = "of unknown size" if self.size is None else f"{self.size / 1e9:.2f} GB"
        unchecked = [file.path for file in self.files if not file.digest]
        lines = [
            f"{self.adapter.title} ({self.adapter.name})",
            f"  licence: {self.adapter.licence}",
            f"  source:  {self.adapter.source}",
            f"  files:   {len(self.files)}, {size}, from {', '.join(hosts)}",
            f"  into:    {self.folder}",
        ]
        if unchecked:
            lines.append(f"  no digest is known of {', '.join(unchecked[:3])}, which are unchecked")
        return lines


def missing_archives(
    scenario: Scenario, data_root: Path, reporter: Reporter
) -> list[ArchiveToFetch]:
    """Find the archives of a scenario that are missing or partial, and what can be downloaded.

    Servers are asked for sizes that are not declared.

    Args:
        scenario: The scenario.
        data_root: Folder that holds the archives.
        reporter: Told of the archives that are complete.

    Raises:
        SpecError: If a dataset or an option is not valid.
    """
    wanted: dict[tuple[type[DatasetAdapter], Path], list[tuple[Part, str]]] = {}
    for adapter, part in _parts(scenario):
        folder = data_root / adapter.folder
        problem = _problem(adapter, data_root, part)
        if not problem:
            reporter.message(f"{adapter.title}, split '{part.split}': complete in {folder}")
            continue
        wanted.setdefault((adapter, folder), []).append((part, problem))
    archives = []
    for (adapter, folder), found in wanted.items():
        parts = tuple(part for part, _ in found)
        files: tuple[RemoteFile, ...] = ()
        missing = found[0][1]
        try:
            files = tuple(_files(adapter, folder, parts))
        except DownloadError as error:
            missing = f"{adapter.title} cannot be downloaded: {error}"
        except ArchiveError as error:
            missing = f"{error} {missing}"
        archives.append(ArchiveToFetch(adapter, folder, parts, files, missing))
    return archives


def fetch_archives(archives: Iterable[ArchiveToFetch], reporter: Reporter) -> list[str]:
    """Download what can be downloaded; one archive that fails does not stop the others.

    Args:
        archives: The archives, from `missing_archives`.
        reporter: Told of the progress.

    Returns:
        A sentence for each archive that is still missing or partial.
    """
    failed = []
    for archive in archives:
        try:
            if not archive.files:
                raise ArchiveError(archive.missing)
            fetch_archive(archive, reporter)
        except ArchiveError as error:
            failed.append(str(error))
    return failed


def fetch_archive(archive: ArchiveToFetch, reporter: Reporter) -> None:
    """Download and unpack the files of an archive, and check that it can be opened.

    Args:
        archive: The archive.
        reporter: Told of the progress.

    Raises:
        ArchiveError: If a file cannot be downloaded or unpacked, or the archive is still partial.
        ArtefactError: If the archive's folder cannot be written, or the disk has too little room.
    """
    folder, data_root = archive.folder, _data_root(archive)
    lacking = [file.size or 0 for file in archive.files if not (folder / file.path).exists()]
    unpacked = [file.size or 0 for file in archive.files if file.unpack_into is not None]
    check_room(folder, sum(lacking) + sum(unpacked), archive.adapter.title)
    for file in archive.files:
        download(file, folder / file.path, reporter.progress, reporter.message)
    for file in archive.files:
        if file.unpack_into is not None:
            reporter.message(f"unpacking {folder / file.path}")
            unpack_beside(folder / file.path, folder / file.unpack_into)
    for part in archive.parts:
        archive.adapter.complete_download(data_root, part.split, part.options, reporter)
        problem = _problem(archive.adapter, data_root, part)
        if problem:
            raise ArchiveError(problem)
    reporter.message(f"{archive.adapter.title}: complete in {folder}")


def _data_root(archive: ArchiveToFetch) -> Path:
    depth = len(PurePosixPath(archive.adapter.folder).parts)
    return archive.folder.parents[depth - 1] if depth else archive.folder


def _parts(scenario: Scenario) -> Iterable[tuple[type[DatasetAdapter], Part]]:
    """Yield what the tasks and probes of a scenario read, each once."""
    seen = []
    for task in scenario.tasks:
        seen.append((task.dataset, task.split, task.options))
    for probe in scenario.probes:
        seen += [(probe.dataset, split, probe.options) for split in probe.splits().values()]
    for index, (dataset, split, options) in enumerate(seen):
        if (dataset, split, options) not in seen[:index]:
            yield adapter_class(dataset, options), Part(split, options)


def _problem(adapter: type[DatasetAdapter], data_root: Path, part: Part) -> str:
    """Return why a split cannot be opened; empty if it can."""
    try:
        adapter(data_root, part.split, part.options)
    except ArchiveError as error:
        return str(error)
    return ""


def _files(
    adapter: type[DatasetAdapter], folder: Path, parts: Iterable[Part]
) -> Iterable[RemoteFile]:
    """Yield the files of several splits, each once, with their sizes where servers say them."""
    listed = {
        file.path: file for part in parts for file in adapter.remote_files(part.split, part.options)
    }
    for file in listed.values():
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts:
            raise RsclError(f"{adapter.name} declares a file outside of its folder: {file.path}.")
        if file.size is not None or (folder / file.path).exists():
            yield file
        else:
            yield RemoteFile(file.url, file.path, file.digest, size_of(file.url), file.unpack_into)
