"""The dataset `folder`: any folder of images, without code."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from rscl_bench.archives.adapter import DatasetAdapter, MissingArchiveError, Scene
from rscl_bench.archives.declared_sensor import chosen_sensor
from rscl_bench.archives.folder.arrays import array_header, is_array_file, read_array
from rscl_bench.archives.folder.embedded import EMBEDDED, about
from rscl_bench.archives.folder.labels import labels_of_images
from rscl_bench.archives.folder.masks import mask_path, read_mask
from rscl_bench.archives.folder.options import FolderOptions, MaskLabels
from rscl_bench.archives.folder.splits import split_of_images
from rscl_bench.archives.folder.tables import Tables
from rscl_bench.archives.folder.walk import images_below
from rscl_bench.errors import ArchiveError
from rscl_bench.sensors import DTYPES
from rscl_bench.spec import validated


class FolderAdapter(DatasetAdapter):
    """Any folder of images; sensor, labels and splits are options of the scenario.

    Only the class that `configured` returns can be opened.
    """

    name = "folder"
    title = "any folder of images"
    source = "wherever its images come from"
    licence = "the terms of its publisher"
    images = "JPEG, PNG and TIFF images, and NumPy arrays `[H, W, C]`, of one sensor"
    notes = ("See [folder.md](folder.md) for all rules of labels and splits, with examples.",)
    declared_by_options = True
    Options = FolderOptions
    options: FolderOptions

    @classmethod
    def configured(cls, options: Mapping[str, Any]) -> type[DatasetAdapter]:
        """Return the adapter of a folder with its sensor, splits and classes.

        The names of classes that lie in folders or tables are known when the folder is opened.

        Raises:
            SpecError: If an option is not valid.
        """
        chosen = validated(FolderOptions, dict(options), "dataset 'folder'")
        return _configured(chosen.model_dump_json())

    def _list_files(self) -> list[Path]:
        found = images_below(self.root, self.options.pattern)
        if not found:
            raise self.missing(f"no file below {self.root} fits pattern '{self.options.pattern}'")
        tables = Tables(self.root, found, self.options)
        splits = split_of_images(self.options.splits, tables)
        self._images = [image for image in tables.images if splits.get(image) == self.split]
        if not self._images:
            raise ArchiveError(
                f"Split '{self.split}' of {self.title} has none of its {len(tables.images)} "
                "images; change options.splits, such as the key of a hash of few groups."
            )
        self._masks: list[Path] = []
        if isinstance(self.options.labels, MaskLabels):
            self._masks = self._listed_masks(self.options.labels, found)
        elif self.options.labels is not None:
            needed = set(self._images)
            self.classes, self._labels = labels_of_images(
                self.options.labels, tables, set(splits), needed
            )
        self._others = tables.files
        return [found[image] for image in self._images]

    def _listed_masks(self, rule: MaskLabels, found: Mapping[str, Path]) -> list[Path]:
        paths = [mask_path(rule, image) for image in self._images]
        for image, path in zip(self._images, paths, strict=True):
            if path in found:
                raise ArchiveError(
                    f"{path} is the mask of {image} and fits 'pattern' too; narrow 'pattern', such "
                    'as to "**/*.jpg".'
                )
        return [self.root / path for path in paths]

    def inputs(self) -> list[Path]:
        """Return the images, their masks, and the tables and lists that the options name."""
        return [*self.files, *self._masks, *self._others]

    def label_files(self) -> list[Path]:
        """Return the masks."""
        return list(dict.fromkeys(self._masks))

    def missing(self, what: str) -> ArchiveError:
        """Return the error for a missing or partial folder."""
        if self.embedded:
            return MissingArchiveError(
                f"The {self.title} is missing or partial: {what}. It is part of this package; "
                "install rscl-bench again."
            )
        return MissingArchiveError(
            f"The {self.title} is missing or partial: {what}. Put the files into {self.root} as "
            f"{self.layout}, or correct 'root', 'pattern' and 'labels' of its options."
        )

    def damaged(self, what: str) -> ArchiveError:
        """Return the error for a file with wrong content."""
        if self.embedded:
            return ArchiveError(f"{what}; it is part of this package, install rscl-bench again.")
        return ArchiveError(f"{what}; put a sound copy there.")

    def _check_type(self, path: Path, bands: int, dtype: str) -> None:
        sensor = self.sensor
        if bands != len(sensor.bands):
            raise ArchiveError(
                f"{path} has {bands} bands where the sensor of {self.title} has "
                f"{len(sensor.bands)}; declare the bands of the files in options.sensor, or narrow "
                "'pattern'."
            )
        if dtype != sensor.dtype:
            mend = "declare it in options.sensor" if dtype in DTYPES else "convert the files"
            raise ArchiveError(
                f"{path} is {dtype} where the sensor of {self.title} is {sensor.dtype}; {mend}."
            )

    def _read(self, index: int, with_labels: bool) -> Scene:
        path = self.files[index]
        image = self._pixels(path)
        if not with_labels:
            return Scene(image)
        if isinstance(self.options.labels, MaskLabels):
            mask = read_mask(self._masks[index], self.options.labels, self.max_pixels)
            return Scene(image, mask=mask)
        return Scene(image, labels=self._labels[self._images[index]])

    def _pixels(self, path: Path) -> NDArray[Any]:
        if not is_array_file(path):
            return self.read_image(path)
        header = array_header(path)
        self._check_type(path, header.bands, header.dtype)
        return read_array(path, self.max_pixels).reshape(header.height, header.width, header.bands)


@cache
def _configured(chosen: str) -> type[FolderAdapter]:
    options = FolderOptions.model_validate_json(chosen)
    labels = options.labels
    declared: dict[str, Any] = {
        "name": f"folder {options.root}",
        "folder": options.root,
        "title": f"folder '{options.root}'",
        "layout": options.pattern,
        "sensor": chosen_sensor(options.sensor),
        "splits": options.split_names(),
        "classes": labels.classes if isinstance(labels, MaskLabels) else (),
        "nodata": options.nodata,
        "max_pixels": options.max_pixels,
    }
    if options.embedded:
        origin = about(options.root)
        declared |= {
            "name": f"embedded {options.root}",
            "folder": str(EMBEDDED / options.root),  # an absolute path goes before any data root
            "title": origin.title,
            "source": origin.source,
            "licence": origin.licence,
            "citations": origin.citations,
            "embedded": True,
        }
    return type(FolderAdapter.__name__, (FolderAdapter,), declared)
