"""Which encoder is probed and kept, and which feature of its output."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.backbones import RESNET, SWIN
from helpers.runs import Run, Runner
from helpers.small import SMALL

from rscl_bench import registry
from rscl_bench.engine import run as engine_run
from rscl_bench.engine.build import build_objective
from rscl_bench.errors import SpecError
from rscl_bench.models.build import build_encoder
from rscl_bench.objectives.base import Objective, TeacherParams
from rscl_bench.pretrained import load_pretrained
from rscl_bench.results.schema import SpreadRecord
from rscl_bench.spec import Component, Protocol, RunSpec
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import TINY_BACKBONE, differing, recipe, state_of

DINO = [f"objective.{key}={value}" for key, value in SMALL["dino"].items()]
TEACHER = "objective.probed=teacher"


@pytest.fixture(scope="module")
def runs(toy_data: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(toy_data, toy_cache, tmp_path_factory.mktemp("runs"))


def spreads(run: Run) -> tuple[dict[str, SpreadRecord], ...]:
    assert run.record.spread is not None
    return run.record.spread


def momentum_objectives() -> list[str]:
    names = registry.entries("objectives")
    return [name for name in names if registry.load("objectives", name).momentum]


@pytest.mark.parametrize("name", momentum_objectives())
def test_every_momentum_teacher_can_be_probed(name: str) -> None:
    """The choice changes no bit of training."""
    assert issubclass(registry.load("objectives", name).Params, TeacherParams)
    ends = {}
    for probed in ("student", "teacher"):
        method = recipe({"name": name, **SMALL.get(name, {}), "probed": probed})
        trainer = start(tiny_spec(method, tasks=1))
        model: Any = trainer.model
        before = state_of(model.encoder)
        assert not differing(before, state_of(model.probed_encoder))
        ends[probed] = train(trainer)[0]
        assert model.probed_encoder is (model.teacher if probed == "teacher" else model.encoder)
        assert differing(state_of(model.probed_encoder), before)
    assert not differing(ends["student"], ends["teacher"])


def test_objective_without_a_teacher_has_no_such_choice() -> None:
    with pytest.raises(SpecError, match="Unknown key in 'mae': 'probed'"):
        tiny_spec(recipe({"name": "mae", "probed": "teacher"}))


def test_run_probes_and_keeps_the_average(runs: Runner) -> None:
    """Scores and file are of the average, while training is that of plain fine-tuning."""
    plain, averaged = runs("finetune", 0), runs("ema", 0, "strategies.ema.momentum=0.5")
    assert plain.record.tasks[-1].final_loss == averaged.record.tasks[-1].final_loss
    assert differing(plain.encoder, averaged.encoder)
    assert spreads(plain)[0] == spreads(averaged)[0]
    assert spreads(plain)[1:] != spreads(averaged)[1:]
    pretrained = load_pretrained(averaged.folder / "encoder.safetensors")
    assert pretrained.description.probed == "average"
    assert not differing(state_of(pretrained.encoder), averaged.encoder)


def test_run_probes_and_keeps_the_teacher(
    runs: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Objective] = []

    def build(spec: RunSpec, device: torch.device) -> Objective:
        built.append(build_objective(spec, device))
        return built[-1]

    monkeypatch.setattr(engine_run, "build_objective", build)
    student = runs("dino", 0, *DINO)
    teacher = runs("dino", 0, *DINO, TEACHER)
    for run, objective, part in zip((student, teacher), built, ("encoder", "teacher"), strict=True):
        kept = state_of(getattr(objective, part))
        assert not differing(run.encoder, kept)
    assert differing(student.encoder, teacher.encoder)
    losses = [[task.final_loss for task in run.record.tasks] for run in (student, teacher)]
    assert losses[0] == losses[1]
    first, *later = zip(spreads(student), spreads(teacher), strict=True)
    assert first[0] == first[1]
    assert all(one != other for one, other in later)
    assert load_pretrained(teacher.folder / "encoder.safetensors").description.probed == "teacher"
    assert load_pretrained(student.folder / "encoder.safetensors").description.probed == "student"


def test_run_probes_the_class_token(runs: Runner) -> None:
    patches, cls = runs("finetune"), runs("finetune", 0, "probed_feature=cls")
    assert not differing(patches.encoder, cls.encoder)
    for one, other in zip(spreads(patches), spreads(cls), strict=True):
        assert one != other
    loaded = load_pretrained(cls.folder / "encoder.safetensors")
    assert loaded.description.probed_feature == "cls"
    views = torch.randn(3, 3, 16, 16)
    assert torch.equal(loaded(views), loaded.encoder(views)[:, 0])
    whole = load_pretrained(patches.folder / "encoder.safetensors")
    assert torch.equal(whole(views), whole.encoder(views)[:, 1:].mean(dim=1))


@pytest.mark.parametrize("probe", ["fine-tuning", "input-adapter", "encoder-adapter"])
def test_probes_that_train_pool_the_same_feature(probe: str) -> None:
    component = registry.load("probes", probe)
    views, features = torch.randn(2, 3, 16, 16), {}
    for feature in ("patches", "cls"):
        torch.manual_seed(0)
        encoder = build_encoder(Component.model_validate(TINY_BACKBONE), 16, 3, feature)
        model = component(component.Params()).adapt(encoder).eval()
        features[feature] = model(views)
        if probe == "fine-tuning":
            expected = encoder(views)
            pooled = expected[:, 0] if feature == "cls" else expected[:, 1:].mean(dim=1)
            torch.testing.assert_close(features[feature], pooled)
    assert not torch.allclose(features["patches"], features["cls"])


@pytest.mark.parametrize("backbone", [RESNET, SWIN])
def test_class_token_of_an_encoder_without_one_is_refused(backbone: dict[str, Any]) -> None:
    method = recipe({"name": "simclr", **SMALL["simclr"]})
    spec = tiny_spec(method, backbone=backbone, assignments=["probed_feature=cls"])
    with pytest.raises(SpecError, match="no class token to pool by; set probed_feature = 'pat"):
        start(spec)


def test_defaults_stay_out_of_the_identity(runs: Runner) -> None:
    """Ids of records from before these options keep their meaning."""
    identity: Any = runs("dino", 0, *DINO).record.identity
    assert "probed" not in identity.method["objective"]
    assert "probed_feature" not in identity.protocol
    chosen: Any = runs("dino", 0, *DINO, TEACHER).record.identity
    assert chosen.method["objective"]["probed"] == "teacher"
    pooled: Any = runs("finetune", 0, "probed_feature=cls").record.identity
    assert pooled.protocol["probed_feature"] == "cls"
    assert Protocol.model_fields["probed_feature"].default == "patches"
