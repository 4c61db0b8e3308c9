"""The images of a folder, checked against the input of an encoder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rscl_bench.archives.files import MAX_PIXELS, OpenImage, open_image
from rscl_bench.archives.formats import DamagedFileError
from rscl_bench.errors import ArchiveError
from rscl_bench.models.encoder_file import EncoderDescription, EncoderInput
from rscl_bench.progress import Progress
from rscl_bench.views.crops import Normalisation

_FORMATS = ("JPEG", "PNG", "TIFF")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
_SHOWN = 3


class FolderListing(NamedTuple):
    """The files below a folder.

    Attributes:
        images: Files whose names end as those of images, sorted by path.
        others: Number of other files. Hidden files and folders do not count.
    """

    images: list[Path]
    others: int


def list_images(folder: Path) -> FolderListing:
    """Return the images below a folder, at any depth; links to folders are not followed.

    Raises:
        ArchiveError: If the folder cannot be read, or holds no image.
    """

    def fail(error: OSError) -> None:
        raise ArchiveError(
            f"{error.filename} cannot be read ({error.strerror or error}); give yourself the "
            "permission, or move it away."
        ) from error

    images, others = [], 0
    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            if name.lower().endswith(_SUFFIXES):
                images.append(Path(place, name))
            else:
                others += 1
    if not images:
        raise ArchiveError(
            f"The folder {folder} holds no image: no file name ends in {', '.join(_SUFFIXES)}; "
            "give another folder, or convert the images."
        )
    return FolderListing(sorted(images), others)


class FolderImages:
    """The images of a folder that fit one task of an encoder.

    Attributes:
        paths: The images, sorted.
        skipped: Images that cannot be used and are left out.
    """

    def __init__(
        self,
        paths: list[Path],
        description: EncoderDescription,
        task: str | None,
        skip_bad: bool,
        progress: Progress,
    ):
        """Read the header of every image, so that a wrong one is refused before anything is long.

        Args:
            paths: Files of images.
            description: The encoder's description.
            task: The task whose images these are like; None for the last.
            skip_bad: Whether images that cannot be used are left out.
            progress: Called while reading.

        Raises:
            ArchiveError: If an image is damaged, or does not fit the task.
        """
        self._description, self._given = description, description.input_of(task)
        self._skip_bad = skip_bad
        self.skipped: list[Path] = []
        self.paths = []
        for done, path in enumerate(paths, start=1):
            with self._usable(path), open_image(path, _FORMATS) as image:
                self._check(image)
                self.paths.append(path)
            progress("reading headers", done, len(paths))
        if not self.paths:
            raise ArchiveError(
                f"None of the {len(paths)} images can be used; without --on-bad-tile skip, the "
                "command says why."
            )

    def pixels(self, path: Path) -> NDArray[Any] | None:
        """Return an image ``[H, W, C]``; None if it is damaged, and damaged images are left out.

        Pixels that the file declares as missing have the mean of the others.
        """
        with self._usable(path), open_image(path, _FORMATS) as image:
            return np.ma.getdata(image.pixels("fill"))
        return None

    def named(self, root: Path) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield the path below a root and the pixels ``[H, W, C]`` of every usable image."""
        for path in self.paths:
            pixels = self.pixels(path)
            if pixels is not None:
                yield _printable(path.relative_to(root).as_posix()), pixels

    def normalisation(self, progress: Progress) -> Normalisation:
        """Return mean and deviation per band over all pixels; a constant band has deviation 1."""
        bands = len(self._given.bands)
        count, total, squares = 0, np.zeros(bands), np.zeros(bands)
        for done, path in enumerate(self.paths, start=1):
            pixels = self.pixels(path)
            if pixels is not None:
                flat = pixels.reshape(-1, bands).astype(np.float64)
                count += len(flat)
                total += flat.sum(axis=0)
                squares += (flat**2).sum(axis=0)
            progress("mean and deviation", done, len(self.paths))
        mean = total / max(count, 1)
        std = np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))
        std[std == 0] = 1
        return Normalisation(torch.from_numpy(mean).float(), torch.from_numpy(std).float())

    @contextmanager
    def _usable(self, path: Path) -> Iterator[None]:
        """Let a block fail with a sentence that says what to do, or note the image and go on."""
        try:
            yield
        except ArchiveError as error:
            if self._skip_bad:
                self.skipped.append(path)
                return
            damaged = "; mend or remove the file" if isinstance(error, DamagedFileError) else ""
            raise ArchiveError(
                f"{str(error).rstrip('.')}{damaged}. Add --on-bad-tile skip to go on without such "
                "images."
            ) from error

    def _check(self, image: OpenImage) -> None:
        header, given = image.header, self._given
        header.require_at_most(MAX_PIXELS, max_bands=64)
        if header.bands != len(given.bands):
            raise ArchiveError(
                f"{header.path} has {header.bands} bands where task '{given.task}' of the encoder "
                f"has {len(given.bands)} ({', '.join(given.bands)}); {self._mend(header.bands)}."
            )
        if header.dtype != given.pixel_type:
            raise ArchiveError(
                f"{header.path} is {header.dtype} where task '{given.task}' of the encoder has "
                f"{given.pixel_type} ({given.unit}); convert the images."
            )

    def _mend(self, bands: int) -> str:
        fitting = [i for i in self._description.inputs if len(i.bands) == bands]
        if not fitting:
            return "store those bands alone"
        return f"give the task that the images are like with --task {_listed(fitting)}"


def _listed(inputs: list[EncoderInput]) -> str:
    return " or ".join(f"{given.task} ({', '.join(given.bands)})" for given in inputs[:_SHOWN])


def _printable(path: str) -> str:
    """Return a path whose bytes are not UTF-8 with escapes."""
    return path.encode("utf-8", "backslashreplace").decode()
