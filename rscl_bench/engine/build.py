"""Builds the objective and the strategies of a recipe."""

from collections.abc import Sequence

import torch
from torch import nn

from rscl_bench import registry
from rscl_bench.encoder_bands import encoder_bands, selected
from rscl_bench.errors import SpecError
from rscl_bench.models.batch_norm import has_batch_norm
from rscl_bench.models.build import build_encoder
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.initial_weights import Adaptation, load_initial
from rscl_bench.objectives.base import Objective
from rscl_bench.randomness import seeded
from rscl_bench.spec import RunSpec
from rscl_bench.strategies.base import Context, Strategy


def new_encoder(spec: RunSpec) -> tuple[Encoder, Adaptation | None]:
    """Return a new encoder, and how a file of initial weights was fitted to it, if there is one.

    Without such a file, torch's global generator draws the initial weights.

    Raises:
        RsclError: If the encoder cannot be built, or the file does not fit.
    """
    scenario, protocol = spec.scenario, spec.protocol
    encoder = build_encoder(
        protocol.backbone,
        protocol.image_size,
        len(selected(scenario.tasks[0].bands, protocol.bands)),
        protocol.probed_feature,
        encoder_bands(scenario, protocol),
    )
    if spec.init is None:
        return encoder, None
    return encoder, load_initial(encoder, spec.init.path, spec.init.digest)


def build_objective(spec: RunSpec, device: torch.device) -> Objective:
    """Return a new objective with its encoder.

    The seed alone decides the initial weights, but those of an encoder from a file. The objective
    is built around that encoder, so that its teachers start from the file too.
    """
    objective_class = registry.load("objectives", spec.method.objective.name)
    with seeded(spec.seed, "initialisation"):
        encoder, _ = new_encoder(spec)
        parameters = spec.method.objective.parameters
        objective: Objective = objective_class(objective_class.Params(**parameters), encoder)
    return objective.to(device)


def build_strategies(spec: RunSpec, objective: Objective, device: torch.device) -> list[Strategy]:
    """Return the recipe's strategies, in the order of the recipe.

    Raises:
        SpecError: If the objective lacks what a strategy needs, if several encoders are to be
            probed, or if objective or strategies
            cannot learn from the protocol's training; see `check_training`.
    """
    context = Context(objective, spec.protocol, spec.seed, device)
    strategies = []
    for component in spec.method.strategies:
        strategy_class = registry.load("strategies", component.name)
        parameters = strategy_class.Params(**component.parameters)
        for need in strategy_class.needs_with(parameters):
            if not getattr(objective, need, False):
                raise SpecError(
                    f"Strategy '{component.name}' needs an objective with '{need}', which "
                    f"'{spec.method.objective.name}' has not; use another objective."
                )
        strategies.append(strategy_class(parameters, context))
    _check_averages(spec, objective, strategies)
    check_training(spec, objective, strategies)
    return strategies


def _check_averages(spec: RunSpec, objective: Objective, strategies: Sequence[Strategy]) -> None:
    """Refuse a recipe that names several encoders to probe."""
    pairs = zip(spec.method.strategies, strategies, strict=True)
    named = [component.name for component, strategy in pairs if strategy.averaged is not None]
    if named and objective.probed == "teacher":
        named.append("objective.probed = 'teacher'")
    if len(named) > 1:
        raise SpecError(
            f"Method {spec.method.name} names {len(named)} encoders to probe: {', '.join(named)}; "
            "leave all out but one."
        )


def check_training(spec: RunSpec, objective: Objective, strategies: Sequence[Strategy]) -> None:
    """Refuse a training that the objective or a strategy cannot learn from.

    A batch of one image has no batch statistics, and no other image to compare with.

    Raises:
        SpecError: If the batch is smaller than the least batch of a component, or the objective
            refuses the training.
    """
    training = spec.protocol.training
    components: list[tuple[str, int, nn.Module | None]] = [
        (f"Objective '{spec.method.objective.name}'", objective.least_batch, objective)
    ]
    for component, strategy in zip(spec.method.strategies, strategies, strict=True):
        components.append((f"Strategy '{component.name}'", strategy.least_batch, strategy.head))
    for component, strategy in zip(spec.method.strategies, strategies, strict=True):
        if strategy.sets_weights and spec.training.anneal:
            raise SpecError(
                f"Strategy '{component.name}' sets the weights at the end of a task, from which no "
                "task goes on after an annealing; leave training.anneal or the strategy out."
            )
    for name, least_batch, module in components:
        why = "compares the images of a batch"
        if module is not None and least_batch < 2 and has_batch_norm(module):
            least_batch, why = 2, "has batch normalisation"
        if training.batch_size < least_batch:
            raise SpecError(
                f"{name} {why}, so a batch must have at least {least_batch} images; raise "
                f"training.batch_size (now {training.batch_size})."
            )
    objective.check_training(training)
