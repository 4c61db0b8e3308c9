"""The dataset adapter: reads an archive in its published layout, as scenes in a declared unit."""

import shutil
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.download import RemoteFile
from rscl_bench.archives.files import MAX_PIXELS, Nodata, open_image
from rscl_bench.archives.formats import DamagedFileError, require_regular, unreachable
from rscl_bench.archives.libraries import strict_libraries
from rscl_bench.archives.listing import demanded, names_in
from rscl_bench.errors import ArchiveError, RsclError, SpecError, unknown
from rscl_bench.progress import Reporter
from rscl_bench.sensors import Sensor
from rscl_bench.spec import Spec, validated

#: Name of the file that marks an archive's folder as synthetic; `sketch_folder` writes the file.
SKETCH_MARKER = "SKETCH"
_MARKER_HEADER = "Synthetic images drawn by rscl-bench, not the archive of this name. Files:"
#: Class of mask pixels without a label.
UNDEFINED = 255
#: Class attributes that a subclass must declare.
_REQUIRED = ("name", "folder", "title", "sensor", "splits", "source", "licence", "layout")
_SKIP = "Add --on-bad-tile skip to go on without such images."


class MissingArchiveError(ArchiveError):
    """An archive is missing or partial, so that leaving out single images does not help."""


@dataclass(frozen=True)
class Objects:
    """The K objects of an image; a tile has those whose centres lie in it.

    Attributes:
        centres: Row and column of each object's centre in pixels, ``[K, 2]`` float64.
        classes: Index of each object's class, ``[K]`` int64.
    """

    centres: NDArray[np.float64]
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Scene:
    """One image of an archive, as stored: neither scaled nor cut, with all bands of its sensor.

    Attributes:
        image: Pixels, ``[H, W, C]``, in the sensor's dtype and band order.
        labels: Multi-labels, ``[L]`` ``uint8`` of 0 and 1, or None.
        mask: Class of every pixel, ``[H, W]`` ``uint8``, 255 where undefined, or None.
        missing: Where the archive declares pixels as missing, ``[H, W, C]``, or None. These pixels
            of ``image`` are filled, and stay out of the statistics. ``_read`` may return a masked
            array as ``image`` instead.
        objects: The objects of the image, in place of ``labels`` and ``mask``, or None.
    """

    image: NDArray[Any]
    labels: NDArray[np.uint8] | None = None
    mask: NDArray[np.uint8] | None = None
    missing: NDArray[np.bool_] | None = None
    objects: Objects | None = None


class NoOptions(Spec):
    """The options of a dataset without options."""


class DatasetAdapter(ABC):
    """One split of one archive, real or sketch.

    A subclass declares the class attributes and implements two hooks: ``_list_files`` lists the
    images of the split, and ``_read`` reads one of them. A third hook, ``_draw_sketch``, writes a
    small synthetic archive; without it, the dataset has no sketch edition. The public methods
    around the hooks are final: ``scene`` checks every image, so that a wrong band count, dtype or
    size is refused by file name, and ``write_sketch`` marks the synthetic archive.

    ``_read`` reads an image with ``read_image``, which checks format, size, bands and dtype before
    it decodes pixels.

    A real archive must hold every file of its publisher; a subclass checks this in
    ``_list_files`` with ``_require_files`` and ``_require_count``. A sketch is smaller than the
    real archive and must hold the files that its marker lists; this class checks the marker.

    Attributes:
        name: Registered name.
        folder: Folder below the data root that holds the archive.
        title: Full name, for messages and the documentation.
        sensor: The bands of the images.
        classes: Class names of labels or masks; empty if the archive has neither.
        splits: Names of the splits.
        source: Where the archive can be fetched.
        licence: Licence or terms of use.
        layout: The files that must lie below ``folder``, for messages and the documentation.
        images: One line on the images, for the documentation.
        notes: Further remarks for the documentation, one sentence or two each.
        citations: Links to the papers to cite.
        version: Version of the reading. Raise it when the class reads other values from the same
            files, so that packed tiles and runs of the earlier reading are not taken for new ones.
        formats: Formats of the images, among ``"JPEG"``, ``"PNG"`` and ``"TIFF"``.
        max_pixels: Largest number of pixels of an image; a larger one is refused, not decoded.
        nodata: What happens to pixels that a file declares as missing, by a nodata value or a mask:
            ``"fill"`` fills them with the mean of the image's other pixels and leaves them out of
            the statistics, ``"refuse"`` refuses the image, ``"keep"`` takes them for measurements.
        Options: What a scenario may set for this dataset; a subclass of ``NoOptions`` adds fields.
        several_scenes_per_file: Whether ``files`` may name a file for several scenes, such as a
            file of HDF5 that holds them all.
        declared_by_options: Whether the class attributes depend on the options. Such a class
            overrides `configured`, and only the class that `configured` returns is complete.
        embedded: Whether the archive is part of this package, so that it needs no data root.
    """

    name: ClassVar[str]
    folder: ClassVar[str]
    title: ClassVar[str]
    sensor: ClassVar[Sensor]
    classes: tuple[str, ...] = ()
    splits: ClassVar[tuple[str, ...]]
    source: ClassVar[str]
    licence: ClassVar[str]
    layout: ClassVar[str]
    images: ClassVar[str] = ""
    notes: ClassVar[tuple[str, ...]] = ()
    citations: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    formats: ClassVar[tuple[str, ...]] = ("JPEG", "PNG", "TIFF")
    max_pixels: ClassVar[int] = MAX_PIXELS
    nodata: ClassVar[Nodata] = "fill"
    Options: ClassVar[type[Spec]] = NoOptions
    several_scenes_per_file: ClassVar[bool] = False
    declared_by_options: ClassVar[bool] = False
    embedded: ClassVar[bool] = False

    def __init__(self, data_root: Path, split: str, options: Mapping[str, Any] | None = None):
        """Open a split.

        Args:
            data_root: Folder that holds the archives.
            split: One of ``splits``.
            options: Values for ``Options``.

        Raises:
            SpecError: If the split or an option is unknown.
            ArchiveError: If the archive is missing or partial.
        """
        if split not in self.splits:
            raise unknown(f"split of {self.name}", split, self.splits)
        self.root = data_root / self.folder
        self.split = split
        self.options = validated(self.Options, dict(options or {}), f"dataset '{self.name}'")
        if not self.root.is_dir():
            raise self.missing(f"the folder {self.root} does not exist")
        if self.is_sketch:
            self._check_sketch()
        self.files = self._listed()
        if not self.files:
            raise self.missing(f"{self.root} holds no image of split '{split}'")

    @classmethod
    def undeclared(cls) -> list[str]:
        """Return the names of the class attributes that the class should declare and does not."""
        if cls.declared_by_options:
            return []
        return [name for name in _REQUIRED if not hasattr(cls, name)]

    @classmethod
    def named(cls, part: str) -> type["DatasetAdapter"]:
        """Return the class of ``name:part``, where a registered name stands for many datasets.

        Args:
            part: What follows the colon.

        Raises:
            SpecError: If the class stands for one dataset only, or the part is unknown.
        """
        raise SpecError(
            f"Dataset '{cls.name}' has no part '{part}'; write dataset = \"{cls.name}\"."
        )

    @classmethod
    def configured(cls, options: Mapping[str, Any]) -> type["DatasetAdapter"]:
        """Return the class whose attributes hold for some options; most classes return themselves.

        Equal options give the same class, so that an archive is found once.

        Args:
            options: Values for ``Options``.

        Raises:
            SpecError: If the attributes depend on the options, and an option is not valid.
        """
        return cls

    @classmethod
    def remote_files(cls, split: str, options: Mapping[str, Any]) -> Sequence[RemoteFile]:
        """Return the files that ``rscl-bench data fetch`` downloads for a split.

        A class declares only files that their publisher serves without a login or a form. The
        default is none: the message of a missing archive then says where to fetch it by hand.

        Args:
            split: One of ``splits``.
            options: Values for ``Options``.

        Raises:
            ArchiveError: If the archive cannot be downloaded in the way of its publisher.
        """
        return ()

    @classmethod  # noqa: B027 - most archives need nothing more
    def complete_download(
        cls, data_root: Path, split: str, options: Mapping[str, Any], reporter: Reporter
    ) -> None:
        """Do what remains after `remote_files` are downloaded and unpacked; by default nothing.

        Args:
            data_root: Folder that holds the archives.
            split: One of ``splits``.
            options: Values for ``Options``.
            reporter: Told of the progress.

        Raises:
            ArchiveError: If it cannot be done.
        """

    @final
    @classmethod
    def has_sketch(cls) -> bool:
        """Return whether the class can write a sketch of its archive."""
        return cls._draw_sketch.__func__ is not DatasetAdapter._draw_sketch.__func__  # type: ignore[attr-defined]

    def _listed(self) -> list[Path]:
        """Return the files of ``_list_files``, each once."""
        try:
            files = self._list_files()
        except OSError as error:
            raise unreachable(Path(error.filename or self.root), error) from error
        if len(set(files)) < len(files) and not self.several_scenes_per_file:
            twice = next(path for i, path in enumerate(files) if path in files[:i])
            raise ArchiveError(
                f"Split '{self.split}' of {self.title} lists {twice} twice; delete one of the two."
            )
        return files

    @abstractmethod
    def _list_files(self) -> list[Path]:
        """List the image files of the split in a fixed order.

        Raises:
            ArchiveError: If the archive lacks a file; see ``_require_files`` and ``missing``.
        """

    @abstractmethod
    def _read(self, index: int, with_labels: bool) -> Scene:
        """Read the image ``files[index]``, and its labels or mask if ``with_labels`` is true."""

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        """Write a small synthetic archive in the published layout into the empty folder ``root``.

        Every random number must come from ``rng``, so that a sketch can be drawn again. A class
        without this method has no sketch edition.
        """
        drawn = "" if cls.declared_by_options else f", or write {cls.__name__}._draw_sketch"
        raise SpecError(
            f"Dataset {cls.name} has no sketch: give the folder of its real archive with "
            f"--data-root{drawn}."
        )

    @final
    @classmethod
    def write_sketch(cls, data_root: Path, rng: np.random.Generator) -> None:
        """Write a small synthetic archive below ``data_root``, and mark the archive as a sketch.

        Args:
            data_root: Folder that holds the archives.
            rng: Source of all randomness.

        Raises:
            ArchiveError: If the archive's folder holds files that are no sketch.
            SpecError: If the class draws no sketch.
        """
        if not cls.has_sketch():
            cls._draw_sketch(data_root, rng)  # raises, before a folder is made
        with sketch_folder(data_root / cls.folder) as root:
            cls._draw_sketch(root, rng)

    @property
    def is_sketch(self) -> bool:
        """Whether the archive is synthetic, written by ``write_sketch``."""
        return (self.root / SKETCH_MARKER).is_file()

    def __len__(self) -> int:
        """Return the number of images in the split."""
        return len(self.files)

    def inputs(self) -> list[Path]:
        """Return every file that the split's tiles and labels depend on.

        Tiles are packed again when one of these files changes. A subclass whose labels lie in
        files of their own, or whose images are listed in a file, adds these files.
        """
        return list(self.files)

    def label_files(self) -> list[Path]:
        """Return the files of `inputs` that are read with labels only, such as masks.

        Tiles without labels do not depend on these files.
        """
        return []

    def canonical_path(self, path: Path) -> str:
        """Return a file's path below the archive's folder, as it is part of a run's identity.

        A subclass that reads several layouts of one archive returns the same path for the same
        file in each of them.

        Raises:
            ArchiveError: If the file does not lie below the archive's folder.
        """
        try:
            relative = path.relative_to(self.root).as_posix()
        except ValueError as error:
            raise ArchiveError(f"{path} lies outside of {self.root}; move it there.") from error
        # One name has several forms in Unicode, and file systems choose among them.
        return unicodedata.normalize("NFC", relative)

    @final
    def scene_name(self, index: int) -> str:
        """Return the path of a scene's file in the archive, and which of its scenes it is."""
        path = self.files[index]
        name = path.relative_to(self.root).as_posix()
        if not self.several_scenes_per_file or self.files.count(path) == 1:
            return name
        return f"{name}#{index}"

    @final
    def scene(self, index: int, with_labels: bool = False) -> Scene:
        """Read and check one image.

        Args:
            index: Position in ``files``.
            with_labels: Whether to read labels or mask too.

        Returns:
            The scene; ``image`` is ``[H, W, C]`` in the sensor's dtype, in decibels if the sensor
            declares them.

        Raises:
            ArchiveError: If the file cannot be read, or differs from the declaration in band
                count, dtype or size.
            SpecError: If ``with_labels`` is true and the archive has no labels.
        """
        if with_labels and not self.classes:
            raise SpecError(f"Dataset {self.name} has no labels; it cannot serve a probe.")
        path = self.files[index]
        try:
            scene = self._read_strictly(index, with_labels)
            self._check_image(path, scene.image)
            if scene.mask is not None:
                self._check_mask(path, scene.mask, scene.image.shape[:2])
            if scene.labels is not None:
                self._check_labels(path, scene.labels)
        except MissingArchiveError:
            raise
        except DamagedFileError as error:
            raise ArchiveError(f"{self.damaged(str(error))} {_SKIP}") from error
        except ArchiveError as error:
            raise ArchiveError(f"{error} {_SKIP}") from error
        labelled = (scene.mask, scene.labels, scene.objects)
        if with_labels and all(one is None for one in labelled):
            raise ArchiveError(f"{path} has no label; the archive of {self.title} is partial.")
        if isinstance(scene.image, np.ma.MaskedArray):
            missing = np.ma.getmaskarray(scene.image)
            scene = replace(scene, image=scene.image.data, missing=missing)
        return replace(scene, image=self.sensor.in_unit(scene.image))

    def _read_strictly(self, index: int, with_labels: bool) -> Scene:
        """Call ``_read``, and name the file in every error."""
        path = self.files[index]
        require_regular(path)
        try:
            with strict_libraries(self.max_pixels):
                return self._read(index, with_labels)
        except RsclError:
            raise
        except PermissionError as error:
            raise unreachable(Path(error.filename or path), error) from error
        except MemoryError as error:
            raise ArchiveError(f"{path} does not fit into memory.") from error
        except (OSError, ValueError, SyntaxError, EOFError) as error:  # what decoders raise
            raise DamagedFileError(
                f"{path} cannot be read ({type(error).__name__}: {error})"
            ) from error
        except Exception as error:
            raise DamagedFileError(
                f"{path} cannot be read ({type(error).__name__}: {error}); if the file is sound, "
                f"mend {type(self).__name__}._read; if not"
            ) from error

    @final
    def read_image(self, path: Path) -> NDArray[Any]:
        """Read an image of the archive, after a look at its header.

        Args:
            path: A JPEG, PNG or TIFF, according to ``formats``.

        Returns:
            Pixels, ``[H, W, C]``, as stored; a masked array if the file declares pixels as missing
            and ``nodata`` is ``"fill"``.

        Raises:
            ArchiveError: If the file is damaged or too large, or differs from the declaration in
                format, band count or dtype. No pixel has been decoded then.
        """
        with open_image(path, self.formats) as image:
            header = image.header
            header.require_at_most(self.max_pixels, max_bands=max(64, len(self.sensor.bands)))
            self._check_type(path, header.bands, header.dtype)
            return image.pixels(self.nodata)

    def _check_image(self, path: Path, image: NDArray[Any]) -> None:
        if image.ndim != 3:
            raise ArchiveError(f"{path} has shape {image.shape} where an image is [H, W, C].")
        self._check_type(path, image.shape[2], image.dtype.name)

    def _check_type(self, path: Path, bands: int, dtype: str) -> None:
        expected = len(self.sensor.bands)
        if bands != expected:
            raise ArchiveError(
                f"{path} has {bands} bands where {self.title} has {expected}; store it with the "
                "bands of the others."
            )
        if dtype != self.sensor.dtype:
            missing = ", and a declared nodata value in place of NaN" if "float" in dtype else ""
            raise ArchiveError(
                f"{path} is {dtype} where {self.title} is {self.sensor.dtype}; store "
                f"{self.sensor.dtype} numbers{missing}."
            )

    def _check_labels(self, path: Path, labels: NDArray[np.uint8]) -> None:
        count, dtype = len(self.classes), getattr(labels, "dtype", None)
        if dtype != np.uint8:
            raise ArchiveError(f"Labels are {dtype}, not uint8, for {path}; mend _read.")
        if labels.shape != (count,):
            raise ArchiveError(
                f"Labels are {labels.shape} for {count} classes, for {path}; mend _read."
            )
        if labels.max(initial=0) > 1:
            raise ArchiveError(
                f"Labels are not 0 and 1, but up to {labels.max()}, for {path}; mend _read."
            )

    def _check_mask(self, path: Path, mask: NDArray[np.uint8], size: tuple[int, ...]) -> None:
        if mask.shape != size:
            raise ArchiveError(
                f"The mask of {path} is {mask.shape} where its image is {size}; fetch both again."
            )
        highest = int(mask[mask != UNDEFINED].max(initial=0))
        if highest >= len(self.classes):
            raise ArchiveError(
                f"The mask of {path} holds class {highest} where {self.title} has classes "
                f"0 to {len(self.classes) - 1}, and {UNDEFINED} for undefined; fetch it again."
            )

    def _check_sketch(self) -> None:
        lines = (self.root / SKETCH_MARKER).read_text(encoding="utf-8").splitlines()
        if lines[:1] != [_MARKER_HEADER]:
            raise ArchiveError(
                f"The sketch archive {self.root} was not written to its end; delete it."
            )
        for line in lines[1:]:
            if not (self.root / line).is_file():
                raise self.missing(f"{self.root / line}, listed in {SKETCH_MARKER}, does not exist")

    def _require_files(self, paths: Sequence[Path]) -> None:
        """Raise ``ArchiveError`` with the first of ``paths`` that does not exist."""
        # Archives have tens of thousands of files: listing a folder beats one call per file.
        folders: dict[Path, set[str]] = {}
        absent = []
        for path in paths:
            parent = path.parent
            if parent not in folders:
                folders[parent] = set(names_in(parent))
            if path.name not in folders[parent]:
                absent.append(path)
        if absent:
            more = f" and {len(absent) - 1} more files do" if len(absent) > 1 else " does"
            raise self.missing(f"{absent[0]}{more} not exist")

    def _require_pictures(self, folder: Path, names: Sequence[str]) -> list[Path]:
        """Return the paths of the pictures that a folder must hold, and that alone.

        Args:
            folder: The folder.
            names: Names of the pictures. ``x.JPG`` and ``x.jpeg`` count as ``x.jpg``.

        Raises:
            ArchiveError: If a picture does not exist, or if the folder holds further ones.
        """
        paths, over = demanded(folder, names)
        self._require_files(paths)
        if over:
            more = f" and {len(over) - 1} more" if len(over) > 1 else ""
            raise ArchiveError(
                f"{folder} holds {over[0]}{more}, no part of {self.title}; move it away."
            )
        return paths

    def _require_count(self, count: int, expected: int, what: str) -> None:
        """Raise ``ArchiveError`` if a real archive holds another number of files or folders."""
        if count != expected and not self.is_sketch:
            raise self.missing(f"{self.root} holds {count} {what} where there are {expected}")

    def missing(self, what: str) -> ArchiveError:
        """Return the error for a missing or partial archive; it says what to fetch and where to."""
        return MissingArchiveError(
            f"The archive of {self.title} is missing or partial: {what}. Fetch it from "
            f"{self.source} (licence: {self.licence}) into {self.root} as {self.layout}."
        )

    def damaged(self, what: str) -> ArchiveError:
        """Return the error for a file with wrong content; it says where to fetch the file again."""
        return ArchiveError(f"{what}; fetch it again from {self.source}.")


@contextmanager
def sketch_folder(root: Path) -> Iterator[Path]:
    """Open a folder for a sketch archive, and mark the folder as one.

    An empty marker is written before the first image, so that a sketch whose writing was cut off
    is refused and not taken for a real archive. At the end, the marker lists every file.

    Args:
        root: The archive's folder.

    Yields:
        The folder, empty: an earlier sketch in the folder is deleted.

    Raises:
        ArchiveError: If the folder holds files that are no sketch.
    """
    marker = root / SKETCH_MARKER
    if root.is_dir() and any(root.iterdir()):
        if not marker.is_file():
            raise ArchiveError(f"{root} holds files that are no sketch; they are not overwritten.")
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    marker.write_text("", encoding="utf-8")
    yield root
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    files.remove(SKETCH_MARKER)
    marker.write_text("\n".join([_MARKER_HEADER, *files]) + "\n", encoding="utf-8")
