"""Masks, against transcriptions of their papers."""

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rscl_bench.randomness import torch_generator
from rscl_bench.views.masks import (
    draw_blocks,
    draw_singly,
    enlarged,
    mask_of,
    nearest_divisor,
    rectangles,
)

Mask = NDArray[np.bool_]


def slow_blocks(draws: Any, noise: Any, side: int, hidden: int, least: float) -> set[int]:
    """Return one image's hidden locations from (area, aspect, down, right) of every attempt."""
    chosen: set[int] = set()
    for area, aspect, down, right in draws:
        left = hidden - len(chosen)
        wanted = least + (left - least) * area
        ratio = math.exp(math.log(0.3) + (math.log(1 / 0.3) - math.log(0.3)) * aspect)
        height, width = round(math.sqrt(wanted * ratio)), round(math.sqrt(wanted / ratio))
        if height >= side or width >= side:
            continue
        top, first = int(down * (side - height + 1)), int(right * (side - width + 1))
        block = {
            row * side + column
            for row in range(top, top + height)
            for column in range(first, first + width)
        }
        if 0 < len(block - chosen) <= left:
            chosen |= block
    others = sorted(set(range(side**2)) - chosen, key=lambda location: float(noise[location]))
    return chosen | set(others[: hidden - len(chosen)])


@pytest.mark.parametrize(
    ("side", "hidden", "least"), [(14, 75, 16.0), (8, 24, 16 * 64 / 196), (2, 2, 0.3)]
)
def test_blocks_are_the_transcription(side: int, hidden: int, least: float) -> None:
    count = 50
    locations = draw_blocks(count, side, hidden, least, 0.3, torch_generator("cpu", 5))
    generator = torch_generator("cpu", 5)
    draws = torch.rand(20, 4, count, generator=generator).double()
    noise = torch.rand(count, side**2, generator=generator)
    for image in range(count):
        expected = slow_blocks(draws[:, :, image].tolist(), noise[image], side, hidden, least)
        assert set(locations[image].tolist()) == expected


def authors_blocks(rng: random.Random, side: int, hidden: int, least: int) -> Mask:
    """Return a mask by the rule of BEiT's authors: stop when full or after ten misfits in a row."""
    mask = np.zeros((side, side), bool)
    failures = 0
    while mask.sum() < hidden and failures < 10:
        left = hidden - int(mask.sum())
        area = rng.uniform(least, left)
        ratio = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        failures += 1
        if height < side and width < side:
            top, first = rng.randint(0, side - height), rng.randint(0, side - width)
            block = np.zeros_like(mask)
            block[top : top + height, first : first + width] = True
            if 0 < (block & ~mask).sum() <= left:
                mask |= block
                failures = 0
    return mask


def edges(mask: Mask) -> int:
    """Return the number of unequal neighbours, which is small for blocks."""
    return int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum())


def test_blocks_are_as_the_authors() -> None:
    rng, count = random.Random(0), 1500
    theirs = np.stack([authors_blocks(rng, 14, 75, 16) for _ in range(count)])
    locations = draw_blocks(count, 14, 75, 16.0, 0.3, torch_generator("cpu", 0))
    ours = mask_of(locations, 14).numpy()
    assert (ours.sum(axis=(1, 2)) == 75).all()
    assert 74 < theirs.sum(axis=(1, 2)).mean() < 75
    mean = [float(np.mean([edges(mask) for mask in masks])) for masks in (theirs, ours)]
    assert mean[1] == pytest.approx(mean[0], rel=0.04)
    singly = mask_of(draw_singly(200, 196, 75, torch_generator("cpu", 0)), 14).numpy()
    assert np.mean([edges(mask) for mask in singly]) > 2 * mean[1]
    # Positions: five standard deviations of a share of 1,500.
    assert np.abs(ours.mean(axis=0) - theirs.mean(axis=0)).max() < 5 * math.sqrt(0.5 / count)


def test_rectangles_reach_every_edge() -> None:
    sizes = torch.tensor([[3.0, 3.0], [2.0, 2.0]])
    corners = rectangles(sizes, torch.tensor([[0.0, 0.9999], [0.0, 0.9999]]), 5)
    assert corners.shape == (2, 5, 5)
    assert corners[0, :3, :2].all()
    assert corners[1, 2:, 3:].all()
    assert corners.sum(dim=(1, 2)).tolist() == [6, 6]


def test_single_units_are_hidden_equally_often() -> None:
    locations = draw_singly(4000, 16, 10, torch_generator("cpu", 0))
    assert all(len(set(row)) == 10 for row in locations.tolist())
    share = torch.bincount(locations.flatten(), minlength=16) / 4000
    assert (share - 0.625).abs().max() < 5 * math.sqrt(0.25 / 4000)


def test_masks_and_their_resolution() -> None:
    mask = mask_of(torch.tensor([[1, 3], [2, 0]]), 2)
    assert mask.tolist() == [[[False, True], [False, True]], [[True, False], [True, False]]]
    fine = enlarged(mask, 6)
    assert fine.shape == (2, 6, 6)
    for row in range(6):
        for column in range(6):
            assert torch.equal(fine[:, row, column], mask[:, row // 3, column // 3])


@pytest.mark.parametrize(
    ("number", "wanted", "expected"), [(14, 2, 2), (16, 8, 8), (14, 8, 7), (48, 7, 6), (7, 0.3, 1)]
)
def test_nearest_divisor(number: int, wanted: float, expected: int) -> None:
    assert nearest_divisor(number, wanted) == expected
