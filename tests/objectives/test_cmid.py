"""CMID against slow transcriptions of its losses and of the geometry of crops."""

import cmath
import copy
import math
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.backbones import RESNET, SWIN
from helpers.joint_embeddings import (
    Watch,
    check_teacher,
    cosine,
    cosine_schedule,
    cross_entropy,
    mean,
    noise,
    train_on_noise,
    unit,
)
from torch import Tensor, nn

from rscl_bench.engine.build import build_objective
from rscl_bench.errors import SpecError
from rscl_bench.objectives.base import StepInfo
from rscl_bench.objectives.cmid import (
    CMID,
    CMIDParams,
    centres_of,
    focal_frequency,
    focal_l1,
    nearest,
)
from rscl_bench.probes.collapse_metrics import collapse_metrics
from rscl_bench.randomness import torch_generator
from rscl_bench.testing import check_objective, start, tiny_spec, train
from rscl_bench.testing.tiny import recipe
from rscl_bench.views.crops import Crops, draw_crops, resized_crops
from rscl_bench.views.view import View

SMALL: dict[str, Any] = {
    "hidden_dim": 16,
    "output_dim": 8,
    "bottleneck_dim": 8,
    "prototypes": 12,
    "queue": 20,
}
#: Encoders, and image sizes with at least two locations along a side.
ENCODERS: list[tuple[dict[str, Any] | None, int]] = [(None, 16), (RESNET, 64), (SWIN, 16)]


def build(backbone: dict[str, Any] | None = None, image_size: int = 16, **parameters: Any) -> CMID:
    method = recipe({"name": "cmid", **SMALL, **parameters})
    spec = tiny_spec(method, backbone=backbone, image_size=image_size)
    objective = build_objective(spec, torch.device("cpu"))
    assert isinstance(objective, CMID)
    return objective


def crops_of(count: int, side: int, seed: int) -> Crops:
    return draw_crops(count, side, side, (0.3, 1.0), 0.5, torch_generator("cpu", seed, "crops"))


def shown(objective: CMID, count: int, size: int = 16, known: int | None = None) -> list[Tensor]:
    """Return two views, and give the objective the crops of the first ``known`` images."""
    known = count if known is None else known
    crops = [crops_of(known, 20, seed) for seed in (0, 1)]
    objective.before_step(StepInfo(0, 0, 10, 2, [(0, torch.arange(known))], crops))
    return [noise(count, 3, size, size, seed=seed) for seed in (0, 1)]


def run(objective: CMID, views: Sequence[Tensor]) -> Any:
    return objective(views, torch_generator("cpu", 0, "objective"))


# Reconstruction.


def slow_focal(predicted: float, target: float, focus: float) -> float:
    error = abs(predicted - target)
    return error * (2 / (1 + math.exp(-focus * error)) - 1)


def test_focal_l1_by_floats() -> None:
    predicted, target = noise(2, 40).double() * 3
    for focus in (0.2, 1.5):
        each = focal_l1(predicted, target, focus)
        for value, one, other in zip(each, predicted, target, strict=True):
            assert float(value) == pytest.approx(slow_focal(float(one), float(other), focus))


def slow_focal_frequency(predicted: Tensor, target: Tensor) -> float:
    """Return the loss of the batch's mean spectrum, with the Fourier sum term by term."""
    count, bands, height, width = predicted.shape
    squared = []
    for band, row, column in product(range(bands), range(height), range(width)):
        difference = 0j
        for image, y, x in product(range(count), range(height), range(width)):
            wave = cmath.exp(-2j * math.pi * (row * y / height + column * x / width))
            value = float(predicted[image, band, y, x] - target[image, band, y, x])
            difference += value * wave / math.sqrt(height * width) / count
        squared.append(abs(difference) ** 2)
    weights = [math.log(math.sqrt(value) + 1) for value in squared]
    return mean(
        [weight / max(weights) * value for weight, value in zip(weights, squared, strict=True)]
    )


def test_focal_frequency_by_loops() -> None:
    predicted, target = noise(2, 3, 2, 4, 6)
    expected = slow_focal_frequency(predicted.double(), target.double())
    assert float(focal_frequency(predicted, target)) == pytest.approx(expected, rel=1e-5)
    assert float(focal_frequency(target, target)) == 0


def test_weights_of_frequencies_take_no_gradient() -> None:
    predicted, target = noise(1, 1, 4, 4), noise(1, 1, 4, 4, seed=1)
    predicted.requires_grad_()
    loss = focal_frequency(predicted, target)
    (gradient,) = torch.autograd.grad(loss, predicted)
    # With constant weights the loss is quadratic in the error.
    linear = (gradient * (predicted - target)).sum().detach()
    assert float(linear) == pytest.approx(2 * float(loss.detach()))
    same = target.clone().requires_grad_()
    assert not torch.autograd.grad(focal_frequency(same, target), same)[0].any()


def painted_by_loops(objective: CMID, features: Tensor, size: int) -> Tensor:
    """Return the pixels that each location predicts: a square, bands innermost."""
    stride, side = objective.encoder.feature_stride, math.isqrt(features.shape[1])
    whole = torch.zeros(len(features), 3, side * stride, side * stride)
    for image, row, column in product(range(len(features)), range(side), range(side)):
        pixels = objective.predict(features[image, row * side + column]).reshape(stride, stride, 3)
        for y, x in product(range(stride), range(stride)):
            whole[image, :, row * stride + y, column * stride + x] = pixels[y, x]
    return whole[..., :size, :size]


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_pixel_loss_by_loops(weight: float) -> None:
    objective = build(frequency_weight=weight, visible_weight=0.3)
    images, features = noise(3, 3, 16, 16), 2 * noise(3, 4, 24, seed=1)
    hidden = torch.zeros(3, 2, 2, dtype=torch.bool)
    hidden[0, 0, 1] = hidden[1, 1] = hidden[2, :, 0] = True
    with torch.no_grad():
        painted = painted_by_loops(objective, features, 16)
        mixed, values = painted.clone(), []
        for image, y, x in product(range(3), range(16), range(16)):
            if hidden[image, y // 8, x // 8]:
                pairs = zip(painted[image, :, y, x], images[image, :, y, x], strict=True)
                values += [slow_focal(float(one), float(other), 0.2) for one, other in pairs]
            else:
                half = (painted + images)[image, :, y, x] / 2
                mixed[image, :, y, x] = 0.3 * painted[image, :, y, x] + 0.7 * half
        expected = mean(values) + weight * float(focal_frequency(mixed, images))
    loss = objective.pixel_loss(images, features, hidden)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_visible_pixels_get_little_gradient_from_the_spectrum_alone() -> None:
    """The gradient of a location scales with its weight: hidden 1, visible ``visible_weight``."""
    images, hidden = noise(1, 3, 16, 16), torch.zeros(1, 2, 2, dtype=torch.bool)
    hidden[0, 0, 0] = True
    norms = {}
    for visible in (0.001, 0.002, 0.0):
        objective = build(visible_weight=visible)
        features = noise(1, 4, 24, seed=1).requires_grad_()
        (gradient,) = torch.autograd.grad(objective.pixel_loss(images, features, hidden), features)
        norms[visible] = gradient.norm(dim=2)[0]
    assert not norms[0.0][1:].any()
    assert norms[0.0][0] > 0
    torch.testing.assert_close(norms[0.002][1:], 2 * norms[0.001][1:], rtol=1e-2, atol=0)


def test_last_locations_of_a_resnet_reach_beyond_the_border() -> None:
    objective = build(RESNET, image_size=48)
    objective.params = objective.params.model_copy(update={"frequency_weight": 0.0})
    features = 3 * noise(2, 4, 512, seed=1)
    hidden = objective.draw(2, 48, torch_generator("cpu", 0))
    images = noise(2, 3, 48, 48)
    with torch.no_grad():
        painted = painted_by_loops(objective, features, 48)
        pixels = hidden.repeat_interleave(48 // hidden.shape[1], dim=1)
        pixels = pixels.repeat_interleave(48 // hidden.shape[1], dim=2)
        each = focal_l1(painted, images, 0.2).permute(0, 2, 3, 1)[pixels]
        loss = objective.pixel_loss(images, features, hidden)
    assert float(loss) == pytest.approx(float(each.mean()), rel=1e-5)


# Contrast.


def test_global_loss_by_loops() -> None:
    objective = build()
    projected = [noise(5, 8, seed=seed) for seed in (0, 1)]
    taught = [noise(5, 5, 24, seed=seed) for seed in (2, 3)]
    keys = [objective.teacher_projector(one[:, 1:].mean(dim=1)).detach() for one in taught]
    losses = []
    for own, other in ((0, 1), (1, 0)):
        for query, key in zip(projected[own], keys[other], strict=True):
            negatives = [cosine(query, row) / 0.2 for row in objective.queue.rows]
            losses.append(cross_entropy([cosine(query, key) / 0.2, *negatives], 0))
    assert float(objective.global_loss(projected, taught)) == pytest.approx(mean(losses), rel=1e-5)
    assert objective.keys is not None
    for row, key in zip(objective.keys, torch.cat([keys[1], keys[0]]), strict=True):
        torch.testing.assert_close(row.double(), unit(key), atol=1e-6, rtol=0)


# Locations on the ground.


@pytest.mark.parametrize("side", [1, 4, 7])
def test_centres_are_where_the_crop_puts_them(side: int) -> None:
    """The crop of a tile whose bands hold row and column shows where its centres are."""
    count, tile = 40, 64
    crops = crops_of(count, tile, 0)
    assert 0 < int(crops.flip.sum()) < count
    along = torch.arange(tile) + 0.5
    pixels = torch.stack(torch.meshgrid(along, along, indexing="ij"), dim=-1)
    views = resized_crops(pixels.expand(count, -1, -1, -1), crops, 8 * side)
    centres = centres_of(crops, side)
    assert centres.shape == (count, side**2, 2)
    for image, row, column in product(range(count), range(side), range(side)):
        square = views[image, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        expected = square.mean(dim=(1, 2))
        # Filters are cut at the border of the crop.
        assert (centres[image, row * side + column] - expected).abs().max() < 0.3


@pytest.mark.parametrize("count", [1, 5, 9])
def test_nearest_pairs_by_brute_force(count: int) -> None:
    own, other = noise(6, 9, 2), noise(6, 12, 2, seed=1)
    kept, partner = nearest(own, other, count)
    assert kept.shape == partner.shape == (6, count)
    for image in range(6):
        pairs = []
        for number, point in enumerate(own[image]):
            distances = [float((point - one).norm()) for one in other[image]]
            pairs.append((min(distances), number, distances.index(min(distances))))
        expected = [(number, near) for _, number, near in sorted(pairs)[:count]]
        assert list(zip(kept[image].tolist(), partner[image].tolist(), strict=True)) == expected


def test_near_points_far_from_the_origin_are_distinguished() -> None:
    points = 20000 + 0.05 * torch.arange(60)[None, :, None].expand(-1, -1, 2)
    kept, partner = nearest(points, points, 60)
    assert torch.equal(kept, partner)
    assert torch.equal(kept[0].sort().values, torch.arange(60))


def local_by_loops(
    objective: CMID, own: Sequence[Tensor], taught: Sequence[Tensor], known: int, count: int
) -> tuple[float, Tensor]:
    """Return the loss, location by location, and the updated centre."""
    centre, total = objective.targets.centre.clone(), []
    sides = [math.isqrt(one.shape[1]) for one in own]
    points = [centres_of(*pair) for pair in zip(objective.crops, sides, strict=True)]
    for mine, other in ((0, 1), (1, 0)):
        logits, losses = [], []
        for image in range(known):
            kept, partner = nearest(points[mine][None, image], points[other][None, image], count)
            for location, near in zip(kept[0], partner[0], strict=True):
                logits.append(objective.teacher_head(taught[other][image, near]).detach())
                target = ((logits[-1] - centre) / objective.temperature).double().softmax(dim=0)
                student = objective.local_head(own[mine][image, location]).detach().double() / 0.1
                losses.append(-float((target * student.log_softmax(dim=0)).sum()))
        total.append(mean(losses))
        centre = 0.9 * centre + 0.1 * torch.stack(logits).mean(dim=0)
    return mean(total), centre


@pytest.mark.parametrize(("matches", "count"), [(20 / 49, 4), (0.01, 1), (1.0, 9)])
def test_local_loss_by_loops(matches: float, count: int) -> None:
    objective = build(matches=matches)
    objective.targets.centre.normal_(generator=torch_generator("cpu", 0, "centre"))
    shown(objective, 5, known=3)
    own, taught = ([noise(5, 9, 24, seed=seed) for seed in pair] for pair in ((0, 1), (2, 3)))
    expected, centre = local_by_loops(objective, own, taught, 3, count)
    assert float(objective.local_loss(own, taught).detach()) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(objective.targets.centre, centre, atol=1e-6, rtol=1e-5)


def test_authors_number_of_matches() -> None:
    locations = {7: 20, 14: 80}
    assert {side: round(CMIDParams().matches * side**2) for side in locations} == locations


def test_loss_is_the_sum_of_its_parts() -> None:
    objective = build()
    parts: dict[str, list[float]] = {}
    for name in ("pixel_loss", "global_loss", "local_loss"):
        loss_of = getattr(objective, name)

        def kept(*given: Any, name: str = name, loss_of: Any = loss_of) -> Tensor:
            value: Tensor = loss_of(*given)
            parts.setdefault(name, []).append(float(value.detach()))
            return value

        setattr(objective, name, kept)
    loss = run(objective, shown(objective, 4)).loss
    assert [len(values) for values in parts.values()] == [2, 1, 1]
    assert float(loss.detach()) == pytest.approx(sum(map(mean, parts.values())), rel=1e-5)


# What student and teacher see.


@pytest.mark.parametrize(("backbone", "size"), ENCODERS)
def test_student_sees_filled_views_and_the_teacher_whole_ones(
    backbone: dict[str, Any] | None, size: int
) -> None:
    objective = build(backbone, size)
    views, seen, whole = shown(objective, 4, size), [], []
    hinted = objective.encoder.forward_with_mask_token_added

    def forward_with_mask_token_added(images: Tensor, cells: Tensor, token: Tensor) -> Tensor:
        assert token is objective.token
        seen.append((images, cells))
        return hinted(images, cells, token)

    encoder: Any = objective.encoder
    encoder.forward_with_mask_token_added = forward_with_mask_token_added
    objective.teacher.register_forward_pre_hook(lambda _, given: whole.append(given[0]))
    run(objective, views)
    assert all(given is view for given, view in zip(whole, views, strict=True))
    assert len(seen) == len(whole) == 2
    assert not torch.equal(seen[0][1], seen[1][1])  # the masks of the views differ
    cell = objective.encoder.mask_stride
    for view, (images, cells) in zip(views, seen, strict=True):
        assert cells.shape == (4, size // cell, size // cell)
        expected = view.clone()
        for image, y, x in cells.nonzero().tolist():
            part = expected[image, :, y * cell : (y + 1) * cell, x * cell : (x + 1) * cell]
            part.copy_(view[image].mean(dim=(1, 2))[:, None, None].expand_as(part))
        torch.testing.assert_close(images, expected)


@pytest.mark.parametrize(("backbone", "size"), ENCODERS)
def test_token_is_added_to_what_the_first_stage_makes_of_hidden_cells(
    backbone: dict[str, Any] | None, size: int
) -> None:
    encoder: Any = build(backbone, size).encoder.eval()
    images, token = noise(2, 3, size, size), noise(encoder.token_dim, seed=1)
    cells = size // encoder.mask_stride
    hidden = noise(2, cells, cells, seed=2) > 0.3
    with torch.no_grad():
        none = encoder.forward_with_mask_token_added(images, torch.zeros_like(hidden), token)
        torch.testing.assert_close(none, encoder(images))
        result = encoder.forward_with_mask_token_added(images, hidden, token)

        def add(_: nn.Module, __: Any, first: Tensor) -> Tensor:
            first = first.clone()
            for image, y, x in product(range(2), range(cells), range(cells)):
                if hidden[image, y, x]:
                    here = first[image, :, y, x] if backbone is RESNET else first[image, y, x]
                    here += token
            return first

        vit = backbone is None
        stage = encoder.patch_embed if vit else encoder.network
        stage = stage if vit else stage.maxpool if backbone is RESNET else stage.patch_embed
        handle = stage.register_forward_hook(add)
        torch.testing.assert_close(result, encoder(images))
        handle.remove()
    assert not torch.allclose(result, none, atol=1e-3)


@pytest.mark.parametrize(
    ("backbone", "image_size", "side", "count"),
    [
        (None, 224, 7, 30),
        (None, 16, 2, 3),
        (None, 24, 3, 6),
        (RESNET, 224, 7, 30),
        (RESNET, 16, 4, 10),
        (SWIN, 224, 7, 30),
    ],
)
def test_masks(backbone: dict[str, Any] | None, image_size: int, side: int, count: int) -> None:
    objective = build(backbone)
    masks = objective.draw(400, image_size, torch_generator("cpu", 0, "masks"))
    assert masks.shape == (400, side, side)
    assert (masks.sum(dim=(1, 2)) == count).all()
    share = masks.float().mean(dim=0)
    assert (share - count / side**2).abs().max() < 0.1


def test_mask_ratio_that_hides_everything_is_refused() -> None:
    objective = build(mask_ratio=0.9)
    with pytest.raises(SpecError, match="mask_ratio hides 4 of 4 mask units"):
        run(objective, shown(objective, 4))


def test_views_are_the_authors() -> None:
    first, second = build().views
    assert first == View(min_scale=0.3)
    assert second.noise_std == pytest.approx((0.012401, 0.027730), abs=1e-6)
    assert second.model_copy(update={"noise_std": (0.0, 0.0)}) == View(
        min_scale=0.3,
        jitter=0.8,
        brightness=0.4,
        contrast=0.4,
        saturation=0.2,
        hue=0.1,
        grey=0.2,
        blur=1.0,
        noise=0.6,
        solarise=0.2,
    )


def test_loss_is_fp32_under_autocast() -> None:
    objective = build()
    views = shown(objective, 4)
    exact = run(copy.deepcopy(objective), views).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = run(objective, views).loss
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=0.05)


def test_views_of_two_sizes() -> None:
    objective = build()
    small = shown(objective, 4)[0]
    output = run(objective, [noise(4, 3, 24, 24, seed=1), small])
    assert torch.isfinite(output.loss)
    assert [one.shape[1] for one in output.encoded] == [10, 5]


# The stream.


def watched(*strategies: dict[str, Any], **parameters: Any) -> list[Any]:
    watch = Watch()
    method = recipe({"name": "cmid", **SMALL, **parameters}, strategies)
    train(start(tiny_spec(method, tasks=2), plugins=[watch]))
    return watch.steps


def test_teacher_and_queue_over_two_tasks() -> None:
    steps = watched(momentum=0.9, warmup=0.5)
    queue = steps[0].before.queue.rows.clone()
    index = 0
    for step in steps:
        before, momentum = step.before, cosine_schedule(0.9, step.step)
        check_teacher(step, momentum)
        for name, parameter in before.teacher_head.named_parameters():
            student = step.after[f"local_head.{name}"]
            expected = momentum * parameter.detach() + (1 - momentum) * student
            torch.testing.assert_close(step.after[f"teacher_head.{name}"], expected)
        assert torch.equal(before.queue.rows, queue)
        with torch.no_grad():
            for view in step.views[::-1]:
                for key in before.teacher_projector(before.teacher(view)[:, 1:].mean(dim=1)):
                    queue[index % 20] = unit(key)
                    index += 1
        torch.testing.assert_close(step.after["queue.rows"], queue, atol=1e-6, rtol=0)
        queue = step.after["queue.rows"]
    assert torch.linalg.vector_norm(steps[-1].after["targets.centre"]) > 0
    assert [step.task for step in steps] == [0] * 4 + [1] * 4
    for one, other in pairwise(steps):
        centres = one.after["targets.centre"], other.before.targets.centre
        assert torch.equal(*centres)  # the centre persists from task to task


def test_temperature_warms_up_in_every_task() -> None:
    objective = build(warmup=0.5)
    found = []
    for step in (0, 2, 5, 9):
        objective.before_step(StepInfo(1, step, 10, 1, [], ()))
        found.append(objective.temperature)
    assert found == pytest.approx([0.04, 0.052, 0.07, 0.07])


def test_no_gradient_reaches_the_teacher() -> None:
    objective = build()
    run(objective, shown(objective, 4)).loss.backward()
    for part in (objective.teacher, objective.teacher_projector, objective.teacher_head):
        assert all(p.grad is None and not p.requires_grad for p in part.parameters())


@pytest.mark.parametrize("mode", ["batch", "concat"])
def test_replayed_images_count_if_their_crops_are_known(mode: str) -> None:
    rows: list[tuple[int, int]] = []
    watch = Watch()
    method = recipe({"name": "cmid", **SMALL}, [{"name": "replay", "mode": mode}])
    template: Any = start(tiny_spec(method, tasks=2), plugins=[watch])
    template.model.local_head.register_forward_pre_hook(
        lambda _, given: rows.append((template.task, len(given[0])))
    )
    train(template)
    assert set(rows) == {(0, 8), (1, 8)}
    images = {(step.task, len(step.views[0])) for step in watch.steps}
    assert images == {(0, 8), (1, 16 if mode == "batch" else 8)}
    assert all(math.isfinite(step.loss) for step in watch.steps)


# Other encoders.


@pytest.mark.parametrize("backbone", [RESNET, SWIN])
def test_contract_on_other_encoders(backbone: dict[str, Any]) -> None:
    check_objective("cmid", SMALL, backbone)


def test_cassle() -> None:
    steps = watched({"name": "cassle", "hidden_dim": 12})
    assert all(step.added == 0 for step in steps if step.task == 0)
    assert all(step.added > 0 for step in steps if step.task == 1)


# Collapse


def test_collapse_is_prevented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Projections collapse without negatives; locations collapse without a centre."""
    apart, used = [], []
    for broken in (False, True):
        objective = build(frequency_weight=0.0)
        if broken:
            monkeypatch.setattr(
                "rscl_bench.objectives.cmid.moco_loss",
                lambda queries, keys, **_: 1 - F.cosine_similarity(queries, keys).mean(),
            )
            monkeypatch.setattr(objective.targets, "update_centre", lambda _: None)
        images = train_on_noise(objective, steps=60, noise=0.1)
        with torch.no_grad():
            encoded = objective.encoder(images)
            projected = objective.projector(objective.encoder.pool(encoded))
            logits = objective.local_head(objective.encoder.locations(encoded)).flatten(0, 1)
        apart.append(collapse_metrics(projected.numpy()).std)
        mean_share = torch.softmax(logits / 0.1, dim=-1).mean(dim=0)
        used.append(float(torch.exp(-(mean_share * mean_share.log()).sum())) / 12)
    assert apart[0] > 0.8
    assert apart[1] < 0.5  # the reconstruction still distinguishes images
    assert used[0] > 0.8
    assert used[1] < 0.1
