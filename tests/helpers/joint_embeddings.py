"""Small joint-embedding objectives, their training step by step, and transcriptions."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.engine.build import build_objective
from rscl_bench.objectives.base import Objective, StepInfo
from rscl_bench.randomness import torch_generator
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import State, recipe, state_of
from rscl_bench.views.crops import whole_tiles

HEADS: dict[str, Any] = {"hidden_dim": 16, "output_dim": 8}
CROPS: dict[str, Any] = {**HEADS, "small_views": 2, "prototypes": 12}
#: Parameters of objectives that suit a tiny encoder.
SMALL: dict[str, dict[str, Any]] = {
    "barlow-twins": HEADS,
    "byol": HEADS,
    "deepcluster-v2": CROPS,
    "moco-v2": {**HEADS, "queue": 20},
    "moco-v3": HEADS,
    "simclr": HEADS,
    "swav": {**CROPS, "queue": 16, "queue_epoch": 0},
    "vicreg": HEADS,
}


def build(name: str, backbone: dict[str, Any] | None = None, **parameters: Any) -> Any:
    """Return a small joint-embedding objective."""
    method = recipe({"name": name, **SMALL[name], **parameters})
    return build_objective(tiny_spec(method, backbone=backbone), torch.device("cpu"))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch_generator("cpu", seed, "noise"))


@dataclass
class Step:
    """One training step: the objective before, views and loss, the state after."""

    task: int
    step: int
    before: Any
    views: Sequence[Tensor]
    loss: float
    added: float
    after: State


class Watch(BaseSGDPlugin):  # type: ignore[misc]
    """Records every step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []

    def before_forward(self, trainer: Any, **_: Any) -> None:
        self.before = copy.deepcopy(trainer.model)

    def before_backward(self, trainer: Any, **_: Any) -> None:
        self.loss = float(trainer.mb_output.loss.detach())
        self.added = float(trainer.loss.detach()) - self.loss

    def after_update(self, trainer: Any, **_: Any) -> None:
        self.steps.append(
            Step(
                trainer.task,
                trainer.step,
                self.before,
                trainer.views,
                self.loss,
                self.added,
                state_of(trainer.model),
            )
        )


def watched(
    name: str,
    strategies: Sequence[dict[str, Any]] = (),
    objective: Objective | None = None,
    backbone: dict[str, Any] | None = None,
    **parameters: Any,
) -> list[Step]:
    """Train on two tasks, of four steps in two epochs each, and return the steps."""
    watch = Watch()
    method = recipe({"name": name, **SMALL[name], **parameters}, strategies)
    spec = tiny_spec(method, tasks=2, backbone=backbone)
    train(start(spec, plugins=[watch], objective=objective))
    assert [(step.task, step.step) for step in watch.steps] == [
        (task, step) for task in range(2) for step in range(4)
    ]
    return watch.steps


def unit(row: Tensor) -> Tensor:
    """Return a row of length 1, in float64."""
    row = row.detach().double()
    return row / torch.sqrt((row * row).sum())


def cosine(first: Tensor, second: Tensor) -> float:
    return float((unit(first) * unit(second)).sum())


def cross_entropy(logits: Sequence[float], target: int) -> float:
    """Return −log softmax(logits)[target]."""
    return math.log(sum(math.exp(value) for value in logits)) - logits[target]


def diagonal(queries: Tensor, keys: Tensor, temperature: float) -> float:
    """Return the cross-entropy of finding each query's key among all keys."""
    return mean(
        [
            cross_entropy([cosine(query, key) / temperature for key in keys], number)
            for number, query in enumerate(queries)
        ]
    )


def columns(rows: Tensor) -> list[list[float]]:
    """Return the columns of a matrix, in float64."""
    return [column.tolist() for column in rows.detach().double().T]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def projections(objective: Any, views: Sequence[Tensor]) -> list[Tensor]:
    """Return the student's projections of the mean patch token, one view at a time."""
    with torch.no_grad():
        return [objective.projector(objective.encoder(view)[:, 1:].mean(dim=1)) for view in views]


def keys_of(objective: Any, views: Sequence[Tensor]) -> list[Tensor]:
    """Return the teacher's projections of the mean patch token, one view at a time."""
    with torch.no_grad():
        return [
            objective.teacher_projector(objective.teacher(view)[:, 1:].mean(dim=1))
            for view in views
        ]


def check_teacher(step: Step, momentum: float) -> None:
    """Check that the step moved the teacher's weights by a moving average."""
    for teacher, student_name in (("teacher.", "encoder."), ("teacher_projector.", "projector.")):
        for name, parameter in step.before.named_parameters():
            if not name.startswith(teacher):
                continue
            assert not parameter.requires_grad
            student = step.after[student_name + name.removeprefix(teacher)]
            expected = momentum * parameter.detach() + (1 - momentum) * student
            torch.testing.assert_close(step.after[name], expected, atol=1e-7, rtol=1e-5)


def cosine_schedule(start: float, step: int) -> float:
    return 1 - (1 - start) * (math.cos(math.pi * step / 4) + 1) / 2


def train_on_noise(objective: Any, steps: int = 40, noise: float = 1.0) -> Tensor:
    """Train on noisy views of 32 images, and return the images ``[32, 3, 16, 16]``."""
    generator = torch_generator("cpu", 0, "toy")
    images = 0.5 * torch.randn(32, 3, 16, 16, generator=generator)
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=0.01)
    objective.before_task(0, lambda _: [])
    for step in range(steps):
        chosen = torch.arange(step % 2, 32, 2)
        sides = [16 if view.size == 1 else 8 for view in objective.views]
        crops = [whole_tiles(16, 16, 16, torch.device("cpu")) for _ in sides]
        info = StepInfo(0, step, steps, steps // 2, [(0, chosen)], crops)
        objective.before_step(info)
        views = [
            images[chosen, :, :side, :side]
            + noise * torch.randn(16, 3, side, side, generator=generator)
            for side in sides
        ]
        optimiser.zero_grad()
        objective(views, generator).loss.backward()
        objective.before_update(info)
        optimiser.step()
        objective.after_update(info)
    return images
