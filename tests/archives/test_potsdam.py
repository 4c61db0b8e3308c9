"""Potsdam: equal to TorchGeo's reader, splits, and colours of the masks."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers.images import rewrite
from numpy.typing import NDArray
from torchgeo.datasets import Potsdam2D

from rscl_bench.archives import potsdam
from rscl_bench.archives.potsdam import PotsdamAdapter
from rscl_bench.errors import ArchiveError

Copy = Callable[[str], Path]


def test_equals_torchgeo(sketches: Path) -> None:
    ours = PotsdamAdapter(sketches, "test")
    theirs = Potsdam2D(str(sketches / "potsdam"), "test")
    scene = ours.scene(3, with_labels=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        sample = theirs[3]
    assert len(ours) == len(theirs)
    assert np.array_equal(scene.image, np.moveaxis(sample["image"].numpy(), 0, 2))
    assert scene.mask is not None
    assert np.array_equal(scene.mask, sample["mask"].numpy())


def test_paper_splits() -> None:
    train, val = potsdam._SPLITS["paper-train"], potsdam._SPLITS["paper-val"]
    assert len(train) == 30
    assert len(val) == 2
    assert not set(train) & set(val)
    tiles = (6000 // 256) ** 2
    assert (30 * tiles, 2 * tiles) == (15_870, 1_058)


def write_potsdam_mask(adapter: PotsdamAdapter, colours: NDArray[np.uint8]) -> None:
    rewrite(adapter.files[0], np.zeros((*colours.shape[:2], 4), np.uint8))
    rewrite(adapter.masks[0], colours)


def test_colours_are_rounded(sketch_of: Copy) -> None:
    adapter = PotsdamAdapter(sketch_of("potsdam"), "train")
    exact = np.array([Potsdam2D.colormap], np.int16)
    near = np.clip(np.concatenate([exact, exact + 30, exact - 30]), 0, 255).astype(np.uint8)
    near[1, 5] = (252, 255, 0)
    write_potsdam_mask(adapter, near)
    mask = adapter.scene(0, with_labels=True).mask
    assert mask is not None
    assert mask.tolist() == [list(range(6))] * 3


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 0, 255), (130, 0, 0)])
def test_unknown_colours_are_bounded(sketch_of: Copy, colour: tuple[int, int, int]) -> None:
    adapter = PotsdamAdapter(sketch_of("potsdam"), "train")
    colours = np.full((100, 100, 3), 255, np.uint8)
    colours[0, :90] = colour
    write_potsdam_mask(adapter, colours)
    mask = adapter.scene(0, with_labels=True).mask
    assert mask is not None
    assert (mask == 255).sum() == 90
    colours[1, :90] = colour
    write_potsdam_mask(adapter, colours)
    with pytest.raises(ArchiveError, match=r"1\.8% of the pixels") as error:
        adapter.scene(0, with_labels=True)
    assert str(adapter.masks[0]) in str(error.value)
