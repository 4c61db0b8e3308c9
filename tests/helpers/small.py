"""Parameters with which components are small enough for tests."""

from typing import Any

from helpers.joint_embeddings import SMALL as JOINT_EMBEDDINGS
from rscl_bench import registry
from rscl_bench.declarations import declarations, load_method

DINO: dict[str, Any] = {"hidden_dim": 16, "bottleneck_dim": 8, "prototypes": 12, "local_views": 2}
MAE: dict[str, Any] = {"decoder_dim": 24, "decoder_depth": 1, "decoder_heads": 2}
SMALL: dict[str, dict[str, Any]] = {
    **JOINT_EMBEDDINGS,
    **dict.fromkeys(("dino", "dinov2", "dinov3", "ibot"), DINO),
    "beit": {"vocabulary": 16},
    "cmid": {
        "hidden_dim": 16,
        "output_dim": 8,
        "bottleneck_dim": 8,
        "prototypes": 12,
        "queue": 20,
    },
    "i-jepa": {"predictor_dim": 24, "predictor_depth": 2, "predictor_heads": 2},
    "mae": MAE,
    "masked-contrast": {**MAE, "hidden_dim": 16, "output_dim": 8},
    "momentum-masked-contrast": {**MAE, "hidden_dim": 16, "output_dim": 8},
    "tec": {**MAE, "target_depth": 1},
}


COMPOSED = [
    name
    for name in declarations("methods")
    if (method := load_method(name)).strategies and method.objective.name != "mae"
]


def objective_for(strategy: str) -> dict[str, Any]:
    """Return a small objective that the strategy works with: MAE where MAE will do."""
    needs = registry.load("strategies", strategy).needs
    name = "simclr" if "whole_views" in needs else "mae"
    return {"name": name, **SMALL[name]}
