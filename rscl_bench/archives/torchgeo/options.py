"""The options of a dataset of TorchGeo: what a scenario declares of it."""

from math import isclose
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from rscl_bench.archives.declared_sensor import SensorChoice
from rscl_bench.spec import ProtocolName, Spec

_FOLDER = r"^[A-Za-z0-9_-][A-Za-z0-9_. -]*(/[A-Za-z0-9_-][A-Za-z0-9_. -]*)*$"
_Text = Annotated[str, Field(min_length=1, max_length=200)]


class Conversion(Spec):
    """How values become whole numbers: ``value * multiply + add``, rounded to the nearest.

    Attributes:
        multiply: Factor.
        add: Added after the multiplication.
    """

    multiply: Annotated[float, Field(gt=0)] = 1.0
    add: float = 0.0

    def applied(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return converted values of the same shape."""
        converted = values.astype(np.float64) * self.multiply + self.add
        rounded: NDArray[np.float64] = np.rint(converted)
        return rounded


class DealtSplits(Spec):
    """The splits of a dataset that has none: its files are dealt by a keyed hash of their paths.

    All items of one file are in one split. The split of a file depends on its path and the key
    alone, so that further files never move others.

    Attributes:
        shares: Share of each split; the shares sum to 1.
        key: Any text; another key deals other splits.
        block: Side in pixels of the blocks of a raster that are dealt each by itself; None for
            whole rasters. Of use for rasters with coordinates only.
    """

    shares: Annotated[dict[ProtocolName, Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]
    key: str = ""
    block: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _shares_are_whole(self) -> "DealtSplits":
        total = sum(self.shares.values())
        if not isclose(total, 1, abs_tol=1e-9):
            raise ValueError(f"the shares sum to {total:g}; let them sum to 1")
        return self


class TorchGeoOptions(Spec):
    """The options that hold for all datasets of TorchGeo."""

    sensor: Annotated[
        SensorChoice | None,
        Field(description="name of a sensor of the table, or its bands, unit, dtype and scale"),
    ] = None
    channels: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...] | None,
        Field(min_length=1, description="channels of the image to read, counted from 1"),
    ] = None
    image_key: Annotated[
        _Text | None, Field(description='key of the image in a sample; "image" by default')
    ] = None
    date: Annotated[
        int | None, Field(ge=1, description="which image of a pair or series, counted from 1")
    ] = None
    label_key: Annotated[
        _Text | None, Field(description="key of labels, mask or boxes, where a sample has several")
    ] = None
    class_names: Annotated[
        tuple[_Text, ...] | None,
        Field(min_length=1, description="names of the classes, from label 0 on"),
    ] = None
    ignore: Annotated[
        tuple[int, ...] | None,
        Field(description="label values that are no class, such as that of missing labels"),
    ] = None
    convert: Annotated[
        Conversion | None,
        Field(description="how values become whole numbers: multiply, add, then round"),
    ] = None
    nodata: Annotated[
        float | None, Field(description="pixel value that stands for a missing one")
    ] = None
    splits: Annotated[
        DealtSplits | None,
        Field(description="shares by which the files of a dataset without splits are dealt"),
    ] = None
    folder: Annotated[
        str | None,
        Field(
            pattern=_FOLDER,
            description="folder below the data root",
        ),
    ] = None
    arguments: dict[str, Any] = Field(
        default={}, description="arguments of the class whose names are options here too"
    )


class LabelsFrom(Spec):
    """A second dataset of TorchGeo whose masks label the windows of the first.

    Attributes:
        dataset: Name of its class, such as ``"CDL"``.
        folder: Its folder below that of the images.
        arguments: Arguments of its class.
    """

    dataset: _Text
    folder: Annotated[str, Field(pattern=_FOLDER)]
    arguments: dict[str, Any] = Field(default={})


class GridOptions(TorchGeoOptions):
    """The options of datasets of rasters with coordinates."""

    window: Annotated[
        int,
        Field(ge=1, le=65_536, description="height and width in pixels of a window of the grid"),
    ] = 256
    labels_from: Annotated[
        LabelsFrom | None,
        Field(description="dataset, folder and arguments of masks at the same place"),
    ] = None
