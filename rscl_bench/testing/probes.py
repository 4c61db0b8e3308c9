"""The contract of probes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rscl_bench import registry
from rscl_bench.probes.base import Probe
from rscl_bench.probes.metrics import multilabel_map
from rscl_bench.randomness import numpy_generator

ROWS, LABELS, WIDTH = 300, 4, 8
PREVALENCE = 0.3
TOLERANCE = 0.08  # of a mean average precision over 1200 pairs of chance scores


def check_probe(name: str, parameters: Mapping[str, Any] | None = None) -> None:
    """Check a probe on features that tell everything, and on features that tell nothing.

    Features that separate all label sets give mean average precision 1, and random ones about the
    labels' prevalence. Scores are equal to the last bit for equal inputs, whether asked for twice
    or of a new instance, and do not depend on the test rows beside them. The inputs stay as they
    are.

    Args:
        name: Registered name, or ``file.py:Class``.
        parameters: Of the probe.

    Raises:
        AssertionError: If the probe breaks the contract.
    """
    probe_class: type[Probe] = registry.load("probes", name)
    assert issubclass(probe_class, Probe), f"'{name}' is no subclass of rscl_bench.probes.Probe."
    params = probe_class.Params.model_validate(dict(parameters or {}))
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
    try:
        type("Unsealed", (probe_class,), {"score": lambda *_: None})
    except TypeError:
        return
    raise AssertionError(f"'{name}' lets a subclass replace score.")


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
