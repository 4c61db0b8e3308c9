"""The contract of probes."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rscl_bench import registry
from rscl_bench.engine.build import build_objective
from rscl_bench.engine.probing import pixel_scaling
from rscl_bench.models.encoder import Encoder
from rscl_bench.probes.base import BaseProbe, Labels, Scores
from rscl_bench.probes.encoding import EvalContext, FrozenEncoder, TileSubset
from rscl_bench.probes.metrics import multilabel_map
from rscl_bench.randomness import numpy_generator
from rscl_bench.spec import Views
from rscl_bench.testing.failures import Failures
from rscl_bench.testing.tiny import differing, state_of, store_of, tiny_spec

TILES, SIZE, BANDS = 300, 16, 3  # one label per band
PREVALENCE = 0.3
TOLERANCE = 0.08  # of the mean average precision of chance scores over 900 pairs
ROLES = ("train", "val", "test")
HALF = "half"  # a role with the first half of the test images

Scored = Mapping[str, Scores]


def check_probe(probe: str | type[BaseProbe], parameters: Mapping[str, Any] | None = None) -> None:
    """Check a probe on images that show all labels, and on images that are unrelated to the labels.

    The probe is evaluated on a small ViT with random weights. Mean average precision is about 1 on
    images that show the labels, and about the labels' prevalence on unrelated images. Scores are
    float64 and finite. They are equal to the last bit for equal inputs, and the score of an image
    does not depend on other scored images. A probe that also takes pixel statistics finds the
    labels in them. The evaluation changes neither the encoder (weights, modes, gradients), nor its
    inputs, nor a global random generator.

    Args:
        probe: A class, a registered name, or ``file.py:Class``.
        parameters: Parameters of the probe.

    Raises:
        AssertionError: If the probe breaks the contract; the message lists all failures.
    """
    probe_class = registry.load("probes", probe) if isinstance(probe, str) else probe
    name = probe if isinstance(probe, str) else probe.__name__
    assert isinstance(probe_class, type) and issubclass(probe_class, BaseProbe), (  # noqa: PT018
        f"'{name}' is no probe: it does not derive from rscl_bench.probes.base.BaseProbe."
    )
    trial = _Trial(probe_class, parameters or {})
    failures = Failures(f"Probe '{name}'")
    with failures.check("sealed evaluation"):
        _check_sealed(probe_class)
    with failures.check("evaluation"):
        before = _state(trial.encoder)
        instance = trial.probe()
        unrelated = trial.evaluate(instance, trial.unrelated)
        scores = trial.evaluate(instance, trial.telling)
        for role in ("val", "test"):
            _check_finds_labels("images that show the labels", trial.labels[role], scores[role])
        with failures.check("encoder"):
            _check_unchanged(before, _state(trial.encoder))
        with failures.check("inputs"):
            trial.check_inputs()
        with failures.check("determinism"):
            _check_equal(scores, trial.evaluate(trial.probe(), trial.telling))
        with failures.check("independent images"):
            _check_independent(scores["test"], scores[HALF])
        with failures.check("chance"):
            for role in ("val", "test"):
                _check_chance(trial.labels[role], unrelated[role])
    with failures.check("pixel statistics"):
        trial.check_pixel_statistics()
    failures.raise_if_any()


class _Trial:
    """Images, labels and an encoder on which a probe is evaluated."""

    def __init__(self, probe_class: type[BaseProbe], parameters: Mapping[str, Any]):
        self._class, self._params = probe_class, probe_class.Params(**parameters)
        rng = numpy_generator(0, "probe contract")
        self.labels = {role: _labels(rng) for role in ROLES}
        self.telling = {role: _images(labels, rng) for role, labels in self.labels.items()}
        self.unrelated = {role: _images(_labels(rng), rng) for role in ROLES}
        test = self.telling["test"]
        self.telling[HALF] = TileSubset(test.store, test.indices[: TILES // 2])
        protocol = tiny_spec().protocol
        scaling = pixel_scaling(self.telling["train"].store, (), protocol)
        device = torch.device("cpu")
        self._context = EvalContext(SIZE, Views(), scaling, device, nullcontext)
        self.encoder = build_objective(tiny_spec(), device).encoder.requires_grad_(False)
        next(self.encoder.children()).eval()  # a part that its owner keeps in evaluation mode
        self._kept = {role: subset.store.tiles.copy() for role, subset in self.telling.items()}
        self._kept_labels = self.labels["train"].copy()

    def probe(self) -> BaseProbe:
        """Return a new instance of the probe."""
        return self._class(self._params)

    def evaluate(self, probe: BaseProbe, tiles: Mapping[str, TileSubset]) -> Scored:
        """Evaluate a probe; check roles, shapes and dtype of the scores."""
        encoder = FrozenEncoder(self.encoder)
        scores = probe.evaluate(encoder, tiles, self.labels["train"], self._context)
        _check_scores(scores, tiles)
        return scores

    def check_inputs(self) -> None:
        """Check that images and labels are as they were."""
        assert np.array_equal(self.labels["train"], self._kept_labels), (
            "The probe changes the training labels; change a copy."
        )
        for role, tiles in self._kept.items():
            assert np.array_equal(self.telling[role].store.tiles, tiles), (
                f"The probe changes the {role} tiles; change a copy."
            )

    def check_pixel_statistics(self) -> None:
        """Check the scores of pixel statistics, if the probe has any."""
        probe = self.probe()
        scores = probe.evaluate_pixel_statistics(self.telling, self.labels["train"])
        if scores is None:
            return
        _check_scores(scores, self.telling)
        for role in ("val", "test"):
            _check_finds_labels("pixel statistics", self.labels[role], scores[role])
        again = probe.evaluate_pixel_statistics(self.telling, self.labels["train"])
        assert again is not None, "The second evaluation of pixel statistics returns None."
        _check_equal(scores, again)


def _check_sealed(probe_class: type[BaseProbe]) -> None:
    try:
        type("Unsealed", (probe_class,), {"evaluate": lambda *_: None})
    except TypeError:
        return
    raise AssertionError("A subclass can replace evaluate; mark evaluate with typing.final.")


def _check_scores(scores: Scored, tiles: Mapping[str, TileSubset]) -> None:
    expected_roles = sorted(set(tiles) - {"train"})
    assert sorted(scores) == expected_roles, (
        f"There are scores for the roles {sorted(scores)}; return scores for {expected_roles}."
    )
    for role, array in scores.items():
        expected = (len(tiles[role].indices), BANDS)
        assert array.shape == expected, (
            f"The {role} scores are {list(array.shape)}; return [images, labels], here "
            f"{list(expected)}."
        )
        assert array.dtype == np.float64, f"The {role} scores are {array.dtype}; return float64."
        assert np.isfinite(array).all(), f"A {role} score is not finite."


def _check_finds_labels(source: str, labels: Labels, scores: Scores) -> None:
    precision = _precision(labels, scores)
    assert precision > 0.99, (
        f"Mean average precision is {precision:.4f} on {source}, not about 1; check the order of "
        "the scores and that higher scores mean presence."
    )


def _check_chance(labels: Labels, scores: Scores) -> None:
    precision, prevalence = _precision(labels, scores), float(labels.mean())
    assert abs(precision - prevalence) < TOLERANCE, (
        f"Mean average precision is {precision:.4f} on images that are unrelated to the labels, "
        f"not about the prevalence {prevalence:.4f}; the probe uses more than images and training "
        "labels."
    )


def _check_equal(scores: Scored, again: Scored) -> None:
    for role, array in scores.items():
        assert np.array_equal(array, again[role]), (
            f"The {role} scores differ between two evaluations of equal inputs; key every random "
            "generator by constants, and keep no state between evaluations."
        )


def _check_independent(scores: Scores, half: Scores) -> None:
    # Batches of another size are rounded differently.
    assert np.allclose(half, scores[: len(half)], rtol=1e-4, atol=1e-4), (
        "The score of an image changes if fewer images are scored; score every image on its own."
    )


def _state(encoder: Encoder) -> dict[str, Any]:
    """Return everything that an evaluation must leave unchanged, by name."""
    return {
        "weights": state_of(encoder),
        "modes": [module.training for module in encoder.modules()],
        "requires_grad": [parameter.requires_grad for parameter in encoder.parameters()],
        "gradients": [parameter.grad is None for parameter in encoder.parameters()],
        "torch": torch.random.get_rng_state(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
    }


def _check_unchanged(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    changed = differing(before["weights"], after["weights"])
    assert not changed, f"The probe changes the encoder ({', '.join(changed[:3])}); use a copy."
    for what, cause in (
        ("modes", "changes the mode of the encoder or of a submodule"),
        ("requires_grad", "changes which parameters of the encoder require gradients"),
        ("gradients", "leaves gradients in the encoder"),
        ("numpy", "draws from NumPy's global random generator, or seeds the generator"),
    ):
        assert before[what] == after[what], f"The probe {cause}."
    assert torch.equal(before["torch"], after["torch"]), (
        "The probe draws from torch's global random generator, or seeds the generator."
    )


def _labels(rng: np.random.Generator) -> Labels:
    return (rng.random((TILES, BANDS)) < PREVALENCE).astype(np.uint8)


def _images(labels: NDArray[np.uint8], rng: np.random.Generator) -> TileSubset:
    """Return images in which a band is bright if its label is present."""
    noise = rng.integers(0, 100, (len(labels), SIZE, SIZE, BANDS), dtype=np.uint8)
    store = store_of(noise + 100 * labels[:, None, None, :], f"images{rng.integers(2**32)}")
    return TileSubset(store, np.arange(TILES))


def _precision(labels: Labels, scores: Scores) -> float:
    """Return the micro mean average precision."""
    micro = multilabel_map(labels, scores).micro
    assert micro is not None
    return micro
