"""The contract of strategies."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
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
from rscl_bench.testing.refusal import refusal
from rscl_bench.testing.tiny import State, differing, recipe, start, state_of, tiny_spec, train

TASKS = 4
SAVED_AFTER = 2  # tasks: two are left, so that a restored memory is also thinned once


def check_strategy(
    name: str, method: str | Method | None = None, assignments: Sequence[str] = ()
) -> None:
    """Check a strategy by training a tiny encoder on four tasks with it and without it.

    At equal seed it changes nothing in the first task, to the last bit (unless its class says
    ``plain_first_task = False``), and changes the encoder in every later one. It trains no frozen
    copy, leaves the objective trainable, and goes on to the same bits from its saved state, which
    passes through safetensors. A recipe whose objective lacks what it ``needs`` is refused.

    Args:
        name: Registered name, or ``file.py:Class``.
        method: A recipe with the strategy, or its name; MAE with the strategy alone if None.
        assignments: As ``--set`` takes them, to make the recipe small.

    Raises:
        AssertionError: If the strategy breaks the contract.
    """
    if method is None:
        method = recipe({"name": "mae"}, [{"name": name}])
    whole = load_method(method) if isinstance(method, str) else method
    others = tuple(part for part in whole.strategies if part.name != name)
    assert len(others) < len(whole.strategies), f"Method '{whole.name}' has no strategy '{name}'."
    spec = tiny_spec(whole, tasks=TASKS, assignments=assignments)
    mine = f"strategies.{name}."
    plain = tiny_spec(
        whole.model_copy(update={"strategies": others}),
        tasks=TASKS,
        assignments=[text for text in assignments if not text.startswith(mine)],
    )
    strategy_class: type[Strategy] = registry.load("strategies", name)
    _check_needs(name, strategy_class, spec)
    without = train(start(plain))
    template = start(spec)
    with_it = train(template, range(SAVED_AFTER))
    saved = _Saved(template)
    with_it += train(template, range(SAVED_AFTER, TASKS))
    if strategy_class.plain_first_task:
        changed = differing(without[0], with_it[0])
        assert not changed, (
            f"'{name}' changes the first task ({', '.join(changed[:3])}); if that is meant, set "
            "plain_first_task = False."
        )
    for task in range(1, TASKS):
        assert differing(_encoder(without[task]), _encoder(with_it[task])), (
            f"'{name}' leaves the encoder as plain training does in task {task + 1}: it does "
            "nothing."
        )
    _check_trained(name, template, start(spec).model)
    resumed = train(saved.restore(spec), range(SAVED_AFTER, TASKS))
    for number, state in enumerate(resumed, start=SAVED_AFTER):
        lost = differing(state, with_it[number])
        assert not lost, (
            f"'{name}' goes on differently in task {number + 1} after its state was saved and "
            f"loaded ({', '.join(lost[:3])}); return all that outlives a task in state_dict."
        )


class _Saved:
    """What is kept at the end of a task: as bytes, what is a strategy's."""

    def __init__(self, template: SelfSupervisedTrainer):
        self.objective: Objective = copy.deepcopy(template.model)
        self.heads = [None if s.head is None else state_of(s.head) for s in template.strategies]
        self.states = [_as_bytes(s.state_dict()) for s in template.strategies]

    def restore(self, spec: RunSpec) -> SelfSupervisedTrainer:
        """Return a new template that stands where the saved one stood."""
        template = start(spec, objective=self.objective)
        for strategy, head, data in zip(template.strategies, self.heads, self.states, strict=True):
            if head is not None:
                assert strategy.head is not None
                strategy.head.load_state_dict(head)
            strategy.load_state_dict(load_safetensors(data))
            same = load_safetensors(_as_bytes(strategy.state_dict()))
            assert not differing(same, load_safetensors(data)), (
                f"{type(strategy).__name__}.load_state_dict does not give back what state_dict "
                "returned."
            )
        return template


def _as_bytes(state: Mapping[str, Tensor]) -> bytes:
    return save_safetensors({name: value.contiguous() for name, value in state.items()})


def _encoder(state: State) -> State:
    return {name: value for name, value in state.items() if name.startswith("encoder.")}


def _check_trained(name: str, template: SelfSupervisedTrainer, fresh: Objective) -> None:
    model = template.model
    optimised = {id(p) for group in template.optimizer.param_groups for p in group["params"]}
    wanted = {id(p) for module in template.trained_modules() for p in module.parameters()}
    assert optimised <= wanted, f"'{name}' puts more into the optimiser than objective and head."
    assert model.training, f"'{name}' leaves the objective in evaluation mode."
    frozen = differing(_requires_grad(fresh), _requires_grad(model))
    assert not frozen, f"'{name}' changes what is trainable: {', '.join(frozen[:3])}."
    added = set(state_of(model)) ^ set(state_of(fresh))
    assert not added, (
        f"'{name}' adds to or takes from the objective: {', '.join(sorted(added)[:3])}; keep heads "
        "in head, and frozen copies outside."
    )


def _requires_grad(module: torch.nn.Module) -> State:
    return {name: torch.tensor(p.requires_grad) for name, p in module.named_parameters()}


class _NoParams(Spec):
    """The parameters of what has none."""


class _Bare(Objective):
    """An objective that has nothing but what every objective must have."""

    Params = _NoParams

    def __init__(self, encoder: Encoder):
        super().__init__(_NoParams(), encoder)

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        encoded = self.encoder(views[0])
        return ObjectiveOutput(self.encoder.pool(encoded).square().mean(), (encoded,))


def _check_needs(name: str, strategy_class: type[Strategy], spec: RunSpec) -> None:
    encoder: Any = start(spec).model.encoder
    bare = _Bare(encoder)
    component = next(part for part in spec.method.strategies if part.name == name)
    needs = strategy_class.needs_with(strategy_class.Params(**component.parameters))
    absent = [need for need in needs if not getattr(bare, need, False)]
    if not absent:
        return
    message = refusal(SpecError, lambda: build_strategies(spec, bare, torch.device("cpu")))
    assert message is not None, f"'{name}' needs {absent} and takes an objective without them."
    assert absent[0] in message, f"'{name}' is refused without saying why: {message}"
