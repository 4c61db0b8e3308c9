"""An online kNN probe on validation splits, for watching a run; no leaderboard shows it.

The probe changes no bit of a run: it encodes in evaluation mode, draws its tiles from a generator
of its own, and its time is left out of the training time. Its scores are not those of a record: the
encoder is in the middle of a task, and only some of the tiles are used.
"""

from collections.abc import Sequence

import numpy as np

from rscl_bench.engine.device import Device
from rscl_bench.engine.probing import OpenProbe
from rscl_bench.errors import SpecError
from rscl_bench.models.encoder import Encoder
from rscl_bench.probes.encoding import EvalContext, FrozenEncoder, TileSubset
from rscl_bench.probes.metrics import multilabel_map
from rscl_bench.probes.ml_knn import MLkNNParams, MLkNNProbe
from rscl_bench.randomness import numpy_generator
from rscl_bench.spec import Protocol

#: Largest number of tiles of a split; more would make the watching slow.
TILES = 1000


class OnlineProbe:
    """ML-kNN on some tiles of every probe that has a validation split."""

    def __init__(self, probes: Sequence[OpenProbe], protocol: Protocol, device: Device):
        """Choose the tiles.

        Args:
            probes: Opened probes; those without a validation split are left out.
            protocol: Image size and views.
            device: The device that encodes.

        Raises:
            SpecError: If no probe has a validation split.
        """
        self._protocol, self._device = protocol, device
        self._probes = [probe for probe in probes if "val" in probe.tiles]
        if not self._probes:
            raise SpecError(
                "--watch-epochs needs a probe with a validation split, and this scenario has none; "
                "add val_split to a probe, or leave the option out."
            )
        self._chosen = {
            (probe.spec.name, role): _chosen(probe, role)
            for probe in self._probes
            for role in ("train", "val")
        }

    def scores(self, encoder: Encoder) -> dict[str, float | None]:
        """Return the micro-mAP of the encoder by probe, as a fraction; None if undefined."""
        frozen = FrozenEncoder(encoder)
        return {probe.spec.name: self._score(frozen, probe) for probe in self._probes}

    def _score(self, frozen: FrozenEncoder, probe: OpenProbe) -> float | None:
        context = EvalContext(
            image_size=self._protocol.image_size,
            views=self._protocol.views,
            scaling=probe.scaling.to(self._device.torch),
            device=self._device.torch,
            autocast=self._device.autocast,
        )
        tiles, labels = {}, {}
        for role in ("train", "val"):
            chosen = self._chosen[probe.spec.name, role]
            subset = probe.tiles[role]
            tiles[role] = TileSubset(subset.store, subset.indices[chosen])
            labels[role] = probe.labels[role][chosen]
        neighbours = min(10, len(labels["train"]) - 1)
        knn = MLkNNProbe(MLkNNParams(k=neighbours))
        scored = {"train": tiles["train"], "val": tiles["val"]}
        scores = knn.evaluate(frozen, scored, labels["train"], context)
        return multilabel_map(labels["val"], scores["val"]).micro


def _chosen(probe: OpenProbe, role: str) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return the places of the watched tiles; they are equal for all methods and seeds."""
    count = len(probe.labels[role])
    order = numpy_generator(0, "watched tiles", probe.spec.name, role).permutation(count)
    return np.sort(order[:TILES]).astype(np.int64)


def online_line(task: int, name: str, epoch: int, scores: dict[str, float | None]) -> str:
    """Return the line that is printed for the scores of an epoch."""
    shown = ", ".join(
        f"{probe} micro-mAP {'undefined' if score is None else f'{100 * score:.2f}'}"
        for probe, score in scores.items()
    )
    return f"online, validation split: task {task + 1} {name}, epoch {epoch}: {shown}"
