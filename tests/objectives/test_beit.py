"""BEiT and its tokeniser against transcriptions."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.masked import build, encoder_of, pixels
from numpy.typing import NDArray
from torch import Tensor

from rscl_bench.objectives.beit import PatchTokeniser
from rscl_bench.objectives.kmeans import spherical_kmeans
from rscl_bench.objectives.mae import MAE
from rscl_bench.randomness import torch_generator
from rscl_bench.testing import start, tiny_spec, tiny_stores, train
from rscl_bench.testing.tiny import State, differing, recipe
from rscl_bench.views.view import View

Array = NDArray[np.float64]

BEIT = {"name": "beit", "vocabulary": 8, "tiles": 10, "iterations": 3}
CODEBOOK = "tokeniser.codebook"


def slow_kmeans(rows: Array, centroids: Array, iterations: int) -> tuple[Array, list[int]]:
    centroids = centroids.copy()

    def nearest(row: Array) -> int:
        return max(range(len(centroids)), key=lambda n: float(row @ centroids[n]))

    for _ in range(iterations):
        assigned = [nearest(row) for row in rows]
        for number in range(len(centroids)):
            mine = [row for row, which in zip(rows, assigned, strict=True) if which == number]
            if mine:
                total = np.sum(mine, axis=0)
                centroids[number] = total / math.sqrt(float(total @ total))
    return centroids, [nearest(row) for row in rows]


@pytest.mark.parametrize("part", [4096, 7])
def test_kmeans_equals_the_transcription(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rscl_bench.objectives.kmeans._CHUNK", part)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((60, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    # The last centroid stays empty.
    first = np.concatenate([rows[:6], -rows.mean(axis=0, keepdims=True) * 0])
    first[6] = -rows.sum(axis=0) / np.linalg.norm(rows.sum(axis=0))
    for iterations in (1, 4):
        expected, assigned = slow_kmeans(rows, first, iterations)
        result, numbers = spherical_kmeans(
            torch.from_numpy(rows), torch.from_numpy(first), iterations
        )
        assert np.abs(result.numpy() - expected).max() < 1e-12
        assert numbers.tolist() == assigned


def test_empty_cluster_keeps_its_centroid() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    first = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    centroids, assigned = spherical_kmeans(rows, first, 3)
    assert torch.equal(centroids[1], first[1])
    assert assigned.tolist() == [0, 0]


def fitted(vocabulary: int = 12, bands: int = 2) -> tuple[PatchTokeniser, Tensor]:
    tokeniser = PatchTokeniser(4, bands, vocabulary)
    images = pixels(10, bands)
    tokeniser.fit(images, 4)
    return tokeniser, images


def slow_tokens(tokeniser: PatchTokeniser, image: Array) -> list[int]:
    """Return one image's tokens, patch by patch."""
    codes = tokeniser.codebook.double().numpy()[: int(tokeniser.used)]
    tokens = []
    for row in range(0, image.shape[1], 4):
        for column in range(0, image.shape[2], 4):
            values = [
                image[band, row + y, column + x]
                for y in range(4)
                for x in range(4)
                for band in range(len(image))
            ]
            centred = np.array(values) - np.mean(values)
            tokens.append(max(range(len(codes)), key=lambda n: float(codes[n] @ centred)))
    return tokens


def all_locations(count: int, number: int = 16) -> Tensor:
    return torch.arange(number).expand(count, -1)


def test_tokens_equal_the_transcription() -> None:
    tokeniser, images = fitted()
    tokens = tokeniser(images, all_locations(10))
    for image, row in zip(images.double().numpy(), tokens.tolist(), strict=True):
        assert row == slow_tokens(tokeniser, image)
    assert len(tokens.unique()) == 12
    some = torch.tensor([[3, 9]]).expand(10, -1)
    assert torch.equal(tokeniser(images, some), tokens[:, [3, 9]])


def test_codebook_holds_the_kmeans_centroids() -> None:
    tokeniser, images = fitted()
    rows = tokeniser.directions(images).flatten(0, 1)
    assert rows.shape == (160, 32)
    expected, _ = slow_kmeans(rows.double().numpy(), rows[::13][:12].double().numpy(), 4)
    assert np.abs(tokeniser.codebook.double().numpy() - expected).max() < 1e-5


def test_tokens_ignore_brightness_and_contrast() -> None:
    tokeniser, images = fitted()
    locations = all_locations(10)
    assert torch.equal(tokeniser(2 * images + 0.5, locations), tokeniser(images, locations))


def test_flat_patches_are_left_out() -> None:
    tokeniser = PatchTokeniser(4, 3, 8)
    images = pixels(4)
    images[:, :, :8] = 0.37
    assert not tokeniser.directions(images)[:, :8].any()
    tokeniser.fit(images, 2)
    assert int(tokeniser.used) == 3  # a tenth of 32
    assert torch.allclose(tokeniser.codebook[:3].norm(dim=1), torch.ones(3))
    assert len(tokeniser(images, all_locations(4))[:, :8].unique()) == 1


def test_vocabulary_is_at_most_a_tenth_of_the_patches() -> None:
    tokeniser, images = fitted(vocabulary=50)
    assert int(tokeniser.used) == 16
    assert not tokeniser.codebook[16:].any()
    assert int(tokeniser(images, all_locations(10)).max()) < 16
    # A direction that is not in use is never chosen, even if all others point the other way.
    tokeniser = PatchTokeniser(4, 2, 5)
    tokeniser.fit(images[:1, :, :4, :4], 1)
    assert int(tokeniser.used) == 1
    assert not tokeniser(-images[:1, :, :4, :4], all_locations(1, 1)).any()


def sampled(objective: Any) -> Any:
    """Fit the tokeniser on random views."""
    objective.before_task(0, lambda count: [pixels(min(count, 20), objective.encoder.channels)])
    return objective


@pytest.mark.parametrize(("kind", "bands"), [("vit", 3), ("vit", 4), ("swin", 3)])
def test_loss_equals_the_transcription(kind: str, bands: int) -> None:
    objective = sampled(build("beit", encoder_of(kind, bands=bands), vocabulary=8))
    images = pixels(3, bands, seed=9)
    output = objective([images], torch_generator("cpu", 3))
    locations = objective.draw(3, 4, torch_generator("cpu", 3))
    with torch.no_grad():
        features = objective.encoder.grid(output.encoded[0]).double().numpy()
    weight, bias = (p.detach().double().numpy() for p in objective.predict.parameters())
    losses = []
    for image in range(3):
        tokens = slow_tokens(objective.tokeniser, images[image].double().numpy())
        for location in locations[image].tolist():
            logits = weight @ features[image, :, location // 4, location % 4] + bias
            shares = [math.exp(logit) for logit in logits]
            losses.append(-math.log(shares[tokens[location]] / sum(shares)))
    assert locations.shape == (3, 6)
    assert float(output.loss.detach()) == pytest.approx(np.mean(losses), rel=1e-5)


def test_targets_and_loss_are_float32_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = sampled(build("beit", encoder_of("vit"), vocabulary=8))
    targets, compare = objective.targets, objective.compare
    seen: list[tuple[bool, torch.dtype]] = []

    def watch_targets(images: Tensor, locations: Tensor) -> Any:
        seen.append((torch.is_autocast_enabled("cpu"), images.dtype))
        return targets(images, locations)

    def watch(predicted: Tensor, targets: Tensor) -> Any:
        seen.append((torch.is_autocast_enabled("cpu"), predicted.dtype))
        return compare(predicted, targets)

    monkeypatch.setattr(objective, "targets", watch_targets)
    monkeypatch.setattr(objective, "compare", watch)
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective([pixels(2)], torch_generator("cpu", 0)).loss
    assert seen == [(False, torch.float32)] * 2
    assert loss.dtype == torch.float32


def test_view_is_the_papers() -> None:
    (view,) = build("beit", encoder_of("vit"), vocabulary=8).views
    strength = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
    assert view == View(min_scale=0.08, jitter=1.0, **strength)


# In a stream


def states_of(stores: Any = None, **spec: Any) -> list[State]:
    return train(start(tiny_spec(recipe(BEIT), **spec), stores))


def test_tokeniser_is_fitted_once_and_frozen() -> None:
    states = states_of()
    assert int(states[0]["tokeniser.used"]) == 4  # a tenth of 10 tiles of 4 patches
    assert states[0][CODEBOOK].any()
    for state in states[1:]:
        assert torch.equal(state[CODEBOOK], states[0][CODEBOOK])
    assert not [name for name in states[0] if name.startswith("encoder.tokeniser")]


def test_tokeniser_depends_on_the_first_task_alone() -> None:
    stores = tiny_stores()
    one = states_of(stores)[-1][CODEBOOK]
    swapped = states_of([stores[0], stores[2], stores[1]])[-1][CODEBOOK]
    other = states_of([stores[1], stores[0], stores[2]])[-1][CODEBOOK]
    assert torch.equal(one, swapped)
    assert not torch.equal(one, other)


def test_tokeniser_depends_on_the_seed() -> None:
    assert not torch.equal(states_of()[0][CODEBOOK], states_of(seed=1)[0][CODEBOOK])


# Views of tiles before a task


class Curious(MAE):
    """Looks at tiles before every task."""

    seen: list[list[Tensor]]

    def before_task(self, task: int, sample: Any) -> None:
        self.seen = [*getattr(self, "seen", []), [sample(count)[0] for count in (5, 5, 12, 99)]]


def test_looking_at_tiles_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = tiny_stores()
    stores[2] = dataclasses.replace(stores[2], tiles=np.full_like(stores[2].tiles, 9))
    plain = train(start(tiny_spec(), stores))
    monkeypatch.setattr(MAE, "before_task", Curious.before_task)
    template = start(tiny_spec(), stores)
    assert not differing(plain[-1], train(template)[-1])
    seen = template.model.seen
    assert len(seen) == 3
    for looks in seen[:2]:
        assert [look.shape[0] for look in looks] == [5, 5, 12, 16]
        assert looks[0].shape[1:] == (3, 16, 16)
        assert torch.equal(looks[0], looks[1])
        assert len(looks[3].flatten(1).unique(dim=0)) == 16
    # Each task shows its own tiles; the tiles of the third task have one colour.
    varied = [bool((looks[3].std(dim=(2, 3)) > 1e-3).all()) for looks in seen]
    assert varied == [True, True, False]
