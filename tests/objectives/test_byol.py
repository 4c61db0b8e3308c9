"""BYOL against a transcription of Grill et al. (2020), image by image, over training."""

import pytest
import torch
from helpers.joint_embeddings import (
    build,
    check_teacher,
    cosine,
    cosine_schedule,
    keys_of,
    mean,
    noise,
    projections,
    watched,
)
from torch import Tensor, nn

from rscl_bench.models.momentum import cosine_to_one


def regression(predicted: Tensor, targets: Tensor) -> float:
    """Return Eq. 2: the squared distance between vectors of length 1."""
    pairs = zip(predicted, targets, strict=True)
    return mean([2 - 2 * cosine(one, other) for one, other in pairs])


@pytest.mark.parametrize("momentum", [0.99, 0.5])
def test_byol_over_training(momentum: float) -> None:
    """The loss sums both directions; the teacher's cosine schedule restarts in each task."""
    for step in watched("byol", momentum=momentum):
        targets = keys_of(step.before, step.views)
        with torch.no_grad():
            predicted = [step.before.predictor(one) for one in projections(step.before, step.views)]
        both = regression(predicted[0], targets[1]) + regression(predicted[1], targets[0])
        assert step.loss == pytest.approx(both, rel=1e-4)
        check_teacher(step, cosine_schedule(momentum, step.step))


def test_teacher_starts_as_the_student() -> None:
    objective = build("byol")
    for ours, theirs in (("teacher", "encoder"), ("teacher_projector", "projector")):
        pairs = zip(
            getattr(objective, ours).parameters(),
            getattr(objective, theirs).parameters(),
            strict=True,
        )
        assert all(torch.equal(one, other) for one, other in pairs)


def test_teacher_keeps_its_own_running_statistics() -> None:
    """The teacher's batch normalisation sees the views; its statistics are not averaged."""
    step = watched("byol")[0]
    ours, theirs = (step.after[f"{part}projector.1.running_mean"] for part in ("teacher_", ""))
    torch.testing.assert_close(ours, theirs)  # equal weights and views in the first step
    assert ours.abs().max() > 1e-3


def test_targets_take_no_gradient() -> None:
    objective = build("byol")
    views = [noise(4, 3, 16, 16, seed=seed) for seed in (0, 1)]
    objective(views, torch.Generator()).loss.backward()
    for part in (objective.teacher, objective.teacher_projector):
        assert all(p.grad is None and not p.requires_grad for p in part.parameters())
    for part in (objective.encoder, objective.projector, objective.predictor):
        assert any(p.grad is not None and p.grad.abs().max() > 1e-4 for p in part.parameters())


def test_heads() -> None:
    objective = build("byol", hidden_dim=7, output_dim=5)
    for head, width in ((objective.projector, 24), (objective.predictor, 5)):
        kinds = [type(layer) for layer in head]
        assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
        assert (head[0].in_features, head[0].out_features, head[0].bias) == (width, 7, None)
        # The authors' output layers have no bias (`with_bias=False`).
        assert (head[3].in_features, head[3].out_features, head[3].bias) == (7, 5, None)
    params = objective.Params()
    assert (params.hidden_dim, params.output_dim, params.momentum) == (4096, 256, 0.99)


@pytest.mark.parametrize(
    ("progress", "expected"), [(0.0, 0.96), (0.5, 0.98), (1.0, 1.0), (1 / 3, 0.97)]
)
def test_momentum_schedule(progress: float, expected: float) -> None:
    assert cosine_to_one(0.96, progress) == pytest.approx(expected)


def test_distillation_of_cassle() -> None:
    predicted = [noise(4, 8, seed=seed) for seed in (0, 1)]
    past = [noise(4, 8, seed=seed) for seed in (2, 3)]
    pairs = zip(predicted, past, strict=True)
    expected = mean([regression(*pair) for pair in pairs])
    assert float(build("byol").distil(predicted, past)) == pytest.approx(expected, rel=1e-5)
