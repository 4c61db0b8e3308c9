"""The contract of objectives."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from rscl_bench import registry
from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.engine.build import build_objective
from rscl_bench.errors import SpecError
from rscl_bench.models.encoder import evaluating
from rscl_bench.objectives.base import Objective, ObjectiveOutput, StepInfo
from rscl_bench.randomness import seeded, torch_generator
from rscl_bench.testing.tiny import (
    TINY_BACKBONE,
    differing,
    recipe,
    start,
    state_of,
    tiny_spec,
    train,
)
from rscl_bench.views.crops import whole_tiles
from rscl_bench.views.view import view_size

BATCH = 4
#: Tiles of a task that an objective may look at before it starts.
SAMPLE = 64
#: Image size, patch size (of the tiny ViT) and bands; the first must work with every encoder.
SETTINGS = ((16, 8, 3), (24, 8, 1), (16, 4, 4), (16, 8, 12))


def check_objective(
    name: str,
    parameters: Mapping[str, Any] | None = None,
    backbone: Mapping[str, Any] | None = None,
) -> None:
    """Check an objective: its loss, its gradients and its randomness.

    In every setting of image size, patch size and bands that the backbone itself takes, the loss is
    a finite scalar, there is one pooled feature per image and view, and gradients reach every
    trainable parameter of encoder and heads. Loss and gradients depend on weights, views and the
    generator that is given, never on torch's global one; another seed gives another loss. Training
    goes on to the same bits from the objective's saved state, which passes through safetensors, and
    where ``stateless_loss`` says so, whether or not the loss is computed between steps too.

    Args:
        name: Registered name, or ``file.py:Class``.
        parameters: Of the objective; the sizes of heads are best small.
        backbone: Name and parameters of the encoder; a tiny ViT if None.

    Raises:
        AssertionError: If the objective breaks the contract.
    """
    backbone = dict(TINY_BACKBONE if backbone is None else backbone)
    objective = {"name": name, **(parameters or {})}
    for number, (image_size, patch_size, bands) in enumerate(SETTINGS):
        where = f"'{name}' at {image_size} pixels, patches of {patch_size}, {bands} bands"
        built = _build(objective, backbone, 0, image_size, patch_size, bands, required=number == 0)
        if built is None:
            continue
        first, gradients = _step(built, 0, image_size, bands)
        _check_output(where, built, first)
        _check_gradients(where, built, gradients)
        again, same_gradients = _step(built, 0, image_size, bands, global_seed=99)
        assert torch.equal(first.loss, again.loss), (
            f"{where}: the loss changed from {float(first.loss)!r} to {float(again.loss)!r} though "
            "weights, views and generator are the same; draw only from the generator that is given."
        )
        changed = differing(gradients, same_gradients)
        assert not changed, f"{where}: gradients are not reproducible: {', '.join(changed)}."
        other = _build(objective, backbone, 1, image_size, patch_size, bands, required=True)
        assert other is not None
        assert not torch.equal(first.loss, _step(other, 1, image_size, bands)[0].loss), (
            f"{where}: another seed gave the same loss, {float(first.loss)!r}."
        )

    _check_state(name, objective, backbone)
    if getattr(registry.load("objectives", name), "stateless_loss", False):
        _check_stateless(name, objective, backbone)


def _check_state(name: str, objective: Mapping[str, Any], backbone: Mapping[str, Any]) -> None:
    spec = tiny_spec(recipe(objective), backbone=backbone)
    template = start(spec)
    train(template, [0])
    state = {key: value.contiguous() for key, value in state_of(template.model).items()}
    fresh = build_objective(spec, torch.device("cpu"))
    fresh.load_state_dict(load_safetensors(save_safetensors(state)))
    (expected,), (resumed,) = train(template, [1]), train(start(spec, objective=fresh), [1])
    lost = differing(expected, resumed)
    assert not lost, (
        f"'{name}' goes on differently in the second task after its state was saved and loaded "
        f"({', '.join(lost[:3])}); keep all that outlives a task in parameters or buffers."
    )


class _Between(BaseSGDPlugin):  # type: ignore[misc]
    """Computes the loss between steps, as EWC does, and does nothing with it."""

    def after_training_iteration(self, trainer: Any, **_: Any) -> None:
        views = trainer.views_of([(trainer.task, torch.arange(BATCH))], "between")
        with evaluating(trainer.model):
            trainer.model(views, torch_generator("cpu", 0, "between"))


def _check_stateless(name: str, objective: Mapping[str, Any], backbone: Mapping[str, Any]) -> None:
    spec = tiny_spec(recipe(objective), tasks=2, backbone=backbone)
    plain, watched = train(start(spec)), train(start(spec, plugins=[_Between()]))
    changed = [key for pair in zip(plain, watched, strict=True) for key in differing(*pair)]
    assert not changed, (
        f"'{name}' says stateless_loss, but a loss computed between steps changes training "
        f"({', '.join(changed[:3])}); leave stateless_loss out."
    )


def _build(
    objective: Mapping[str, Any],
    backbone: Mapping[str, Any],
    seed: int,
    image_size: int,
    patch_size: int,
    bands: int,
    required: bool,
) -> Objective | None:
    """Return the objective, or None where the backbone itself cannot take the setting."""
    encoder_class = registry.load("backbones", backbone["name"])
    shape = dict(backbone)
    if backbone == TINY_BACKBONE:
        shape["patch_size"] = patch_size
    spec = tiny_spec(
        recipe(objective), seed=seed, bands=bands, image_size=image_size, backbone=shape
    )
    if not required:
        resolved = spec.protocol.backbone
        try:
            encoder_class(encoder_class.Params(**resolved.parameters), image_size, bands)
        except SpecError:
            return None
    return build_objective(spec, torch.device("cpu"))


def _step(
    objective: Objective, seed: int, image_size: int, bands: int, global_seed: int = 0
) -> tuple[ObjectiveOutput, dict[str, Tensor]]:
    """Run one step of a copy, whose queues and moving averages are therefore as new."""
    fresh = copy.deepcopy(objective).train()
    pixels = torch_generator("cpu", seed, "pixels")
    multiple = objective.encoder.multiple
    sizes = [view_size(view, image_size, multiple) for view in objective.views]
    views = [torch.randn(BATCH, bands, size, size, generator=pixels) for size in sizes]

    def sample(count: int) -> list[Tensor]:
        shown = torch_generator("cpu", seed, "sample")
        shape = (min(count, SAMPLE), bands)
        return [torch.randn(*shape, size, size, generator=shown) for size in sizes]

    with seeded(global_seed, "global"):
        fresh.before_task(0, sample)
        whole = [whole_tiles(BATCH, image_size, image_size, torch.device("cpu")) for _ in sizes]
        fresh.before_step(StepInfo(0, 0, 10, 2, [(0, torch.arange(BATCH))], whole))
        output = fresh(views, torch_generator("cpu", seed, "objective"))
        output.loss.backward()
    output = ObjectiveOutput(
        output.loss.detach(), tuple(encoded.detach() for encoded in output.encoded)
    )
    gradients = {n: p.grad for n, p in fresh.named_parameters() if p.grad is not None}
    return output, gradients


def _check_output(where: str, objective: Objective, output: ObjectiveOutput) -> None:
    loss = output.loss
    assert loss.shape == (), f"{where}: the loss is {list(loss.shape)}, not a scalar."
    assert torch.isfinite(loss), f"{where}: the loss is {float(loss)}."
    assert len(output.encoded) == len(objective.views), (
        f"{where}: {len(output.encoded)} encoded views for {len(objective.views)} views."
    )
    expected = [BATCH, objective.encoder.feature_dim]
    for encoded in output.encoded:
        shape = list(objective.encoder.pool(encoded).shape)
        assert shape == expected, f"{where}: pooled features are {shape}, not {expected}."


def _check_gradients(where: str, objective: Objective, gradients: Mapping[str, Tensor]) -> None:
    trainable = {name for name, p in objective.named_parameters() if p.requires_grad}
    assert trainable, f"{where}: nothing is trainable."
    for name in sorted(trainable):
        assert name in gradients, f"{where}: no gradient reaches '{name}'; freeze or remove it."
        assert torch.isfinite(gradients[name]).all(), f"{where}: gradient of '{name}' not finite."
        assert gradients[name].any(), f"{where}: the gradient of '{name}' is zero everywhere."
    known = set(state_of(objective))
    encoder = {f"encoder.{name}" for name in state_of(objective.encoder)}
    assert encoder <= known, f"{where}: the encoder must be the sub-module 'encoder'."
