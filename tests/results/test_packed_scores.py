"""Tests that packed image scores give the numbers of the image scores, to the last bit."""

import lzma
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.records import images_of, record_of, write_run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from safetensors.numpy import load
from safetensors.numpy import save as save_tensors

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.statistics import bootstrap_interval
from rscl_bench.probes.metrics import multilabel_map, resampled_maps
from rscl_bench.results.image_scores import (
    ImageScores,
    image_scores_path,
    named_tensors,
    probe_scores,
    read_image_scores,
)
from rscl_bench.results.packed_scores import (
    has_scores,
    known_scores,
    pack_scores,
    packed_scores_path,
    read_packed_scores,
    unpack_scores,
    write_packed_scores,
)
from rscl_bench.results.published import publish
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord
from rscl_bench.results.validation import Verdict, verdicts

FIRST = "scores.1.outer.test"


def round_trip(images: ImageScores, path: Path) -> ImageScores:
    """Return the image scores of a record after packing them beside the record."""
    record = write_run(path, images)
    write_packed_scores(replace(images, run=record.id), record, path)
    packed = read_packed_scores(path, record)
    assert packed is not None
    return packed


def images_with(labels: NDArray[np.uint8], rows: list[NDArray[np.float64]]) -> ImageScores:
    first, *others = rows
    return ImageScores(
        {"outer": {"test": labels}},
        [{"outer": {"test": row}} for row in others],
        {"outer": {"test": first}},
    )


# Few values, so that ties are frequent; neighbours in the last bit, both zeros and the extremes.
VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, np.nextafter(1.0, 2.0), 5e-324, -1e300, 1e300, 0.1 + 0.2]),
    st.floats(-1e300, 1e300),
)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[NDArray[np.uint8], list[NDArray[np.float64]]]:
    shape = (draw(st.integers(2, 12)), draw(st.integers(1, 4)))
    labels = draw(arrays(np.uint8, shape, elements=st.integers(0, 1)))
    rows = [draw(arrays(np.float64, shape, elements=VALUES)) for _ in range(4)]
    return labels, rows


@settings(max_examples=25, deadline=None)
@given(case=labelled(), draws=st.integers(0, 2**32 - 1))
def test_no_average_precision_and_no_resample_changes(
    case: tuple[NDArray[np.uint8], list[NDArray[np.float64]]],
    draws: int,
) -> None:
    labels, rows = case
    images = images_with(labels, rows)
    record = record_of(images=images)
    packed = unpack_scores(pack_scores(images, record), record)
    assert np.array_equal(packed.labels["outer"]["test"], labels)
    ranks = [packed.pixel_statistics, *packed.scores]
    counts = np.random.default_rng(draws).multinomial(
        len(labels), np.full(len(labels), 1 / len(labels)), size=5
    )
    for row, ranked in zip(rows, ranks, strict=True):
        own = ranked["outer"]["test"]
        assert multilabel_map(labels, own) == multilabel_map(labels, row)
        np.testing.assert_array_equal(
            resampled_maps(labels, own, counts), resampled_maps(labels, row, counts)
        )


def test_intervals_and_paired_differences_are_equal_to_the_bit(tmp_path: Path) -> None:
    first, second = images_of(1.0, 0), images_of(1.2, 0)
    packed = [round_trip(i, tmp_path / f"{n}.json") for n, i in enumerate((first, second))]
    labels = first.labels["outer"]["test"]
    weights = np.array([[1.0, 0.0], [1.0, -1.0]])
    whole, ranks = (
        [images.scores[-1]["outer"]["test"] for images in both]
        for both in ((first, second), packed)
    )
    assert not np.array_equal(whole[0], ranks[0])
    expected = bootstrap_interval(labels, whole, weights)
    assert bootstrap_interval(labels, ranks, weights) == expected
    assert all(interval is not None for pair in expected for interval in pair)


def test_ranks_are_dense_and_in_the_smallest_type(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((300, 2)) < 0.5).astype(np.uint8)
    few, more = rng.integers(0, 256, (300, 2)) / 7.0, rng.normal(size=(300, 2))
    images = images_with(labels, [few, few, more, more])
    round_trip(images, tmp_path / "run.json")
    plain = lzma.decompress(packed_scores_path(tmp_path / "run.json").read_bytes())
    tensors = load(plain)
    assert tensors["scores.0.outer.test"].dtype == np.uint8
    assert tensors["scores.1.outer.test"].dtype == np.uint16
    assert tensors["labels.outer.test"].shape == (2, 300)
    for name, array in named_tensors(images).items():
        if name.startswith("labels"):
            continue
        by_rank = dict(zip(tensors[name].T.ravel().tolist(), array.ravel().tolist(), strict=True))
        assert sorted(by_rank) == list(range(len(np.unique(array))))
        assert all(by_rank[low] < by_rank[high] for low, high in pairwise(sorted(by_rank)))


def test_equal_scores_are_packed_to_equal_bytes_and_ranks_are_packed_to_themselves() -> None:
    images = images_of(1.0, 0)
    record = record_of(images=images)
    content = pack_scores(images, record)
    assert pack_scores(images, record) == content
    assert len(content) < len(images.to_bytes()) / 4


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, RunRecord]:
    """Return a record with packed scores alone, and its content."""
    path = tmp_path / "run.json"
    round_trip(images_of(1.0, 0), path)
    image_scores_path(path).unlink()
    return path, read_record(path)


def test_record_with_packed_scores_alone_is_valid(run: tuple[Path, RunRecord]) -> None:
    path, record = run
    assert has_scores(path)
    assert read_image_scores(path, record) is None
    known = known_scores(path, record)
    assert known is not None
    assert [probe_scores(known.labels, row) for row in known.scores] == list(record.scores)
    assert verdicts([path]) == {path: Verdict("valid")}


Tensors = dict[str, NDArray[Any]]


def swapped(tensors: Tensors) -> None:
    tensors[FIRST] = np.ascontiguousarray(tensors[FIRST][:, ::-1])


def rewritten(path: Path, change: Callable[[Tensors], None]) -> None:
    """Change the tensors of a packed file and make its header fit."""
    file = packed_scores_path(path)
    plain = lzma.decompress(file.read_bytes())
    tensors = dict(load(plain))
    change(tensors)
    record = read_record(path)
    digest = sha256(save_tensors(tensors)).hexdigest()
    text = (
        f'{{"format":1,"image_scores_digest":"{record.image_scores_digest}","run":"{record.id}",'
        f'"tensors_digest":"{digest}"}}'
    )
    file.write_bytes(lzma.compress(save_tensors(tensors, {"rscl_bench": text})))


def test_rewriting_without_a_change_is_accepted(run: tuple[Path, RunRecord]) -> None:
    """So the tests below find the change, and no slip of `rewritten`."""
    rewritten(run[0], lambda _: None)
    assert verdicts([run[0]]) == {run[0]: Verdict("valid")}


def test_tampered_ranks_are_refused_with_the_name_of_the_score(
    run: tuple[Path, RunRecord],
) -> None:
    rewritten(run[0], swapped)
    (verdict,) = verdicts([run[0]]).values()
    assert verdict.state == "refused"
    assert "The field 'scores.1.outer.test.ma" in verdict.reason or (
        "The field 'scores.1.outer.test.mi" in verdict.reason
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop(FIRST), f"it lacks the tensor '{FIRST}'"),
        (lambda t: t.update({"scores.9.outer.test": t[FIRST]}), "no field for the tensor"),
        (lambda t: t.update({FIRST: t[FIRST] + np.uint16(1)}), "no dense ranks"),
        (lambda t: t.update({FIRST: t[FIRST].astype(np.uint32)}), "no dense ranks"),
        (lambda t: t.update({FIRST: t[FIRST].astype(np.int64)}), "no matrix of ranks"),
        (lambda t: t.update({FIRST: t[FIRST][:, :5].copy()}), "of shape [5, 3]"),
        (lambda t: t.update({FIRST: t[FIRST].ravel()}), "no matrix of ranks"),
        (lambda t: t.update({"labels.outer.test": t["labels.outer.test"] * 3}), "neither 0 nor 1"),
    ],
)
def test_tensor_that_does_not_fit_is_named(
    change: Callable[[Tensors], Any], named: str, run: tuple[Path, RunRecord]
) -> None:
    rewritten(run[0], change)
    with pytest.raises(ArtefactError) as caught:
        read_packed_scores(*run)
    assert named in str(caught.value)
    assert f"{packed_scores_path(run[0])} does not fit {run[0]}" in str(caught.value)


GARBAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "cut off"),
    "garbage": (lambda _: bytes(range(256)), "no XZ file"),
    "cut": (lambda content: content[:-3], "cut off"),
    "longer": (lambda content: content + b"\0" * 4, "other bytes follow"),
    "a flipped bit": (lambda c: c[:400] + bytes([c[400] ^ 1]) + c[401:], "damaged"),
    "a bomb": (lambda _: lzma.compress(b"\0" * 2**26), "unpacks to more than"),
    "no safetensors": (lambda _: lzma.compress(b"text"), "no safetensors file"),
    "no header": (
        lambda c: lzma.compress(save_tensors(load(lzma.decompress(c)))),
        "header is not of format 1",
    ),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_damaged_file_is_refused(name: str, run: tuple[Path, RunRecord]) -> None:
    file = packed_scores_path(run[0])
    change, named = GARBAGE[name]
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ArtefactError, match=r"ranks\.safetensors\.xz does not fit .*run\.json"):
        read_packed_scores(*run)
    (verdict,) = verdicts([run[0]]).values()
    assert verdict.state == "refused"
    assert named in verdict.reason


def test_packed_scores_of_another_run_are_refused(
    run: tuple[Path, RunRecord], tmp_path: Path
) -> None:
    other = tmp_path / "other.json"
    record = write_run(other, images_of(1.0, 0), seed=5)
    packed_scores_path(other).write_bytes(packed_scores_path(run[0]).read_bytes())
    with pytest.raises(ArtefactError, match="its field 'run' is not that of the record"):
        read_packed_scores(other, record)


def test_publishing_packs_the_scores_and_replaces_nothing(tmp_path: Path) -> None:
    path, folder = tmp_path / "run" / "record.json", tmp_path / "records"
    record = write_run(path, images_of(1.0, 0))
    target = publish(path, record, folder)
    assert target == folder / f"toy-sketch/quick/finetune-seed0-{record.id}.json"
    assert target.read_bytes() == path.read_bytes()
    assert verdicts([target]) == {target: Verdict("valid")}
    first = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert len(first) == 2

    path.unlink()
    write_run(path, images_of(2.0, 0))  # the same run with other results
    publish(path, read_record(path), folder)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == first


def test_published_scores_are_published_elsewhere_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "run" / "record.json"
    record = write_run(path, images_of(1.0, 0))
    here = publish(path, record, tmp_path / "here")
    there = publish(here, record, tmp_path / "there")
    assert packed_scores_path(there).read_bytes() == packed_scores_path(here).read_bytes()


def test_interrupted_publishing_is_taken_up_again(tmp_path: Path) -> None:
    path, folder = tmp_path / "run" / "record.json", tmp_path / "records"
    record = write_run(path, images_of(1.0, 0))
    target = publish(path, record, folder)
    packed_scores_path(target).unlink()
    publish(path, record, folder)
    assert verdicts([target]) == {target: Verdict("valid")}
