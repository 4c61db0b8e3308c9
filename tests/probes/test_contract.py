"""The contract of probes catches broken probes, and names the cause."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder
from rscl_bench.probes.base import BaseProbe, Features, FrozenProbe, Labels, Scores
from rscl_bench.probes.encoding import EvalContext, FrozenEncoder, TileSubset
from rscl_bench.probes.linear import LinearProbe
from rscl_bench.probes.transfer import TransferParams, TransferProbe
from rscl_bench.spec import Spec
from rscl_bench.testing import check_probe


class Drawing(FrozenProbe):
    """A probe that draws scores from a generator without a key."""

    Params = Spec

    def _score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        return np.random.default_rng().random((len(test_features), train_labels.shape[1]))


class Nearest(FrozenProbe):
    """A sound probe: the labels of the nearest training row are the scores."""

    Params = Spec

    def _score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        squares = np.square(train_features).sum(axis=1) - 2 * test_features @ train_features.T
        scores: Scores = train_labels[squares.argmin(axis=1)].astype(np.float64)
        return scores


class Ranked(Nearest):
    """A probe that ranks the scores of all rows together."""

    def _score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        scores = super()._score(train_features, train_labels, test_features)
        scores += 0.01 * scores.mean(axis=0)
        return scores


class Single(Nearest):
    """A probe that returns float32."""

    def _score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        scores: Any = super()._score(train_features, train_labels, test_features)
        single: Scores = scores.astype(np.float32)
        return single


class Reversed(Nearest):
    """A probe whose scores fall with presence."""

    def _score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        scores = super()._score(train_features, train_labels, test_features)
        scores *= -1
        return scores


class Seeding(Nearest):
    """A probe that seeds NumPy's global generator."""

    def _score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        np.random.seed(0)  # noqa: NPY002
        return super()._score(train_features, train_labels, test_features)


class Counting(Nearest):
    """A probe whose scores depend on earlier evaluations."""

    calls = 0

    def _score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        self.calls += 1
        return super()._score(train_features, train_labels, test_features) + self.calls


class Open(BaseProbe):
    """A probe with an evaluation that is not sealed and changes the encoder."""

    Params = Spec

    def evaluate(
        self,
        encoder: FrozenEncoder,
        tiles: Mapping[str, TileSubset],
        train_labels: Labels,
        context: EvalContext,
    ) -> dict[str, Scores]:
        original = encoder._encoder.train()
        scores = Nearest(Spec()).evaluate(encoder, tiles, train_labels, context)
        with torch.no_grad():
            next(original.parameters()).add_(1.0)
        return scores


class ConstantFeatures(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, images: Tensor) -> Tensor:
        return torch.ones(len(images), self.width)


class Blind(TransferProbe):
    """A probe that trains a classifier on features without variation."""

    def adapt(self, encoder: Encoder) -> nn.Module:
        return ConstantFeatures(encoder.feature_dim)


class NoProbe:
    Params: ClassVar[type[Spec]] = TransferParams


def test_a_class_is_accepted() -> None:
    check_probe(Nearest)
    check_probe(LinearProbe, {"C": 0.5})


@pytest.mark.parametrize(
    ("broken", "messages"),
    [
        (Drawing, ["evaluation: Mean average precision", "pixel statistics: Mean average"]),
        (Ranked, ["independent images: The score of an image changes"]),
        (Single, ["evaluation: ValueError: Single returned float32", "pixel statistics: Val"]),
        (Reversed, ["not about 1; check the order of the scores"]),
        (Seeding, ["encoder: The probe draws from NumPy's global random generator"]),
        (Counting, ["determinism: The val scores differ between two evaluations"]),
        (
            Open,
            [
                "sealed evaluation: A subclass can replace evaluate; mark",
                "encoder: The probe changes the encoder",
            ],
        ),
        (Blind, ["Mean average precision is"]),
        (NoProbe, ["'NoProbe' is no probe: it does not derive from"]),
    ],
)
def test_broken_probes_are_caught(broken: type[BaseProbe], messages: list[str]) -> None:
    parameters = {"epochs": 1, "warmup_epochs": 0} if broken is Blind else {}
    with pytest.raises(AssertionError) as caught:
        check_probe(broken, parameters)
    for message in messages:
        assert message in str(caught.value)
