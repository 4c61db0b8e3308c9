"""The probes of a run: opens their tiles, evaluates the encoder, and keeps all scores."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rscl_bench import registry
from rscl_bench.encoder_bands import Channels, EncoderBands, channels_of, selected
from rscl_bench.engine.checkpointing.state import Snapshot, strip_prefix, with_prefix
from rscl_bench.engine.device import Device
from rscl_bench.errors import TrainingError
from rscl_bench.models.encoder import Encoder
from rscl_bench.probes.base import BaseProbe, Labels, Scores
from rscl_bench.probes.collapse_metrics import CollapseMetrics, collapse_metrics
from rscl_bench.probes.encoding import EvalContext, FrozenEncoder, TileSubset
from rscl_bench.probes.metrics import MultilabelMAP
from rscl_bench.progress import Progress
from rscl_bench.randomness import numpy_generator
from rscl_bench.results.image_scores import ImageScores, probe_scores
from rscl_bench.results.schema import ProbeScore, SpreadRecord
from rscl_bench.spec import Probe as ProbeSpec
from rscl_bench.spec import Protocol, Source, validated
from rscl_bench.tiles.source import ArchiveSource
from rscl_bench.tiles.store import TileStore
from rscl_bench.views.crops import Normalisation
from rscl_bench.views.view import PixelScaling, band_scaling

Value = TypeVar("Value")
Number = TypeVar("Number", np.uint8, np.float64)
#: The scores by probe and role ``[M, L]``, and the collapse metrics by probe, of one encoder.
ProbedRow = tuple[dict[str, dict[str, Scores]], dict[str, SpreadRecord]]


@dataclass(frozen=True)
class OpenProbe:
    """A probe with its tiles.

    Attributes:
        spec: The probe in the scenario.
        probe: The registered probe.
        tiles: Tiles by role: ``train``, ``val`` (if the scenario names such a split) and ``test``.
        labels: Labels of these tiles by role, ``[M, L]``.
        scaling: Pixel scaling of the training split.
    """

    spec: ProbeSpec
    probe: BaseProbe
    tiles: dict[str, TileSubset]
    labels: dict[str, Labels]
    scaling: PixelScaling

    @property
    def stores(self) -> dict[str, TileStore]:
        """Return the tile stores by role."""
        return {role: subset.store for role, subset in self.tiles.items()}

    def scored_labels(self) -> dict[str, Labels]:
        """Return the labels of the scored roles, ``val`` and ``test``."""
        return {role: labels for role, labels in self.labels.items() if role != "train"}

    def evaluate(
        self, encoder: FrozenEncoder, protocol: Protocol, device: Device
    ) -> tuple[dict[str, Scores], CollapseMetrics]:
        """Return the scores by role, and the collapse metrics of the test split's features.

        Raises:
            TrainingError: If the features are not finite.
        """
        context = EvalContext(
            image_size=protocol.image_size,
            views=protocol.views,
            scaling=self.scaling.to(device.torch),
            device=device.torch,
            autocast=device.autocast,
        )
        features = encoder.features(self.tiles["test"], context)
        if not np.isfinite(features).all():
            raise TrainingError(
                f"The encoder's features of probe '{self.spec.name}' are not finite; lower "
                "training.learning_rate or run with --set precision=fp32."
            )
        scores = self.probe.evaluate(encoder, self.tiles, self.labels["train"], context)
        return scores, collapse_metrics(features)

    def evaluate_pixel_statistics(self) -> dict[str, Scores] | None:
        """Return the scores of pixel statistics by role; None for a probe that needs an encoder."""
        return self.probe.evaluate_pixel_statistics(self.tiles, self.labels["train"])


@dataclass(frozen=True)
class EarlierScores:
    """The scores of a run that is continued.

    Attributes:
        images: Labels and scores of its images.
        spreads: Collapse metrics by probe, in the order of the rows of ``images``.
        seconds: Time of its evaluations.
    """

    images: ImageScores
    spreads: Sequence[Mapping[str, SpreadRecord]]
    seconds: float


class Prober:
    """Evaluates the current encoder on all probes of a run, and keeps the scores.

    Attributes:
        rows: Scores by probe and role, ``[M, L]``: of the untrained encoder, then after each task.
        spreads: Collapse metrics by probe, in the order of ``rows``.
        seconds: Total time of all evaluations.
    """

    def __init__(
        self,
        probes: Sequence[OpenProbe],
        encoder: Encoder,
        protocol: Protocol,
        device: Device,
        names: Sequence[str] | None = None,
        earlier: EarlierScores | None = None,
    ):
        """Prepare the evaluation.

        Args:
            probes: Opened probes.
            encoder: The encoder to evaluate; training changes it.
            protocol: Image size and normalisation.
            device: The device that encodes.
            names: Names of all probes, in the order of the scenario; those of ``probes`` if None.
                The others have earlier scores alone.
            earlier: Scores of the run that is continued; None for a run from its beginning.
        """
        self._probes, self._encoder = probes, encoder
        self._protocol, self._device = protocol, device
        self._earlier = earlier
        self._names = [probe.spec.name for probe in probes] if names is None else list(names)
        opened = {probe.spec.name: probe.scored_labels() for probe in probes}
        pixels = {probe.spec.name: probe.evaluate_pixel_statistics() for probe in probes}
        known = {name: scores for name, scores in pixels.items() if scores is not None}
        if earlier is not None:
            opened = _with_earlier(earlier.images.labels, opened)
            known = _with_earlier(earlier.images.pixel_statistics, known)
        self._labels = self._in_order(opened)
        self._pixels = self._in_order(known)
        self.rows: list[dict[str, dict[str, Scores]]] = []
        self.spreads: list[dict[str, SpreadRecord]] = []
        self.seconds = 0.0

    def probe(self) -> None:
        """Evaluate the current encoder on every opened probe, and append one row."""
        row, spreads = self._evaluate(self._probes)
        self.rows.append(row)
        self.spreads.append(spreads)

    def continue_earlier(self) -> None:
        """Begin with the rows of the run that is continued."""
        assert self._earlier is not None
        self.rows = [
            self._in_order({name: dict(roles) for name, roles in row.items()})
            for row in self._earlier.images.scores
        ]
        self.spreads = [self._in_order(row) for row in self._earlier.spreads]
        self.seconds += self._earlier.seconds

    def probe_new(self) -> ProbedRow:
        """Evaluate the current encoder on the probes that the continued run did not have."""
        assert self._earlier is not None
        known = self._earlier.images.labels
        return self._evaluate([probe for probe in self._probes if probe.spec.name not in known])

    def merge(self, number: int, probed: ProbedRow) -> None:
        """Add the scores of new probes to a row."""
        row, spreads = probed
        self.rows[number] = self._in_order(self.rows[number] | row)
        self.spreads[number] = self._in_order(self.spreads[number] | spreads)

    def _evaluate(self, probes: Sequence[OpenProbe]) -> ProbedRow:
        started = time.perf_counter()
        encoder = FrozenEncoder(self._encoder)
        row, spreads = {}, {}
        for probe in probes:
            scores, collapse = probe.evaluate(encoder, self._protocol, self._device)
            row[probe.spec.name] = scores
            spreads[probe.spec.name] = SpreadRecord(**collapse._asdict())
        self.seconds += time.perf_counter() - started
        return row, spreads

    def _in_order(self, named: Mapping[str, Value]) -> dict[str, Value]:
        """Return the values of probes in the order of the scenario, without those of others."""
        return {name: named[name] for name in self._names if name in named}

    def scores(self) -> list[dict[str, ProbeScore]]:
        """Return the record's scores by probe, in the order of ``rows``.

        A probe that was not evaluated in a row has scores of None.
        """
        return [
            {name: scored[name] if name in row else self._unprobed(name) for name in self._names}
            for row in self.rows
            for scored in (probe_scores(self._labels, row),)
        ]

    def _unprobed(self, name: str) -> ProbeScore:
        undefined = MultilabelMAP(micro=None, macro=None, macro_labels=0)
        return ProbeScore(test=undefined, val=undefined if "val" in self._labels[name] else None)

    def unprobed(self) -> dict[str, tuple[int, ...]]:
        """Return the numbers of the rows in which a probe was not evaluated, by probe."""
        absent = {
            name: tuple(number for number, row in enumerate(self.rows) if name not in row)
            for name in self._names
        }
        return {name: rows for name, rows in absent.items() if rows}

    def image_scores(self, run: str) -> ImageScores:
        """Return the scores of all images, from all rows and from pixel statistics.

        Args:
            run: Id of the run.
        """
        return ImageScores(self._labels, self.rows, self._pixels, run)

    def tensors(self) -> dict[str, Tensor]:
        """Return the scores of a checkpoint, named by row, probe and role."""
        named = {
            f"{number}.{probe}.{role}": torch.from_numpy(scores)
            for number, row in enumerate(self.rows)
            for probe, roles in row.items()
            for role, scores in roles.items()
        }
        return with_prefix("scores", named)

    def metadata(self) -> dict[str, Any]:
        """Return the JSON-able rest of a checkpoint: collapse metrics and time."""
        spreads = [{n: s.model_dump(mode="json") for n, s in row.items()} for row in self.spreads]
        return {"spreads": spreads, "probing_seconds": self.seconds}

    def restore(self, snapshot: Snapshot) -> None:
        """Restore scores, collapse metrics and time from a checkpoint."""
        rows: list[dict[str, dict[str, Scores]]] = [{} for _ in snapshot.metadata["spreads"]]
        for name, scores in strip_prefix(snapshot.tensors, "scores").items():
            row, rest = name.split(".", 1)
            probe, role = rest.rsplit(".", 1)
            rows[int(row)].setdefault(probe, {})[role] = scores.numpy()
        # Tensors come back sorted by name; an uninterrupted run has the order of the scenario.
        self.rows = [self._in_order(row) for row in rows]
        self.spreads = [
            self._in_order({name: SpreadRecord(**values) for name, values in row.items()})
            for row in snapshot.metadata["spreads"]
        ]
        self.seconds = snapshot.metadata["probing_seconds"]


def _with_earlier(
    earlier: Mapping[str, Mapping[str, NDArray[Number]]],
    opened: Mapping[str, Mapping[str, NDArray[Number]]],
) -> dict[str, dict[str, NDArray[Number]]]:
    """Return values of images by probe and role: those of opened probes, and earlier ones."""
    return {name: dict(roles) for name, roles in (dict(earlier) | dict(opened)).items()}


def open_probe(
    spec: ProbeSpec,
    protocol: Protocol,
    archives: ArchiveSource,
    progress: Progress,
    bands: EncoderBands | None = None,
) -> OpenProbe:
    """Open a probe's tiles, and pack them first where needed.

    Args:
        spec: The probe in the scenario.
        protocol: Sets the normalisation and defaults of the probe's parameters.
        archives: Source of the tiles.
        progress: Called while packing.
        bands: The bands of the encoder's channels, where images differ in bands.

    Raises:
        RsclError: If the archive, the bands or the probe's parameters are not usable.
    """
    probe = build_probe(spec, protocol)
    tiles, labels = {}, {}
    for role, split in spec.splits().items():
        store = archives.open(spec.source(split), True, progress)
        indices = _chosen(spec, role, len(store))
        tiles[role] = TileSubset(store, indices)
        labels[role] = store.labels(spec.min_share)[indices]
    channels = channels_of(spec, bands)
    scaling = pixel_scaling(tiles["train"].store, spec.bands, protocol, channels)
    return OpenProbe(spec, probe, tiles, labels, scaling)


def build_probe(spec: ProbeSpec, protocol: Protocol) -> BaseProbe:
    """Return a probe with its parameters.

    Args:
        spec: The probe in the scenario.
        protocol: Has defaults of the probe's parameters.

    Raises:
        SpecError: If the parameters are not usable.
    """
    probe_class = registry.load("probes", spec.probe)
    parameters = {**protocol.defaults.get(spec.probe, {}), **spec.parameters}
    probe: BaseProbe = probe_class(
        validated(probe_class.Params, parameters, f"probe '{spec.name}'")
    )
    return probe


def open_task(
    source: Source,
    protocol: Protocol,
    archives: ArchiveSource,
    progress: Progress,
    bands: EncoderBands | None = None,
) -> tuple[TileStore, PixelScaling]:
    """Open a task's tiles without labels, and pack them first where needed."""
    store = archives.open(source, False, progress)
    return store, pixel_scaling(store, source.bands, protocol, channels_of(source, bands))


def pixel_scaling(
    store: TileStore, bands: Sequence[str], protocol: Protocol, channels: Channels | None = None
) -> PixelScaling:
    """Return the pixel scaling of a store's tiles under a protocol.

    Args:
        store: The tiles.
        bands: Names of their bands.
        protocol: Says how pixels are normalised and how bands reach the encoder.
        channels: Where the bands stand in the encoder's input.
    """
    of_views, normalisation = selected(bands, protocol.bands), normalisation_of(store, protocol)
    return band_scaling(normalisation, store.scale, bands, of_views, channels)


def normalisation_of(store: TileStore, protocol: Protocol) -> Normalisation:
    """Return the normalisation of a store's pixels; a band without variation becomes 0."""
    if protocol.views.normalisation == "range":
        bands = len(store.mean)
        return Normalisation(torch.zeros(bands), torch.full((bands,), store.scale))
    std = np.where(store.std > 0, store.std, 1.0)
    return Normalisation(torch.from_numpy(store.mean).float(), torch.from_numpy(std).float())


def _chosen(spec: ProbeSpec, role: str, count: int) -> NDArray[np.int64]:
    """Return the indices of a probe's tiles; they are equal for all methods and seeds."""
    if spec.max_tiles is None or count <= spec.max_tiles:
        return np.arange(count)
    order = numpy_generator(0, "probe tiles", spec.name, role).permutation(count)
    return np.sort(order[: spec.max_tiles])
