"""Probes of a run: their tiles, opened once, and the score of every image for any features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rscl_bench import registry
from rscl_bench.engine.device import Device
from rscl_bench.models.encoder import Encoder
from rscl_bench.probes.base import Probe
from rscl_bench.probes.encoding import encode_tiles
from rscl_bench.probes.images import EvalContext, Images
from rscl_bench.probes.pixel_statistics import pixel_statistics
from rscl_bench.probes.spread import Spread, spread
from rscl_bench.probes.transfer import TransferProbe
from rscl_bench.progress import Progress
from rscl_bench.randomness import numpy_generator
from rscl_bench.spec import Probe as ProbeSpec
from rscl_bench.spec import Protocol, Source, validated
from rscl_bench.tiles.source import ArchiveSource
from rscl_bench.tiles.store import TileStore
from rscl_bench.views.crops import Normalisation
from rscl_bench.views.view import PixelScaling, places_of_rgb

ImagesByRole = dict[str, NDArray[np.float64]]  # [M, L]


class Probed(NamedTuple):
    """Scores of every image by role, and the spread of the test split's features."""

    images: ImagesByRole
    spread: Spread


@dataclass(frozen=True)
class OpenProbe:
    """A probe with its tiles.

    Attributes:
        spec: What the scenario says.
        probe: The registered probe.
        stores: Tiles by role: ``train``, ``val`` (not in every archive) and ``test``.
        indices: Which tiles of each role are used, ``[M]``.
        labels: Labels of the used tiles by role, ``[M, L]``.
        archive: Of the training split.
    """

    spec: ProbeSpec
    probe: Probe | TransferProbe
    stores: dict[str, TileStore]
    indices: dict[str, NDArray[np.int64]]
    labels: dict[str, NDArray[np.uint8]]
    archive: PixelScaling

    def scored_labels(self) -> dict[str, NDArray[np.uint8]]:
        """Return the labels of the roles that are scored, ``val`` and ``test``."""
        return {role: labels for role, labels in self.labels.items() if role != "train"}

    def images(self) -> dict[str, Images]:
        """Return the used tiles by role."""
        return {role: Images(store, self.indices[role]) for role, store in self.stores.items()}

    def score_encoder(self, encoder: Encoder, protocol: Protocol, device: Device) -> Probed:
        """Score an encoder, which stays as it is."""
        archive = self.archive.to(device.torch)
        setting = EvalContext(
            protocol.image_size, protocol.views, archive, device.torch, device.autocast
        )
        images = self.images()
        if isinstance(self.probe, TransferProbe):
            test, train = encode_tiles(encoder, images["test"], setting), images.pop("train")
            scores = self.probe.score(encoder, train, self.labels["train"], images, setting)
            return Probed(scores, spread(test))
        encoded = {r: encode_tiles(encoder, tiles, setting) for r, tiles in images.items()}
        return Probed(self._score(self.probe, encoded), spread(encoded["test"]))

    def score_pixel_statistics(self) -> ImagesByRole | None:
        """Score per-band means and deviations in place of an encoder; None if that trains it."""
        if isinstance(self.probe, TransferProbe):
            return None
        found = {r: pixel_statistics(i.store.tiles[i.indices]) for r, i in self.images().items()}
        return self._score(self.probe, found)

    def _score(self, probe: Probe, features: dict[str, NDArray[np.float32]]) -> ImagesByRole:
        """Fit on training features, and score those of the other roles."""
        return {
            role: probe.score(features["train"], self.labels["train"], features[role])
            for role in self.scored_labels()
        }


def open_probe(
    spec: ProbeSpec, protocol: Protocol, archives: ArchiveSource, progress: Progress
) -> OpenProbe:
    """Open or pack a probe's tiles.

    Args:
        spec: What the scenario says.
        protocol: For normalisation and the probe's default parameters.
        archives: Where the tiles come from.
        progress: Told of packing.

    Raises:
        RsclError: If archive, bands or the probe's parameters are not usable.
    """
    probe_class = registry.load("probes", spec.probe)
    parameters = {**protocol.defaults.get(spec.probe, {}), **spec.parameters}
    probe = probe_class(validated(probe_class.Params, parameters, f"probe '{spec.name}'"))
    stores = {
        role: archives.open(spec.source(split), True, progress)
        for role, split in spec.splits().items()
    }
    indices = {role: _chosen(spec, role, len(store)) for role, store in stores.items()}
    return OpenProbe(
        spec=spec,
        probe=probe,
        stores=stores,
        indices=indices,
        labels={r: store.labels(spec.min_share)[indices[r]] for r, store in stores.items()},
        archive=archive_of(stores["train"], spec.bands, protocol),
    )


def open_task(
    source: Source, protocol: Protocol, archives: ArchiveSource, progress: Progress
) -> tuple[TileStore, PixelScaling]:
    """Open or pack a task's tiles; they come without labels."""
    store = archives.open(source, False, progress)
    return store, archive_of(store, source.bands, protocol)


def archive_of(store: TileStore, bands: Sequence[str], protocol: Protocol) -> PixelScaling:
    """Return what views of a store's tiles depend on besides the tiles."""
    return PixelScaling(normalisation_of(store, protocol), store.scale, places_of_rgb(bands))


def normalisation_of(store: TileStore, protocol: Protocol) -> Normalisation:
    """Return what a store's pixels are normalised by; a band that never varies is left at 0."""
    if protocol.views.normalisation == "range":
        bands = len(store.mean)
        return Normalisation(torch.zeros(bands), torch.full((bands,), store.scale))
    std = np.where(store.std > 0, store.std, 1.0)
    return Normalisation(torch.from_numpy(store.mean).float(), torch.from_numpy(std).float())


def _chosen(spec: ProbeSpec, role: str, count: int) -> NDArray[np.int64]:
    """Choose a probe's tiles: the same for every method and seed, so the run's seed has no part."""
    if spec.max_tiles is None or count <= spec.max_tiles:
        return np.arange(count)
    order = numpy_generator(0, "probe tiles", spec.name, role).permutation(count)
    return np.sort(order[: spec.max_tiles])
