"""The contract of dataset adapters."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from unittest import SkipTest

import numpy as np
from numpy.typing import NDArray

from rscl_bench import registry
from rscl_bench.archives.adapter import SKETCH_MARKER, UNDEFINED, DatasetAdapter, Scene
from rscl_bench.archives.download import DIGESTS
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.errors import ArchiveError, SpecError
from rscl_bench.randomness import numpy_generator
from rscl_bench.spec import Source
from rscl_bench.testing.failures import Failures
from rscl_bench.testing.refusal import refusal
from rscl_bench.tiles.packing import open_or_pack
from rscl_bench.tiles.store import TileStore


def check_adapter(
    component: str | type[DatasetAdapter],
    tmp_path: Path,
    options: Mapping[str, Any] | None = None,
    data_root: Path | None = None,
) -> None:
    """Check an adapter on the sketch of its archive, or on the real archive.

    A missing archive is refused with what to fetch, and an unknown split with the known ones.
    Every split lists the same files in the same order at each opening, and reads the same pixels
    from them. ``inputs()`` has every file whose change changes a scene or its labels, and no image
    depends on a file of ``label_files()``. Labels and masks have the declared classes. Tiles are
    packed in the number and band order that a scenario asks for. A truncated image is refused by
    name. Every file to download has a web address, a place in the archive's folder and a digest of
    a known kind; nothing is downloaded.

    Args:
        component: The class, a registered name, or ``file.py:Class``.
        tmp_path: An empty folder. The check leaves a damaged archive in it.
        options: Values for the dataset's ``Options``.
        data_root: Folder that holds the real archive, for an adapter that draws no sketch. The
            checks that change files (inputs, truncated image) are then left out.

    Raises:
        AssertionError: If the adapter breaks the contract. The message lists every failure.
        unittest.SkipTest: If the adapter draws no sketch, after all checks that need none. Test
            runners report the test as skipped, with what was left out.
    """
    with registry.registered("datasets", component) as name:
        adapter = adapter_class(name, options or {})
        real = None if adapter.has_sketch() else data_root
        archive = _Archive(adapter, name, real or tmp_path / "data", dict(options or {}))
        failures = Failures(f"Dataset '{name}'")
        with failures.check("missing archive"):
            _check_missing(archive, tmp_path / "empty")
        with failures.check("remote_files()"):
            _check_remote_files(archive)
        if adapter.has_sketch():
            with failures.check("sketch"):
                _check_sketch(archive)
        failures.raise_if_any()  # the other checks read the archive
        if not adapter.has_sketch() and real is None:
            raise SkipTest(
                f"Dataset '{name}' draws no sketch: only the missing archive was checked. Give "
                "data_root= to check the reading of its real archive."
            )
        _check_splits(failures, archive)
        if not failures:  # a fault of a split would show in the tiles again
            with failures.check("packing"):
                _check_packing(archive, tmp_path / "cache")
        if real is None:
            with failures.check("truncated image"):
                _check_truncated(archive)
        failures.raise_if_any()
        if real is not None:
            raise SkipTest(
                f"Dataset '{name}' draws no sketch: its real archive was checked, but neither "
                "inputs() nor a truncated image, because these checks change files."
            )


@dataclass(frozen=True)
class _Archive:
    """A sketch archive and how to open it.

    Attributes:
        adapter: The adapter's class.
        name: Name under which the registry finds the class.
        root: Data root that holds the sketch, or the real archive.
        options: The dataset's options.
    """

    adapter: type[DatasetAdapter]
    name: str
    root: Path
    options: dict[str, Any]

    def open(self, split: str) -> DatasetAdapter:
        return self.adapter(self.root, split, self.options)

    def first_split(self) -> DatasetAdapter:
        return self.open(self.adapter.splits[0])


def _check_missing(archive: _Archive, empty: Path) -> None:
    cls, split = archive.adapter, archive.adapter.splits[0]
    folder = empty / cls.folder
    needed = [cls.title, cls.layout, str(folder)]
    if not cls.declared_by_options:
        needed += [cls.source, cls.licence]
    for state in ("absent", "empty"):
        if state == "empty":
            folder.mkdir(parents=True)
        message = refusal(ArchiveError, lambda: cls(empty, split, archive.options))
        assert message is not None, f"The adapter opens an archive whose folder is {state}."
        absent = [text for text in needed if text not in message]
        assert not absent, (
            f"The error for an {state} folder lacks '{absent[0]}'; raise self.missing(…). "
            f"The error is: {message}"
        )
    message = refusal(SpecError, lambda: cls(empty, "no-such-split", archive.options))
    assert message is not None, "The adapter opens a split that is not in splits."
    assert split in message, f"The error for an unknown split does not list '{split}': {message}"


def _check_remote_files(archive: _Archive) -> None:
    for split in archive.adapter.splits:
        with suppress(ArchiveError):  # the archive is fetched by hand
            for file in archive.adapter.remote_files(split, archive.options):
                assert file.url.startswith(("https://", "http://")), f"{file.url} is no address."
                for place in (file.path, file.unpack_into or "."):
                    parts = PurePosixPath(place).parts
                    assert ".." not in parts and "/" not in parts, (  # noqa: PT018
                        f"{place} lies outside of the archive's folder."
                    )
                algorithm, _, digits = file.digest.partition(":")
                assert not file.digest or (algorithm in DIGESTS and digits), (
                    f"'{file.digest}' is no digest; write {' or '.join(DIGESTS)}, a colon and the "
                    "digits."
                )


def _check_sketch(archive: _Archive) -> None:
    archive.adapter.write_sketch(archive.root, numpy_generator(0, "contract"))
    for split in archive.adapter.splits:
        assert archive.open(split).is_sketch, (
            f"write_sketch leaves no file {SKETCH_MARKER} in '{archive.adapter.folder}'."
        )


def _check_splits(failures: Failures, archive: _Archive) -> None:
    labelled = False
    for split in archive.adapter.splits:
        with failures.check(f"files of split '{split}'"):
            _check_files(archive, split)
        with failures.check(f"scenes of split '{split}'"):
            first, second = (_sample(archive.open(split)) for _ in range(2))
            assert _equal(first, second), (
                "A second reading gives other scenes; _read must depend on the archive only."
            )
        with failures.check(f"labels of split '{split}'"):
            labelled |= _check_labels(archive.open(split))
        if archive.adapter.has_sketch():
            with failures.check(f"inputs() of split '{split}'"):
                _check_inputs(archive, split)
            with failures.check(f"label_files() of split '{split}'"):
                _check_label_files(archive, split)
    if archive.adapter.classes and not failures:
        with failures.check("labels"):
            assert labelled, "The adapter declares classes, but no split has labels."


def _check_files(archive: _Archive, split: str) -> None:
    first, second = archive.open(split), archive.open(split)
    order = "; sort the files in _list_files, and the others in inputs()."
    assert first.files == second.files, f"Two openings list the images in another order{order}"
    assert first.inputs() == second.inputs(), f"Two openings list inputs() in another order{order}"


def _sample(adapter: DatasetAdapter) -> list[Scene]:
    """Read the first, the middle and the last scene, with labels if the split has them."""
    with_labels = refusal(SpecError, lambda: adapter.scene(0, with_labels=True)) is None
    indices = sorted({0, len(adapter) // 2, len(adapter) - 1})
    return [adapter.scene(index, with_labels) for index in indices]


def _equal(first: Sequence[Scene], second: Sequence[Scene]) -> bool:
    def arrays(scenes: Sequence[Scene]) -> list[NDArray[Any] | None]:
        return [array for s in scenes for array in (s.image, s.labels, s.mask)]

    return len(first) == len(second) and all(
        a is b is None or (a is not None and b is not None and np.array_equal(a, b))
        for a, b in zip(arrays(first), arrays(second), strict=True)
    )


def _check_labels(adapter: DatasetAdapter) -> bool:
    """Check labels and masks; return False if the split has none, which one split may."""
    if refusal(SpecError, lambda: adapter.scene(0, with_labels=True)) is not None:
        return False
    count = len(adapter.classes)
    for scene in _sample(adapter):
        assert scene.labels is None or scene.mask is None, "A scene has both labels and a mask."
        if scene.labels is not None:
            labels = scene.labels
            assert labels.shape == (count,), f"Labels are {labels.shape} for {count} classes."
            assert labels.dtype == np.uint8, f"Labels are {labels.dtype}, not uint8."
            assert labels.max() <= 1, f"Labels are not 0 and 1, but up to {labels.max()}."
        if scene.mask is not None:
            assert scene.mask.dtype == np.uint8, f"A mask is {scene.mask.dtype}, not uint8."
            assert (scene.mask != UNDEFINED).any(), "A mask is undefined everywhere."
    return True


def _check_inputs(archive: _Archive, split: str) -> None:
    adapter = archive.open(split)
    inputs = adapter.inputs()
    for path in inputs:
        assert path.is_file(), f"{path} does not exist."
        assert path.is_relative_to(adapter.root), f"{path} is not below {adapter.root}."
    before = _sample(adapter)
    others = sorted(
        path
        for path in set(adapter.root.rglob("*")) - {*inputs, adapter.root / SKETCH_MARKER}
        if path.is_file()
    )
    if _unchanged_without(others, archive, split, before):
        return
    omitted = [path for path in others if not _unchanged_without([path], archive, split, before)]
    named = ", ".join(path.relative_to(adapter.root).as_posix() for path in (omitted or others)[:3])
    raise AssertionError(
        f"inputs() omits {named}, but the content of this file changes scenes or labels; the tiles "
        "would not be packed again after a change. Return the file from inputs()."
    )


def _check_label_files(archive: _Archive, split: str) -> None:
    adapter = archive.open(split)
    files = adapter.label_files()
    assert set(files) <= set(adapter.inputs()), "label_files() has files that inputs() lacks."

    def images() -> list[Scene]:
        opened = archive.open(split)
        return [Scene(opened.scene(index).image) for index in (0, len(opened) - 1)]

    before = images()
    with _emptied(files):
        try:
            unchanged = _equal(images(), before)
        except Exception:  # also an error shows that the content matters
            unchanged = False
    assert unchanged, (
        "label_files() has a file that images depend on; tiles without labels would keep their "
        "identity when it changes. Return files that are read with labels only."
    )


def _unchanged_without(
    paths: Sequence[Path], archive: _Archive, split: str, before: Sequence[Scene]
) -> bool:
    """Return whether the scenes of a split stay as they are when files are emptied."""
    with _emptied(paths):
        try:
            return _equal(_sample(archive.open(split)), before)
        except Exception:  # also an error shows that the content matters
            return False


@contextmanager
def _emptied(paths: Sequence[Path]) -> Iterator[None]:
    contents = {path: path.read_bytes() for path in paths}
    try:
        for path in paths:
            path.write_bytes(b"")
        yield
    finally:
        for path, content in contents.items():
            path.write_bytes(content)


def _check_packing(archive: _Archive, cache: Path) -> None:
    adapter = archive.first_split()
    sides = [adapter.scene(index).image.shape[:2] for index in range(len(adapter))]
    size = max(1, min(min(side) for side in sides) // 2)
    count = sum((height // size) * (width // size) for height, width in sides)
    bands = tuple(band.name for band in adapter.sensor.bands)

    def packed(order: tuple[str, ...]) -> TileStore:
        source = Source(
            dataset=archive.name,
            split=adapter.split,
            bands=order,
            tile_size=size,
            options=archive.options,
        )
        return open_or_pack(archive.root, source, cache)

    straight, reverse = packed(bands), packed(bands[::-1])
    shape = (count, size, size, len(bands))
    assert straight.tiles.shape == shape, f"Tiles are {straight.tiles.shape}, not {shape}."
    assert straight.tiles.dtype == adapter.sensor.dtype, f"Tiles are {straight.tiles.dtype}."
    corner = adapter.scene(0).image[:size, :size]
    assert np.array_equal(straight.tiles[0], corner), (
        "The first tile is not the upper left corner of the first scene."
    )
    assert np.array_equal(reverse.tiles, straight.tiles[..., ::-1]), (
        "Packing with the bands in reverse order gives other pixels."
    )
    assert len(bands) == 1 or straight.digest != reverse.digest, (
        "The digest of the tiles does not depend on the order of the bands."
    )


def _check_truncated(archive: _Archive) -> None:
    adapter = archive.first_split()
    path = adapter.files[0]
    content = path.read_bytes()
    for kept in (9 * len(content) // 10, len(content) // 2, 0):
        path.write_bytes(content[:kept])
        message = refusal(ArchiveError, lambda: adapter.scene(0))
        cut = f"{path.name}, truncated to {kept} of {len(content)} bytes,"
        assert message is not None, f"{cut} is read without an error."
        assert path.name in message, f"{cut} is refused without its name: {message}"
