"""The dataset adapter: an archive in its own layout, read as scenes in their declared unit."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rscl_bench.errors import ArchiveError, RsclError, SpecError, unknown
from rscl_bench.sensors import Sensor
from rscl_bench.spec import Spec, validated

#: File in an archive's folder that says that its images are synthetic; see `write_sketch`.
SKETCH_MARKER = "SKETCH"


@dataclass(frozen=True)
class Scene:
    """One image of an archive, as stored: not scaled, not cut, all bands of its sensor.

    Attributes:
        image: Pixels, ``[H, W, C]``, in the sensor's dtype and band order.
        labels: Multi-labels, ``[L]`` ``uint8`` of 0 and 1, or None.
        mask: Class of every pixel, ``[H, W]`` ``uint8``, 255 where undefined, or None.
    """

    image: NDArray[Any]
    labels: NDArray[np.uint8] | None = None
    mask: NDArray[np.uint8] | None = None


class NoOptions(Spec):
    """The options of a dataset that has none."""


class DatasetAdapter(ABC):
    """One split of one archive.

    A subclass declares the class attributes, lists its files in ``_find`` and reads one of them in
    ``_read``. The sealed ``scene`` checks what was read, so that a wrong band count, dtype or size
    is refused by file name whatever the subclass does.

    Attributes:
        name: Registered name.
        folder: Folder below the data root that holds the archive.
        title: Full name, for messages.
        sensor: What the bands are.
        classes: Class names of labels or masks; empty when the archive has neither.
        splits: Names of the splits.
        source: Where to get the archive.
        licence: Its licence or terms.
        layout: The files that must lie below ``folder``, for messages.
        Options: What a scenario may set for this dataset; subclass ``NoOptions`` to add some.
    """

    name: ClassVar[str]
    folder: ClassVar[str]
    title: ClassVar[str]
    sensor: ClassVar[Sensor]
    classes: ClassVar[tuple[str, ...]] = ()
    splits: ClassVar[tuple[str, ...]]
    source: ClassVar[str]
    licence: ClassVar[str]
    layout: ClassVar[str]
    Options: ClassVar[type[Spec]] = NoOptions

    def __init__(self, data_root: Path, split: str, options: Mapping[str, Any] | None = None):
        if split not in self.splits:
            raise unknown(f"split of {self.name}", split, self.splits)
        self.root = data_root / self.folder
        self.split = split
        self.options = validated(self.Options, dict(options or {}), f"dataset '{self.name}'")
        if not self.root.is_dir():
            raise self.missing(f"the folder {self.root} does not exist")
        self.files = self._find()
        if not self.files:
            raise self.missing(f"{self.root} holds no image of split '{split}'")

    @abstractmethod
    def _find(self) -> list[Path]:
        """List the image files of the split in a fixed order.

        Raises:
            ArchiveError: If a file that the split needs is missing; use ``self.missing``.
        """

    @abstractmethod
    def _read(self, index: int, with_labels: bool) -> Scene:
        """Read one image, and its labels or mask where the archive has them and they are asked."""

    @classmethod
    @abstractmethod
    def write_sketch(cls, data_root: Path, rng: np.random.Generator) -> None:
        """Write a small synthetic archive in the true on-disk layout below ``data_root``.

        It holds a file ``SKETCH``, so that synthetic images are never taken for real ones.
        """

    @property
    def is_sketch(self) -> bool:
        """Whether the archive is a synthetic one, written by ``write_sketch``."""
        return (self.root / SKETCH_MARKER).is_file()

    def __len__(self) -> int:
        """Return the number of images in the split."""
        return len(self.files)

    def inputs(self) -> list[Path]:
        """Return every file that the split's tiles and labels come from.

        More than the images where labels lie in files of their own.
        """
        return list(self.files)

    def scene(self, index: int, with_labels: bool = False) -> Scene:
        """Read and check one image.

        Args:
            index: Position in ``files``.
            with_labels: Whether labels or mask are wanted.

        Returns:
            The scene; ``image`` is ``[H, W, C]`` in the sensor's dtype.

        Raises:
            ArchiveError: If the file cannot be read, or has another band count, dtype or size than
                declared.
            SpecError: If labels are asked of an archive that has none.
        """
        if with_labels and not self.classes:
            raise SpecError(f"Dataset {self.name} has no labels; it cannot serve a probe.")
        path = self.files[index]
        try:
            scene = self._read(index, with_labels)
        except RsclError:
            raise
        except Exception as error:
            raise ArchiveError(
                f"{path} cannot be read ({type(error).__name__}: {error}); fetch it again from "
                f"{self.source}."
            ) from error
        self._check(path, scene, with_labels)
        return scene

    def _check(self, path: Path, scene: Scene, with_labels: bool) -> None:
        image = scene.image
        bands = len(self.sensor.bands)
        if image.ndim != 3 or image.shape[2] != bands:
            got = image.shape[2] if image.ndim == 3 else f"shape {image.shape}"
            raise ArchiveError(f"{path} has {got} bands where {self.title} has {bands}.")
        if image.dtype != np.dtype(self.sensor.dtype):
            if image.dtype.kind == "f" and not np.isfinite(image).all():
                bad = int(np.argmin(np.isfinite(image).all(axis=(0, 1))))
                raise ArchiveError(
                    f"{path} holds NaN or infinite values in band "
                    f"'{self.sensor.bands[bad].name}'; fetch it again from {self.source}."
                )
            raise ArchiveError(
                f"{path} is {image.dtype} where {self.title} is {self.sensor.dtype}."
            )
        if scene.mask is not None and scene.mask.shape != image.shape[:2]:
            raise ArchiveError(
                f"The mask of {path} is {scene.mask.shape} where its image is {image.shape[:2]}."
            )
        if scene.mask is not None:
            classes = set(np.unique(scene.mask).tolist()) - {255}
            if classes and max(classes) >= len(self.classes):
                raise ArchiveError(
                    f"The mask of {path} holds class {max(classes)} where {self.title} has classes "
                    f"0 to {len(self.classes) - 1}, and 255 for undefined."
                )
        if with_labels and scene.mask is None and scene.labels is None:
            raise ArchiveError(f"{path} has no label; the archive of {self.title} is partial.")

    def missing(self, what: str) -> ArchiveError:
        """Return the error for a missing or partial archive, with what to fetch and where to."""
        return ArchiveError(
            f"The archive of {self.title} is missing or partial: {what}. Fetch it from "
            f"{self.source} (licence: {self.licence}) into {self.root} as {self.layout}."
        )
