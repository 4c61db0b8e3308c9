"""MoCo v3 against a transcription of its paper, image by image."""

import pytest
import torch
from helpers.backbones import RESNET
from helpers.joint_embeddings import (
    build,
    check_teacher,
    cosine_schedule,
    diagonal,
    keys_of,
    projections,
    watched,
)
from torch import nn


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_moco_v3_over_training(temperature: float) -> None:
    """Algorithm 1 with the factor 2 τ, and the teacher's cosine schedule."""
    for step in watched("moco-v3", temperature=temperature):
        keys = keys_of(step.before, step.views)
        with torch.no_grad():
            queries = [step.before.predictor(one) for one in projections(step.before, step.views)]
        both = diagonal(queries[0], keys[1], temperature) + diagonal(
            queries[1], keys[0], temperature
        )
        assert step.loss == pytest.approx(2 * temperature * both, rel=1e-4)
        check_teacher(step, cosine_schedule(0.99, step.step))


def test_moco_v3_heads() -> None:
    objective = build("moco-v3", hidden_dim=7, output_dim=5)
    normed = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(layer) for layer in objective.projector] == [*normed * 2, *normed[:2]]
    assert [type(layer) for layer in objective.predictor] == [*normed, *normed[:2]]
    for head in (objective.projector, objective.predictor):
        assert not head[-1].affine
        assert all(layer.bias is None for layer in head if isinstance(layer, nn.Linear))
    widths = [layer.out_features for layer in objective.projector if isinstance(layer, nn.Linear)]
    assert widths == [7, 7, 5]
    params = objective.Params()
    assert (params.hidden_dim, params.output_dim, params.temperature) == (4096, 256, 0.2)
    assert (params.momentum, params.freeze_patches) == (0.99, True)


@pytest.mark.parametrize("frozen", [True, False])
def test_moco_v3_freezes_the_patch_embedding(frozen: bool) -> None:
    steps = watched("moco-v3", freeze_patches=frozen)
    name = "encoder.masked_vit.vit.patch_embed.proj.weight"
    first = dict(steps[0].before.named_parameters())[name]
    assert torch.equal(first, steps[-1].after[name]) == frozen
    others = {part for part, value in steps[0].before.encoder.named_parameters()}
    assert all(
        p.requires_grad != (frozen and "patch_embed" in part)
        for part, p in steps[-1].before.encoder.named_parameters()
        if part in others and "pos_embed" not in part
    )


def test_moco_v3_freezes_nothing_of_a_resnet() -> None:
    objective = build("moco-v3", backbone=RESNET)
    assert all(p.requires_grad for p in objective.encoder.parameters())
