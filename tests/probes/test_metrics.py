from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score

from rscl_bench.probes.metrics import MultilabelMAP, multilabel_map
from rscl_bench.probes.pixel_statistics import pixel_statistics


def naive_average_precision(labels: list[int], scores: list[float]) -> float:
    """Sum of recall steps times precision, one threshold per distinct score."""
    positives = sum(labels)
    area, previous = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = [y for y, score in zip(labels, scores, strict=True) if score >= threshold]
        recall, precision = sum(chosen) / positives, sum(chosen) / len(chosen)
        area += (recall - previous) * precision
        previous = recall
    return area


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 4)),
    grid=st.sampled_from([2, 5, 1000]),
)
def test_map_equals_naive_and_sklearn(data: Any, shape: tuple[int, int], grid: int) -> None:
    labels = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))
    steps = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(0, grid)))
    scores = steps / grid  # a coarse grid has many ties
    result = multilabel_map(labels, scores)
    counted = [label for label in range(shape[1]) if labels[:, label].any()]
    assert result.macro_labels == len(counted)
    if not counted:
        assert result == MultilabelMAP(micro=None, macro=None, macro_labels=0)
        return
    micro = naive_average_precision(labels.ravel().tolist(), scores.ravel().tolist())
    macro = [naive_average_precision(labels[:, j].tolist(), scores[:, j].tolist()) for j in counted]
    assert result.micro == pytest.approx(micro)
    assert result.macro == pytest.approx(sum(macro) / len(macro))
    if len(counted) == shape[1]:
        for kind in ("micro", "macro"):
            theirs = average_precision_score(labels, scores, average=kind)
            assert getattr(result, kind) == pytest.approx(theirs)


def test_map_by_hand() -> None:
    labels = np.array([[1, 0], [0, 0], [1, 0]], np.uint8)
    scores = np.array([[0.9, 0.1], [0.8, 0.1], [0.7, 0.1]])
    result = multilabel_map(labels, scores)
    assert result.micro == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert result.macro == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)  # the empty label is left out
    assert result.macro_labels == 1


def test_perfect_scores_do_not_round_above_one() -> None:
    for count in range(1, 200):
        labels = np.ones((count, 1), np.uint8)
        assert multilabel_map(labels, np.linspace(0, 1, count)[:, None]).micro == pytest.approx(1)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        (np.zeros((2, 2), np.uint8), np.zeros((2, 1)), "differ"),
        (np.zeros(2, np.uint8), np.zeros(2), "differ"),
        (np.full((2, 1), 2, np.uint8), np.zeros((2, 1)), "0 or 1"),
        (np.ones((2, 1), np.uint8), np.full((2, 1), np.nan), "finite"),
    ],
)
def test_map_refuses(labels: np.ndarray, scores: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        multilabel_map(labels, scores)


@settings(max_examples=60, deadline=None)
@given(
    tiles=st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=4, max_dims=4, max_side=4))
    ),
    batch_size=st.integers(1, 5),
)
def test_pixel_statistics_equal_a_loop(tiles: np.ndarray, batch_size: int) -> None:
    found = pixel_statistics(tiles, batch_size)
    count, _, _, bands = tiles.shape
    assert found.shape == (count, 2 * bands)
    assert found.dtype == np.float32
    for row in range(count):
        for band in range(bands):
            values = [float(v) for v in tiles[row, :, :, band].ravel()]
            mean = sum(values) / len(values)
            deviation = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
            assert found[row, band] == pytest.approx(mean, rel=1e-6)
            assert found[row, bands + band] == pytest.approx(deviation, rel=1e-6, abs=1e-9)


def test_constant_bright_tiles_have_no_deviation() -> None:
    tiles = np.full((2, 64, 64, 3), 65535, np.uint16)
    assert pixel_statistics(tiles)[:, 3:].tolist() == [[0, 0, 0], [0, 0, 0]]


def test_pixel_statistics_read_a_memory_map(tmp_path: Any) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    np.save(tmp_path / "tiles.npy", tiles)
    mapped = np.load(tmp_path / "tiles.npy", mmap_mode="r")
    assert np.array_equal(pixel_statistics(mapped, 2), pixel_statistics(tiles))


def test_pixel_statistics_refuse_other_arrays() -> None:
    with pytest.raises(TypeError, match="uint8 or uint16"):
        pixel_statistics(np.zeros((1, 2, 2, 1), np.float32))
    with pytest.raises(ValueError, match="N, H, W, C"):
        pixel_statistics(np.zeros((2, 2, 1), np.uint8))
