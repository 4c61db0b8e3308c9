"""Finds a dataset class of the installed TorchGeo, and what its constructor takes."""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin

from rscl_bench.errors import SpecError, unknown

#: Parameters that this suite sets itself.
_OURS = frozenset(
    {"self", "args", "kwargs", "root", "paths", "split", "transforms", "download", "checksum"}
    | {"cache", "loader", "is_valid_file"}
)
#: Bases that read no archive of their own, and combinations of datasets.
_BASES = frozenset(
    {
        "CopernicusBenchBase",
        "GeoDataset",
        "IntersectionDataset",
        "LEVIRCDBase",
        "NonGeoClassificationDataset",
        "NonGeoDataset",
        "SSL4EO",
        "SpaceNet",
        "UnionDataset",
    }
)


@cache
def all_names() -> tuple[str, ...]:
    """Return the names of all dataset classes of the installed TorchGeo, sorted."""
    from torchgeo import datasets

    bases = datasets.NonGeoDataset, datasets.GeoDataset
    found = (
        name
        for name in datasets.__all__
        if isinstance(getattr(datasets, name), type)
        and issubclass(getattr(datasets, name), bases)
        and name not in _BASES
    )
    return tuple(sorted(found))


@cache
def dataset_class(name: str) -> Any:
    """Return a dataset class.

    Args:
        name: Name of the class in ``torchgeo.datasets``.

    Raises:
        SpecError: If the installed TorchGeo has no such class.
    """
    import torchgeo
    from torchgeo import datasets

    if name not in all_names():
        error = unknown(f"dataset of TorchGeo {torchgeo.__version__}", name, all_names())
        raise SpecError(f'{error} Write dataset = "torchgeo:NAME" with the name of its class.')
    return getattr(datasets, name)


def has_coordinates(name: str) -> bool:
    """Return whether a class reads rasters by their coordinates, and has no items of its own."""
    from torchgeo import datasets

    return issubclass(dataset_class(name), datasets.GeoDataset)


def has_rasters(name: str) -> bool:
    """Return whether a class with coordinates reads raster files, alone or with their masks."""
    from torchgeo import datasets

    kinds = datasets.RasterDataset, datasets.IntersectionDataset
    return issubclass(dataset_class(name), kinds)


def parameters(name: str) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a class that a scenario may set."""
    signature = inspect.signature(dataset_class(name).__init__)
    return {
        parameter: value
        for parameter, value in signature.parameters.items()
        if parameter not in _OURS and value.kind not in (value.VAR_POSITIONAL, value.VAR_KEYWORD)
    }


def takes(name: str, parameter: str) -> bool:
    """Return whether the constructor of a class has a parameter."""
    return parameter in inspect.signature(dataset_class(name).__init__).parameters


def split_names(name: str) -> tuple[str, ...]:
    """Return the splits that a class lists; empty if the class lists none."""
    cls = dataset_class(name)
    listed = getattr(cls, "splits", getattr(cls, "valid_splits", ()))
    names = tuple(listed) if isinstance(listed, dict | list | tuple) else ()
    taken = inspect.signature(cls.__init__).parameters.get("split")
    if taken is not None and get_origin(taken.annotation) is Literal:
        names = get_args(taken.annotation)
    return names if all(isinstance(split, str) for split in names) else ()


def default_split(name: str) -> str | None:
    """Return the split that a class reads by default; None if it takes no split."""
    taken = inspect.signature(dataset_class(name).__init__).parameters.get("split")
    return taken.default if taken is not None and isinstance(taken.default, str) else None


def label_values(name: str) -> tuple[str, ...]:
    """Return the names of label values that a class lists, from 0 on; empty if it lists none."""
    cls = dataset_class(name)
    sets = getattr(cls, "class_sets", None)  # by number of classes; the smallest is the default
    if isinstance(sets, dict):
        return tuple(sets[min(sets)])
    for attribute in ("classes", "categories", "class_set"):
        listed = getattr(cls, attribute, None)
        if isinstance(listed, dict | list | tuple) and listed:
            names = tuple(str(value) for value in listed)
            return names if len(set(names)) == len(names) else ()
    return ()


def band_names(name: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the bands that a class reads with some options, in their order.

    Args:
        name: Name of the class.
        options: Arguments of the constructor.

    Returns:
        The names; empty if the class has no list of bands.
    """
    taken = parameters(name).get("bands")
    if taken is None:
        return ()
    given = options.get("bands", None if taken.default is taken.empty else taken.default)
    cls = dataset_class(name)
    if given is None:
        given = getattr(cls, "default_bands", getattr(cls, "all_bands", ()))
    if isinstance(given, list | tuple) and all(isinstance(band, str) for band in given):
        return tuple(given)
    return ()
