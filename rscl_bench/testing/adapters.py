"""The contract of dataset adapters."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rscl_bench import registry
from rscl_bench.archives.adapter import SKETCH_MARKER, DatasetAdapter
from rscl_bench.errors import ArchiveError, SpecError
from rscl_bench.randomness import numpy_generator
from rscl_bench.spec import Source
from rscl_bench.testing.refusal import refusal
from rscl_bench.tiles.packing import open_or_pack

SCENES = 3  # of every split, so that large archives are checked fast too


def check_adapter(name: str, tmp_path: Path, options: Mapping[str, Any] | None = None) -> None:
    """Check an adapter on the sketch of its archive.

    The sketch is marked as one. Every split opens, its scenes have the declared bands, dtype and
    labels, and are packed to the right number of tiles, in the order of bands that is asked for.
    A missing archive is refused with what to fetch, and a truncated file by name.

    Args:
        name: Registered name, or ``file.py:Class``.
        tmp_path: An empty folder; the archive that is left there is damaged.
        options: The dataset's own options.

    Raises:
        AssertionError: If the adapter breaks the contract.
    """
    adapter_class: type[DatasetAdapter] = registry.load("datasets", name)
    root = tmp_path / "data"
    _check_missing(name, adapter_class, tmp_path / "empty", options)
    root.mkdir()
    adapter_class.write_sketch(root, numpy_generator(0, "contract"))
    marker = root / adapter_class.folder / SKETCH_MARKER
    assert marker.is_file(), f"The sketch of '{name}' has no file {SKETCH_MARKER}."
    adapters = [adapter_class(root, split, options) for split in adapter_class.splits]
    for adapter in adapters:
        where = f"'{name}', split '{adapter.split}'"
        assert adapter.is_sketch, f"{where}: not known as a sketch."
        assert len(adapter) == len(adapter.files) > 0, f"{where}: no image."
        assert set(adapter.files) <= set(adapter.inputs()), f"{where}: inputs() misses images."
        for index in range(min(SCENES, len(adapter))):
            _check_scene(where, adapter, index)
    labelled = [adapter.split for adapter in adapters if _check_labels(name, adapter)]
    assert labelled or not adapter_class.classes, f"'{name}' has classes, and labels in no split."
    _check_packing(name, adapter_class, root, tmp_path / "cache", options)
    _check_truncated(name, adapter_class, root, options)


def _check_scene(where: str, adapter: DatasetAdapter, index: int) -> None:
    image, file = adapter.scene(index).image, adapter.files[index]
    assert image.ndim == 3, f"{where}: {file} is {list(image.shape)}."
    bands = len(adapter.sensor.bands)
    assert image.shape[2] == bands, f"{where}: {file} has {image.shape[2]} bands, not {bands}."
    assert str(image.dtype) == adapter.sensor.dtype, f"{where}: {file} is {image.dtype}."


def _check_labels(name: str, adapter: DatasetAdapter) -> bool:
    """Return whether a split has labels; an archive may keep those of one split to itself."""
    where = f"'{name}', split '{adapter.split}'"
    if refusal(SpecError, lambda: adapter.scene(0, with_labels=True)) is not None:
        return False
    for index in range(min(SCENES, len(adapter))):
        scene, file = adapter.scene(index, with_labels=True), adapter.files[index]
        if scene.labels is not None:
            expected = (len(adapter.classes),)
            assert scene.labels.shape == expected, f"{where}: labels of {file} are not {expected}."
            assert scene.labels.dtype == np.uint8, f"{where}: labels are {scene.labels.dtype}."
            assert scene.labels.max() <= 1, f"{where}: labels of {file} are not 0 and 1."
        if scene.mask is not None:
            assert scene.mask.shape == scene.image.shape[:2], f"{where}: mask of another size."
            defined = scene.mask[scene.mask != 255]
            assert (defined < len(adapter.classes)).all(), f"{where}: {file} has more classes."
    return True


@dataclass(frozen=True)
class _Cut:
    """A tile size, and how many tiles the first split gives at it."""

    size: int
    count: int


def _first_cut(adapter: DatasetAdapter) -> _Cut:
    sides = [adapter.scene(index).image.shape[:2] for index in range(len(adapter))]
    size = max(1, min(min(side) for side in sides) // 2)
    return _Cut(size, sum((height // size) * (width // size) for height, width in sides))


def _check_packing(
    name: str,
    adapter_class: type[DatasetAdapter],
    root: Path,
    cache: Path,
    options: Mapping[str, Any] | None,
) -> None:
    split = adapter_class.splits[0]
    adapter = adapter_class(root, split, options)
    cut = _first_cut(adapter)
    bands = tuple(band.name for band in adapter.sensor.bands)
    stores = [
        open_or_pack(
            root,
            Source(
                dataset=name,
                split=split,
                bands=order,
                tile_size=cut.size,
                options=dict(options or {}),
            ),
            cache,
        )
        for order in (bands, bands[::-1])
    ]
    straight, reverse = (store.tiles for store in stores)
    where = f"'{name}' packed at {cut.size} pixels"
    assert straight.shape == (cut.count, cut.size, cut.size, len(bands)), (
        f"{where}: tiles are {list(straight.shape)}, expected {cut.count} of them."
    )
    assert straight.dtype == adapter.sensor.dtype, f"{where}: tiles are {straight.dtype}."
    corner = adapter.scene(0).image[: cut.size, : cut.size]
    assert np.array_equal(straight[0], corner), f"{where}: the first tile is not the first corner."
    assert np.array_equal(reverse, straight[..., ::-1]), f"{where}: bands out of order."
    assert stores[0].digest != stores[1].digest, f"{where}: band order is not in the digest."


def _check_missing(
    name: str,
    adapter_class: type[DatasetAdapter],
    empty: Path,
    options: Mapping[str, Any] | None,
) -> None:
    empty.mkdir()
    split = adapter_class.splits[0]
    message = refusal(ArchiveError, lambda: adapter_class(empty, split, options))
    assert message is not None, f"'{name}' opens where there is no archive."
    for part in (adapter_class.source, adapter_class.licence, str(empty)):
        assert part in message, f"'{name}' is missing, and the message lacks '{part}': {message}"
    message = refusal(SpecError, lambda: adapter_class(empty, "no-such-split", options))
    assert message is not None, f"'{name}' opens a split that it does not have."
    assert split in message, f"'{name}' does not list its splits: {message}"


def _check_truncated(
    name: str,
    adapter_class: type[DatasetAdapter],
    root: Path,
    options: Mapping[str, Any] | None,
) -> None:
    adapter = adapter_class(root, adapter_class.splits[0], options)
    path = adapter.files[0]
    whole = path.read_bytes()
    for kept in (len(whole) // 2, 0):
        path.write_bytes(whole[:kept])
        message = refusal(ArchiveError, lambda: adapter.scene(0))
        cut = f"{path.name} cut to {kept} of {len(whole)} bytes"
        assert message is not None, f"'{name}' reads {cut}."
        assert path.name in message, f"'{name}' refuses {cut} without its name: {message}"
