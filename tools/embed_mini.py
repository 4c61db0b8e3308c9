"""Makes the embedded images of the scenario `mini` from UC Merced and HIT-UAV.

`python tools/embed_mini.py DATA_ROOT` reads the two archives below DATA_ROOT in the layouts of the
datasets `ucmerced` and `hit-uav`, and writes `rscl_bench/embedded/ucmerced` and
`rscl_bench/embedded/hit-uav`: images, and a table `images.csv` with the split and the labels of
each image. The files `about.toml`, with source, licence and changes, are written by hand.

UC Merced: of each of the 21 scene classes, 50 images are taken and reduced to 96 × 96 pixels.
Images of a class that show the same ground are in one split; `near_copies` finds them.

HIT-UAV: crops of 96 × 96 pixels are cut from a grid on frames of 320 × 256 pixels; larger frames
are reduced to that size first. A crop is labelled by the boxes that lie in it by half or more. A
crop is left out if less than half of a box lies in it, if it shows what the annotators could not
name, or if it shows a vehicle of the rare class OtherVehicle. The splits are those of the dataset
`hit-uav`: whole flights.
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.archives.hit_uav import ANNOTATION_FOLDER, IMAGE_FOLDER, split_of
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.archives.ucmerced import IMAGE_FOLDER as AERIAL_FOLDER
from rscl_bench.testing.near_copies import near_copies

EMBEDDED = Path(__file__).parent.parent / "rscl_bench" / "embedded"
SIDE = 96
QUALITY = 85
#: Images of each scene class of UC Merced, by split.
AERIAL = {"test": 14, "val": 6, "train": 30}
#: Two images of a class that are more alike than this are in one split; see `near_copies`.
ALIKE = 0.7
#: Crops of HIT-UAV for each kind, by split. The kinds are the classes, and crops of no object.
THERMAL = {"test": 90, "val": 40, "train": 240}
CLASSES = ("Person", "Car", "Bicycle")
#: Size of the frames, and the left and upper edges of the grid of crops in them.
FRAME = (320, 256)
EDGES = ((16, 112, 208), (32, 128))


class Crop(NamedTuple):
    """A crop of a frame.

    Attributes:
        frame: Name of the frame.
        left: Left edge in pixels.
        upper: Upper edge in pixels.
        labels: The classes in the crop.
    """

    frame: str
    left: int
    upper: int
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the file, without suffix."""
        return f"{self.frame}_{self.left}_{self.upper}"


def embed_aerial(root: Path, out: Path) -> list[dict[str, str]]:
    """Write the images of UC Merced, and return the rows of their table."""
    options = {"root": "ucmerced", "pattern": f"{AERIAL_FOLDER}/*/*.tif", "sensor": "ucmerced-rgb"}
    adapter = adapter_class("folder", options)(root, "all", options)
    rows = []
    groups = ground_groups(adapter)
    for scene in sorted({path.parent.name for path in adapter.files}):
        own = sorted((group for group in groups if group[0].parent.name == scene), key=group_key)
        for path, split in dealt(own):
            with Image.open(path) as image:
                small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            save(small, out / scene / f"{path.stem}.jpg")
            rows.append({"name": f"{scene}/{path.stem}.jpg", "split": split, "scene": scene})
    return rows


def ground_groups(adapter: DatasetAdapter) -> list[list[Path]]:
    """Return the images in groups: images that share ground, directly or through others."""
    group = {path: [path] for path in adapter.files}
    for pair in near_copies(adapter, adapter, ALIKE, lambda path: path.parent.name):
        first, second = group[pair.first], group[pair.second]
        if first is not second:
            first += second
            group |= dict.fromkeys(second, first)
    return list({id(paths): paths for paths in group.values()}.values())


def dealt(groups: Iterable[list[Path]]) -> list[tuple[Path, str]]:
    """Deal groups to the splits, each to the first split that still has room for all of it."""
    room, chosen = dict(AERIAL), []
    for group in groups:
        split = next((split for split, left in room.items() if left >= len(group)), None)
        if split is not None:
            room[split] -= len(group)
            chosen += [(path, split) for path in group]
    if any(room.values()):
        raise SystemExit(f"{chosen[0][0].parent} has too few images that are not alike: {room}")
    return chosen


def group_key(group: Sequence[Path]) -> str:
    """Return a key that puts groups into an order without meaning."""
    return shuffled(min(path.stem for path in group))


def shuffled(name: str) -> str:
    """Return a key that puts names into an order without meaning."""
    return sha256(f"mini {name}".encode()).hexdigest()


def embed_thermal(root: Path, out: Path) -> list[dict[str, str]]:
    """Write the crops of HIT-UAV, and return the rows of their table."""
    folder = root / "hit_uav"
    crops: dict[str, list[Crop]] = {split: [] for split in THERMAL}
    for path in sorted((folder / IMAGE_FOLDER).glob("*.jpg")):
        split = split_of(path.stem)
        if split is not None:
            crops[split] += crops_of(path.stem, folder / ANNOTATION_FOLDER / f"{path.stem}.xml")
    rows = []
    for split, found in crops.items():
        for crop in balanced(found, THERMAL[split]):
            with Image.open(folder / IMAGE_FOLDER / f"{crop.frame}.jpg") as image:
                frame = image.convert("L").resize(FRAME, Image.Resampling.LANCZOS)
            box = (crop.left, crop.upper, crop.left + SIDE, crop.upper + SIDE)
            save(frame.crop(box), out / f"{crop.name}.jpg")
            time, height, angle, _, _ = crop.frame.split("_")
            rows.append(
                {
                    "name": f"{crop.name}.jpg",
                    "split": split,
                    "time": "night" if time == "1" else "day",
                    "height_m": height,
                    "angle_deg": angle,
                    **{name: str(int(name in crop.labels)) for name in CLASSES},
                }
            )
    return rows


def crops_of(frame: str, boxes: Path) -> list[Crop]:
    """Return the crops of a frame whose labels are clear."""
    tree = ElementTree.parse(boxes).getroot()
    width = int(tree.findtext("size/width", str(FRAME[0])))
    scale = FRAME[0] / width
    objects = []
    for one in tree.iter("object"):
        corners = [
            scale * float(one.findtext(f"bndbox/{key}", "nan"))
            for key in ("xmin", "ymin", "xmax", "ymax")
        ]
        objects.append((str(one.findtext("name")), np.array(corners)))
    found = []
    for left, upper in product(*EDGES):
        labels = clear_labels(objects, left, upper)
        if labels is not None:
            found.append(Crop(frame, left, upper, labels))
    return found


def clear_labels(
    objects: Sequence[tuple[str, NDArray[np.float64]]], left: int, upper: int
) -> tuple[str, ...] | None:
    """Return the classes in a crop; None if a box is cut through or has another class."""
    low, high = np.array([left, upper]), np.array([left, upper]) + SIDE
    labels = set()
    for name, corners in objects:
        size = np.maximum(corners[2:] - corners[:2], 1e-9)
        inside = np.clip(np.minimum(corners[2:], high) - np.maximum(corners[:2], low), 0, None)
        share = float((inside / size).prod())
        if share == 0:
            continue
        if share < 0.5 or name not in CLASSES:
            return None
        labels.add(name)
    return tuple(name for name in CLASSES if name in labels)


def balanced(crops: Iterable[Crop], count: int) -> list[Crop]:
    """Choose crops so that each class, and no object at all, is in ``count`` of them if it can be.

    The class that the fewest crops have comes first.
    """
    order = sorted(crops, key=lambda crop: shuffled(crop.name))
    total = Counter(name for crop in order for name in crop.labels)
    kinds = sorted(CLASSES, key=lambda name: total[name])
    chosen: list[Crop] = []
    for kind in kinds:
        have = sum(kind in crop.labels for crop in chosen)
        fitting = [crop for crop in order if kind in crop.labels and crop not in chosen]
        chosen += fitting[: max(0, count - have)]
    return chosen + [crop for crop in order if not crop.labels][:count]


def save(image: Image.Image, path: Path) -> None:
    """Write a JPEG without metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=QUALITY, optimize=True, subsampling=0)


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    """Write ``images.csv``, sorted by name."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["name"]))


def main() -> None:
    """Write the images of both archives, and print their numbers."""
    root = Path(sys.argv[1])
    out = Path(sys.argv[2]) if len(sys.argv) > 2 else EMBEDDED
    for name, embed in (("hit-uav", embed_thermal), ("ucmerced", embed_aerial)):
        rows = embed(root, out / name)
        write_table(out / name / "images.csv", rows)
        size = sum(path.stat().st_size for path in (out / name).rglob("*.jpg"))
        print(name, dict(Counter(row["split"] for row in rows)), f"{size / 1e6:.2f} MB")
        if name == "hit-uav":
            for split in THERMAL:
                own = [row for row in rows if row["split"] == split]
                counts = {key: sum(row[key] == "1" for row in own) for key in CLASSES}
                print("  ", split, counts, dict(Counter(row["time"] for row in own)))


if __name__ == "__main__":
    main()
