"""Every joint-embedding objective: views, batches, precision, distillation and collapse."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.backbones import RESNET, SWIN
from helpers.joint_embeddings import SMALL, build, diagonal, noise, train_on_noise, watched
from torch import Tensor, nn

from rscl_bench.declarations import load_method
from rscl_bench.errors import SpecError
from rscl_bench.objectives import deepcluster_v2, swav
from rscl_bench.objectives.embedding import contrast, distil_by_contrast, forward_multicrop, mlp
from rscl_bench.probes.collapse_metrics import collapse_metrics
from rscl_bench.testing import check_objective
from rscl_bench.views.view import View

NAMES = sorted(SMALL)


@pytest.mark.parametrize("name", NAMES)
def test_contract_on_swin(name: str) -> None:
    check_objective(name, SMALL[name], SWIN)


@pytest.mark.parametrize("name", ["simclr", "moco-v3", "swav"])
def test_contract_on_resnet(name: str) -> None:
    """One objective with joint batches, one with a teacher and one with small views."""
    check_objective(name, SMALL[name], RESNET)


# Views

NOTHING: dict[str, Any] = {
    "max_scale": 1.0,
    "size": 1.0,
    "jitter": 0.8,
    "grey": 0.2,
    "blur_sigma": (0.1, 2.0),
    "solarise": 0.0,
}
STRONG: dict[str, Any] = {
    **NOTHING,
    "min_scale": 0.08,
    "brightness": 0.8,
    "contrast": 0.8,
    "saturation": 0.8,
    "hue": 0.2,
    "blur": 0.5,
}
WEAK: dict[str, Any] = {
    **NOTHING,
    "min_scale": 0.08,
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.2,
    "hue": 0.1,
    "blur": 1.0,
}
BYOL = [WEAK, {**WEAK, "blur": 0.1, "solarise": 0.2}]
MOCO = {**WEAK, "min_scale": 0.2, "saturation": 0.4, "blur": 0.5}
LARGE = {**STRONG, "min_scale": 0.14}
SMALL_VIEW = {**STRONG, "min_scale": 0.05, "max_scale": 0.14, "size": 96 / 224}
VIEWS: dict[str, list[dict[str, Any]]] = {
    "barlow-twins": BYOL,
    "byol": BYOL,
    "deepcluster-v2": [LARGE] * 2 + [SMALL_VIEW] * 6,
    "moco-v2": [MOCO] * 2,
    "moco-v3": BYOL,
    "simclr": [STRONG] * 2,
    "swav": [LARGE] * 2 + [SMALL_VIEW] * 6,
    "vicreg": BYOL,
}


@pytest.mark.parametrize("name", NAMES)
def test_views_are_the_papers(name: str) -> None:
    own: dict[str, Any] = {"small_views": 6} if "small_views" in SMALL[name] else {}
    assert list(build(name, **own).views) == [View(**view) for view in VIEWS[name]]


def test_views_can_be_set() -> None:
    for name, fields in (
        ("simclr", ("view",)),
        ("moco-v2", ("view",)),
        ("byol", ("first_view", "second_view")),
        ("swav", ("whole_view", "small_view")),
    ):
        for number, field in enumerate(fields):
            changed = build(name, **{field: {"min_scale": 0.33}}).views
            place = 2 if field == "small_view" else number
            assert changed[place].min_scale == 0.33
            assert changed[place].jitter == 0


def test_small_views_are_small() -> None:
    shapes = [tuple(view.shape) for view in watched("swav", small_views=2)[0].views]
    assert shapes == [(8, 3, 16, 16)] * 2 + [(8, 3, 8, 8)] * 2


# Recipes, batches and outputs


@pytest.mark.parametrize("name", NAMES)
def test_recipe_has_the_objective_alone(name: str) -> None:
    method = load_method(name)
    assert method.name == method.objective.name == name
    assert method.objective.parameters == {}
    assert method.strategies == ()


JOINT_BATCH = {"simclr", "swav", "deepcluster-v2"}


@pytest.mark.parametrize("name", NAMES)
def test_batches_of_encoder_and_projector(name: str) -> None:
    """Both views form one batch if they do so in the authors' code; otherwise each is a batch."""
    objective = build(name)
    seen: dict[str, list[int]] = {"encoder": [], "projector": []}
    for part, sizes in seen.items():
        module = getattr(objective, part)
        module.register_forward_pre_hook(lambda _, given, sizes=sizes: sizes.append(len(given[0])))
    sides = [16, 16, 8, 8][: len(objective.views)]
    views = [noise(4, 3, side, side, seed=number) for number, side in enumerate(sides)]
    output = objective(views, torch.Generator())
    crops = len(views) > 2
    assert seen["encoder"] == (([8, 8] if crops else [8]) if name in JOINT_BATCH else [4, 4])
    assert seen["projector"] == (([16] if crops else [8]) if name in JOINT_BATCH else [4, 4])
    assert len(output.encoded) == len(output.projected) == len(views)
    assert all(one.shape == (4, objective.projected_dim) for one in output.projected)


@pytest.mark.parametrize("name", NAMES)
def test_output_has_every_view(name: str) -> None:
    """In evaluation mode, where no image depends on the others."""
    objective = build(name).eval()
    sides = [16, 16, 8, 8][: len(objective.views)]
    views = [noise(4, 3, side, side, seed=number) for number, side in enumerate(sides)]
    with torch.no_grad():
        output = objective(views, torch.Generator())
        for view, encoded, projected in zip(views, output.encoded, output.projected, strict=True):
            torch.testing.assert_close(encoded, objective.encoder(view))
            pooled = objective.encoder.pool(encoded, "patches")
            torch.testing.assert_close(projected, objective.projector(pooled))


@pytest.mark.parametrize("name", NAMES)
def test_feature_can_be_the_class_token(name: str) -> None:
    objective = build(name, feature="cls").eval()
    views = [noise(4, 3, 16, 16, seed=number) for number in range(len(objective.views))]
    with torch.no_grad():
        output = objective(views, torch.Generator())
        expected = objective.projector(output.encoded[0][:, 0])
    torch.testing.assert_close(output.projected[0], expected)
    with pytest.raises(SpecError, match="no class token"):
        build(name, backbone=SWIN, feature="cls")


def test_consecutive_views_of_one_size_are_one_batch() -> None:
    calls: list[tuple[int, ...]] = []

    def double(batch: Tensor) -> Tensor:
        calls.append(tuple(batch.shape))
        return 2 * batch

    views = [noise(3, 1, side, side, seed=side) for side in (4, 4, 2, 2, 2)]
    results = forward_multicrop(double, views)
    assert calls == [(6, 1, 4, 4), (9, 1, 2, 2)]
    for view, result in zip(views, results, strict=True):
        assert torch.equal(result, 2 * view)


def test_mlp() -> None:
    linear, norm, relu = nn.Linear, nn.BatchNorm1d, nn.ReLU
    kinds = {
        (): [linear, norm, relu, linear, norm, relu, linear],
        ("last_norm",): [linear, norm, relu, linear, norm, relu, linear, norm],
    }
    for options, expected in kinds.items():
        layers = mlp(3, 4, 5, 6, **dict.fromkeys(options, True))
        assert [type(layer) for layer in layers] == expected
    assert [type(layer) for layer in mlp(3, 4, 5, norm=False)] == [linear, relu, linear]

    def biases(**options: bool) -> list[bool]:
        layers = mlp(3, 4, 5, **options)
        return [layer.bias is not None for layer in layers if isinstance(layer, linear)]

    assert biases() == [False, True]
    assert biases(norm=False) == [True, True]
    assert biases(last_norm=True) == biases(last_bias=False) == [False, False]


# Precision


@pytest.mark.parametrize("name", NAMES)
def test_loss_is_fp32_under_autocast(name: str) -> None:
    """A loss that is rounded to bf16 on the way differs from the loss in float32."""
    objective = build(name)
    views = [noise(6, 3, 16, 16, seed=number) for number in range(len(objective.views))]
    projected = [noise(6, 8, seed=number).bfloat16() for number in range(len(objective.views))]
    if hasattr(objective, "teacher_projection"):  # heads may be bf16, the loss not
        targets = [noise(6, 8, seed=9 + number).bfloat16() for number in range(2)]
        objective.teacher_projection = lambda view: targets[
            next(n for n in (0, 1) if view is views[n])
        ]
        objective.predictor = nn.Identity()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        loss = objective.compare(projected, views)
    if hasattr(objective, "teacher_projection"):
        exact = [one.float() for one in targets]
        objective.teacher_projection = lambda view: exact[
            next(n for n in (0, 1) if view is views[n])
        ]
    expected = objective.compare([one.float() for one in projected], views)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected.detach(), atol=1e-6, rtol=1e-6)


# CaSSLe


@pytest.mark.parametrize("name", NAMES)
def test_cassle_distils_from_the_second_task_on(name: str) -> None:
    steps = watched(name, [{"name": "cassle", "hidden_dim": 12}])
    plain = watched(name)
    for one, other in zip(steps, plain, strict=True):
        if one.task == 0:
            assert one.added == 0
            assert one.loss == other.loss
        else:
            assert one.added > 1e-4
    assert steps[-1].loss != plain[-1].loss


# Contrastive objectives


def test_contrast_is_the_transcription() -> None:
    queries, keys = noise(6, 4), noise(6, 4, seed=1)
    assert float(contrast(queries, keys, 0.3)) == pytest.approx(diagonal(queries, keys, 0.3))


@pytest.mark.parametrize("name", ["simclr", "moco-v2", "moco-v3"])
def test_distillation_of_contrastive_objectives(name: str) -> None:
    """The loss has two directions, 2 B × 2 B cosines and CaSSLe's temperature."""
    predicted = [noise(4, 8, seed=seed) for seed in (0, 1)]
    past = [noise(4, 8, seed=seed) for seed in (2, 3)]
    new, old = torch.cat(predicted), torch.cat(past)
    expected = (diagonal(new, old, 0.2) + diagonal(old, new, 0.2)) / 2
    assert float(build(name).distil(predicted, past)) == pytest.approx(expected, rel=1e-5)
    assert float(distil_by_contrast(predicted, past)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["simclr", "moco-v2", "moco-v3"])
def test_temperature_of_zero_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="temperature"):
        build(name, temperature=0.0)


# Collapse: it is prevented by a part of the objective that the test takes out.


def only_positives(objective: Any, _: pytest.MonkeyPatch) -> None:
    """Attract both views, with gradient through both, without negatives and predictor."""

    def compare(projected: Any, views: Any) -> Tensor:
        objective.keys = torch.zeros(1, 8)  # for MoCo v2's queue
        return 1 - F.cosine_similarity(projected[0], projected[1]).mean()

    objective.compare = compare


def without_variance(objective: Any, _: pytest.MonkeyPatch) -> None:
    objective.loss.mu_param = objective.loss.nu_param = 0.0


def without_balance(objective: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make codes by a softmax of each embedding, without balancing."""

    def unbalanced(scores: Tensor, iterations: int, epsilon: float) -> Tensor:
        return (scores / epsilon).softmax(dim=1)

    for module in (swav, deepcluster_v2):
        monkeypatch.setattr(module, "sinkhorn", unbalanced)
    monkeypatch.setattr(objective, "_cluster", lambda: None, raising=False)


BREAKS: dict[str, Callable[[Any, pytest.MonkeyPatch], None]] = {
    **dict.fromkeys(NAMES, only_positives),
    "vicreg": without_variance,
    "swav": without_balance,
    "deepcluster-v2": without_balance,
}


def without_norms(objective: Any) -> None:
    """Remove the head's batch normalisation, which alone would keep the variance."""
    objective.projector = mlp(24, 16, 8, norm=False)
    if hasattr(objective, "teacher_projector"):
        objective.teacher_projector = copy.deepcopy(objective.projector).requires_grad_(False)


def spread_after(name: str, objective: Any) -> float:
    """Train, then return the spread of the projections."""
    images = train_on_noise(objective)
    with torch.no_grad():
        projected = objective.projector(objective.encoder.pool(objective.encoder(images)))
    return measure(name, objective, projected)


def measure(name: str, objective: Any, projected: Tensor) -> float:
    """Return the spread as the objective defines it, between 0 and about 1."""
    if name == "vicreg":  # lengths count too
        return float(projected.std(dim=0).mean())
    if name in ("swav", "deepcluster-v2"):  # clusters in use: a third of all counts as 1
        prototypes = objective.prototypes.weight if name == "swav" else objective.prototypes[0]
        used = (F.normalize(projected, dim=1) @ prototypes.T).argmax(dim=1).unique()
        return (len(used) - 1) / 2
    return collapse_metrics(projected.numpy().astype(np.float64)).std


@pytest.mark.parametrize("name", NAMES)
def test_collapse_is_prevented(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spreads = []
    for broken in (False, True):
        objective = build(name)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            if name in ("simclr", "moco-v3"):
                without_norms(objective)
        if broken:
            BREAKS[name](objective, monkeypatch)
        spreads.append(spread_after(name, objective))
    sound, collapsed = spreads
    assert sound > 0.15
    assert collapsed < 0.1
