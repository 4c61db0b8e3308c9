import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.archives import SKETCHED
from helpers.paths import ADAPTERS, BROKEN
from helpers.small import COMPOSED, SMALL, objective_for
from torch import Tensor

from rscl_bench import registry
from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.declarations import load_method
from rscl_bench.errors import SpecError
from rscl_bench.spec import Views
from rscl_bench.strategies.base import Trainer
from rscl_bench.testing import (
    check_adapter,
    check_objective,
    check_probe,
    check_strategy,
    start,
    tiny_spec,
    train,
)
from rscl_bench.testing.tiny import recipe


@pytest.mark.parametrize("name", registry.entries("objectives"))
def test_objective(name: str) -> None:
    check_objective(name, SMALL.get(name))


def test_objective_with_normalised_pixels() -> None:
    check_objective("mae", {**SMALL["mae"], "norm_pix": True, "mask_ratio": 0.5})


@pytest.mark.parametrize("name", registry.entries("strategies"))
def test_strategy(name: str) -> None:
    objective = objective_for(name)
    check_strategy(name, recipe(objective, [{"name": name}]))


@pytest.mark.parametrize("name", ["data-mixup", "model-mixup"])
def test_strategy_within_cosmae(name: str) -> None:
    check_strategy(name, "cosmae", [f"strategies.{name}.alpha=1.0"])


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "replay", "mode": "batch"},
        {"name": "ewc", "mode": "online"},
        {"name": "ewc", "estimate": "batch"},
        {"name": "model-mixup", "keep_projector": False},
    ],
)
def test_strategy_in_its_other_mode(strategy: dict[str, str]) -> None:
    check_strategy(strategy["name"], recipe({"name": "mae"}, [strategy]))


@pytest.mark.parametrize("name", COMPOSED)
def test_strategy_with_other_objectives(name: str) -> None:
    method = load_method(name)
    small = [f"objective.{key}={value}" for key, value in SMALL[method.objective.name].items()]
    for strategy in method.strategies:
        check_strategy(strategy.name, method, small)


def test_papers_compositions_are_there() -> None:
    assert {"cbt", "pfr-barlow-twins", "model-mixup-barlow-twins"} < set(COMPOSED)
    assert {f"lump-{name}" for name in ("simclr", "barlow-twins")} < set(COMPOSED)
    six = ("simclr", "moco-v2", "byol", "swav", "barlow-twins", "vicreg")
    assert {f"cassle-{name}" for name in six} < set(COMPOSED)


def test_strategies_together() -> None:
    parts = [{"name": "replay"}, {"name": "ewc"}, {"name": "si"}]
    check_strategy("si", recipe({"name": "mae"}, parts))


@pytest.mark.parametrize("name", registry.entries("probes"))
def test_probe(name: str) -> None:
    check_probe(name)


@pytest.mark.parametrize("name", SKETCHED)
def test_adapter(name: str, tmp_path: Path) -> None:
    check_adapter(name, tmp_path)


@pytest.mark.parametrize("name", ["Toy", "Masked"])
def test_adapter_by_path(name: str, tmp_path: Path) -> None:
    check_adapter(f"{ADAPTERS}:{name}", tmp_path)


# Views: an option that changes nothing is an option that is not there.

OTHER: dict[str, Any] = {"min_scale": 0.2, "horizontal_flip": 1.0, "normalisation": "range"}


class Watch(BaseSGDPlugin):  # type: ignore[misc]
    """Keeps the encoder's input of every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def before_forward(self, trainer: Trainer, **_: Any) -> None:
        self.seen.append(trainer.views[0].clone())


def seen_by_encoder(*assignments: str) -> Tensor:
    watch = Watch()
    train(start(tiny_spec(assignments=assignments), plugins=[watch]), [0])
    return torch.stack(watch.seen)


def test_every_views_option_is_tried() -> None:
    assert set(OTHER) == set(Views.model_fields)


@pytest.mark.parametrize("option", Views.model_fields)
def test_views_option_changes_the_input(option: str) -> None:
    assert OTHER[option] != Views.model_fields[option].default
    default, again = seen_by_encoder(), seen_by_encoder()
    assert torch.equal(default, again)
    changed = seen_by_encoder(f"views.{option}={OTHER[option]}")
    # In every image of every step, but where a flip is drawn anyway.
    differ = (changed != default).flatten(2).any(dim=2)
    assert differ.float().mean() > (0.2 if option == "horizontal_flip" else 0.95)


def test_image_size_changes_the_input() -> None:
    watch = Watch()
    spec = tiny_spec(image_size=24)
    train(start(spec, plugins=[watch]), [0])
    assert watch.seen[0].shape == (8, 3, 24, 24)


# Each check catches the fault that the check is for, and names the cause.


@pytest.mark.parametrize("sound", ["Sound", "PerImage"])
def test_sound_objective_passes(sound: str) -> None:
    check_objective(BROKEN + sound)


def test_classes_are_checked_without_a_name() -> None:
    objective, strategy = (
        registry.load("objectives", BROKEN + "Sound"),
        registry.load("strategies", BROKEN + "Declared"),
    )
    check_objective(objective)
    check_strategy(strategy)
    with pytest.raises(SpecError, match="Unknown objective 'Sound'"):
        registry.load("objectives", "Sound")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("GlobalNoise", "randomness: .* global random streams .* draw only from the generator"),
        ("LateGlobalNoise", "resuming: .* global random streams .*Draw from the generator"),
        ("NotFinite", "loss: The loss is (nan|inf)"),
        ("NotScalar", r"loss: The loss has shape \[1\]; it is not a scalar"),
        ("UnusedHead", "gradients: No gradient reaches 'unused"),
        ("NoGradient", "gradients: .* zero everywhere"),
        ("HiddenCounter", "after step . of task . .*return it from task_state"),
        ("HiddenMemory", "between task 1 and task 2 .*in parameters or buffers"),
        ("WrongWidth", r"Projections are \[4, 24\].* projected_dim = 5"),
        ("NaNDistil", "distil: distil returns nan"),
        ("NormalisedBatch", "per_image_loss: .* other images of its batch"),
        ("SummedLoss", "per_image_loss: .* no mean over images"),
        ("WatchedLoss", "stateless_loss: .*set stateless_loss = False"),
    ],
)
def test_broken_objective_is_caught(broken: str, message: str) -> None:
    assert_one_failure(check_objective, broken, message)


def assert_one_failure(check: Callable[[str], None], broken: str, message: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check(BROKEN + broken)
    _, *failures = str(caught.value).splitlines()
    assert len(failures) == 1, failures
    assert re.search(message, failures[0]), failures


def test_all_failures_are_reported() -> None:
    with pytest.raises(AssertionError, match=r"(?s)projected_dim = 5.*distil returns nan"):
        check_objective(BROKEN + "TwoFaults")
    with pytest.raises(AssertionError, match=r"(?s)between task 1 and task 2.*first task differs"):
        check_strategy(BROKEN + "EarlyAndForgetful")


def test_declared_first_task_passes() -> None:
    check_strategy(BROKEN + "Declared")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("Idle", "does nothing"),
        ("Early", "first task differs .*plain_first_task = False"),
        ("Forgetful", "between task 1 and task 2 .*Return from state_dict all state"),
        ("Amnesiac", "load_state_dict does not restore what state_dict returned"),
        ("PathlessSI", "after step . of task . .*state that lives within a task"),
        ("GlobalWeight", "global random streams of Python, NumPy and torch differ"),
        ("Adds", "adds modules to the objective: past_head"),
    ],
)
def test_broken_strategy_is_caught(broken: str, message: str) -> None:
    assert_one_failure(check_strategy, broken, message)


def test_objective_without_needs_is_refused() -> None:
    method = recipe({"name": "mae"}, [{"name": BROKEN + "Needs"}])
    with pytest.raises(SpecError, match=r"Needs' needs an objective with 'momentum_encoder'"):
        start(tiny_spec(method))


def test_strategy_must_be_in_the_method() -> None:
    with pytest.raises(AssertionError, match="has no strategy 'data-mixup'"):
        check_strategy("data-mixup", "finetune")
