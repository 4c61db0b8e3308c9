"""The file of weights that the encoder of a run starts from."""

from collections.abc import Iterator
from pathlib import Path

from rscl_bench.engine.build import new_encoder
from rscl_bench.models.weights_file import digest_of
from rscl_bench.randomness import seeded
from rscl_bench.results.schema import InitRecord
from rscl_bench.results.text import one_line
from rscl_bench.spec import InitialWeights, RunSpec

_SHOWN = 6


def initial_weights(path: Path) -> InitialWeights:
    """Return a file of weights with its digest.

    Raises:
        SpecError: If there is no such file, or its name ends as that of no file of weights.
    """
    return InitialWeights(path=path, digest=digest_of(path))


def fit_initial(spec: RunSpec) -> InitRecord | None:
    """Check that the file of a run fits its encoder, before anything takes long.

    Returns:
        The field ``init`` of the run's record; None without a file.

    Raises:
        RsclError: If the file cannot be read, or does not fit.
    """
    if spec.init is None:
        return None
    with seeded(spec.seed, "initialisation"):  # leaves the global generator alone
        _, adaptation = new_encoder(spec)
    assert adaptation is not None
    return InitRecord(
        file=one_line(spec.init.path.name),
        adapted=tuple(map(one_line, adaptation.adapted)),
        left_out=tuple(map(one_line, adaptation.left_out)),
    )


def init_lines(init: InitRecord) -> Iterator[str]:
    """Yield the lines that say what a run starts from."""
    yield f"The encoder starts from {init.file}."
    for change in init.adapted:
        yield f"note: {change}"
    if init.left_out:
        names = [*init.left_out[:_SHOWN], "…"] if len(init.left_out) > _SHOWN else init.left_out
        yield f"note: {len(init.left_out)} tensors beside the encoder left out: {', '.join(names)}"
