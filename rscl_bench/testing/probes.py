"""The contract of probes."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rscl_bench import registry
from rscl_bench.engine.build import build_objective
from rscl_bench.engine.probing import archive_of
from rscl_bench.probes.base import Probe
from rscl_bench.probes.images import EvalContext, Images
from rscl_bench.probes.metrics import multilabel_map
from rscl_bench.probes.transfer import TransferParams, TransferProbe
from rscl_bench.randomness import numpy_generator
from rscl_bench.spec import Spec, Views
from rscl_bench.testing.tiny import differing, state_of, store_of, tiny_spec
from rscl_bench.tiles.store import TileStore

ROWS, LABELS, WIDTH = 300, 4, 8
BANDS, SIZE = 3, 16  # of images
PREVALENCE = 0.3
TOLERANCE = 0.08  # of a mean average precision over 1200 pairs of chance scores


def check_probe(name: str, parameters: Mapping[str, Any] | None = None) -> None:
    """Check a probe on features that tell everything, and on features that tell nothing.

    Features that separate all label sets give mean average precision 1, and random ones about the
    labels' prevalence. Scores are equal to the last bit for equal inputs, whether asked for twice
    or of a new instance, and do not depend on the test rows beside them. The inputs stay as they
    are.

    A probe that trains is checked in the same way on images, through a small ViT with random
    weights, whose parameters, modes and gradients stay as they are, as does torch's random state.

    Args:
        name: Registered name, or ``file.py:Class``.
        parameters: Of the probe.

    Raises:
        AssertionError: If the probe breaks the contract.
    """
    probe_class = registry.load("probes", name)
    assert issubclass(probe_class, Probe | TransferProbe), (
        f"'{name}' is no subclass of rscl_bench.probes' Probe or TransferProbe."
    )
    params = probe_class.Params.model_validate(dict(parameters or {}))
    check = _check_transfer if issubclass(probe_class, TransferProbe) else _check_on_features
    check(name, probe_class, params)
    try:
        type("Unsealed", (probe_class,), {"score": lambda *_: None})
    except TypeError:
        return
    raise AssertionError(f"'{name}' lets a subclass replace score.")


def _check_on_features(name: str, probe_class: type[Probe], params: Spec) -> None:
    probe = probe_class(params)
    rng = numpy_generator(0, "probe contract")
    train_labels, test_labels = _labels(rng), _labels(rng)
    perfect = [_telling(labels, rng) for labels in (train_labels, test_labels)]
    score = _mean(test_labels, probe.score(perfect[0], train_labels, perfect[1]))
    assert score > 0.999, (
        f"'{name}' scores {score:.4f} on features that separate all labels, not 1."
    )
    chance = [rng.standard_normal((ROWS, WIDTH)).astype(np.float32) for _ in range(2)]
    kept, kept_labels = [array.copy() for array in chance], train_labels.copy()
    scores = probe.score(chance[0], train_labels, chance[1])
    score, prevalence = _mean(test_labels, scores), float(test_labels.mean())
    assert abs(score - prevalence) < TOLERANCE, (
        f"'{name}' scores {score:.4f} on random features where labels have prevalence "
        f"{prevalence:.4f}: it sees more than features."
    )
    for before, after in zip(kept, chance, strict=True):
        assert np.array_equal(before, after), f"'{name}' changes its features."
    assert np.array_equal(kept_labels, train_labels), f"'{name}' changes its labels."
    for again in (probe, probe_class(params)):
        assert np.array_equal(scores, again.score(chance[0], train_labels, chance[1])), (
            f"'{name}' is not deterministic."
        )
    half = probe.score(chance[0], train_labels, chance[1][: ROWS // 2])
    assert np.allclose(half, scores[: ROWS // 2], rtol=1e-12), (
        f"'{name}' scores a test row by the test rows beside it."
    )


def _check_transfer(name: str, probe_class: type[TransferProbe], params: TransferParams) -> None:
    rng = numpy_generator(0, "probe contract")
    labels = {role: _labels(rng)[:, :BANDS] for role in ("train", "val", "test")}
    archive = archive_of(_tiles(labels["train"], rng), (), tiny_spec().protocol)
    setting = EvalContext(SIZE, Views(), archive, torch.device("cpu"), nullcontext)
    encoder = build_objective(tiny_spec(), torch.device("cpu")).encoder.eval()
    encoder.requires_grad_(False)
    kept, random_state = state_of(encoder), torch.random.get_rng_state()

    def scores(tiles: Mapping[str, TileStore], asked: int = ROWS) -> dict[str, NDArray[np.float64]]:
        images = {role: Images(store, np.arange(asked)) for role, store in tiles.items()}
        train = Images(tiles["train"], np.arange(ROWS))
        del images["train"]
        return probe_class(params).score(encoder, train, labels["train"], images, setting)

    telling = {role: _tiles(rows, rng) for role, rows in labels.items()}
    first = scores(telling)
    for role in ("val", "test"):
        score = _mean(labels[role], first[role])
        assert score > 0.99, f"'{name}' scores {score:.4f} on images that show all labels, not 1."
    again, half = scores(telling), scores(telling, ROWS // 2)
    for role, expected in first.items():
        assert np.array_equal(again[role], expected), f"'{name}' is not deterministic."
        assert np.allclose(half[role], expected[: ROWS // 2], rtol=1e-4, atol=1e-4), (
            f"'{name}' scores an image by the images beside it."
        )
    telling_nothing = {role: _tiles(_labels(rng)[:, :BANDS], rng) for role in labels}
    score = _mean(labels["test"], scores(telling_nothing)["test"])
    prevalence = float(labels["test"].mean())
    assert abs(score - prevalence) < TOLERANCE, (
        f"'{name}' scores {score:.4f} on images that tell nothing of labels of prevalence "
        f"{prevalence:.4f}: it sees more than images."
    )
    assert not differing(kept, state_of(encoder)), f"'{name}' changes the encoder."
    assert not any(module.training for module in encoder.modules()), f"'{name}' changes its mode."
    for parameter in encoder.parameters():
        assert not parameter.requires_grad, f"'{name}' changes which parameters are trained."
        assert parameter.grad is None, f"'{name}' leaves gradients in the encoder."
    assert torch.equal(random_state, torch.random.get_rng_state()), (
        f"'{name}' draws from torch's global random stream."
    )


def _tiles(labels: NDArray[np.uint8], rng: np.random.Generator) -> TileStore:
    """Return images of which a band is bright where its label is present."""
    noise = rng.integers(0, 100, (len(labels), SIZE, SIZE, labels.shape[1]), dtype=np.uint8)
    return store_of(noise + 100 * labels[:, None, None, :], "probe")


def _labels(rng: np.random.Generator) -> NDArray[np.uint8]:
    return (rng.random((ROWS, LABELS)) < PREVALENCE).astype(np.uint8)


def _telling(labels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return features whose first dimensions are the labels, far apart, with a little noise."""
    noise = rng.standard_normal((len(labels), WIDTH)) * 0.01
    noise[:, :LABELS] += 10.0 * labels
    return noise.astype(np.float32)


def _mean(labels: NDArray[np.uint8], scores: NDArray[np.float64]) -> float:
    micro = multilabel_map(labels, scores).micro
    assert micro is not None
    return micro
