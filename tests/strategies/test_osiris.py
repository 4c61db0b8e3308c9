"""Osiris against a transcription of the authors' code, pair by pair."""

import copy
from typing import Any

import pytest
import torch
from helpers.joint_embeddings import cosine, cross_entropy, mean, noise
from helpers.small import SMALL
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.errors import SpecError
from rscl_bench.strategies.osiris import cross_contrast, distil_contrast
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import differing, recipe, state_of


def entropy(row: Tensor, positive: Tensor, negatives: list[Tensor], temperature: float) -> float:
    """Return the cross-entropy of finding the positive among the negatives."""
    values = [cosine(row, positive), *(cosine(row, other) for other in negatives)]
    return cross_entropy([value / temperature for value in values], 0)


def cross(z: list[Tensor], u: list[Tensor], temperature: float) -> float:
    """Return ``Cross_NT_Xent``: no image is compared with others of its own group."""
    losses = []
    for group, others in ((z, u), (u, z)):
        negatives = [row for view in others for row in view]
        rows = []
        for view, other in ((group[0], group[1]), (group[1], group[0])):
            rows += [
                entropy(a, b, negatives, temperature) for a, b in zip(view, other, strict=True)
            ]
        losses.append(mean(rows))
    return mean(losses)


def distilled(new: list[Tensor], old: list[Tensor], temperature: float) -> float:
    """Return ``Distill_NT_Xent``: both views of an image are left out of its negatives."""
    losses = []
    for rows, keys in ((new, old), (old, new)):
        for view in range(2):
            for number, row in enumerate(rows[view]):
                others = [k for part in keys for n, k in enumerate(part) if n != number]
                losses.append(entropy(row, keys[view][number], others, temperature))
    return mean(losses)


def nt_xent(u: list[Tensor], temperature: float) -> float:
    losses = []
    for view in range(2):
        for number, row in enumerate(u[view]):
            others = [k for part in u for n, k in enumerate(part) if n != number]
            losses.append(entropy(row, u[1 - view][number], others, temperature))
    return mean(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_losses_are_the_transcriptions(temperature: float) -> None:
    z, u, old = (
        [noise(n, 6, seed=s), noise(n, 6, seed=s + 1)] for n, s in ((5, 0), (3, 2), (5, 4))
    )
    loss = cross_contrast(*z, *u, temperature=temperature)
    assert loss.item() == pytest.approx(cross(z, u, temperature), rel=1e-5)
    loss = distil_contrast(torch.cat(z), torch.cat(old), temperature)
    assert loss.item() == pytest.approx(distilled(z, old, temperature), rel=1e-5)


class Watch(BaseSGDPlugin):  # type: ignore[misc]
    """Computes what the strategy adds to the loss of every step, from models of its own."""

    def __init__(self, past: str) -> None:
        super().__init__()
        self.kind = past
        self.pairs: list[tuple[float, float]] = []
        self.old: Any = None
        self.starts: list[bool] = []

    def before_training_iteration(self, trainer: Any, **_: Any) -> None:
        if trainer.step == 0:
            head = state_of(trainer.strategies[0].head)
            self.starts.append(not differing(head, state_of(trainer.model.projector)))

    def before_backward(self, trainer: Any, **_: Any) -> None:
        added = float(trainer.loss.detach()) - float(trainer.mb_output.loss.detach())
        self.pairs.append((added, 0.0 if self.old is None else self.expected(trainer)))

    def after_training_exp(self, trainer: Any, **_: Any) -> None:
        self.old = copy.deepcopy(trainer.model.encoder).eval()

    @torch.no_grad()
    def expected(self, trainer: Any) -> float:
        strategy, encoder = trainer.strategies[0], trainer.model.encoder
        count = int(0.75 * len(trainer.views[0]))
        drawn = strategy.buffer.draw(count, "osiris", trainer.task, trainer.step)
        assert {task for task, _ in drawn} <= set(range(trainer.task))
        memory = trainer.views_of(drawn, "osiris")
        groups = [(encoder, trainer.views), (encoder, memory)]
        if self.kind == "distil":
            groups.append((self.old, trainer.views))
        features = [
            torch.stack([model(image[None])[0, 1:].mean(dim=0) for image in view])
            for model, views in groups
            for view in views
        ]
        head = copy.deepcopy(strategy.head)
        rows = list(head(torch.cat(features)).split([len(part) for part in features]))
        z, u = rows[:2], rows[2:4]
        past = distilled(z, rows[4:], 0.1) if self.kind == "distil" else nt_xent(u, 0.1)
        return 0.5 * (cross(z, u, 0.1) + past)


@pytest.mark.parametrize("past", ["distil", "replay"])
def test_both_losses_are_added(past: str) -> None:
    watch = Watch(past)
    method = recipe({"name": "simclr", **SMALL["simclr"]}, [{"name": "osiris", "past": past}])
    train(start(tiny_spec(method), plugins=[watch]))
    assert len(watch.pairs) == 12
    for added, expected in watch.pairs[:4]:
        assert added == expected == 0
    for added, expected in watch.pairs[4:]:
        assert expected > 0.1
        assert added == pytest.approx(expected, rel=1e-3)
    assert watch.starts == [True, True, False]  # h starts as g, and goes on by itself


def test_objective_that_masks_is_refused() -> None:
    with pytest.raises(SpecError, match="needs an objective with 'whole_views'"):
        start(tiny_spec(recipe({"name": "mae"}, [{"name": "osiris"}])))


def test_defaults_are_the_authors() -> None:
    parameters = tiny_spec("osiris").method.strategies[0].parameters
    assert parameters == {"past": "distil", "share": 0.75, "temperature": 0.1, "weight": 0.5}
    assert tiny_spec("osiris-r").method.strategies[0].parameters == {**parameters, "past": "replay"}
