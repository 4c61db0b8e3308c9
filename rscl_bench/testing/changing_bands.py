"""The contract of methods on streams whose bands change: 3, 1, 12 and 6 bands."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rscl_bench.encoder_bands import channels_of, encoder_bands
from rscl_bench.engine.probing import pixel_scaling
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.models.encoder import evaluating
from rscl_bench.spec import BandMode, Method, RunSpec
from rscl_bench.testing.extension import check_extension
from rscl_bench.testing.failures import Failures
from rscl_bench.testing.four_sensors import ARCHIVES
from rscl_bench.testing.resume import Remedy, Training, check_resume, train_uninterrupted
from rscl_bench.testing.tiny import State, start, state_of, tiny_spec
from rscl_bench.views.view import whole_view

REMEDY = Remedy(
    between="Keep all state that outlives a task in parameters, buffers or state_dict.",
    within="Keep state in parameters or buffers, or return it from task_state or state_dict.",
)


def check_changing_bands(
    method: str | Method,
    mode: BandMode,
    defaults: Mapping[str, dict[str, Any]] | None = None,
    backbone: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    in_turn: bool = True,
) -> None:
    """Check a method on tasks of 3, 1, 12 and 6 bands, whose images differ in bands.

    - Every loss, parameter and feature is finite, and each domain has features after each task.
    - An interruption within a task or between tasks changes no bit.
    - A stream that goes on task by task, so that its bands become more, ends in the same bits.
    - Two tasks alone give the bits that they give at the start of the longer stream, so that bands
      of later tasks change nothing before they appear.
    - What belongs to the bands of later tasks alone keeps its initial weights: it takes no
      gradient, and does not decay. An objective without ``same_parameters`` may draw it anew.

    Args:
        method: A recipe, or its name.
        mode: How bands reach the encoder: ``spectral`` or ``union``.
        defaults: Small heads by component, which keep the check short.
        backbone: Name and parameters of the encoder; a tiny ViT if None.
        assignments: As ``--set`` takes them.
        in_turn: Whether the method sees the tasks in turn. Joint training does not: there, bands of
            later tasks do change the first one.

    Raises:
        AssertionError: If the method breaks the contract. The message lists every failure.
    """
    failures = Failures(f"On a stream whose bands change ({mode}), the method")

    def spec_of(tasks: int) -> RunSpec:
        return tiny_spec(
            method,
            tasks=tasks,
            mode=mode,
            defaults=defaults,
            backbone=backbone,
            assignments=["training.epochs=1", "training.warmup_epochs=0", *assignments],
        )

    spec = spec_of(len(ARCHIVES))
    initial = state_of(start(spec).model)
    expected = train_uninterrupted(spec)
    with failures.check("values"):
        _check_finite(spec, expected)
    if in_turn:
        with failures.check("later bands"):
            _check_later(initial, expected, train_uninterrupted(spec_of(2)))
    with failures.check("resuming"):
        check_resume("The method", spec, expected, REMEDY)
    with failures.check("extension"):
        check_extension("The method", spec, expected)
    failures.raise_if_any()


def _check_finite(spec: RunSpec, trained: Training) -> None:
    for task, state in enumerate(trained.states):
        bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
        assert not bad, f"{bad[0]} is not finite after task {task + 1}."
    features = domain_features(spec, trained.trainer)
    for number, values in enumerate(features):
        assert torch.isfinite(values).all(), f"Features of domain {number + 1} are not finite."
        assert values.std(dim=0).any(), f"Images of domain {number + 1} have one feature."


def domain_features(spec: RunSpec, trainer: SelfSupervisedTrainer) -> list[torch.Tensor]:
    """Return the features ``[n, D]`` of the whole tiles of every task, as probes compute them."""
    encoder, bands = trainer.probed_encoder, encoder_bands(spec.scenario, spec.protocol)
    features = []
    for store, task in zip(trainer.stores, spec.scenario.tasks, strict=True):
        scaling = pixel_scaling(store, task.bands, spec.protocol, channels_of(task, bands))
        views = whole_view(torch.from_numpy(store.tiles), spec.protocol.image_size, scaling)
        with evaluating(encoder), torch.no_grad():
            features.append(encoder.probed(encoder(views)))
    return features


def _check_later(initial: State, long: Training, short: Training) -> None:
    tasks = len(short.states)
    for task, (few, many) in enumerate(zip(short.states, long.states, strict=False)):
        changed = [name for name, value in few.items() if not torch.equal(value, many[name])]
        assert not changed, (
            f"Bands of later tasks change {changed[0]} in task {task + 1}; compute with the bands "
            "that the images of a batch have."
        )
    losses = long.trainer.final_loss[:tasks]
    assert losses == short.trainer.final_loss, (
        f"Bands of later tasks change the losses from {short.trainer.final_loss} to {losses}."
    )
    if not long.trainer.model.same_parameters:
        return
    later = long.states[tasks - 1].keys() - short.states[-1].keys()
    for name in sorted(later):
        assert torch.equal(long.states[tasks - 1][name], initial[name]), (
            f"{name} belongs to bands that no image has yet, but changes in the first tasks."
        )
