"""Features of folders and datasets, as files and tables."""

import csv
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.cli import call, refused
from helpers.encoders import described, given, three_bands, write_made_up
from helpers.paths import ADAPTERS
from numpy.typing import NDArray
from PIL import Image

import rscl_bench as rb
from rscl_bench.archives.files import write_tiff
from rscl_bench.encoders import embedding
from rscl_bench.errors import ArchiveError, SpecError
from rscl_bench.pretrained import PretrainedEncoder
from rscl_bench.sensors import Band
from rscl_bench.views.crops import Normalisation

SIZES = {"b/two.JPG": (40, 24), "a.png": (16, 16), "b/c/three.tif": (33, 57), "z.jpeg": (20, 20)}


def grey(task: str) -> Any:
    return given(
        task,
        50.0,
        bands=("hh",),
        spectrum=(Band("hh", 3e7, kind="sar"),),
        mean=(50.0,),
        std=(20.0,),
        scale=255.0,
        dtype="uint8",
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    write_made_up(path, described(grey("radar"), three_bands("camera"), band_mode="grey3"))
    return path


@pytest.fixture(scope="module")
def encoder(file: Path) -> PretrainedEncoder:
    return rb.load_encoder(file)


def pixels_of(size: tuple[int, int], seed: int, bands: int = 3) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, bands), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for seed, (name, size) in enumerate(SIZES.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("tif"):
            write_tiff(path, pixels_of(size, seed))
        else:
            Image.fromarray(pixels_of(size, seed)).save(path)
    root.joinpath("README.txt").write_text("no image", encoding="utf-8")
    root.joinpath(".hidden.png").write_text("no image", encoding="utf-8")
    return root


def expected(encoder: PretrainedEncoder, folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return the features of each image alone, decoded by Pillow."""
    features = {}
    for seed, (name, size) in enumerate(SIZES.items()):
        image = (
            pixels_of(size, seed) if name.endswith("tif") else np.array(Image.open(folder / name))
        )
        features[name] = encoder.features(image.transpose(2, 0, 1)[None], task="camera")[0].numpy()
    return features


# Files


def read_features(path: Path, key: str = "path") -> dict[Any, NDArray[np.float32]]:
    if path.suffix == ".npy":
        rows = path.with_suffix(".rows.csv").read_text(encoding="utf-8").splitlines()
        assert rows[0] == key
        return dict(zip(rows[1:], np.load(path, allow_pickle=False), strict=True))
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as opened:
            header, *lines = csv.reader(opened)
        assert header == [key, *(f"f{i}" for i in range(len(header) - 1))]
        return {line[0]: np.array(line[1:], np.float32) for line in lines}
    table = pd.read_parquet(path)
    assert list(table.columns[:2]) == [key, "f0"]
    assert set(table.dtypes.iloc[1:]) == {np.dtype(np.float32)}
    return {row[0]: np.array(row[1:], np.float32) for row in table.itertuples(index=False)}


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npy"])
@pytest.mark.parametrize("batch", [3, 128])
def test_rows_are_the_features_of_the_images(
    suffix: str,
    batch: int,
    file: Path,
    encoder: PretrainedEncoder,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Images of any size, at any depth, in three formats; sorted by path; in several batches."""
    monkeypatch.setattr(embedding, "BATCH", batch)
    out = tmp_path / "new" / f"features{suffix}"
    result = call("embed", file, folder, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"{out}: 4 rows" in result.stdout
    assert "note: 1 file is no image by name" in result.stdout
    rows, wanted = read_features(out), expected(encoder, folder)
    assert list(rows) == sorted(SIZES)
    for name, features in rows.items():
        np.testing.assert_allclose(features, wanted[name], rtol=1e-5, atol=1e-5)
    table = rb.embed(encoder, folder, verbose=False)
    assert list(table["path"]) == sorted(SIZES)
    values = table.drop(columns="path").to_numpy()
    assert values.dtype == np.float32
    assert np.array_equal(np.stack(list(rows.values())), values), "the files hold every bit"
    assert out.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


def test_equal_images_write_equal_bytes(file: Path, folder: Path, tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        assert rb.embed(file, folder, tmp_path / name, verbose=False) == 4
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_own_statistics_normalise_as_in_training(encoder: PretrainedEncoder, folder: Path) -> None:
    images = [np.array(Image.open(folder / n)) for n in SIZES if not n.endswith("tif")]
    images.append(pixels_of(SIZES["b/c/three.tif"], 2))
    flat = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64)
    own = Normalisation(
        torch.from_numpy(flat.mean(axis=0)).float(), torch.from_numpy(flat.std(axis=0)).float()
    )
    table = rb.embed(encoder, folder, normalise="own", verbose=False)
    first = images[1].transpose(2, 0, 1)[None]
    wanted = encoder.features(first, normalisation=own)[0].numpy()
    np.testing.assert_allclose(table.iloc[0, 1:].to_numpy(np.float32), wanted, rtol=1e-4, atol=1e-4)
    assert not np.allclose(table.iloc[0, 1:].to_numpy(np.float32), encoder.features(first)[0])


def test_memory_does_not_grow_with_the_images(
    encoder: PretrainedEncoder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No more than one image is held beside the views of a batch."""
    import weakref

    from rscl_bench.encoders.feature_file import writing
    from rscl_bench.progress import SilentReporter

    monkeypatch.setattr(embedding, "BATCH", 4)
    made: list[weakref.ref[NDArray[np.uint8]]] = []
    most = 0

    def images() -> Any:
        nonlocal most
        for number in range(40):
            image = np.full((32, 32, 3), number, np.uint8)
            made.append(weakref.ref(image))
            most = max(most, sum(one() is not None for one in made))
            yield number, image

    found = embedding.ImagesToEmbed("tile", 40, images(), "camera", None)
    with writing(tmp_path / "f.npy", "tile", encoder.feature_dim, 40) as write:
        assert embedding.embed_into(write, encoder, found, SilentReporter()) == 40
    assert most <= 2
    assert len(np.load(tmp_path / "f.npy")) == 40


# Refusals


def test_images_with_other_bands_are_refused(file: Path, folder: Path, tmp_path: Path) -> None:
    Image.fromarray(pixels_of((9, 9), 0, 1)[..., 0]).save(folder / "grey.png")
    message = refused("embed", file, folder, "--out", tmp_path / "f.csv")
    assert message == (
        f"{folder / 'grey.png'} has 1 bands where task 'camera' of the encoder has 3 "
        "(red, green, blue); give the task that the images are like with --task radar (hh). "
        "Add --on-bad-tile skip to go on without such images."
    )
    Image.fromarray(pixels_of((9, 9), 0, 4)).save(folder / "grey.png")
    assert "has 4 bands where" in refused("embed", file, folder, "--out", tmp_path / "f.csv")
    assert not (tmp_path / "f.csv").exists()


def test_the_task_chooses_the_bands(file: Path, encoder: PretrainedEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "radar"
    folder.mkdir()
    image = pixels_of((24, 24), 1, 1)
    Image.fromarray(image[..., 0]).save(folder / "chip.png")
    table = rb.embed(file, folder, task="radar", verbose=False)
    wanted = encoder.features(image.transpose(2, 0, 1)[None], task="radar")
    np.testing.assert_allclose(table.iloc[0, 1:].to_numpy(np.float32), wanted[0], atol=1e-5)
    with pytest.raises(SpecError, match=r"Unknown task of this encoder 'rader'.*radar"):
        rb.embed(file, folder, task="rader", verbose=False)


def test_pixels_of_another_type_are_refused(file: Path, tmp_path: Path) -> None:
    write_tiff(tmp_path / "in" / "wide.tif", pixels_of((9, 9), 0).astype(np.uint16))
    with pytest.raises(ArchiveError, match=r"wide\.tif is uint16 where task 'camera' .* has uint8"):
        rb.embed(file, tmp_path / "in", verbose=False)


def test_a_damaged_image_is_refused_or_left_out(file: Path, folder: Path, tmp_path: Path) -> None:
    content = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(content[: len(content) // 2])
    (folder / "empty.png").write_bytes(b"")
    out = tmp_path / "features.npy"
    message = refused("embed", file, folder, "--out", out)
    assert message.startswith(f"{folder / 'empty.png'} is empty; mend or remove the file.")
    (folder / "empty.png").unlink()
    assert f"{folder / 'a.png'} cannot be read" in refused("embed", file, folder, "--out", out)
    assert not out.exists()
    assert not out.with_suffix(".rows.csv").exists()
    result = call("embed", file, folder, "--out", out, "--on-bad-tile", "skip")
    assert result.exit_code == 0, result.output
    assert "a.png" in result.stdout
    assert f"{out}: 3 rows" in result.stdout
    assert list(read_features(out)) == sorted(set(SIZES) - {"a.png"})


def test_folders_without_images_are_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    out = tmp_path / "f.csv"
    assert "holds no image" in refused("embed", file, tmp_path / "none", "--out", out)
    (tmp_path / "none" / "list.txt").write_text("x", encoding="utf-8")
    assert "holds no image" in refused("embed", file, tmp_path / "none", "--out", out)
    message = refused("embed", file, tmp_path / "missing", "--out", out)
    assert message.startswith(f"There is no folder '{tmp_path / 'missing'}', and no dataset")
    assert "did you mean 'ucmerced'" in refused("embed", file, "ucmerce", "--out", out)
    message = refused("embed", file, tmp_path, "--out", out, "--cut", "grid")
    assert "'cut' is of a dataset" in message


def test_unknown_suffixes_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    message = refused("embed", "missing.safetensors", tmp_path, "--out", tmp_path / "f.parket")
    assert message.startswith(
        "Unknown kind of a file of features '.parket'; did you mean '.parquet'?"
    )
    assert "'.txt'" in refused("embed", "missing.safetensors", tmp_path, "--out", "features.txt")


def test_parquet_without_pyarrow_says_what_to_install(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = refused("embed", file, folder, "--out", "f.parquet")
    assert "pip install 'rscl-bench[parquet]'" in message


# Datasets


def test_a_dataset_has_a_row_for_each_tile(
    encoder: PretrainedEncoder,
    file: Path,
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    toy = f"{ADAPTERS}:Toy"
    shared = ("embed", file, toy, "--data-root", toy_data, "--tile-size", "24", "--cut", "whole")
    out = tmp_path / "tiles.csv"
    result = call(*shared, "--split", "test", "--out", out, "--normalise", "own")
    assert result.exit_code == 0, result.output
    rows = read_features(out, "tile")
    assert list(rows) == [str(number) for number in range(len(rows))]
    from rscl_bench.progress import SilentReporter
    from rscl_bench.registry import load
    from rscl_bench.spec import Source
    from rscl_bench.tiles.source import archives_of

    archives = archives_of([load("datasets", toy)], toy_data, "stop", SilentReporter())
    source = Source(dataset=toy, split="test", tile_size=24, cut="whole")
    store = archives.open(source, False)
    own = Normalisation(torch.from_numpy(store.mean).float(), torch.from_numpy(store.std).float())
    images = np.ascontiguousarray(store.tiles.transpose(0, 3, 1, 2))
    wanted = encoder.features(images, normalisation=own).numpy()
    assert np.array_equal(np.stack(list(rows.values())), wanted)
    assert "has the splits train, val, test; choose one" in refused(*shared, "--out", out)
    message = refused(*shared, "--split", "test", "--task", "radar", "--out", out)
    assert "has the bands blue, green, red, and task 'radar' of the encoder has hh" in message
