"""Packs the scores of images into ranks, small enough to be published with a record.

An average precision depends on the order of the scores and on their ties, and so do its resamples.
The packed file therefore holds the dense rank of every score among all scores of its tensor, from 0
for the lowest; equal scores have equal ranks. All scores of the record, all intervals over test
images and all paired comparisons that are computed from the ranks equal those from the scores, to
the last bit.

The file ``<record's name>.ranks.safetensors.xz`` is a safetensors file in an XZ container. Its
tensors have the names of those of the image scores, and their shape is ``[L, M]``: neighbours
in a column of scores are alike, so the transpose is smaller.
"""

import json
import lzma
import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from rscl_bench.atomic import write_atomic
from rscl_bench.canonical import canonical_json
from rscl_bench.errors import ArtefactError, shown
from rscl_bench.results.image_scores import (
    ImageScores,
    check_tensors,
    image_scores_path,
    named_tensors,
    parsed_tensors,
    probe_scores,
    read_image_scores,
    scores_of_tensors,
)
from rscl_bench.results.reading import read_regular
from rscl_bench.results.schema import RunRecord

SUFFIX = ".ranks.safetensors.xz"
_FORMAT = 1
_HEADER = "rscl_bench"
_TYPES = (np.uint8, np.uint16, np.uint32)
#: Most bytes of a packed file.
_LARGEST = 2**30
#: Most bytes that any packed file may unpack to.
_LARGEST_UNPACKED = 2**32
#: A validation split may have this many times the images of the test split.
_VALIDATION = 16
_HEADERS = 2**20
_LARGEST_DICTIONARY = 64 * 2**20
#: Memory of the decompressor: the dictionary and a little more.
_MEMORY = 2 * _LARGEST_DICTIONARY


def packed_scores_path(record: Path) -> Path:
    """Return the path of the packed scores of a record file."""
    return record.with_name(record.stem + SUFFIX)


def pack_scores(images: ImageScores, record: RunRecord) -> bytes:
    """Return the content of the packed file.

    Equal scores give equal content; the bytes around it are the compressor's.

    Args:
        images: Scores of the images of a run.
        record: Record of this run.

    Raises:
        ArtefactError: If the scores of the record do not follow from the images' ranks, to the last
            bit of what follows from their scores.
    """
    plain = _plain(images, record)
    ranks = _of_plain(plain, record)
    for row, packed in zip(_rows(images), _rows(ranks), strict=True):
        if probe_scores(images.labels, row) != probe_scores(ranks.labels, packed):
            raise ArtefactError(
                f"The ranks of the image scores of run {record.id} do not give the scores' average "
                "precision, so they are not published; report this with the run's files."
            )
    return _compressed(plain)


def unpack_scores(content: bytes, record: RunRecord) -> ImageScores:
    """Return the image scores of a packed file's content, with ranks in place of scores.

    Raises:
        ValueError: If the content is damaged, is of another run, names other image scores than the
            record, or a tensor does not fit the record.
    """
    return _of_plain(_decompressed(content, _most(record)), record)


def write_packed_scores(images: ImageScores, record: RunRecord, path: Path) -> None:
    """Write the packed scores of a record file, whole or not at all.

    Args:
        images: Scores of the images of the run.
        record: Content of the record file.
        path: The record file.

    Raises:
        ArtefactError: If the file cannot be written, or as in `pack_scores`.
    """
    write_atomic(packed_scores_path(path), pack_scores(images, record))


def read_packed_scores(path: Path, record: RunRecord) -> ImageScores | None:
    """Return the packed scores beside a record file; None if there is no such file.

    Args:
        path: File of the record.
        record: Content of that file.

    Returns:
        Ranks in place of scores, as ``float64``.

    Raises:
        ArtefactError: If the file cannot be read, is damaged, is of another run, names other image
            scores than the record, or a tensor does not fit the record.
    """
    file = packed_scores_path(path)
    if not os.path.lexists(file):
        return None
    content = read_regular(file, _LARGEST)
    try:
        return unpack_scores(content, record)
    except ValueError as error:
        raise ArtefactError(
            f"{file} does not fit {path}: {shown(str(error))}; restore it from where it was "
            "published, or publish the run again."
        ) from error


def has_scores(path: Path) -> bool:
    """Return whether image scores, whole or packed, lie beside a record file."""
    return image_scores_path(path).is_file() or packed_scores_path(path).is_file()


def known_scores(path: Path, record: RunRecord) -> ImageScores | None:
    """Return the image scores beside a record file, or their ranks; None if there is neither.

    Whoever needs the values of scores, and not only their order, reads `read_image_scores`.

    Raises:
        ArtefactError: As in `read_image_scores` and `read_packed_scores`.
    """
    whole = read_image_scores(path, record)
    return read_packed_scores(path, record) if whole is None else whole


def _rows(images: ImageScores) -> Iterator[Mapping[str, Mapping[str, NDArray[np.float64]]]]:
    yield from images.scores
    yield images.pixel_statistics


def _plain(images: ImageScores, record: RunRecord) -> bytes:
    """Return the safetensors file with the ranks."""
    tensors = {
        name: np.ascontiguousarray(_ranks(array).T) for name, array in named_tensors(images).items()
    }
    header = {
        "format": _FORMAT,
        "run": record.id,
        "image_scores_digest": record.image_scores_digest,
        "tensors_digest": sha256(save(tensors)).hexdigest(),
    }
    return save(tensors, {_HEADER: canonical_json(header).decode()})


def _ranks(array: NDArray[Any]) -> NDArray[Any]:
    """Return the dense ranks of scores in the smallest type; labels are returned as they are."""
    if array.dtype == np.uint8:
        return array
    values, ranks = np.unique(array, return_inverse=True)
    smallest = next(kind for kind in _TYPES if len(values) <= np.iinfo(kind).max + 1)
    return ranks.reshape(array.shape).astype(smallest)


def _compressed(plain: bytes) -> bytes:
    # A dictionary larger than the content takes memory and time, and saves nothing.
    size = min(max(len(plain), 4096), _LARGEST_DICTIONARY)
    strongest = {
        "id": lzma.FILTER_LZMA2,
        "preset": 9 | lzma.PRESET_EXTREME,
        "dict_size": size,
    }
    return lzma.compress(plain, lzma.FORMAT_XZ, lzma.CHECK_SHA256, filters=[strongest])


def _decompressed(content: bytes, most: int) -> bytes:
    """Return what an XZ file holds.

    Raises:
        ValueError: If the file is damaged, is cut, is followed by other bytes, or unpacks to more
            than ``most`` bytes.
    """
    try:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
        plain = decompressor.decompress(content, max_length=most + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"it is damaged or no XZ file ({error})") from error
    if len(plain) > most:
        raise ValueError(f"it unpacks to more than the {most} bytes that the record's images need")
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError("it is cut off, or other bytes follow the XZ file")
    return plain


def _most(record: RunRecord) -> int:
    """Return the most bytes that the ranks of a record's images may have."""
    pairs = sum(probe.test_tiles * probe.labels for probe in record.probes)
    rows = len(record.scores) + 2
    return min(_LARGEST_UNPACKED, _HEADERS + (1 + _VALIDATION) * 4 * rows * pairs)


def _of_plain(plain: bytes, record: RunRecord) -> ImageScores:
    """Return the image scores with ranks in place of scores.

    Raises:
        ValueError: If the content does not fit the record, or is not as `_plain` writes it.
    """
    tensors, metadata = parsed_tensors(plain)
    header = _header(metadata, record)
    stripped = sha256(save(tensors)).hexdigest()
    if header.get("tensors_digest") != stripped:
        raise ValueError("the digest of its tensors is not the one in its header")
    whole = {
        name: np.ascontiguousarray(array.T, np.uint8 if name.startswith("labels.") else np.float64)
        for name, array in tensors.items()
        if array.ndim == 2 and array.dtype in _TYPES
    }
    for name in tensors.keys() - whole.keys():
        raise ValueError(f"the tensor '{name:.80}' is no matrix of ranks")
    check_tensors(whole, record)
    images = scores_of_tensors(whole, record, record.id)
    if _plain(images, record) != plain:
        raise ValueError("its tensors are no dense ranks in the smallest type, or its header grew")
    return images


def _header(metadata: Mapping[str, str], record: RunRecord) -> dict[str, Any]:
    """Return the header of a packed file.

    Raises:
        ValueError: If the header is missing, of another format, or of another run.
    """
    try:
        header = json.loads(metadata.get(_HEADER, "null"))
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ValueError(f"its header is not of format {_FORMAT}")
    for field, value in (("run", record.id), ("image_scores_digest", record.image_scores_digest)):
        if header.get(field) != value:
            raise ValueError(f"its field '{field}' is not that of the record")
    return header
