"""The file of a run's last state, from which the run is extended by further tasks.

The file lies beside the record. It is safetensors with one JSON text in the header, no pickle. It
holds all on which a next task depends: weights, teachers, the state of strategies, and the pixels
of the tiles that strategies keep, with the statistics that scale them. It holds neither times nor
paths, so that equal runs write equal bytes.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from rscl_bench.atomic import write_atomic
from rscl_bench.engine.checkpointing.state import strip_prefix, with_prefix
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.errors import ArtefactError
from rscl_bench.results.reading import read_regular
from rscl_bench.spec import Positive, Spec, first_problem
from rscl_bench.strategies.base import Strategy
from rscl_bench.tiles.kept import KeptPixels, kept_store
from rscl_bench.tiles.loader import read_tiles
from rscl_bench.tiles.store import TileStore

FILE = "state.safetensors"
#: Most bytes of a state that is kept without being asked for.
SMALL = 64 * 2**20
_LARGEST = 2**40
_KEY = "rscl_bench"


class EndedTask(Spec):
    """A task that the run was trained on.

    Attributes:
        name: Name of the task.
        tiles: Number of its tiles.
        scale: Full brightness of its tiles in the declared unit.
    """

    name: str
    tiles: Positive
    scale: Annotated[float, Field(gt=0)]


class StateDescription(Spec):
    """The run of a state.

    Attributes:
        format: Version of this description.
        run: Id of the run.
        scenario: Tasks and probes of the run's scenario, whose hash is
            ``identity.scenario.digest`` of the record.
        tasks: The ended tasks, in order.
    """

    format: Literal[1] = 1
    run: str
    scenario: dict[str, Any]
    tasks: Annotated[tuple[EndedTask, ...], Field(min_length=1)]


class LastState(NamedTuple):
    """The content of a file.

    Attributes:
        description: The run and its tasks.
        tensors: The tensors of `SelfSupervisedTrainer.snapshot`, and those of `kept_tensors`.
        digest: SHA-256 of the file.
    """

    description: StateDescription
    tensors: dict[str, Tensor]
    digest: str

    def stores(self, path: Path) -> list[TileStore]:
        """Return a store of the kept tiles of every ended task.

        Args:
            path: The file, for errors.

        Raises:
            ArtefactError: If the file lacks tensors of a task.
        """
        stores = []
        for number, task in enumerate(self.description.tasks):
            held = strip_prefix(self.tensors, f"tiles.{number}")
            try:
                indices, pixels = held["indices"].numpy(), held["pixels"].numpy()
                kept = KeptPixels(task.name, task.tiles, indices, pixels)
                mean, std = held["mean"].numpy(), held["std"].numpy()
            except KeyError as error:
                raise ArtefactError(f"{path} lacks {error} of task '{task.name}'.") from error
            stores.append(kept_store(kept, mean, std, task.scale, path))
        return stores


def kept_tensors(
    stores: Sequence[TileStore], strategies: Sequence[Strategy]
) -> dict[str, dict[str, Tensor]]:
    """Return pixels and statistics of the tiles that strategies keep, by task number.

    Args:
        stores: Tiles of every ended task.
        strategies: The strategies of the run.
    """
    wanted: dict[int, list[Tensor]] = {}
    for strategy in strategies:
        for task, indices in strategy.kept_tiles():
            wanted.setdefault(task, []).append(indices)
    kept = {}
    for task, store in enumerate(stores):
        named = wanted.get(task, [torch.empty(0, dtype=torch.long)])
        numbers = np.unique(torch.cat(named).cpu().numpy())
        kept[f"tiles.{task}"] = {
            "indices": torch.from_numpy(numbers),
            "pixels": read_tiles(store, numbers),
            "mean": torch.from_numpy(store.mean),
            "std": torch.from_numpy(store.std),
        }
    return kept


def last_state(
    trainer: SelfSupervisedTrainer, run: str, scenario: dict[str, Any], tasks: Sequence[str]
) -> tuple[StateDescription, dict[str, Tensor]]:
    """Return the state of a trainer after its last task.

    Args:
        trainer: The trainer.
        run: Id of the run.
        scenario: Tasks and probes, without paths.
        tasks: Names of the tasks.
    """
    tensors = dict(trainer.snapshot().tensors)
    for prefix, own in kept_tensors(trainer.stores, trainer.strategies).items():
        tensors |= with_prefix(prefix, own)
    ended = tuple(
        EndedTask(name=name, tiles=len(store), scale=store.scale)
        for name, store in zip(tasks, trainer.stores, strict=True)
    )
    return StateDescription(run=run, scenario=scenario, tasks=ended), tensors


def size_of(tensors: dict[str, Tensor]) -> int:
    """Return the number of bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def state_bytes(description: StateDescription, tensors: dict[str, Tensor]) -> bytes:
    """Return the content of a file; equal states have equal bytes."""
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    return save(stored, {_KEY: description.model_dump_json()})


def write_state(path: Path, description: StateDescription, tensors: dict[str, Tensor]) -> str:
    """Write a state completely or not at all.

    Returns:
        SHA-256 of the file.

    Raises:
        ArtefactError: If the file cannot be written.
    """
    content = state_bytes(description, tensors)
    write_atomic(path, content)
    return sha256(content).hexdigest()


def read_state(path: Path) -> LastState:
    """Read a file of `write_state`.

    Raises:
        ArtefactError: If the file cannot be read, or is no such file.
    """
    return parsed_state(read_regular(path, _LARGEST), path)


def parsed_state(content: bytes, path: Path) -> LastState:
    """Return the state that a file's content holds.

    Args:
        content: The bytes of the file.
        path: The file, for errors.

    Raises:
        ArtefactError: If the content is damaged, or of no such file.
    """
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        text = header["__metadata__"][_KEY]
        description = StateDescription.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ArtefactError(
            f"{path} does not describe its state as this version needs it: {first_problem(error)}."
        ) from error
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ArtefactError(
            f"{path} is damaged or holds no state of a run ({error!r:.200}); restore the file, or "
            "run again with --keep-state."
        ) from error
    return LastState(description, tensors, sha256(content).hexdigest())
