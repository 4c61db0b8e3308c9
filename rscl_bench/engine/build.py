"""Builds the objective and the strategies of a recipe."""

import torch

from rscl_bench import registry
from rscl_bench.errors import SpecError
from rscl_bench.models.build import build_encoder
from rscl_bench.objectives.base import Objective
from rscl_bench.randomness import seeded
from rscl_bench.spec import RunSpec
from rscl_bench.strategies.base import Context, Strategy


def build_objective(spec: RunSpec, device: torch.device) -> Objective:
    """Return a new objective with its encoder; the seed alone decides the initial weights."""
    objective_class = registry.load("objectives", spec.method.objective.name)
    with seeded(spec.seed, "initialisation"):
        encoder = build_encoder(
            spec.protocol.backbone, spec.protocol.image_size, spec.scenario.channels
        )
        parameters = spec.method.objective.parameters
        objective: Objective = objective_class(objective_class.Params(**parameters), encoder)
    return objective.to(device)


def build_strategies(spec: RunSpec, objective: Objective, device: torch.device) -> list[Strategy]:
    """Return the recipe's strategies, in the order of the recipe.

    Raises:
        SpecError: If the objective lacks what a strategy needs.
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
    return strategies
