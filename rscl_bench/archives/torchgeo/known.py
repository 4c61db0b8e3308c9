"""What is known of datasets of TorchGeo besides their code: sensor, licence, labels, keys.

Licences and sensors are those of the tables in TorchGeo's documentation (version 0.8). A dataset
that is not listed here works too, with its sensor declared in the options.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

#: The names that TorchGeo's masks of change have by value.
_CHANGE = ("unchanged", "changed")


@dataclass(frozen=True)
class Known:
    """What is known of one class of TorchGeo.

    Attributes:
        licence: Licence of the archive.
        images: One line on the images.
        sensor: Sensor of the table; None where the scenario has to declare one.
        values: Names of the label values, from 0 on, where the class has no such list, or one in
            another order than the labels.
        ignored: Label values that are no class.
        splits: Names of the splits, where the class has no list of them.
        folder: Folder below the data root; None for the name of the class in small letters.
        options: Values of options that hold unless the scenario sets others.
        notes: Further remarks for the documentation.
        title: Full name, where the first line of the class's docstring is none.
    """

    licence: str
    images: str
    sensor: str | None = None
    values: tuple[str, ...] = ()
    ignored: tuple[int, ...] = ()
    splits: tuple[str, ...] = ()
    folder: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    title: str = ""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_UNSTATED = "not stated by its publisher"
_THREE = ("train", "val", "test")
_EUROSAT = Known(
    "MIT",
    "GeoTIFFs of 64 × 64 pixels at 10 m, Sentinel-2 Level-1C, 13 bands",
    "sentinel2-l1c",
    (
        "AnnualCrop",
        "Forest",
        "HerbaceousVegetation",
        "Highway",
        "Industrial",
        "Pasture",
        "PermanentCrop",
        "Residential",
        "River",
        "SeaLake",
    ),
    splits=_THREE,
    folder="eurosat",
)
_BIGEARTHNET = Known(
    "CDLA-Permissive-1.0",
    "GeoTIFFs of 120 × 120 pixels at 10 m, Sentinel-2 Level-2A, 12 bands; 19 or 43 multi-labels",
    "sentinel2-l2a",
    splits=_THREE,
    options={"bands": "s2"},
    notes=('TorchGeo also reads Sentinel-1: `bands = "s1"` with `sensor = "sentinel1-db"`.',),
)
_LANDCOVERAI = Known(
    "CC-BY-NC-SA-4.0",
    "JPEGs of 512 × 512 pixels at 0.25 to 0.5 m, RGB, 5-class masks",
    "rgb8",
    splits=_THREE,
    folder="landcoverai",
)

KNOWN: dict[str, Known] = {
    "ADVANCE": Known("CC-BY-4.0", "512 × 512 pixels at 0.5 m, RGB", "google-earth-rgb"),
    "BRIGHTDFC2025": Known(
        "CC-BY-4.0 and CC-BY-NC-4.0",
        "pairs of 1,024 × 1,024 pixels at 0.3 to 1 m: RGB before a disaster, X-band radar "
        "after it, masks of damage",
        "rgb8",
        ("background", "intact", "damaged", "destroyed"),
        splits=_THREE,
        notes=(
            "`date = 1` is the optical image. `date = 2` with `channels = [1]` and "
            '`sensor = "sar-amplitude8"` is the radar image, which TorchGeo repeats three times.',
            "`val` is the holdout of the contest's training set. The split `test` has no masks.",
        ),
    ),
    "BigEarthNet": _BIGEARTHNET,
    "BigEarthNetV2": _BIGEARTHNET,
    "CaBuAr": Known(
        "OpenRAIL",
        "pairs of 512 × 512 pixels at 20 m, Sentinel-2 Level-2A, 12 bands, masks of burned area",
        "sentinel2-l2a",
        ("unburned", "burned"),
        splits=_THREE,
    ),
    "ChaBuD": Known(
        "OpenRAIL",
        "pairs of 512 × 512 pixels at 10 m, Sentinel-2 Level-2A, 12 bands, masks of burned area",
        "sentinel2-l2a",
        ("unburned", "burned"),
        splits=("train", "val"),
    ),
    "CloudCoverDetection": Known(
        "CC-BY-4.0",
        "512 × 512 pixels at 10 m, Sentinel-2 Level-2A, 4 bands, masks of cloud",
        "sentinel2-l2a",
        ("clear", "cloud"),
        splits=("train", "test"),
    ),
    "DFC2022": Known(
        "CC-BY-4.0",
        "2,000 × 2,000 pixels at 0.5 m, RGB with an elevation model, 15-class masks",
        "rgb8",
        ignored=(0, 15),
        splits=("train", "train-unlabeled", "val"),
        options={"channels": [1, 2, 3]},
        notes=("The elevation, channel 4, is in metres and no band.",),
    ),
    "DIOR": Known("CC-BY-NC-4.0", "800 × 800 pixels at 0.5 m, RGB, boxes", "rgb8", splits=_THREE),
    "DOTA": Known(
        "non-commercial",
        "RGB images of 800 to 4,000 pixels, boxes",
        "rgb8",
        splits=("train", "val"),
    ),
    "DeepGlobeLandCover": Known(
        _UNSTATED,
        "2,448 × 2,448 pixels at 0.5 m, RGB, 7-class masks",
        "rgb8",
        ignored=(6,),
        splits=("train", "test"),
    ),
    "EuroSAT": _EUROSAT,
    "EuroSAT100": _EUROSAT,
    "EuroSATSpatial": replace(_EUROSAT, title="EuroSAT with splits by longitude"),
    "FieldsOfTheWorld": Known(
        "differs from country to country; see the source",
        "pairs of 256 × 256 pixels at 10 m, Sentinel-2 Level-2A, 4 bands, masks of fields",
        "sentinel2-l2a-10m",
        ("background", "field", "field-boundary", "unlabelled"),
        ignored=(3,),
        splits=_THREE,
        options={"target": "3-class", "date": 1},
        notes=(
            "`date = 1` is the archive's window b, and `date = 2` its window a.",
            "Brazil, India, Kenya and Rwanda have labels of some fields only.",
            "Its tables are Parquet files, which pandas reads with the package pyarrow.",
        ),
    ),
    "FireRisk": Known(
        "CC-BY-NC-4.0",
        "320 × 320 pixels at 1 m, RGB",
        "rgb8",
        splits=("train", "val"),
    ),
    "GID15": Known(
        _UNSTATED,
        "6,800 × 7,200 pixels at 3 m, RGB, 15-class masks",
        "rgb8",
        ignored=(0,),
        splits=_THREE,
    ),
    "InriaAerialImageLabeling": Known(
        _UNSTATED,
        "5,000 × 5,000 pixels at 0.3 m, RGB, masks of buildings",
        "rgb8",
        ("background", "building"),
        folder="inria",
        splits=_THREE,
        notes=("The split `test` has no masks.",),
    ),
    "LEVIRCD": Known(
        _UNSTATED,
        "pairs of 1,024 × 1,024 pixels at 0.5 m, RGB, masks of change",
        "google-earth-rgb",
        _CHANGE,
        splits=_THREE,
    ),
    "LEVIRCDPlus": Known(
        _UNSTATED,
        "pairs of 1,024 × 1,024 pixels at 0.5 m, RGB, masks of change",
        "google-earth-rgb",
        _CHANGE,
        splits=("train", "test"),
    ),
    "LandCoverAI": _LANDCOVERAI,
    "LandCoverAI100": _LANDCOVERAI,
    "LoveDA": Known(
        "CC-BY-NC-SA-4.0",
        "1,024 × 1,024 pixels at 0.3 m, RGB, 7-class masks",
        "google-earth-rgb",
        (
            "no-data",
            "background",
            "building",
            "road",
            "water",
            "barren",
            "forest",
            "agriculture",
        ),
        ignored=(0,),
        splits=_THREE,
        notes=("TorchGeo's list of classes begins with background, its masks with no-data.",),
    ),
    "NAIP": Known("public domain", "aerial images at 0.3 to 2 m", "naip"),
    "OSCD": Known(
        "CC-BY-4.0",
        "pairs of 40 to 1,180 pixels at 10 to 60 m, Sentinel-2 Level-1C, masks of change",
        "sentinel2-l1c",
        _CHANGE,
        splits=("train", "test"),
    ),
    "PatternNet": Known(
        "CC-BY-4.0",
        "256 × 256 pixels at 0.06 to 5 m, RGB, 38 scenes",
        "google-earth-rgb",
        _words(
            "airplane baseball_field basketball_court beach bridge cemetery chaparral "
            "christmas_tree_farm closed_road coastal_mansion crosswalk dense_residential "
            "ferry_terminal football_field forest freeway golf_course harbor intersection "
            "mobile_home_park nursing_home oil_gas_field oil_well overpass parking_lot "
            "parking_space railway river runway runway_marking shipping_yard solar_panel "
            "sparse_residential storage_tank swimming_pool tennis_court transformer_station "
            "wastewater_treatment_plant "
        ),
    ),
    "Potsdam2D": Known(
        _UNSTATED,
        "6,000 × 6,000 pixels at 0.05 m, 4 bands, 6-class masks",
        "potsdam-rgbir",
        folder="potsdam",
        splits=("train", "test"),
        notes=(
            "TorchGeo maps a colour that is no class to class 0; the dataset `potsdam` does not.",
        ),
    ),
    "RESISC45": Known(
        "CC-BY-NC-4.0",
        "256 × 256 pixels at 0.2 to 30 m, RGB, 45 scenes",
        "google-earth-rgb",
        _words(
            "airplane airport baseball_diamond basketball_court beach bridge chaparral church "
            "circular_farmland cloud commercial_area dense_residential desert forest freeway "
            "golf_course ground_track_field harbor industrial_area intersection island lake "
            "meadow medium_residential mobile_home_park mountain overpass palace parking_lot "
            "railway railway_station rectangular_farmland river roundabout runway sea_ice "
            "ship snowberg sparse_residential stadium storage_tank tennis_court terrace "
            "thermal_power_station wetland "
        ),
        splits=_THREE,
    ),
    "SEN12MS": Known(
        "CC-BY-4.0",
        "256 × 256 pixels at 10 m, Sentinel-1 in decibels and Sentinel-2 Level-1C",
        "sentinel2-l1c",
        splits=("train", "test"),
        options={
            "bands": [
                "B01",
                "B02",
                "B03",
                "B04",
                "B05",
                "B06",
                "B07",
                "B08",
                "B8A",
                "B09",
                "B10",
                "B11",
                "B12",
            ]
        },
    ),
    "SSL4EOL": Known(
        "CC0-1.0",
        "264 × 264 pixels at 30 m, Landsat in 8 bits, no labels",
        splits=("tm_toa", "etm_toa", "etm_sr", "oli_tirs_toa", "oli_sr"),
        notes=("Its splits are Landsat's sensors; name the sensor that goes with the split.",),
    ),
    "SSL4EOS12": Known(
        "CC-BY-4.0",
        "264 × 264 pixels at 10 m, Sentinel-1 and Sentinel-2, no labels",
        splits=("s2c", "s2a", "s1"),
        notes=("Its splits are products; name the sensor that goes with the split.",),
    ),
    "SSL4EOLBenchmark": Known(
        "CC0-1.0",
        "264 × 264 pixels at 30 m, Landsat in 8 bits, 16-class masks of NLCD",
        None,
        (
            "background",
            "open-water",
            "ice-snow",
            "developed-open",
            "developed-low",
            "developed-medium",
            "developed-high",
            "barren",
            "deciduous-forest",
            "evergreen-forest",
            "mixed-forest",
            "shrub",
            "grassland",
            "pasture",
            "crops",
            "woody-wetlands",
            "herbaceous-wetlands",
        ),
        ignored=(0,),
        splits=_THREE,
        options={"product": "nlcd"},
        notes=(
            'Choose a sensor of Landsat as in `arguments = { sensor = "tm_toa" }`, and name its '
            "bands in `sensor`.",
        ),
    ),
    "SeasoNet": Known(
        "CC-BY-4.0",
        "120 × 120 pixels at 10 m, Sentinel-2 Level-2A, masks of 33 classes of land cover",
        "sentinel2-l2a-10m",
        ignored=(255,),
        splits=_THREE,
        options={"bands": ["10m_RGB", "10m_IR"], "channels": [1, 2, 3, 4]},
        notes=(
            "Its options `bands` are groups of bands. With others than these, name the sensor and "
            "its channels.",
        ),
    ),
    "SeasonalContrastS2": Known(
        "CC-BY-4.0",
        "264 × 264 pixels at 10 m, Sentinel-2 in 8 bits, no labels",
        "sentinel2-8bit",
    ),
    "So2Sat": Known(
        "CC-BY-4.0",
        "32 × 32 pixels at 10 m, Sentinel-1 and Sentinel-2, 17 local climate zones",
        "sentinel2-l2a",
        splits=("train", "validation", "test"),
        options={
            "bands": [
                "S2_B02",
                "S2_B03",
                "S2_B04",
                "S2_B05",
                "S2_B06",
                "S2_B07",
                "S2_B08",
                "S2_B8A",
                "S2_B11",
                "S2_B12",
            ],
            "convert": {"multiply": 10_000.0},
        },
        notes=("Its reflectances are stored as floating-point numbers, and become × 10,000.",),
    ),
    "SolarPlantsBrazil": Known(
        "CC-BY-NC-4.0",
        "256 × 256 pixels at 10 m, 4 bands, masks of solar plants",
        values=("background", "solar-plant"),
        splits=_THREE,
    ),
    "TreeSatAI": Known(
        "CC-BY-4.0",
        "304 × 304 pixels at 0.2 m, infrared, green, blue and red, 15 multi-labels",
        "treesatai-aerial",
        splits=("train", "test"),
        options={"sensors": ["aerial"], "image_key": "image_aerial"},
        notes=(
            'TorchGeo also reads Sentinel-2: `sensors = ["s2"]`, `image_key = "image_s2"`, and '
            "`sensor` with the bands in the order B02, B03, B04, B08, B05, B06, B07, B8A, B11, "
            "B12, B01, B09.",
        ),
    ),
    "UCMerced": Known(
        "public domain",
        "256 × 256 pixels at 0.3 m, RGB, 21 scenes",
        "ucmerced-rgb",
        _words(
            "agricultural airplane baseballdiamond beach buildings chaparral denseresidential "
            "forest freeway golfcourse harbor intersection mediumresidential mobilehomepark "
            "overpass parkinglot river runway sparseresidential storagetanks tenniscourt "
        ),
        splits=_THREE,
        options={"convert": {"multiply": 1.0}},
        notes=(
            "TorchGeo resizes the 44 images of another size to 256 × 256 pixels; their values are "
            "rounded to whole numbers.",
        ),
    ),
    "USAVars": Known(
        "CC-BY-4.0",
        "aerial images of NAIP of 1 km² each, resampled to 4 m, 4 bands, without classes",
        "naip",
        splits=_THREE,
        notes=("Its labels are measured numbers, which no probe takes.",),
    ),
    "VHR10": Known(
        "CC-BY-NC-4.0",
        "358 to 1,728 pixels at 0.08 to 2 m, RGB, boxes",
        "rgb8",
        ignored=(0,),
        splits=("positive", "negative"),
        notes=("Some of its images are infrared, red and green.",),
    ),
    "Vaihingen2D": Known(
        _UNSTATED,
        "1,281 to 3,816 pixels at 0.09 m, infrared, red and green, 6-class masks",
        "nrg8",
        folder="vaihingen",
        splits=("train", "test"),
    ),
    "XView2": Known(
        "CC-BY-NC-SA-4.0",
        "pairs of 1,024 × 1,024 pixels at 0.8 m, RGB, masks of damage",
        "rgb8",
        ("undamaged", "minor-damage", "major-damage", "destroyed", "uncertain"),
        ignored=(4,),
        splits=("train", "test"),
        notes=(
            "TorchGeo subtracts the mask before the disaster, where a building is 1, from that "
            "after it. Its values are therefore one less than its list of classes says, and 4 "
            "stands only where a destroyed building was none before.",
        ),
    ),
    "ZueriCrop": Known("CC-BY-NC-4.0", "series of 24 × 24 pixels at 10 m, Sentinel-2, 48 crops"),
}
