"""Counted operations against torch's own counter and against formulas on paper."""

import copy
from typing import Any, Literal

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.engine.build import build_objective
from rscl_bench.engine.device import matrix_flops, open_device
from rscl_bench.engine.flops import count_flops
from rscl_bench.objectives.base import Objective
from rscl_bench.resolve import resolve_run
from rscl_bench.testing import tiny_spec
from rscl_bench.testing.tiny import differing, recipe, state_of

CPU = torch.device("cpu")
BYOL: dict[str, Any] = {"name": "byol", "hidden_dim": 16, "output_dim": 8}


def built(objective: dict[str, Any]) -> Objective:
    return build_objective(tiny_spec(recipe(objective)), CPU)


def torchs_count(objective: Objective) -> float:
    """Return the operations of a step by torch's own counter, per image."""
    views = [torch.randn(2, 3, 16, 16) for _ in objective.views]
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:
        copy.deepcopy(objective)(views, torch.Generator().manual_seed(0)).loss.backward()
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("objective", [{"name": "mae"}, BYOL])
def test_sum_equals_torchs_counter(objective: dict[str, Any]) -> None:
    model = built(objective)
    assert sum(count_flops(model, 16)) == torchs_count(model)


def test_teacher_is_without_gradient() -> None:
    """Encoder and projector see two views: at least the products of tokens and weights count."""
    model: Any = built(BYOL)
    assert count_flops(built({"name": "mae"}), 16).without_gradient == 0
    views = [torch.randn(2, 3, 16, 16) for _ in range(2)]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        for view in views:
            model.teacher_projection(view)
    assert count_flops(model, 16).without_gradient == counter.get_total_flops() / 2


def test_teachers_of_later_tasks_are_counted() -> None:
    """Gram anchoring encodes both global views once more; TEC's base model sees the whole image."""
    heads = {"hidden_dim": 16, "bottleneck_dim": 8, "prototypes": 12, "local_views": 0, "masked": 0}
    without, anchored = (
        count_flops(built({"name": name, **heads, "centring": "mean"}), 16).without_gradient
        for name in ("dinov2", "dinov3")
    )
    encoder = built({"name": "mae"}).encoder
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        encoder(torch.randn(2, 3, 16, 16))
    assert anchored - without == 2 * counter.get_total_flops() / 2
    tec = {"name": "tec", "decoder_dim": 24, "decoder_depth": 1, "decoder_heads": 2}
    assert count_flops(built(tec), 16).without_gradient >= counter.get_total_flops() / 2


def test_counting_leaves_the_model_alone() -> None:
    model = built(BYOL).eval()
    before, drawn = state_of(model), torch.random.get_rng_state()
    count_flops(model, 16)
    assert not differing(before, state_of(model))
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(drawn, torch.random.get_rng_state())


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_measuring_the_rate_leaves_global_randomness_alone(
    precision: Literal["bf16", "fp32"],
) -> None:
    drawn = torch.random.get_rng_state()
    assert matrix_flops(open_device("cpu", precision)) > 0
    assert torch.equal(drawn, torch.random.get_rng_state())


def test_masked_autoencoder_of_the_paper() -> None:
    """58.7 GFLOP: ViT-B/16 on 50 of 197 tokens, 8 blocks of width 512 on 197, times three."""
    spec = resolve_run(load_scenario("rs4"), load_method("finetune"), "paper", 0)

    def block(tokens: int, width: int) -> int:
        return 2 * tokens * 12 * width**2 + 2 * 2 * tokens**2 * width

    encoder = 12 * block(50, 768) + 2 * 196 * 768 * 768
    decoder = 8 * block(197, 512) + 2 * 50 * 768 * 512 + 2 * 147 * 512 * 768
    expected = 3 * (encoder + decoder) - 2 * 196 * 768 * 768  # none reaches the pixels
    counted = count_flops(build_objective(spec, CPU), 224).with_gradient
    assert counted == pytest.approx(expected, rel=0.002)
