"""The contract of strategies."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rscl_bench import registry
from rscl_bench.declarations import load_method
from rscl_bench.engine.build import build_strategies
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.errors import SpecError
from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import Objective, ObjectiveOutput
from rscl_bench.spec import Method, RunSpec, Spec
from rscl_bench.strategies.base import Strategy
from rscl_bench.testing.extension import check_extension
from rscl_bench.testing.failures import Failures
from rscl_bench.testing.refusal import refusal
from rscl_bench.testing.resume import Remedy, Training, check_resume, train_uninterrupted
from rscl_bench.testing.tiny import State, differing, recipe, start, state_of, tiny_spec, train

#: Tasks of the stream: a memory that is restored before the third is thinned twice more.
TASKS = 4

REMEDY = Remedy(
    between="Return from state_dict all state that outlives a task, and restore that state in "
    "load_state_dict.",
    within="Return from state_dict also the state that lives within a task, such as a path or a "
    "running sum, and restore that state in load_state_dict.",
)


def check_strategy(
    component: str | type[Strategy],
    method: str | Method | None = None,
    assignments: Sequence[str] = (),
) -> None:
    """Check a strategy by training a tiny encoder on four tasks, with and without the strategy.

    At equal seeds, the strategy changes no bit of the first task (unless its class declares
    ``plain_first_task = False``), and it changes the probed encoder in every later task. An
    interruption within a task or between tasks changes no bit, and neither does extending the run
    task by task. The strategy trains nothing but the objective and ``head``, and leaves the
    objective's modules and mode as they are. A recipe whose objective lacks an attribute of
    ``needs`` is refused.

    Args:
        component: The class, a registered name, or ``file.py:Class``.
        method: A recipe with the strategy, or the recipe's name; MAE with the strategy if None.
        assignments: As ``--set`` takes them, to make the recipe small.

    Raises:
        AssertionError: If the strategy breaks the contract. The message lists every failure.
    """
    with registry.registered("strategies", component) as name:
        if method is None:
            method = recipe({"name": "mae"}, [{"name": name}])
        whole = load_method(method) if isinstance(method, str) else method
        _check(name, whole, assignments)


def _check(name: str, method: Method, assignments: Sequence[str]) -> None:
    others = tuple(strategy for strategy in method.strategies if strategy.name != name)
    assert len(others) < len(method.strategies), f"Method '{method.name}' has no strategy '{name}'."
    spec = tiny_spec(method, tasks=TASKS, assignments=assignments)
    plain = tiny_spec(
        method.model_copy(update={"strategies": others}),
        tasks=TASKS,
        assignments=[text for text in assignments if not text.startswith(f"strategies.{name}.")],
    )
    strategy_class: type[Strategy] = registry.load("strategies", name)
    failures = Failures(f"Strategy '{name}'")
    with failures.check("needs"):
        _check_needs(name, strategy_class, spec)
    acting = train_uninterrupted(spec)
    with failures.check("trained modules"):
        _check_trained(acting.trainer, start(spec).model)
    failures.raise_if_any()  # a changed objective would show as a fault in everything below
    with failures.check("resuming"):
        check_resume("The strategy", spec, acting, REMEDY)
    if not failures:  # state that is lost on resuming would show again
        with failures.check("extension"):
            check_extension("The strategy", spec, acting)
    states = train(start(plain))
    if strategy_class.plain_first_task:
        with failures.check("first task"):
            _check_first_task(states[0], acting.states[0])
    with failures.check("later tasks"):
        _check_later_tasks(states, _probed_states(spec, acting))
    failures.raise_if_any()


def _probed_states(spec: RunSpec, acting: Training) -> Sequence[State]:
    """Return the state after each task, with the probed encoder in place of the trained one."""
    if all(strategy.averaged is None for strategy in acting.trainer.strategies):
        return acting.states
    trainer, states = start(spec), []
    for task in range(TASKS):
        train(trainer, [task])
        probed = state_of(trainer.probed_encoder)
        states.append({f"encoder.{name}": value for name, value in probed.items()})
    return states


def _check_first_task(plain: State, acting: State) -> None:
    changed = differing(plain, acting)
    assert not changed, (
        f"The first task differs from plain training ({', '.join(changed[:3])}); act from the "
        "second task on, or declare plain_first_task = False."
    )


def _check_later_tasks(plain: Sequence[State], acting: Sequence[State]) -> None:
    for task in range(1, TASKS):
        assert differing(_encoder(plain[task]), _encoder(acting[task])), (
            f"The strategy does nothing: after task {task + 1}, the encoder is that of plain "
            "training."
        )


def _encoder(state: State) -> State:
    return {name: value for name, value in state.items() if name.startswith("encoder.")}


def _check_trained(trainer: SelfSupervisedTrainer, fresh: Objective) -> None:
    model = trainer.model
    added = set(state_of(model)) - set(state_of(fresh))
    assert not added, (
        f"The strategy adds modules to the objective: {', '.join(sorted(added)[:3])}; assign "
        "trained modules to head, and frozen copies to another attribute of the strategy."
    )
    removed = set(state_of(fresh)) - set(state_of(model))
    assert not removed, (
        f"The strategy removes modules of the objective: {', '.join(sorted(removed)[:3])}."
    )
    optimised = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    allowed = {id(p) for module in trainer.trained_modules() for p in module.parameters()}
    assert optimised <= allowed, (
        "The optimiser has parameters of neither the objective nor a head; assign trained modules "
        "to head."
    )
    assert model.training, "The strategy leaves the objective in evaluation mode."
    changed = differing(_requires_grad(fresh), _requires_grad(model))
    assert not changed, f"The strategy changes requires_grad of {', '.join(changed[:3])}."


def _requires_grad(module: torch.nn.Module) -> State:
    return {name: torch.tensor(p.requires_grad) for name, p in module.named_parameters()}


class _NoParams(Spec):
    """No parameters."""


class _Bare(Objective):
    """An objective without any optional attribute."""

    Params = _NoParams

    def __init__(self, encoder: Encoder):
        super().__init__(_NoParams(), encoder)

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        encoded = self.encoder(views[0])
        return ObjectiveOutput(self.encoder.pool(encoded).square().mean(), (encoded,))


def _check_needs(name: str, strategy_class: type[Strategy], spec: RunSpec) -> None:
    encoder: Any = start(spec).model.encoder
    bare = _Bare(encoder)
    component = next(entry for entry in spec.method.strategies if entry.name == name)
    needs = strategy_class.needs_with(strategy_class.Params(**component.parameters))
    absent = [need for need in needs if not getattr(bare, need, False)]
    if not absent:
        return
    message = refusal(SpecError, lambda: build_strategies(spec, bare, torch.device("cpu")))
    assert message is not None, f"An objective without {absent} is not refused."
    assert absent[0] in message, f"The refusal does not name '{absent[0]}': {message}"
