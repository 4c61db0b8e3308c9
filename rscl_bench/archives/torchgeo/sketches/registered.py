"""The writer of the sketch of each TorchGeo dataset that has one.

A writer takes the empty folder of the archive and the source of all randomness. It writes every
file that TorchGeo's class asks for, with all splits, for any options of a scenario.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from rscl_bench.archives.torchgeo.sketches.bright import write_bright
from rscl_bench.archives.torchgeo.sketches.eurosat import write_eurosat
from rscl_bench.archives.torchgeo.sketches.fields import write_fields
from rscl_bench.archives.torchgeo.sketches.firerisk import write_firerisk
from rscl_bench.archives.torchgeo.sketches.landsat import write_landsat
from rscl_bench.archives.torchgeo.sketches.patternnet import write_patternnet
from rscl_bench.archives.torchgeo.sketches.seasonet import write_seasonet
from rscl_bench.archives.torchgeo.sketches.usavars import write_usavars
from rscl_bench.archives.torchgeo.sketches.xview2 import write_xview2

#: Name of TorchGeo's class to the writer of its sketch. Classes of one folder have one writer.
WRITERS: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "BRIGHTDFC2025": write_bright,
    "EuroSAT": write_eurosat,
    "EuroSATSpatial": write_eurosat,
    "FieldsOfTheWorld": write_fields,
    "FireRisk": write_firerisk,
    "PatternNet": write_patternnet,
    "SSL4EOLBenchmark": write_landsat,
    "SeasoNet": write_seasonet,
    "USAVars": write_usavars,
    "XView2": write_xview2,
}
