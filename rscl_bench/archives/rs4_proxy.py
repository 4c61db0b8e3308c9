"""Stand-ins for the four archives of `rs4`: real images of four kinds, grouped by place.

The four parts were collected from public sources, to run the stream of the CoSMAE paper in kind
where US3D, UAVid, Potsdam and TreeSatAI cannot be had: satellite images of a city, oblique frames
of drones, orthophotos of towns, and plots of forest. No publisher distributes the parts together,
and the numbers of images are those of the collection. Each image lies in the folder of its place.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np

from rscl_bench import sensors
from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.files import read_picture, write_picture
from rscl_bench.archives.listing import pictures_in
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import Look
from rscl_bench.archives.painting.scenes import districts

_CLASSES = ("building", "land", "road", "vegetation", "water", "unlabelled")
_NOTE = (
    "A part of the stand-ins for the archives of `rs4`. The images were collected from the sources "
    "named here, and re-encoded; no publisher distributes the collection."
)


class PlacesAdapter(DatasetAdapter):
    """Base of the parts: one folder of JPEGs for each place.

    Attributes:
        places: Split to its places, and the number of images of each place.
        sketch_look: Look of the images of a sketch.
        sketch_scenes: Scenes that a sketch shows.
        sketch_size: Size of the objects of a sketch.
    """

    sensor = sensors.RGB8
    splits: ClassVar[tuple[str, ...]] = ("train",)
    formats = ("JPEG",)
    places: ClassVar[dict[str, dict[str, int]]]
    sketch_look: ClassVar[Look] = Look(middle=0.42, contrast=0.13)
    sketch_scenes: ClassVar[tuple[str, ...]]
    sketch_size: ClassVar[float]

    def _list_files(self) -> list[Path]:
        # An archive that lacks an image of any split is partial.
        files = {
            split: [path for place in places for path in self._of_place(split, place)]
            for split, places in self.places.items()
        }
        return files[self.split]

    def _of_place(self, split: str, place: str) -> list[Path]:
        """Return all images of a place; a real archive has as many as the collection."""
        folder = self.root / place
        names = pictures_in(folder, ".jpg")
        if not names:
            raise self.missing(f"{folder} holds no *.jpg")
        self._require_count(len(names), self.places[split][place], f"files {place}/*.jpg")
        return [folder / name for name in names]

    def _read(self, index: int, with_labels: bool) -> Scene:
        return Scene(self.read_image(self.files[index]))

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        """Draw two images of 256 × 256 pixels of each place."""
        for places in cls.places.values():
            for place in places:
                for number in (1, 2):
                    canvas = Canvas(256, 256, rng)
                    districts(canvas, cls.sketch_scenes, side=64, size=cls.sketch_size)
                    path = root / place / f"{number:03d}.jpg"
                    write_picture(path, canvas.render(cls.sensor, cls.sketch_look), quality=88)
                    cls._draw_mask(canvas, path)

    @classmethod
    def _draw_mask(cls, canvas: Canvas, image: Path) -> None:
        """Write the mask of an image, in a part that has masks."""


class SatelliteCityAdapter(PlacesAdapter):
    """Satellite images of Dubai with masks of six classes; stands in for US3D."""

    name = "rs4-proxy-city"
    folder = "rs4_proxy/satellite_city"
    title = "rs4-proxy, satellite city (Dubai)"
    classes = _CLASSES
    splits = ("train", "val", "test")
    source = "https://humansintheloop.org/semantic-segmentation-dataset/"
    licence = "CC0, as stated by Humans in the Loop and the Mohammed Bin Rashid Space Center"
    layout = "area1/001.jpg, area1/001_mask.png and so on, eight areas"
    images = "60 JPEGs of 509 to 2,149 pixels a side, each with a PNG of class indices"
    notes = (
        _NOTE,
        "The splits are by area: `val` is area 3, `test` is area 4, and `train` the other six. The "
        "masks are the published colours as indices. `unlabelled` is the annotators' sixth class, "
        "of which area 4 has no pixel; colours of no class are undefined.",
    )
    places: ClassVar[dict[str, dict[str, int]]] = {
        "train": {"area1": 9, "area2": 9, "area5": 9, "area6": 9, "area7": 3, "area8": 3},
        "val": {"area3": 9},
        "test": {"area4": 9},
    }
    sketch_scenes = ("residential", "industrial", "desert", "road", "beach", "golf")
    sketch_size = 0.8

    def _list_files(self) -> list[Path]:
        files = super()._list_files()
        self.masks = [path.with_name(f"{path.stem}_mask.png") for path in files]
        self._require_files(self.masks)
        return files

    def inputs(self) -> list[Path]:
        """Return the images and their masks."""
        return [*self.files, *self.masks]

    def label_files(self) -> list[Path]:
        """Return the masks."""
        return self.masks

    def _read(self, index: int, with_labels: bool) -> Scene:
        scene = super()._read(index, with_labels)
        if not with_labels:
            return scene
        mask = read_picture(self.masks[index], max_pixels=self.max_pixels)
        if mask.shape[2] != 1 or mask.dtype != np.uint8:
            raise self.damaged(f"{self.masks[index]} is no picture of class indices")
        return Scene(scene.image, mask=mask[:, :, 0])

    @classmethod
    def _draw_mask(cls, canvas: Canvas, image: Path) -> None:
        table = {material: _CLASSES.index(name) for material, name in _MATERIAL_CLASS.items()}
        mask = canvas.classes(table)[:, :, None]
        write_picture(image.with_name(f"{image.stem}_mask.png"), mask)


class DroneAdapter(PlacesAdapter):
    """Oblique frames of drones; stands in for UAVid."""

    name = "rs4-proxy-drone"
    folder = "rs4_proxy/drone_oblique"
    title = "rs4-proxy, oblique drone frames"
    source = (
        "https://uavid.nl, https://github.com/MarcWong/UDD and https://github.com/RussRobin/VDD: "
        "figures and previews"
    )
    licence = "UAVid CC BY-NC-SA 4.0; UDD and VDD for non-commercial use"
    layout = "scene_A/00.jpg to scene_H/01.jpg, udd/00.jpg and vdd/00.jpg to vdd/04.jpg"
    images = "40 JPEGs of 256 to 1,000 pixels a side, of ten scenes"
    notes = (_NOTE, "Scenes F, G and H may be of one flight.")
    places: ClassVar[dict[str, dict[str, int]]] = {
        "train": {
            "scene_A": 8,
            "scene_B": 7,
            "scene_C": 6,
            "scene_D": 7,
            "scene_E": 2,
            "scene_F": 1,
            "scene_G": 1,
            "scene_H": 2,
            "udd": 1,
            "vdd": 5,
        }
    }
    sketch_scenes = ("road", "residential", "parking", "courts")
    sketch_size = 1.5


class AerialTownAdapter(PlacesAdapter):
    """Orthophotos of five towns from drones; stands in for Potsdam."""

    name = "rs4-proxy-town"
    folder = "rs4_proxy/aerial_town"
    title = "rs4-proxy, orthophotos of towns"
    source = "https://openaerialmap.org"
    licence = "CC BY 4.0 as a rule, by the contributors of OpenAerialMap"
    layout = "banepa_NP/1546788_881052.jpg and so on, five towns; names are x_y of map tiles"
    images = "616 JPEGs of 256 × 256 pixels at 7 to 15 cm"
    notes = (_NOTE,)
    places: ClassVar[dict[str, dict[str, int]]] = {
        "train": {
            "banepa_NP": 128,
            "catanduanes_PH": 64,
            "kampala_UG": 108,
            "nairobi_KE": 96,
            "zanzibar_TZ": 220,
        }
    }
    sketch_scenes = ("residential", "industrial", "mobile-homes", "road", "meadow")
    sketch_size = 2.0


class ForestAdapter(PlacesAdapter):
    """Plots of four forests from an airplane; stands in for TreeSatAI."""

    name = "rs4-proxy-forest"
    folder = "rs4_proxy/forest"
    title = "rs4-proxy, forest plots (NEON)"
    source = "https://github.com/weecology/NeonTreeEvaluation"
    licence = "open, under the data policy of NEON"
    layout = "HARV/HARV_001.jpg and so on, four sites"
    images = "164 JPEGs of about 400 × 400 pixels at 10 cm"
    notes = (_NOTE, "The plots of SJER stand twice, from two flights.")
    places: ClassVar[dict[str, dict[str, int]]] = {
        "train": {"HARV": 39, "OSBS": 39, "SJER": 68, "TEAK": 18}
    }
    sketch_scenes = ("forest", "chaparral", "meadow")
    sketch_size = 1.5


_MATERIAL_CLASS = {
    "building": "building",
    "building-red": "building",
    "building-white": "building",
    "soil": "land",
    "sand": "land",
    "pavement": "road",
    "bridge": "road",
    "grass": "vegetation",
    "trees": "vegetation",
    "field": "vegetation",
    "chaparral": "vegetation",
    "water": "water",
    "sea": "water",
    "car": "unlabelled",
    "moving-car": "unlabelled",
}
