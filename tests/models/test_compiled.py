import copy

import pytest
import torch
from helpers.backbones import RESNET, SWIN

from rscl_bench.engine.build import build_objective
from rscl_bench.models.compiled import compile_blocks, is_compiled
from rscl_bench.spec import Protocol, identity
from rscl_bench.strategies.distillation import frozen_encoder
from rscl_bench.testing import tiny_spec
from rscl_bench.testing.tiny import differing, start, state_of, train

CPU = torch.device("cpu")


def protocol(**more: bool) -> Protocol:
    return Protocol.model_validate({**tiny_spec().protocol.model_dump(), **more})


def test_is_part_of_the_identity_only_where_it_is_on() -> None:
    off, on = protocol(compile=False), protocol(compile=True)
    assert "compile" not in off.model_dump(mode="json")
    assert on.model_dump(mode="json")["compile"] is True
    assert identity(off.model_dump(mode="json")) == identity(protocol().model_dump(mode="json"))
    assert identity(on.model_dump(mode="json")) != identity(off.model_dump(mode="json"))


def test_is_set_on_the_command_line() -> None:
    assert not tiny_spec().protocol.compile
    assert tiny_spec(assignments=["compile=true"]).protocol.compile


@pytest.mark.parametrize(
    ("method", "backbone"), [("cosmae", None), ("simclr", SWIN), ("simclr", RESNET)]
)
def test_keeps_the_names_of_parameters(method: str, backbone: dict[str, object] | None) -> None:
    spec = tiny_spec(method, backbone=backbone, image_size=32 if backbone else 16)
    objective = build_objective(spec, CPU)
    before = state_of(objective)
    assert not is_compiled(objective)
    compile_blocks(objective)
    assert is_compiled(objective)
    assert is_compiled(objective.encoder)
    assert list(objective.state_dict()) == list(before)
    assert not is_compiled(copy.deepcopy(objective))
    assert is_compiled(frozen_encoder(objective.encoder))
    assert not is_compiled(frozen_encoder(copy.deepcopy(objective.encoder)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's compiler warns of its own doings
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", ["cosmae", "byol"])
def test_compiled_training_is_the_same_but_for_rounding_and_repeats(method: str) -> None:
    ends = []
    for compiled in (False, True, True):
        template = start(tiny_spec(method, tasks=2))
        if compiled:
            compile_blocks(template.model)
        train(template)
        ends.append((template.final_loss, state_of(template.model)))
    (plain_loss, _), (loss, state), (again_loss, again) = ends
    assert loss == pytest.approx(plain_loss, rel=1e-4)
    assert again_loss == loss
    assert not differing(again, state)
