"""Checks that the run records of one setting agree with each other.

Some values that one record alone may have are impossible beside other records: two seeds with the
same scores of every image, or an encoder of another size under the same protocol.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rscl_bench.canonical import canonical_json
from rscl_bench.registry import BUILTIN
from rscl_bench.results.schema import RunRecord, probe_key

#: Number of pairs of test image and label from which on equal scores are no coincidence. On a few
#: images, two runs often rank all of them alike.
TELLING_PAIRS = 1000

# Largest relative difference that random choices make between counts of one method.
_RANDOM_OPERATIONS = 0.1


class Filed(NamedTuple):
    """A record and its file."""

    path: Path
    record: RunRecord


class Disagreement(NamedTuple):
    """Two records that cannot both be true.

    Attributes:
        paths: Files of the two records.
        sentence: Names both files and the field.
    """

    paths: tuple[Path, Path]
    sentence: str


def disagreements(filed: Iterable[Filed]) -> Iterator[Disagreement]:
    """Yield pairs of records that cannot both be true.

    Only records of one setting are compared: one scenario, edition, protocol and package version.

    Args:
        filed: Records of any settings. Exact copies of a record agree.
    """
    settings: dict[bytes, list[Filed]] = {}
    for item in filed:
        settings.setdefault(_setting(item.record), []).append(item)
    for members in settings.values():
        yield from _size_disagreements(members)
        yield from _flops_disagreements(members)
        yield from _label_disagreements(members)
        yield from _digest_disagreements(members)
        yield from _seed_disagreements(members)


def equal_methods(named: Iterable[tuple[str, RunRecord]]) -> list[tuple[str, ...]]:
    """Return the names of methods with equal trained scores.

    Two methods have equal scores if all scores after all tasks are equal at every common seed, and
    are of enough test images to be no coincidence. Such methods may be one method under two names,
    or methods with a part that does nothing, as a penalty with weight 0.

    Args:
        named: Records of one setting, each with the name of its row.
    """
    scores: dict[str, dict[int, bytes]] = {}
    for name, record in named:
        if _is_telling(record):
            scores.setdefault(name, {})[record.identity.seed] = _scores(record, trained=True)
    found: dict[str, tuple[str, ...]] = {}
    for name in sorted(scores):
        equal = tuple(
            other
            for other in sorted(scores)
            if (seeds := scores[name].keys() & scores[other].keys())
            and all(scores[name][seed] == scores[other][seed] for seed in seeds)
        )
        if len(equal) > 1:
            found.setdefault(equal[0], equal)
    return sorted(found.values())


def _setting(record: RunRecord) -> bytes:
    """Return what the records of one leaderboard share."""
    identity = record.identity
    protocol = {k: v for k, v in identity.protocol.items() if k != "defaults"}
    scenario = identity.scenario.model_dump()
    version = (identity.code, record.format)
    return canonical_json([scenario, identity.edition, identity.protocol_name, protocol, *version])


def _size_disagreements(members: Sequence[Filed]) -> Iterator[Disagreement]:
    """Yield records with other sizes or labels than a record of the same network or split."""

    def method(record: RunRecord) -> Hashable:
        return canonical_json(record.identity.method)

    def everything(record: RunRecord) -> Hashable:
        backbone = record.identity.protocol.get("backbone")
        return isinstance(backbone, dict) and backbone.get("name") in BUILTIN["backbones"]

    for field, group, value in (
        ("parameters.encoder", everything, lambda r: r.parameters.encoder),
        ("parameters.trainable", method, lambda r: r.parameters.trainable),
    ):
        yield from _unequal(members, field, group, value)


def _flops_disagreements(members: Sequence[Filed]) -> Iterator[Disagreement]:
    """Yield records of one method with other operations, if the same software counted both."""
    first: dict[Hashable, tuple[Filed, list[int]]] = {}
    for item in members:
        record = item.record
        if record.flops is None:
            continue
        counted = [operations or 0 for operations in record.flops.model_dump().values()]
        method = canonical_json(record.identity.method)
        torch = record.provenance.versions.get("torch")
        key = method, record.provenance.device_type, torch
        other, before = first.setdefault(key, (item, counted))
        if not all(map(_is_close, counted, before)):
            yield _disagreement(
                other, item, "differ in the field 'flops', which no seed changes by a tenth"
            )


def _is_close(one: int, two: int) -> bool:
    # The number of masked patches is a random choice of some objectives.
    return abs(one - two) <= _RANDOM_OPERATIONS * max(one, two)


def _label_disagreements(members: Sequence[Filed]) -> Iterator[Disagreement]:
    """Yield records whose splits are equal and have other numbers of labels with positives."""
    first: dict[Hashable, tuple[int, Filed]] = {}
    for item in members:
        data = item.record.identity.data
        for probe, score in item.record.scores[-1].items():
            for role, values in (("test", score.test), ("val", score.val)):
                if values is None or not values.macro_labels:  # an undefined score
                    continue
                split = probe, role, data.get(probe_key(probe, role))
                counted, other = first.setdefault(split, (values.macro_labels, item))
                if counted != values.macro_labels:
                    field = f"scores.{probe}.{role}.macro_labels"
                    yield _disagreement(other, item, f"differ in the field '{field}' of one split")


def _unequal(
    members: Sequence[Filed],
    field: str,
    group: Callable[[RunRecord], Hashable],
    value: Callable[[RunRecord], Any],
) -> Iterator[Disagreement]:
    first: dict[Hashable, Filed] = {}
    for item in members:
        other = first.setdefault(group(item.record), item)
        if value(item.record) != value(other.record):
            yield _disagreement(
                other, item, f"differ in the field '{field}', which no seed and no training changes"
            )


def _digest_disagreements(members: Sequence[Filed]) -> Iterator[Disagreement]:
    """Yield two runs with one digest of image scores."""
    first: dict[str, Filed] = {}
    for item in members:
        record = item.record
        other = first.setdefault(record.image_scores_digest, item)
        # From format 3 on, the file names its run. Before, few images may have equal scores.
        if other.record.id == record.id or not (record.format > 2 or _is_telling(record)):
            continue
        same_seed = other.record.identity.seed == record.identity.seed
        if record.format == 2 and same_seed and _recipe(record) == _recipe(other.record):
            continue
        yield _disagreement(
            other,
            item,
            "are two runs and have one 'image_scores_digest', the field of the scores of every "
            f"image; the field 'identity.{'method' if same_seed else 'seed'}' of one is wrong",
        )


def _recipe(record: RunRecord) -> bytes:
    """Return a method without its names: two names of one strategy train alike."""
    method: Any = record.identity.method
    strategies = [
        {
            **strategy,
            "name": getattr(BUILTIN["strategies"].get(strategy["name"]), "target", None)
            or strategy["name"],
        }
        for strategy in method.get("strategies", [])
    ]
    rest = {k: v for k, v in method.items() if k not in ("name", "title", "strategies")}
    return canonical_json([rest, strategies])


def _seed_disagreements(members: Sequence[Filed]) -> Iterator[Disagreement]:
    """Yield two seeds with equal scores of the untrained encoder, or after training."""
    for trained in (False, True):
        first: dict[bytes, Filed] = {}
        for item in members:
            if not _is_telling(item.record) or (item.record.identity.init and not trained):
                continue  # an encoder from a file is equal for all seeds before training
            other = first.setdefault(_scores(item.record, trained=trained), item)
            seeds = other.record.identity.seed, item.record.identity.seed
            if seeds[0] != seeds[1]:
                yield _disagreement(
                    other,
                    item,
                    f"have the seeds {seeds[0]} and {seeds[1]} and equal scores "
                    f"{'after all tasks' if trained else 'before training'}, in the field "
                    f"'scores{'' if trained else '.0'}'; the field 'identity.seed' of one is wrong",
                )


def _is_telling(record: RunRecord) -> bool:
    """Return whether equal scores of two runs are no coincidence.

    An encoder that collapsed has the same scores with every seed. Its scores do not change from
    task to task. A backbone of other code may start from trained weights, whatever the seed.
    """
    pairs = max(probe.test_tiles * probe.labels for probe in record.probes)
    backbone = record.identity.protocol.get("backbone")
    builtin = isinstance(backbone, dict) and backbone.get("name") in BUILTIN["backbones"]
    rows = {canonical_json(_values(record, row)) for row in range(1, len(record.scores))}
    return pairs >= TELLING_PAIRS and builtin and len(rows) > 1


def _scores(record: RunRecord, *, trained: bool) -> bytes:
    rows = range(1, len(record.scores)) if trained else (0,)
    return canonical_json([_values(record, row) for row in rows])


def _values(record: RunRecord, row: int) -> Any:
    return {probe: score.model_dump() for probe, score in record.scores[row].items()}


def _disagreement(first: Filed, second: Filed, what: str) -> Disagreement:
    paths = (first.path, second.path)
    return Disagreement(
        paths,
        f"{first.path} and {second.path} {what}; move one of them away or run it again.",
    )
