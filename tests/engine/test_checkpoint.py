"""Checkpoint files: damage shows, the one before takes over, and nothing in them is executed."""

import hashlib
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.disk import file_size_limit

from rscl_bench.engine.checkpointing.files import (
    read_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from rscl_bench.engine.checkpointing.state import Snapshot
from rscl_bench.errors import ArtefactError
from rscl_bench.results.differences import first_difference


def snapshot(number: int) -> Snapshot:
    generator = torch.Generator().manual_seed(number)
    weights = torch.randn(4, 300, generator=generator)
    return Snapshot({"weights": weights, "step": torch.tensor(number)}, {"step": number})


def write(folder: Path, *numbers: int) -> list[Path]:
    return [write_checkpoint(folder, snapshot(number)) for number in numbers]


def read(folder: Path) -> tuple[int | None, list[str]]:
    """Return the step of the checkpoint that is read, and the messages."""
    said: list[str] = []
    found = read_checkpoint(folder, said.append)
    if found is None:
        return None, said
    number = found.metadata["step"]
    expected = snapshot(number)
    assert found.tensors.keys() == expected.tensors.keys()
    for name, value in expected.tensors.items():
        assert torch.equal(found.tensors[name], value)
    return number, said


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    assert read(tmp_path) == (None, [])
    paths = write(tmp_path, 1, 2, 3)
    assert read(tmp_path) == (3, [])
    assert sorted(tmp_path.iterdir()) == paths[1:]
    remove_checkpoints(tmp_path)
    assert not tmp_path.exists()


def test_a_million_checkpoints_and_more(tmp_path: Path) -> None:
    (first,) = write(tmp_path, 1)
    first.rename(tmp_path / first.name.replace("000001", "999998"))
    paths = write(tmp_path, 2, 3, 4)
    assert [path.name.partition("-")[0] for path in paths] == ["999999", "1000000", "1000001"]
    assert read(tmp_path) == (4, [])
    assert sorted(tmp_path.iterdir()) == sorted(paths[1:])
    remove_checkpoints(tmp_path)
    assert not tmp_path.exists()


def test_empty_file_and_folder_are_skipped(tmp_path: Path) -> None:
    write(tmp_path, 1)
    empty = tmp_path / f"000002-{'0' * 64}.safetensors"
    empty.touch()
    folder = tmp_path / f"000003-{'0' * 64}.safetensors"
    folder.mkdir()
    assert read(tmp_path) == (
        1,
        [
            f"{folder} cannot be read (Is a directory); skipped",
            f"{empty} is damaged: its SHA-256 differs from its name; skipped",
        ],
    )
    remove_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == [folder]


def test_fast_write_keeps_older_checkpoints(tmp_path: Path) -> None:
    paths = write(tmp_path, 1, 2)
    paths.append(write_checkpoint(tmp_path, snapshot(3), fast=True))
    assert read(tmp_path) == (3, [])
    assert sorted(tmp_path.iterdir()) == paths
    paths.append(write_checkpoint(tmp_path, snapshot(4)))
    assert sorted(tmp_path.iterdir()) == paths[2:]


def test_equal_states_are_equal_files(tmp_path: Path) -> None:
    one, other = (write(tmp_path / name, 5)[0] for name in "ab")
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


def damages(size: int) -> Iterator[tuple[str, int]]:
    rng = random.Random(0)
    for _ in range(100):
        yield "truncated", rng.randrange(size)
    for _ in range(100):
        yield "flipped", rng.randrange(8 * size)


def test_damage_is_detected_and_the_checkpoint_before_is_read(tmp_path: Path) -> None:
    """100 truncations and 100 single flipped bits, some of them in the header."""
    before, last = write(tmp_path, 1, 2)
    whole = last.read_bytes()
    count = 0
    for kind, place in damages(len(whole)):
        damaged = bytearray(whole[:place] if kind == "truncated" else whole)
        if kind == "flipped":
            damaged[place // 8] ^= 1 << place % 8
        last.write_bytes(damaged)
        number, said = read(tmp_path)
        assert number == 1, (kind, place)
        assert said == [f"{last} is damaged: its SHA-256 differs from its name; skipped"]
        count += 1
    assert count == 200
    before.write_bytes(b"")
    assert read(tmp_path)[0] is None
    last.write_bytes(whole)
    assert read(tmp_path) == (2, [])


def test_partial_write_is_no_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / ".000002-00.safetensors.abc.tmp").write_bytes(b"half")
    assert read(tmp_path) == (1, [])
    remove_checkpoints(tmp_path)
    assert not tmp_path.exists()


def test_full_disk_leaves_earlier_checkpoints(tmp_path: Path) -> None:
    (first,) = write(tmp_path, 1)
    size = first.stat().st_size
    for offset in [round(size * part / 50) for part in range(50)]:
        with file_size_limit(offset), pytest.raises(ArtefactError, match="cannot be written") as e:
            write(tmp_path, 2)
        assert str(tmp_path) in str(e.value)
        assert read(tmp_path) == (1, [])
        assert list(tmp_path.iterdir()) == [first]


class ExecutedError(Exception):
    """Raised by a pickle that is loaded."""


def execute() -> None:
    raise ExecutedError


class Payload:
    def __reduce__(self) -> Any:
        return execute, ()


def test_pickle_is_never_executed(tmp_path: Path) -> None:
    content = pickle.dumps(Payload())
    with pytest.raises(ExecutedError):
        pickle.loads(content)  # noqa: S301
    write(tmp_path, 1)
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / f"000002-{digest}.safetensors").write_bytes(content)
    number, said = read(tmp_path)
    assert number == 1
    assert len(said) == 1
    assert "is no checkpoint of this version" in said[0]


def test_first_difference() -> None:
    one = {"seed": 0, "data": {"a": "1", "b": "2"}, "list": [1, 2]}
    assert first_difference("id", one, one) is None
    assert first_difference("id", one, {**one, "seed": 1}) == "id.seed"
    assert first_difference("id", one, {**one, "data": {"a": "1", "b": "3"}}) == "id.data.b"
    assert first_difference("id", one, {**one, "data": {"a": "1"}}) == "id.data.b"
    assert first_difference("id", one, {**one, "list": [1, 3]}) == "id.list"
    assert first_difference("x", {"rate": 1e-10}, {"rate": 2e-10}) == "x.rate"
    assert first_difference("x", {"score": 0.5}, {"score": 0.5 + 1e-12}, 1e-9) is None
    assert first_difference("x", {"score": 0.5}, {"score": 0.501}, 1e-9) == "x.score"
    assert first_difference("x", {"score": None}, {"score": 0.0}, 1e-9) == "x.score"
