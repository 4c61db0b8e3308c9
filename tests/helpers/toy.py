"""The toy archive."""

from helpers.paths import TOY
from rscl_bench.spec import Source


def source() -> Source:
    return Source(dataset=f"{TOY.parent / 'adapters.py'}:Toy", split="train", tile_size=24)
