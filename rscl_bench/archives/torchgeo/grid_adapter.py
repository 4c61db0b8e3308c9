"""The adapter of TorchGeo's rasters with coordinates: ``torchgeo:NAIP``.

An item is a window of TorchGeo's grid sampler. Labels come from the dataset itself, or from another
one that is read at the same place (``options.labels_from``).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rscl_bench.archives.torchgeo import classes
from rscl_bench.archives.torchgeo.adapter import TorchGeoAdapter
from rscl_bench.archives.torchgeo.calls import quiet
from rscl_bench.archives.torchgeo.item_files import ItemFiles, all_files
from rscl_bench.archives.torchgeo.opened_files import noted
from rscl_bench.archives.torchgeo.options import GridOptions
from rscl_bench.archives.torchgeo.windows import (
    Window,
    pixels_of,
    require_one_grid,
    windows_of,
)
from rscl_bench.errors import RsclError


class TorchGeoGridAdapter(TorchGeoAdapter):
    """One split of a dataset of rasters with coordinates."""

    Options = GridOptions

    def _list_files(self) -> list[Path]:
        assert isinstance(self.options, GridOptions)
        self._place = self.root.absolute()
        with noted(self._place) as opened, quiet():
            self._dataset = self._constructed()
            self._images, self._labels = self._parts()
            rasters = [Path(path) for path in self._images.index["filepath"]]
            require_one_grid(rasters, self.title)
            corners = [shape.bounds[:2] for shape in self._images.index.geometry]
            self._corners = dict(zip(rasters, corners, strict=True))
            self._windows = windows_of(self._images, self.options.window, self._labels)
        if not self._windows:
            raise self.missing(
                f"no window of {self.options.window} pixels fits into its {len(rasters)} rasters, "
                "so lower options.window or fetch what is missing"
            )
        by_item = [self._files_of(window.rasters[0]) for window in self._windows]
        files = {file for raster in rasters for file in self._files_of(raster)}
        self._items = self._found(by_item, {*opened.paths, *files})
        return self._dealt([self._group_of(window) for window in self._windows])

    def _group_of(self, window: Window) -> str:
        """Return what is dealt to one split: a raster, or a block of its windows."""
        assert isinstance(self.options, GridOptions)
        raster, rule = window.rasters[0], self.options.splits
        name = self._name_of(raster)
        if rule is None or rule.block is None:
            return name
        left, bottom = self._corners[raster]
        across, up = self._images.res
        x, y, _ = window.query
        column = int((x.start + x.stop - 2 * left) / (2 * across * rule.block))
        row = int((y.start + y.stop - 2 * bottom) / (2 * up * rule.block))
        return f"{name}\0{column}\0{row}"

    def _found(self, by_item: list[tuple[Path, ...]], others: set[Path]) -> ItemFiles:
        """Return the files of all windows; every file below the root if some windows read more."""
        ends = {0, len(by_item) // 2, len(by_item) - 1}
        read = {path for index in sorted(ends) for path in self._opened_by(index)}
        known = read <= others
        files = others if known else set(all_files(self._place))
        return ItemFiles([(item[0],) for item in by_item], known, tuple(sorted(files)))

    def _parts(self) -> tuple[Any, Any]:
        """Return the dataset of images, and that of masks or None."""
        from torchgeo.datasets import IntersectionDataset

        if isinstance(self._dataset, IntersectionDataset):
            images, labels = self._dataset.datasets[:2]
            return images, labels
        return self._dataset, self._label_dataset()

    def _label_dataset(self) -> Any:
        assert isinstance(self.options, GridOptions)
        chosen = self.options.labels_from
        if chosen is None:
            return None
        cls = classes.dataset_class(chosen.dataset)
        arguments = {**chosen.arguments, "crs": self._dataset.crs, "res": self._dataset.res}
        fixed = {"download": False, "checksum": False, "cache": False}
        arguments |= {k: v for k, v in fixed.items() if classes.takes(chosen.dataset, k)}
        place = self._place / chosen.folder
        arguments["root" if classes.takes(chosen.dataset, "root") else "paths"] = str(place)
        try:
            return cls(**arguments)
        except RsclError:
            raise
        except Exception as error:
            raise self._refusal(error, arguments) from error

    def _files_of(self, raster: Path) -> tuple[Path, ...]:
        """Return a raster, or the files of its bands where each band has its own."""
        dataset = self._images
        if not getattr(dataset, "separate_files", False):
            return (raster,)
        return tuple(Path(dataset._update_filepath(band, str(raster))) for band in dataset.bands)

    def _sample(self, index: int) -> Mapping[str, Any]:
        from torchgeo.datasets import RasterDataset

        window = self._windows[index]
        with quiet():
            sample = dict(self._dataset[window.query])
            if self._labels is not None and self._dataset is self._images:
                sample |= {k: v for k, v in self._labels[window.query].items() if k == "mask"}
            if type(self._images).__getitem__ is RasterDataset.__getitem__:
                exact = self._exact(window)
                if exact is not None:
                    sample["image"] = exact
        return sample

    def _exact(self, window: Window) -> Any:
        """Return the pixels of a window as they are stored; None of a dataset of masks."""
        if not self._images.is_image:
            return None
        indexes = getattr(self._images, "band_indexes", None)
        return pixels_of(window, self._files_of(window.rasters[0]), indexes)
