"""All probings of a run: what was scored so far, kept through interruptions."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rscl_bench.engine.checkpointing.state import Snapshot, strip_prefix, with_prefix
from rscl_bench.engine.device import Device
from rscl_bench.engine.probing import OpenProbe
from rscl_bench.models.encoder import Encoder
from rscl_bench.results import schema as records
from rscl_bench.results.image_scores import ImageScores, Scores, probe_scores
from rscl_bench.spec import Protocol


class Prober:
    """Scores the current encoder on every probe, keeps it all and adds up the time that takes.

    Attributes:
        rows: Scores of every image, of the untrained encoder and then after each task.
        spreads: How far features were from collapse, in the same rows.
        seconds: Time of probing.
    """

    def __init__(
        self, probes: Sequence[OpenProbe], encoder: Encoder, protocol: Protocol, device: Device
    ):
        self._probes, self._encoder = probes, encoder
        self._protocol, self._device = protocol, device
        self._labels = {probe.spec.name: probe.scored_labels() for probe in probes}
        pixels = {probe.spec.name: probe.score_pixel_statistics() for probe in probes}
        self._pixels = {name: scores for name, scores in pixels.items() if scores is not None}
        self.rows: list[Scores] = []
        self.spreads: list[dict[str, records.SpreadRecord]] = []
        self.seconds = 0.0

    def probe(self) -> None:
        """Score the current encoder."""
        started = time.perf_counter()
        probed = {
            probe.spec.name: probe.score_encoder(self._encoder, self._protocol, self._device)
            for probe in self._probes
        }
        self.rows.append({name: one.images for name, one in probed.items()})
        self.spreads.append(
            {name: records.SpreadRecord(**one.spread._asdict()) for name, one in probed.items()}
        )
        self.seconds += time.perf_counter() - started

    def scores(self) -> list[dict[str, records.ProbeScore]]:
        """Return what a record holds of all probings so far."""
        return [probe_scores(self._labels, row) for row in self.rows]

    def image_scores(self) -> ImageScores:
        """Return the score of every image, of all probings so far and of pixel statistics."""
        return ImageScores(self._labels, self.rows, self._pixels)

    # Checkpoints.

    def tensors(self) -> dict[str, Tensor]:
        """Return the scores of every image by row, probe and role."""
        named = {
            f"{number}.{probe}.{role}": torch.from_numpy(scores)
            for number, row in enumerate(self.rows)
            for probe, roles in row.items()
            for role, scores in roles.items()
        }
        return with_prefix("scores", named)

    def facts(self) -> dict[str, Any]:
        """Return the rest, JSON-able."""
        spreads = [{n: s.model_dump(mode="json") for n, s in row.items()} for row in self.spreads]
        return {"spreads": spreads, "probing_seconds": self.seconds}

    def restore(self, snapshot: Snapshot) -> None:
        """Take back what was scored."""
        rows: list[dict[str, dict[str, Any]]] = []
        for name, value in strip_prefix(snapshot.tensors, "scores").items():
            number, rest = name.split(".", 1)
            probe, role = rest.rsplit(".", 1)
            while len(rows) <= int(number):
                rows.append({})
            rows[int(number)].setdefault(probe, {})[role] = value.numpy()
        # In the order of the probes, as when nothing is interrupted.
        order = [probe.spec.name for probe in self._probes]
        self.rows = [{name: row[name] for name in order} for row in rows]
        self.spreads = [
            {name: records.SpreadRecord(**row[name]) for name in order}
            for row in snapshot.metadata["spreads"]
        ]
        self.seconds = snapshot.metadata["probing_seconds"]
