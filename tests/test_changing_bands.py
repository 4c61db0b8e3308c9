"""Every objective and every strategy on tasks of 3, 1, 12 and 6 bands."""

from typing import Any

import pytest
from helpers.small import SMALL, objective_for

from rscl_bench import registry
from rscl_bench.testing import check_changing_bands
from rscl_bench.testing.tiny import recipe

OBJECTIVES = list(registry.entries("objectives"))
STRATEGIES = list(registry.entries("strategies"))
SWIN = {"name": "swin", "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2],
        "window_size": 4}  # fmt: skip
RESNET = {"name": "resnet", "variant": "resnet18"}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_in_union(name: str) -> None:
    check_changing_bands(recipe({"name": name}), "union", SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_in_spectral(name: str) -> None:
    check_changing_bands(recipe({"name": name}), "spectral", SMALL)


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategy_in_spectral(name: str) -> None:
    method = recipe(objective_for(name), [{"name": name}])
    check_changing_bands(method, "spectral", SMALL, in_turn=name != "joint")


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_strategy_in_union(name: str) -> None:
    method = recipe(objective_for(name), [{"name": name}])
    check_changing_bands(method, "union", SMALL, in_turn=name != "joint")


@pytest.mark.parametrize("mode", ["union", "spectral"])
def test_standardised_targets(mode: Any) -> None:
    objective = {"name": "mae", "norm_pix": True}
    check_changing_bands(recipe(objective, [{"name": "data-mixup"}]), mode, SMALL)


@pytest.mark.parametrize("mode", ["union", "spectral"])
@pytest.mark.parametrize(
    ("name", "backbone"), [("simmim", SWIN), ("maskfeat", SWIN), ("cmid", RESNET)]
)
def test_other_backbones(name: str, backbone: dict[str, Any], mode: Any) -> None:
    image = ["image_size=32"] if backbone is RESNET else []
    check_changing_bands(
        recipe({"name": name}, [{"name": "replay", "mode": "batch"}]), mode, SMALL, backbone, image
    )
