"""Operations that strategies add to a step, against counts on paper and torch's own counter."""

from itertools import pairwise
from typing import Any, ClassVar

import pytest
import torch
from helpers.joint_embeddings import SMALL
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rscl_bench import registry
from rscl_bench.declarations import load_method
from rscl_bench.engine.build import build_objective
from rscl_bench.engine.flops import Flops, count_flops
from rscl_bench.engine.rehearsal import count_strategies
from rscl_bench.spec import RunSpec, Spec
from rscl_bench.strategies.base import Strategy, Trainer
from rscl_bench.testing import tiny_spec
from rscl_bench.testing.tiny import differing, recipe, state_of

CPU = torch.device("cpu")
BATCH, WIDTH = 8, 24  # of the tiny protocol and its encoder
MAE: dict[str, Any] = {"name": "mae"}


def counted(spec: RunSpec) -> tuple[Flops, Flops]:
    """Return the operations of the objective, and those that its strategies add."""
    objective = build_objective(spec, CPU)
    alone = count_flops(objective, spec.protocol.image_size)
    return alone, count_strategies(spec, objective, alone)


def added(objective: dict[str, Any], *strategies: dict[str, Any]) -> Flops:
    return counted(tiny_spec(recipe(objective, strategies)))[1]


def forward(module: nn.Module, *shape: int) -> int:
    """Return the operations of a forward pass of one image, by torch's own counter."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        module(torch.randn(2, *shape))
    return counter.get_total_flops() // 2


def encoder() -> nn.Module:
    return build_objective(tiny_spec("finetune"), CPU).encoder


def perceptron(*widths: int) -> int:
    """Return the operations of linear layers, forward, backward to weights and to the input."""
    return 3 * sum(2 * a * b for a, b in pairwise(widths))


def test_no_strategy_adds_nothing() -> None:
    assert counted(tiny_spec("finetune"))[1] == (0, 0)


def test_cosmae_adds_a_whole_view_a_projector_and_a_contrast() -> None:
    """The contrast has four B × B products of width D, and as many for the student's gradient."""
    contrast = 8 * 2 * BATCH * WIDTH
    expected = Flops(perceptron(WIDTH, 128, WIDTH) + contrast, forward(encoder(), 3, 16, 16))
    assert counted(tiny_spec("cosmae"))[1] == expected
    assert counted(tiny_spec("cosmae-model-mixup"))[1] == expected
    assert counted(tiny_spec("cosmae-old-teacher"))[1] == expected
    assert counted(tiny_spec("cosmae-data-mixup"))[1] == (0, 0)
    assert counted(tiny_spec("cosmae", assignments=["strategies.model-mixup.beta=0"]))[1] == (0, 0)


@pytest.mark.parametrize(("name", "hidden"), [("pfr", WIDTH // 2), ("cassle", 2048)])
def test_distillation_adds_a_whole_view_and_a_projector(name: str, hidden: int) -> None:
    expected = perceptron(WIDTH, hidden, WIDTH), forward(encoder(), 3, 16, 16)
    assert added(MAE, {"name": name}) == expected


def test_replay_of_a_batch_doubles_the_step() -> None:
    alone, more = counted(tiny_spec(recipe(MAE, [{"name": "replay", "mode": "batch"}])))
    assert more == alone


@pytest.mark.parametrize("name", ["er", "joint", "ewc", "si", "lump"])
def test_strategies_that_add_no_product(name: str) -> None:
    """Neither steps over more tiles, nor elementwise penalties, nor mixing."""
    assert counted(tiny_spec(name))[1] == (0, 0)


@pytest.mark.parametrize(("share", "images"), [(0.25, 2), (1.0, 8), (0.01, 1)])
def test_der_adds_whole_views_of_its_share(share: float, images: int) -> None:
    whole = forward(encoder(), 3, 16, 16)
    pixels = 2 * 4 * (3 * 8 * 8) * WIDTH  # no gradient reaches the pixels of the four patches
    each = 3 * whole - pixels
    assert added(MAE, {"name": "der", "share": share}) == (round(each * images / BATCH), 0)


def test_cassle_adds_past_projections_of_both_views() -> None:
    method = recipe({"name": "simclr", **SMALL["simclr"]}, [{"name": "cassle", "hidden_dim": 6}])
    spec = tiny_spec(method)
    objective = build_objective(spec, CPU)
    past = forward(objective.encoder, 3, 16, 16) + forward(objective.projector, WIDTH)
    # A 2 B × 2 B matrix of cosines for each direction, and a product each for the gradient.
    contrast = 4 * 2 * (2 * BATCH) ** 2 * 8 // BATCH
    assert counted(spec)[1] == (2 * perceptron(8, 6, 8) + contrast, 2 * past)


def test_large_models_rehearse_four_images() -> None:
    """A quarter of four images is one: the operations per image stay those of the share."""
    spec = tiny_spec(recipe(MAE, [{"name": "der"}]))
    objective = build_objective(spec, CPU)
    alone = count_flops(objective, 16)
    large = Flops(10**12, 0)
    assert count_strategies(spec, objective, large) == count_strategies(spec, objective, alone)


class NoParams(Spec):
    """No parameters."""


class Half(Strategy):
    """Trains on half of every batch after the first task."""

    Params: ClassVar[type[Spec]] = NoParams

    def before_forward(self, trainer: Trainer, **_: Any) -> None:
        if trainer.task > 0:
            trainer.views = [view[: len(view) // 2] for view in trainer.views]


def test_a_strategy_may_save_operations() -> None:
    with registry.registered("strategies", Half) as name:
        alone, more = counted(tiny_spec(recipe(MAE, [{"name": name}])))
    assert more == (-alone.with_gradient // 2, 0)


@pytest.mark.parametrize("name", ["cosmae", "der", "ewc", "cassle-barlow-twins"])
def test_counting_leaves_the_model_and_global_randomness_alone(name: str) -> None:
    method = load_method(name)
    small = [f"objective.{k}={v}" for k, v in SMALL.get(method.objective.name, {}).items()]
    spec = tiny_spec(method, assignments=small)
    objective = build_objective(spec, CPU).eval()
    before, drawn = state_of(objective), torch.random.get_rng_state()
    count_strategies(spec, objective, count_flops(objective, 16))
    assert not differing(before, state_of(objective))
    assert not objective.training
    assert all(p.grad is None for p in objective.parameters())
    assert torch.equal(drawn, torch.random.get_rng_state())


def test_all_seeds_have_one_count() -> None:
    """iBOT draws the number of masked patches, and replay doubles the images."""
    heads = {"hidden_dim": 16, "bottleneck_dim": 8, "prototypes": 12, "local_views": 0}
    method = recipe({"name": "ibot", **heads}, [{"name": "replay", "mode": "batch"}])
    assert counted(tiny_spec(method, seed=0)) == counted(tiny_spec(method, seed=7))
