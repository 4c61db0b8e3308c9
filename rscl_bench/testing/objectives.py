"""The contract of objectives."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rscl_bench import registry
from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.engine.build import build_objective
from rscl_bench.errors import SpecError
from rscl_bench.models.encoder import Encoder, evaluating
from rscl_bench.objectives.base import Objective, ObjectiveOutput, StepInfo
from rscl_bench.randomness import seeded, torch_generator
from rscl_bench.testing.extension import check_extension
from rscl_bench.testing.failures import Failures
from rscl_bench.testing.resume import (
    Remedy,
    check_resume,
    global_streams,
    train_uninterrupted,
)
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
#: Seeds of masks over which the loss of one image is averaged.
MASKS = 8

REMEDY = Remedy(
    between="Keep all state that outlives a task in parameters or buffers.",
    within="Keep state in parameters or buffers, or return it from task_state.",
)


@dataclass(frozen=True)
class Setting:
    """Sizes at which an objective is checked.

    Attributes:
        image_size: Side of an image in pixels.
        patch_size: Patch size of the tiny ViT in pixels.
        bands: Number of bands of an image.
    """

    image_size: int
    patch_size: int
    bands: int

    def __str__(self) -> str:
        """Return the setting as a message names it."""
        return f"at {self.image_size} pixels, patches of {self.patch_size}, {self.bands} bands"


#: The first setting must work with every encoder.
SETTINGS = (Setting(16, 8, 3), Setting(24, 8, 1), Setting(16, 4, 4), Setting(16, 8, 12))


def check_objective(
    component: str | type[Objective],
    parameters: Mapping[str, Any] | None = None,
    backbone: Mapping[str, Any] | None = None,
) -> None:
    """Check an objective: its loss, gradients, declared attributes, randomness and state.

    The first checks run in every setting of image size, patch size and bands that the backbone
    takes. The loss is a finite scalar. Every view has one pooled feature per image and one
    projection of width ``projected_dim``. Gradients reach every trainable parameter of encoder and
    heads. Loss and gradients depend on weights, views and the generator that is passed in, and not
    on a global random stream; another seed gives another loss. ``distil`` returns a finite scalar.
    A declared ``per_image_loss`` is a mean over images. With a declared ``momentum``, the averaged
    encoder is the submodule ``teacher``, starts as the encoder and takes no gradient.

    Then the objective is trained on two tasks. An interruption within a task or between tasks
    changes no bit, and neither does extending the run by its second task. Where ``stateless_loss``
    is declared, neither does a loss that is computed between steps.

    Args:
        component: The class, a registered name, or ``file.py:Class``.
        parameters: Parameters of the objective; small heads keep the check short.
        backbone: Name and parameters of the encoder; a tiny ViT if None.

    Raises:
        AssertionError: If the objective breaks the contract. The message lists every failure.
    """
    backbone = dict(TINY_BACKBONE if backbone is None else backbone)
    with registry.registered("objectives", component) as name:
        objective = {"name": name, **(parameters or {})}
        failures = Failures(f"Objective '{name}'")
        for setting in SETTINGS:
            built = _build(objective, backbone, 0, setting)
            if built is not None:
                other = _build(objective, backbone, 1, setting)
                assert other is not None
                _check_step(failures, built, other, setting)
        failures.raise_if_any()  # a fault of a step would show in training again
        _check_training(failures, objective, backbone)
        failures.raise_if_any()


def _check_step(failures: Failures, built: Objective, other: Objective, setting: Setting) -> None:
    step = None
    with failures.check("loss"):
        taken = _step(built, 0, setting)
        _check_output(built, taken.output, setting)
        step = taken
    if step is None:
        return
    with failures.check("gradients"):
        _check_gradients(built, step.gradients, setting)
    with failures.check("randomness"):
        again = _step(built, 0, setting, global_seed=99)
        before, after = float(step.output.loss), float(again.output.loss)
        assert before == after, (
            f"The loss changes from {before!r} to {after!r} when the global random streams differ "
            f"{setting}; draw only from the generator that is passed in."
        )
        changed = differing(step.gradients, again.gradients)
        assert not changed, (
            f"Gradients change when the global random streams differ ({', '.join(changed[:3])}); "
            "draw only from the generator that is passed in."
        )
    with failures.check("seed"):
        assert not torch.equal(step.output.loss, _step(other, 1, setting).output.loss), (
            f"Another seed gives the same loss, {float(step.output.loss)!r}, {setting}."
        )
    with failures.check("projections"):
        _check_projections(built, step.output, setting)
    with failures.check("distil"):
        _check_distil(built)
    if built.momentum:
        with failures.check("teacher"):
            _check_teacher(built)
    if built.per_image_loss:
        with failures.check("per_image_loss"):
            _check_per_image(built, setting)


def _check_training(
    failures: Failures, objective: Mapping[str, Any], backbone: Mapping[str, Any]
) -> None:
    spec = tiny_spec(recipe(objective), tasks=2, backbone=backbone)
    expected = train_uninterrupted(spec)
    with failures.check("resuming"):
        check_resume("The objective", spec, expected, REMEDY)
    if not failures:  # state that is lost on resuming would show again
        with failures.check("extension"):
            check_extension("The objective", spec, expected)
    if not failures and expected.trainer.model.stateless_loss:
        with failures.check("stateless_loss"):
            watched = train(start(spec, plugins=[_LossBetweenSteps()]))
            changed = [
                name
                for first, second in zip(expected.states, watched, strict=True)
                for name in differing(first, second)
            ]
            assert not changed, (
                "A loss that is computed between steps changes training "
                f"({', '.join(changed[:3])}); set stateless_loss = False."
            )


class _LossBetweenSteps(BaseSGDPlugin):  # type: ignore[misc]
    """Computes the loss between steps, as EWC does, and does not use it."""

    def after_training_iteration(self, trainer: Any, **_: Any) -> None:
        views = trainer.views_of([(trainer.task, torch.arange(BATCH))], "between")
        with evaluating(trainer.model):
            trainer.model(views, torch_generator("cpu", 0, "between"))


def _build(
    objective: Mapping[str, Any], backbone: Mapping[str, Any], seed: int, setting: Setting
) -> Objective | None:
    """Build the objective; return None where the backbone itself cannot take the setting."""
    encoder_class = registry.load("backbones", backbone["name"])
    sized = dict(backbone)
    if backbone == TINY_BACKBONE:
        sized["patch_size"] = setting.patch_size
    image_size, bands = setting.image_size, setting.bands
    spec = tiny_spec(
        recipe(objective), seed=seed, bands=bands, image_size=image_size, backbone=sized
    )
    if setting is not SETTINGS[0]:
        resolved = spec.protocol.backbone
        try:
            encoder_class(encoder_class.Params(**resolved.parameters), image_size, bands)
        except SpecError:
            return None
    return build_objective(spec, torch.device("cpu"))


@dataclass(frozen=True)
class _Step:
    """One step of an objective: its detached output, and the gradient of each parameter."""

    output: ObjectiveOutput
    gradients: dict[str, Tensor]


def _step(objective: Objective, seed: int, setting: Setting, global_seed: int = 0) -> _Step:
    """Run one step of a copy, so that queues and moving averages of the original stay new."""
    fresh = copy.deepcopy(objective).train()
    views = _random_views(objective, seed, setting)
    with global_streams(global_seed):
        _before_step(fresh, seed, setting)
        output = fresh(views, torch_generator("cpu", seed, "objective"))
        loss = output.loss
        assert loss.shape == (), f"The loss has shape {list(loss.shape)}; it is not a scalar."
        loss.backward()
    detached = ObjectiveOutput(
        loss.detach(),
        tuple(encoded.detach() for encoded in output.encoded),
        tuple(projected.detach() for projected in output.projected),
    )
    gradients = {n: p.grad for n, p in fresh.named_parameters() if p.grad is not None}
    return _Step(detached, gradients)


def _view_sizes(objective: Objective, setting: Setting) -> list[int]:
    multiple = objective.encoder.multiple
    return [view_size(view, setting.image_size, multiple) for view in objective.views]


def _random_views(objective: Objective, seed: int, setting: Setting) -> list[Tensor]:
    pixels = torch_generator("cpu", seed, "pixels")
    return [
        torch.randn(BATCH, setting.bands, size, size, generator=pixels)
        for size in _view_sizes(objective, setting)
    ]


def _before_step(objective: Objective, seed: int, setting: Setting, images: int = BATCH) -> None:
    sizes = _view_sizes(objective, setting)

    def sample(count: int) -> list[Tensor]:
        shown = torch_generator("cpu", seed, "sample")
        shape = (min(count, SAMPLE), setting.bands)
        return [torch.randn(*shape, size, size, generator=shown) for size in sizes]

    objective.before_task(0, sample)
    image_size, device = setting.image_size, torch.device("cpu")
    crops = [whole_tiles(images, image_size, image_size, device) for _ in sizes]
    objective.before_step(StepInfo(0, 0, 10, 2, [(0, torch.arange(images))], crops))


def _check_output(objective: Objective, output: ObjectiveOutput, setting: Setting) -> None:
    assert torch.isfinite(output.loss), f"The loss is {float(output.loss)} {setting}."
    shown = len(objective.views) - objective.teacher_views
    assert len(output.encoded) == shown, (
        f"{len(output.encoded)} encoded views are returned for {shown} views of the encoder."
    )
    expected = [BATCH, objective.encoder.feature_dim]
    for encoded in output.encoded:
        shape = list(objective.encoder.pool(encoded).shape)
        assert shape == expected, f"Pooled features are {shape}, not {expected}, {setting}."


def _check_gradients(
    objective: Objective, gradients: Mapping[str, Tensor], setting: Setting
) -> None:
    trainable = {name for name, p in objective.named_parameters() if p.requires_grad}
    assert trainable, "No parameter is trainable."
    for name in sorted(trainable):
        assert name in gradients, f"No gradient reaches '{name}' {setting}; freeze or remove it."
        gradient = gradients[name]
        assert torch.isfinite(gradient).all(), f"The gradient of '{name}' is not finite {setting}."
        assert gradient.any(), f"The gradient of '{name}' is zero everywhere {setting}."
    encoder = {f"encoder.{name}" for name in state_of(objective.encoder)}
    assert encoder <= set(state_of(objective)), "The encoder must be the sub-module 'encoder'."


def _check_projections(objective: Objective, output: ObjectiveOutput, setting: Setting) -> None:
    """Check the width of what the projector makes of each whole view, as CaSSLe projects it."""
    projector = copy.deepcopy(objective.projector)
    pooled = [objective.encoder.pool(view, objective.feature) for view in output.encoded]
    with torch.no_grad():
        projected = [*output.projected, *(projector(features) for features in pooled)]
    expected = [BATCH, objective.projected_dim]
    for projection in projected:
        assert list(projection.shape) == expected, (
            f"Projections are {list(projection.shape)} {setting}, but projected_dim = "
            f"{objective.projected_dim} declares {expected}."
        )
    assert len(output.projected) in (0, len(output.encoded)), (
        f"{len(output.projected)} projected views are returned for {len(output.encoded)} views."
    )


def _check_teacher(objective: Objective) -> None:
    """Check the momentum teacher, which `Objective.probed` may choose."""
    teacher = getattr(objective, "teacher", None)
    assert isinstance(teacher, Encoder), (
        "momentum is declared, but the submodule 'teacher' is no Encoder; assign the averaged "
        "encoder to self.teacher."
    )
    changed = differing(state_of(teacher), state_of(objective.encoder))
    assert not changed, f"The teacher does not start as the encoder ({', '.join(changed[:3])})."
    assert not any(p.requires_grad for p in teacher.parameters()), "The teacher takes gradients."
    expected = teacher if objective.probed == "teacher" else objective.encoder
    assert objective.probed_encoder is expected, "probed_encoder is not the encoder of 'probed'."


def _check_distil(objective: Objective) -> None:
    """Check the loss of CaSSLe between random projections, and its gradient."""
    draws = torch_generator("cpu", 0, "distil")
    whole = [view for view in objective.views if view.size == 1]
    shape = (BATCH, objective.projected_dim)
    predicted = [torch.randn(shape, generator=draws).requires_grad_() for _ in whole]
    past = [torch.randn(shape, generator=draws) for _ in whole]
    with seeded(0, "distil head"):
        head = objective.distil_head()
    loss = objective.distil(predicted if head is None else [head(p) for p in predicted], past)
    assert loss.shape == (), f"distil returns the shape {list(loss.shape)}, not a scalar."
    assert torch.isfinite(loss), f"distil returns {float(loss.detach())} for finite projections."
    for gradient in torch.autograd.grad(loss, predicted):
        assert torch.isfinite(gradient).all(), "The gradient of distil is not finite."


def _check_per_image(objective: Objective, setting: Setting) -> None:
    """Check that the loss is a mean over images.

    Masks differ between the rows of a batch, so the loss of one image cannot be compared with a
    row of a batch. Instead: a loss is a sum of one term per image and row exactly if exchanging
    rows between two batches keeps the sum of their losses. And a sum of terms is a mean if, over
    several masks, copies of one image give about the loss of that image alone.
    """
    first, second = (_random_views(objective, seed, setting) for seed in (0, 1))
    row = (torch.arange(BATCH) % 2 == 0)[:, None, None, None]
    mixed = [
        [torch.where(row, one, other) for one, other in zip(first, second, strict=True)],
        [torch.where(row, other, one) for one, other in zip(first, second, strict=True)],
    ]
    straight = sum(_loss(objective, views, setting) for views in (first, second))
    exchanged = sum(_loss(objective, views, setting) for views in mixed)
    assert abs(straight - exchanged) <= 1e-4 * abs(straight), (
        f"The loss of an image depends on the other images of its batch {setting} (training mode: "
        "is there a batch normalisation?); set per_image_loss = False."
    )
    single = [view[:1] for view in first]
    copies = [view.expand(BATCH, -1, -1, -1) for view in single]
    seeds = range(MASKS)
    alone = sum(_loss(objective, single, setting, seed) for seed in seeds) / MASKS
    repeated = sum(_loss(objective, copies, setting, seed) for seed in seeds) / MASKS
    assert abs(alone - repeated) <= 0.5 * abs(alone), (
        f"{BATCH} copies of an image have the loss {repeated:.4f}, and the image alone has "
        f"{alone:.4f}, {setting}: the loss is no mean over images; set per_image_loss = False."
    )


def _loss(objective: Objective, views: Sequence[Tensor], setting: Setting, seed: int = 0) -> float:
    """Return the loss of a copy in training mode, without a gradient."""
    fresh = copy.deepcopy(objective).train()
    with torch.no_grad(), global_streams(0):
        _before_step(fresh, 0, setting, len(views[0]))
        output: ObjectiveOutput = fresh(views, torch_generator("cpu", seed, "per image"))
    return float(output.loss)
