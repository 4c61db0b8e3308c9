"""Least batches, bounds of parameters, and losses that teach nothing, over the whole registry."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from annotated_types import Ge, Gt, Le, Lt
from helpers.small import SMALL
from torch import Tensor

from rscl_bench import registry
from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.declarations import declarations, load_method
from rscl_bench.errors import SpecError, TrainingError
from rscl_bench.objectives.base import divisors
from rscl_bench.spec import RunSpec, Spec
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import recipe, tiny_stores

OBJECTIVES = registry.entries("objectives")
#: Losses that compare the images of a batch, or heads with batch normalisation.
COMPARING = {
    "barlow-twins",
    "byol",
    "deepcluster-v2",
    "dinov2",
    "dinov3",
    "masked-contrast",
    "moco-v3",
    "momentum-masked-contrast",
    "simclr",
    "swav",
    "vicreg",
}
#: Strategies that contrast the images of a batch, or whose head has batch normalisation.
COMPARING_STRATEGIES = {"cassle", "model-mixup", "pfr"}


def spec_with(method: str, batch_size: int, *assignments: str) -> RunSpec:
    loaded = load_method(method)
    small = SMALL.get(loaded.objective.name, {})
    chosen = [f"objective.{key}={value}" for key, value in small.items()]
    return tiny_spec(
        loaded, assignments=[f"training.batch_size={batch_size}", *chosen, *assignments], tasks=2
    )


def run(spec: RunSpec, tiles: int = 3) -> list[float | None]:
    """Train on two tasks of a few tiles, and return the loss of each."""
    trainer = start(spec, tiny_stores(2, tiles))
    train(trainer)
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    return trainer.final_loss


# Batches.


@pytest.mark.parametrize("name", declarations("methods"))
def test_batch_of_one_trains_or_is_refused(name: str) -> None:
    """What needs other images is refused, in both tasks' name; the least batch then trains."""
    method = load_method(name)
    strategies = {strategy.name for strategy in method.strategies}
    if method.objective.name in COMPARING or strategies & COMPARING_STRATEGIES:
        with pytest.raises(SpecError, match=r"a batch must have at least 2 images; raise training"):
            start(spec_with(name, 1))
        losses = run(spec_with(name, 2))
    else:
        losses = run(spec_with(name, 1))
    assert all(loss is None or math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize("backbone", ["vit", "resnet"])
def test_batch_normalisation_of_a_backbone_counts(backbone: str) -> None:
    parts: dict[str, Any] = {"resnet": {"name": "resnet", "variant": "resnet18"}}
    spec = tiny_spec(
        recipe({"name": "cmid", **SMALL["cmid"]}),
        image_size=32 if backbone == "resnet" else 16,
        backbone=parts.get(backbone),
        assignments=["training.batch_size=1"],
    )
    if backbone == "vit":
        start(spec)
        return
    with pytest.raises(SpecError, match="Objective 'cmid' has batch normalisation"):
        start(spec)


def test_weights_of_0_need_no_other_image() -> None:
    run(spec_with("dinov2", 1, "objective.koleo_weight=0"))
    run(spec_with("cosmae-model-mixup", 1, "strategies.model-mixup.beta=0"))
    with pytest.raises(SpecError, match="Objective 'dino' compares the images of a batch"):
        start(spec_with("dino", 1, "objective.centring=sinkhorn"))


def test_last_batch_has_the_size_of_all_batches() -> None:
    """Of 5 tiles, 4 make two batches; the fifth is left out of this epoch."""
    sizes: list[int] = []

    class Look(BaseSGDPlugin):  # type: ignore[misc]
        def before_forward(self, trainer: Any, **_: Any) -> None:
            sizes.append(len(trainer.views[0]))

    train(start(spec_with("simclr", 2), tiny_stores(2, 5), plugins=[Look()]))
    assert sizes == [2] * 8


# Bounds.


KINDS = ("ge", "le", "gt", "lt")


def bounds(params: type[Spec]) -> Iterator[tuple[str, Any]]:
    """Yield the ends of the range of every bounded parameter; just inside, where the end is not in.

    The number next to 0 is 1e-30: float32 holds it.
    """
    for name, field in params.model_fields.items():
        whole = field.annotation is int
        for mark in field.metadata:
            end: Any = next((getattr(mark, kind, None) for kind in KINDS if hasattr(mark, kind)), 0)
            if isinstance(mark, Ge) or (isinstance(mark, Le) and not whole):
                yield name, end  # the largest number of blocks takes long
            elif isinstance(mark, Gt):
                yield name, end + 1 if whole else max(end, 1e-30)
            elif isinstance(mark, Lt) and not whole:  # no network has 2^63 of anything
                yield name, math.nextafter(end, -math.inf)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_ends_of_bounds_train_or_are_refused(name: str) -> None:
    """Every end of a range trains with finite weights, or is refused in a sentence.

    A softmax at the least temperature may be so sharp that its gradient is exactly 0.
    """
    found = list(bounds(registry.load("objectives", name).Params))
    assert found, "an objective has bounded parameters"
    trained = 0
    for parameter, value in found:
        method = recipe({"name": name, **SMALL.get(name, {}), parameter: value})
        try:
            spec = tiny_spec(method, tasks=2, assignments=["training.epochs=1"])
            trainer = start(spec, tiny_stores(2, 8))
            train(trainer)
        except SpecError:
            continue
        except TrainingError as error:
            if "is constant" not in str(error):
                raise
            continue
        where = f"{name} with {parameter} = {value}"
        assert all(loss is not None and math.isfinite(loss) for loss in trainer.final_loss), where
        for tensor in trainer.model.state_dict().values():
            assert torch.isfinite(tensor).all(), where
        trained += 1
    assert trained


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("dino", "prototypes"),
        ("dino", "bottleneck_dim"),
        ("swav", "prototypes"),
        ("deepcluster-v2", "prototypes"),
        ("cmid", "prototypes"),
        ("simclr", "output_dim"),
        ("byol", "output_dim"),
        ("moco-v2", "output_dim"),
        ("moco-v3", "output_dim"),
        ("beit", "vocabulary"),
        ("maskfeat", "hog_bins"),
    ],
)
def test_one_of_what_is_compared_is_refused(name: str, parameter: str) -> None:
    """A softmax over one prototype is 1, and a vector of one value of length 1 is a sign."""
    with pytest.raises(SpecError, match=rf"'{parameter}'.*greater than or equal to 2"):
        tiny_spec(recipe({"name": name, **SMALL.get(name, {}), parameter: 1}))


def test_temperature_that_the_loss_of_a_strategy_refuses_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'temperature'.*greater than or equal to 0\.0001"):
        tiny_spec("cosmae", assignments=["strategies.model-mixup.temperature=1e-9"])


def test_weights_that_are_all_0_are_refused() -> None:
    zero = {"invariance": 0.0, "variance": 0.0, "covariance": 0.0}
    with pytest.raises(SpecError, match="are all 0; set one above 0"):
        tiny_spec(recipe({"name": "vicreg", **SMALL["vicreg"], **zero}))


# Losses.


class Spoil(BaseSGDPlugin):  # type: ignore[misc]
    """Multiplies the loss of the first step by a factor."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def before_backward(self, trainer: Any, **_: Any) -> None:
        spoilt: Tensor = trainer.loss * self.factor
        trainer.loss = spoilt


@pytest.mark.parametrize(
    ("name", "causes"),
    [
        ("swav", "raise objective.temperature or objective.epsilon, "),
        ("simclr", "raise objective.temperature, "),
        (
            "dino",
            "raise objective.student_temperature or objective.start_temperature or "
            "objective.teacher_temperature, ",
        ),
        ("mae", ""),
    ],
)
def test_message_of_a_loss_that_is_not_finite_names_the_objectives_causes(
    name: str, causes: str
) -> None:
    spec = tiny_spec(recipe({"name": name, **SMALL[name]}))
    with pytest.raises(TrainingError) as caught:
        train(start(spec, plugins=[Spoil(math.inf)]))
    assert str(caught.value) == (
        "The loss became NaN or infinite at step 0 of task 1; lower training.learning_rate, "
        f"{causes}or run with --set precision=fp32."
    )


def test_every_temperature_and_epsilon_is_named() -> None:
    for name in OBJECTIVES:
        params = registry.load("objectives", name).Params
        named = {f for f in params.model_fields if f.endswith(("temperature", "epsilon"))}
        assert set(divisors(params)) == named


def test_constant_loss_is_refused_at_its_first_step() -> None:
    with pytest.raises(TrainingError, match=r"loss of task 1 is constant: no gradient reaches"):
        train(start(tiny_spec(), plugins=[Spoil(0.0)]))
