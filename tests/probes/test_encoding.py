"""Features of a frozen encoder: computed once for equal tiles, and for no others."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from rscl_bench.engine.build import build_objective
from rscl_bench.engine.probing import pixel_scaling
from rscl_bench.probes import encoding
from rscl_bench.probes.encoding import EvalContext, FrozenEncoder, TileSubset, encode_tiles
from rscl_bench.spec import Views
from rscl_bench.testing import tiny_spec, tiny_stores
from rscl_bench.testing.tiny import differing, state_of

CPU = torch.device("cpu")
FIRST, SECOND = tiny_stores(2)
SPEC = tiny_spec()
CONTEXT = EvalContext(16, Views(), pixel_scaling(FIRST, (), SPEC.protocol), CPU, nullcontext)
OTHER_CONTEXTS = {
    "scaling": replace(CONTEXT, scaling=pixel_scaling(SECOND, (), SPEC.protocol)),
    "image size": replace(CONTEXT, image_size=8),
}


def test_equal_tiles_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_objective(SPEC, CPU).encoder
    calls: list[TileSubset] = []

    def counted(*arguments: object) -> np.ndarray:
        calls.append(arguments[1])  # type: ignore[arg-type]
        return encode_tiles(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(encoding, "encode_tiles", counted)
    frozen = FrozenEncoder(encoder)
    tiles = TileSubset(FIRST, np.array([3, 1, 4]))
    features = frozen.features(tiles, CONTEXT)
    again = frozen.features(TileSubset(replace(FIRST), tiles.indices.copy()), replace(CONTEXT))
    assert len(calls) == 1
    assert again is features
    assert np.array_equal(features, encode_tiles(encoder, tiles, CONTEXT))
    with pytest.raises(ValueError, match="read-only"):
        features[0] = 0


@pytest.mark.parametrize("changed", ["store", "indices", "scaling", "image size"])
def test_other_tiles_and_contexts_are_encoded_anew(changed: str) -> None:
    encoder = build_objective(SPEC, CPU).encoder
    frozen = FrozenEncoder(encoder)
    tiles, context = TileSubset(FIRST, np.array([3, 1, 4])), CONTEXT
    frozen.features(tiles, context)
    if changed == "store":
        tiles = tiles._replace(store=SECOND)
    elif changed == "indices":
        tiles = tiles._replace(indices=np.array([1, 3, 4]))
    else:
        context = OTHER_CONTEXTS[changed]
    assert np.array_equal(frozen.features(tiles, context), encode_tiles(encoder, tiles, context))


def test_a_copy_is_independent_of_the_encoder() -> None:
    encoder = build_objective(SPEC, CPU).encoder
    before = state_of(encoder)
    with torch.no_grad():
        for parameter in FrozenEncoder(encoder).copy().parameters():
            parameter.fill_(1.0)
    assert not differing(before, state_of(encoder))
