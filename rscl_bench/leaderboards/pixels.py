"""Compares the decoded pixels of records, which depend on the versions of the decoders."""

from collections.abc import Sequence

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.keys import LoadedRecord
from rscl_bench.results.schema import RunRecord

#: Names of the packages in ``provenance.versions`` that decode images, in lower case.
DECODERS = ("rasterio", "gdal", "pillow")

#: Digests of a record's packed pixels with their keys, sorted by key.
Pixels = tuple[tuple[str, str], ...]


def pixels_of(record: RunRecord) -> Pixels:
    """Return the digests of a record's pixels; in format 2 they stand in the identity."""
    digests = record.identity.data if record.format == 2 else record.pixel_digests
    return tuple(sorted(digests.items()))


def decoders_of(record: RunRecord) -> tuple[str, ...]:
    """Return the decoders of a record's images, such as ``rasterio 1.4.4``."""
    versions = {name.lower(): (name, v) for name, v in record.provenance.versions.items()}
    known = (versions[name] for name in DECODERS if name in versions)
    return tuple(f"{name} {version}" for name, version in known if version is not None)


def check_pixels(loaded: Sequence[LoadedRecord]) -> None:
    """Refuse different pixels of one archive that no difference of decoders explains.

    Args:
        loaded: Records with equal digests of data.

    Raises:
        ArtefactError: If two records with equal decoders have different pixels. The message names
            both files and the field.
    """
    first: dict[tuple[str, tuple[str, ...]], tuple[LoadedRecord, str]] = {}
    for item in loaded:
        decoders = decoders_of(item.record)
        for key, digest in pixels_of(item.record):
            other, expected = first.setdefault((key, decoders), (item, digest))
            if digest != expected:
                raise ArtefactError(
                    f"{other.path} and {item.path} differ in the field 'pixel_digests.{key}', "
                    f"though their files and decoders ({', '.join(decoders) or 'not recorded'}) "
                    "are equal; run `rscl-bench data verify`, then run one of them again."
                )
