"""CroMo-Mixup against a transcription of the authors' code, image by image."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small import SMALL
from numpy.typing import NDArray
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import differing, recipe

Array = NDArray[np.float64]


def barlow(first: Array, second: Array, redundancy: float) -> float:
    """Return Barlow Twins' loss of projections ``[n, P]``; lightly adds 1e-5 to variances."""
    one, two = (
        (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 1e-5) for rows in (first, second)
    )
    loss = 0.0
    for i in range(first.shape[1]):
        for j in range(first.shape[1]):
            correlation = (one[:, i] * two[:, j]).mean()
            loss += (1 - correlation) ** 2 if i == j else redundancy * correlation**2
    return loss


def squares(first: Array, second: Array, _: float) -> float:
    return float(((first - second) ** 2).mean())


class Watch(BaseSGDPlugin):  # type: ignore[misc]
    """Computes what the strategy adds to the loss of every step, from models of its own."""

    def __init__(self, objective: str, weight: float, share: float, mixing: float) -> None:
        super().__init__()
        self.distance = barlow if objective == "barlow-twins" else squares
        self.weight, self.share, self.mixing = weight, share, mixing
        self.pairs: list[tuple[float, float]] = []
        self.past: Any = None

    def before_backward(self, trainer: Any, **_: Any) -> None:
        added = float(trainer.loss.detach()) - float(trainer.mb_output.loss.detach())
        self.pairs.append((added, self.expected(trainer)))

    def after_training_exp(self, trainer: Any, **_: Any) -> None:
        self.past = copy.deepcopy(trainer.model).eval()

    @torch.no_grad()
    def expected(self, trainer: Any) -> float:
        if self.past is None:
            return 0.0
        count = max(2, round(self.share * len(trainer.views[0])))
        drawn = trainer.strategies[0].buffer.draw(count, "cromo-mixup", trainer.task, trainer.step)
        assert {task for task, _ in drawn} <= set(range(trainer.task))
        memory = trainer.views_of(drawn, "cromo-mixup")
        model, losses = copy.deepcopy(trainer.model), []
        for number, view in enumerate(trainer.views):
            mixture = [
                self.mixing * new + (1 - self.mixing) * old
                for new, old in zip(view[:count], memory[number], strict=True)
            ]
            predicted = self.projected(model, torch.stack(mixture))
            current = self.current(model, trainer, number)[:count]
            past = self.projected(self.past, memory[number])
            redundancy = 0.005  # the default of Barlow Twins
            by_new = self.distance(predicted, current, redundancy)
            by_old = self.distance(predicted, past, redundancy)
            losses.append(self.mixing * by_new + (1 - self.mixing) * by_old)
        return self.weight * sum(losses) / len(losses)

    @staticmethod
    def projected(model: Any, images: Tensor) -> Array:
        pooled = [model.encoder(image[None])[0, 1:].mean(dim=0) for image in images]
        values: Array = model.projector(torch.stack(pooled)).double().numpy()
        return values

    @staticmethod
    def current(model: Any, trainer: Any, number: int) -> Array:
        if trainer.mb_output.projected:
            values: Array = trainer.mb_output.projected[number].detach().double().numpy()
            return values
        pooled: Array = trainer.mb_output.encoded[number][:, 1:].mean(dim=1).double().numpy()
        return pooled


@pytest.mark.parametrize("objective", ["barlow-twins", "mae"])
@pytest.mark.parametrize(
    ("params", "weight", "share", "mixing"),
    [
        ({"share": 0.5}, 1.0, 0.5, 0.7),
        ({"share": 1.0, "constant": 0.2, "weight": 0.3}, 0.3, 1.0, 0.2),
    ],
)
def test_loss_is_the_transcription(
    objective: str, params: dict[str, Any], weight: float, share: float, mixing: float
) -> None:
    watch = Watch(objective, weight, share, mixing)
    method = recipe({"name": objective, **SMALL[objective]}, [{"name": "cromo-mixup", **params}])
    train(start(tiny_spec(method), plugins=[watch]))
    assert len(watch.pairs) == 12
    for added, expected in watch.pairs[:4]:
        assert added == expected == 0
    for added, expected in watch.pairs[4:]:
        assert expected > 0.01
        assert added == pytest.approx(expected, rel=5e-3)


def test_weight_of_zero_is_plain_training_to_the_last_bit() -> None:
    method = recipe({"name": "mae"}, [{"name": "cromo-mixup", "weight": 0.0}])
    for one, other in zip(train(start(tiny_spec(method))), train(start(tiny_spec())), strict=True):
        assert not differing(one, other)


def test_defaults_are_the_authors() -> None:
    spec = tiny_spec("cromo-mixup")
    assert [strategy.name for strategy in spec.method.strategies] == ["cassle", "cromo-mixup"]
    parameters = spec.method.strategies[1].parameters
    assert parameters["constant"] == 0.7  # ``lam = 0.7``
    assert parameters["share"] == 64 / 256  # ``--replay_bs 64 --pretrain_batch_size 256``
    assert spec.method.strategies[0].parameters["weight"] == 1  # ``--lambdap 1.0``
