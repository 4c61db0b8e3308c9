"""CaSSLe with SwAV: the student's predictions have trained prototypes of their own."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from helpers.joint_embeddings import SMALL
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import differing, recipe, state_of

TEMPERATURE = 0.1


def unit(row: Tensor) -> Tensor:
    return row / torch.sqrt((row * row).sum())


def transcription(
    current: Sequence[Tensor], past: Sequence[Tensor], weights: list[Tensor], prototypes: Tensor
) -> Tensor:
    """Return the loss in float64, image by image and prototype by prototype.

    Args:
        current: Projections ``[B, P]`` of each large view.
        past: Projections of the same views at the end of the last task.
        weights: Of the head: two linear layers with a batch normalisation between them, then
            lengths ``[K, 1]`` and directions ``[K, P]`` of the trained prototypes.
        prototypes: SwAV's own at the end of the last task, ``[K, P]``.
    """
    first, first_bias, scale, shift, last, last_bias, lengths, directions = weights
    trained = [length * unit(row) for length, row in zip(lengths, directions, strict=True)]
    total = torch.zeros((), dtype=torch.float64)
    for new, old in zip(current, past, strict=True):
        hidden = new @ first.T + first_bias
        centred = hidden - hidden.mean(dim=0)
        normed = scale * centred / torch.sqrt((centred**2).mean(dim=0) + 1e-5) + shift
        predicted = torch.where(normed > 0, normed, 0.0) @ last.T + last_bias
        for one, other in zip(predicted, old, strict=True):
            logits = torch.stack([(unit(one) * w).sum() / TEMPERATURE for w in trained])
            wanted = [torch.exp((unit(other) * c).sum() / TEMPERATURE) for c in prototypes]
            shares = torch.stack(wanted) / sum(wanted)
            entropy = -(shares * (logits - torch.log(torch.exp(logits).sum()))).sum()
            total = total + entropy / len(predicted) / len(current)
    return total


class Watch(BaseSGDPlugin):  # type: ignore[misc]
    """Compares loss and gradient of every step with the transcription."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = []
        self.prototypes: Tensor | None = None

    def after_training_exp(self, trainer: Any, **_: Any) -> None:
        self.prototypes = trainer.model.prototypes.weight.detach().double().clone()

    def before_backward(self, trainer: Any, **_: Any) -> None:
        (cassle,) = trainer.strategies
        step = {"task": trainer.task, "head": state_of(cassle.head)}
        self.steps.append(step)
        step["added"] = (trainer.loss.squeeze() - trainer.mb_output.loss).detach()
        if self.prototypes is None:
            return
        with torch.no_grad():
            past = [
                cassle.past.projector(cassle.past.encoder(view)[:, 1:].mean(dim=1)).double()
                for view in trainer.views[:2]
            ]
        current = [view.detach().double() for view in trainer.mb_output.projected[:2]]
        weights = [p.detach().double().requires_grad_(True) for p in cassle.head.parameters()]
        expected = transcription(current, past, weights, self.prototypes)
        step["expected"] = expected.detach()
        step["gradients"] = torch.autograd.grad(expected, weights)

    def after_backward(self, trainer: Any, **_: Any) -> None:
        (cassle,) = trainer.strategies
        self.steps[-1]["found"] = [p.grad for p in cassle.head.parameters()]


def watched(weight: float = 1.0) -> Watch:
    watch = Watch()
    strategies = [{"name": "cassle", "hidden_dim": 6, "weight": weight}]
    method = recipe({"name": "swav", **SMALL["swav"]}, strategies)
    train(start(tiny_spec(method, tasks=3), plugins=[watch]))
    return watch


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_swav_over_training(weight: float) -> None:
    steps = watched(weight).steps
    assert [step["task"] for step in steps] == [0] * 4 + [1] * 4 + [2] * 4
    assert all(float(step["added"]) == 0 for step in steps[:4])
    for step in steps[4:]:
        assert float(step["added"]) == pytest.approx(weight * float(step["expected"]), rel=1e-5)
        for found, expected in zip(step["found"], step["gradients"], strict=True):
            torch.testing.assert_close(found.double(), weight * expected, rtol=1e-3, atol=1e-5)
        assert step["gradients"][-1].abs().max() > 1e-4, "directions are trained"
        assert step["gradients"][-2].abs().max() > 1e-4, "lengths are trained"


def test_trained_prototypes_move_from_the_second_task_on() -> None:
    steps = watched().steps
    prototypes = [
        {name: value for name, value in step["head"].items() if "original" in name}
        for step in (steps[0], steps[4], steps[8])
    ]
    assert not differing(prototypes[0], prototypes[1])
    assert len(differing(prototypes[1], prototypes[2])) == 2


def test_other_objectives_have_no_further_layer() -> None:
    method = recipe({"name": "barlow-twins", **SMALL["barlow-twins"]}, [{"name": "cassle"}])
    (strategy,) = start(tiny_spec(method)).strategies
    assert strategy.head is not None
    assert len(list(strategy.head.parameters())) == 6
