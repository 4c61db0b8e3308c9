"""TreeSatAI: aerial forest tiles at 20 cm with the tree genera in them.

Layout and classes are those of TorchGeo's ``TreeSatAI``. TorchGeo quotes the band order (infrared,
green, blue, red) from the archive's documentation. The adapter reads the files itself: it keeps the
stored dtype and needs the aerial images only.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchgeo.datasets import TreeSatAI

from rscl_bench import sensors
from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.download import RemoteFile
from rscl_bench.archives.files import write_tiff
from rscl_bench.archives.lists import read_names, read_text
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import Look, Material
from rscl_bench.errors import ArchiveError

#: Key of the shuffle that the paper splits are cut from. Another key would give other splits.
_SHUFFLE_KEY = 0
_PAPER_COUNTS = {"paper-train": 15_000, "paper-val": 1_000}


class TreeSatAIAdapter(DatasetAdapter):
    """TreeSatAI's 4-band aerial images and multi-labels of 15 genera.

    A genus is positive if the archive gives it any share of the image, as in TorchGeo. ``train``
    and ``test`` are the archive's own lists. The CoSMAE paper took 15,000 and 1,000 of the training
    files and does not name them. Here, ``paper-train`` is the first 15,000 files of a seeded
    shuffle of the training list, and ``paper-val`` the next 1,000. In a sketch, the two splits are
    six sevenths and one seventh of the list.
    """

    name = "treesatai"
    folder = "treesatai"
    title = "TreeSatAI Benchmark Archive"
    sensor = sensors.TREESATAI_AERIAL
    classes = TreeSatAI.classes
    splits = ("train", "test", *_PAPER_COUNTS)
    formats = ("TIFF",)
    source = "https://zenodo.org/records/6780578"
    licence = "CC BY 4.0"
    layout = (
        "aerial/60m/*.tif (the unpacked aerial_60m_*.zip), labels/"
        "TreeSatBA_v9_60m_multi_labels.json (labels.zip), train_filenames.lst and "
        "test_filenames.lst"
    )
    images = "aerial TIFFs of 304 × 304 pixels; other sizes are read too"
    notes = (
        "`train` and `test` are the archive's own lists. `paper-train` and `paper-val` are 15,000 "
        "and 1,000 files of the training list by a seeded shuffle; the CoSMAE paper has the same "
        "sizes and does not name its files.",
        "The Sentinel images of the archive are not read.",
    )

    @classmethod
    def remote_files(cls, split: str, options: Mapping[str, Any]) -> list[RemoteFile]:
        """Return the archives of aerial images, of labels, and the lists, as TorchGeo does."""
        folders = {"labels.zip": "."}
        return [
            RemoteFile(
                TreeSatAI.url + name,
                name,
                f"md5:{digest}",
                unpack_into="aerial/60m" if name.startswith("aerial_") else folders.get(name),
            )
            for name, digest in TreeSatAI.md5s.items()
            if name.startswith("aerial_") or name in folders or name.endswith(".lst")
        ]

    def _list_files(self) -> list[Path]:
        self.listing = self.root / f"{'test' if self.split == 'test' else 'train'}_filenames.lst"
        self.label_file = self.root / "labels" / "TreeSatBA_v9_60m_multi_labels.json"
        self._require_files([self.listing, self.label_file])
        names = read_names(self.listing)
        self._require_apart(names)
        if self.split in _PAPER_COUNTS:
            names = self._paper_subset(names)
        files = [self.root / "aerial" / "60m" / name for name in names]
        self._require_files(files)
        try:
            self.labels = json.loads(read_text(self.label_file))
        except (ValueError, RecursionError) as error:
            raise self.damaged(f"{self.label_file} is not valid JSON ({error})") from error
        if not isinstance(self.labels, dict):
            raise self.damaged(f"{self.label_file} is no JSON object of file names")
        for path in files:
            self._label(path)
        return files

    def _require_apart(self, names: list[str]) -> None:
        """Refuse lists of training and test files that share a name."""
        other = self.root / f"{'train' if self.split == 'test' else 'test'}_filenames.lst"
        if not other.is_file():  # a copy may have the files of one list only
            return
        try:
            shared = sorted(set(names) & set(read_names(other)))
        except ArchiveError:  # a damaged list of the other split is refused where it is read
            return
        if shared:
            more = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
            raise ArchiveError(
                f"{self.listing} and {other.name} both list {shared[0]}{more}; delete it from one, "
                "so that no test image is trained on."
            )

    def _paper_subset(self, names: list[str]) -> list[str]:
        train, val = _PAPER_COUNTS["paper-train"], _PAPER_COUNTS["paper-val"]
        if self.is_sketch:
            val = len(names) // 7
            train = len(names) - val
        if len(names) < train + val:
            raise self.missing(
                f"{self.listing} lists {len(names)} files where split '{self.split}' is cut from "
                f"at least {train + val}"
            )
        # Sorted by name, so that the split does not depend on the order of the list.
        ordered = sorted(names)
        shuffle = np.random.Generator(np.random.Philox(key=_SHUFFLE_KEY)).permutation(len(ordered))
        chosen = shuffle[:train] if self.split == "paper-train" else shuffle[train : train + val]
        return sorted(ordered[i] for i in chosen)

    def inputs(self) -> list[Path]:
        """Return the images, the file that lists them and the file of labels."""
        return [*self.files, self.listing, self.label_file]

    def _label(self, path: Path) -> NDArray[np.uint8]:
        if path.name not in self.labels:
            raise ArchiveError(f"{self.label_file} has no labels for {path.name}.")
        label = np.zeros(len(self.classes), np.uint8)
        try:
            genera = [genus for genus, _ in self.labels[path.name]]
        except (TypeError, ValueError) as error:
            raise self.damaged(
                f"{self.label_file} gives {path.name} no list of genera and shares"
            ) from error
        for genus in genera:
            if genus not in self.classes:
                raise ArchiveError(
                    f"{self.label_file} gives {path.name} the genus '{genus}', which is none of "
                    f"the {len(self.classes)} of {self.title}."
                )
            label[self.classes.index(genus)] = 1
        return label

    def _read(self, index: int, with_labels: bool) -> Scene:
        path = self.files[index]
        return Scene(self.read_image(path), labels=self._label(path) if with_labels else None)

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        """Draw 112 training and 40 test images of 304 × 304 pixels."""
        labels: dict[str, list[list[str | float]]] = {}
        for split, count in (("train", 112), ("test", 40)):
            names = []
            for number in range(count):
                genera = _draw_genera(rng)
                canvas = _stand(genera, rng)
                name = f"{_SPECIES[genera[0]]}_{number % 12 + 1}_{len(labels)}_WEFL_NLF.tif"
                write_tiff(
                    root / "aerial" / "60m" / name,
                    canvas.render(cls.sensor, _LOOK),
                    compress="jpeg",
                    interleave="pixel",
                )
                shares = sorted(((canvas.share(g), g) for g in genera), reverse=True)
                labels[name] = [[g, round(share, 5)] for share, g in shares if share > 0.03]
                names.append(name)
            listing = root / f"{split}_filenames.lst"
            listing.write_text("\n".join(names) + "\n", encoding="utf-8")
        path = root / "labels" / "TreeSatBA_v9_60m_multi_labels.json"
        path.parent.mkdir()
        path.write_text(json.dumps(labels), encoding="utf-8")


def _draw_genera(rng: np.random.Generator) -> list[str]:
    """Return one to three genera; the common genera of the real archive are the likely ones."""
    weights = 1.0 / (1.0 + np.arange(len(_STANDS)))
    genera: list[str] = rng.choice(
        [material.name for material in _STANDS],
        size=int(rng.integers(1, 4)),
        replace=False,
        p=weights / weights.sum(),
    ).tolist()
    return genera


def _stand(genera: list[str], rng: np.random.Generator) -> Canvas:
    """Paint a forest stand: patches of each genus, with tree crowns of the genus on them."""
    canvas = Canvas(304, 304, rng, _STANDS)
    canvas.patchwork(genera, len(genera) + int(rng.integers(0, 3)))
    ground = canvas.cover.copy()
    for index, material in enumerate(_STANDS):
        radius = _CROWN.get(material.name)
        pixels = np.argwhere(ground == index)
        if radius is not None and len(pixels):
            count = max(int(len(pixels) / (radius * radius)), 1)
            canvas.discs(material.name, count, (0.7 * radius, 1.3 * radius), at=pixels)
    return canvas


# In the order of frequency. Conifers are darker in the infrared than broad-leaved trees, and their
# crowns are narrower.
_STANDS = (
    Material("Pinus", 0.25, rise=0),
    Material("Quercus", 0.42, rise=96),
    Material("Fagus", 0.48, rise=192),
    Material("Picea", 0.22, rise=288),
    Material("Betula", 0.40, rise=24),
    Material("Alnus", 0.36, rise=120),
    Material("Cleared", 0.30, rise=216),
    Material("Pseudotsuga", 0.28, rise=312),
    Material("Larix", 0.33, rise=48),
    Material("Acer", 0.50, rise=144),
    Material("Fraxinus", 0.44, rise=240),
    Material("Abies", 0.20, rise=336),
    Material("Populus", 0.46, rise=72),
    Material("Prunus", 0.45, rise=168),
    Material("Tilia", 0.52, rise=264),
)
#: Genus to the mean radius of its crowns, in canvas pixels.
_CROWN = {
    "Pinus": 9.0,
    "Quercus": 14.0,
    "Fagus": 16.0,
    "Picea": 7.0,
    "Betula": 10.0,
    "Alnus": 10.0,
    "Pseudotsuga": 9.0,
    "Larix": 9.0,
    "Acer": 12.0,
    "Fraxinus": 12.0,
    "Abies": 7.0,
    "Populus": 10.0,
    "Prunus": 8.0,
    "Tilia": 13.0,
}
_SPECIES = {
    "Abies": "Abies_alba",
    "Acer": "Acer_pseudoplatanus",
    "Alnus": "Alnus_spec.",
    "Betula": "Betula_spec.",
    "Cleared": "Cleared_0",
    "Fagus": "Fagus_sylvatica",
    "Fraxinus": "Fraxinus_excelsior",
    "Larix": "Larix_decidua",
    "Picea": "Picea_abies",
    "Pinus": "Pinus_sylvestris",
    "Populus": "Populus_spec.",
    "Prunus": "Prunus_spec.",
    "Pseudotsuga": "Pseudotsuga_menziesii",
    "Quercus": "Quercus_robur",
    "Tilia": "Tilia_spec.",
}
_LOOK = Look(middle=0.38, contrast=0.12)
