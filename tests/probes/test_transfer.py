"""Probes that train: compared with transcriptions, and run as a part of a whole run."""

import copy
import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.paths import TOY
from helpers.runs import Runner
from numpy.typing import NDArray
from torch import Tensor, nn

from rscl_bench.declarations import load_scenario
from rscl_bench.engine.build import build_objective
from rscl_bench.engine.probing import pixel_scaling
from rscl_bench.errors import SpecError, TrainingError
from rscl_bench.leaderboards.build import build_leaderboard
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.optimiser import warmup_steps
from rscl_bench.models.vit import ViT
from rscl_bench.probes.adapters import (
    EncoderAdapterParams,
    EncoderAdapterProbe,
    InputAdapterProbe,
)
from rscl_bench.probes.encoding import EvalContext, FrozenEncoder, TileSubset
from rscl_bench.probes.fine_tuning import FineTuning, FineTuningParams
from rscl_bench.probes.transfer import TransferParams, TransferProbe
from rscl_bench.randomness import numpy_generator, seeded, torch_generator
from rscl_bench.spec import Probe as ProbeSpec
from rscl_bench.spec import Views
from rscl_bench.testing import tiny_spec, tiny_stores
from rscl_bench.testing.tiny import differing, recipe, state_of
from rscl_bench.views.crops import draw_crops, normalised, resized_crops

CPU = torch.device("cpu")
STORE = tiny_stores(1, tiles=21)[0]
CHOSEN = np.array([1, 2, 4, 7, 8, 9, 10, 13, 15, 16, 17, 20])
LABELS = numpy_generator(0, "labels").integers(0, 2, (len(CHOSEN), 5)).astype(np.uint8)
CONTEXT = EvalContext(16, Views(), pixel_scaling(STORE, (), tiny_spec().protocol), CPU, nullcontext)
TILES = {"train": TileSubset(STORE, CHOSEN), "test": TileSubset(STORE, np.arange(6))}
FEW = {"epochs": 3, "batch_size": 5, "warmup_epochs": 1}
RESNET = {"name": "resnet", "variant": "resnet18"}
SWIN = {"name": "swin", "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2]}


def encoder_of(backbone: dict[str, Any] | None = None, depth: int = 2) -> Encoder:
    small = {"name": "vit", "patch_size": 8, "embed_dim": 24, "depth": depth, "num_heads": 2}
    method = recipe({"name": "simclr", "hidden_dim": 8, "output_dim": 4})  # on any encoder
    spec = tiny_spec(method, backbone=backbone or small, image_size=32 if backbone else 16)
    return build_objective(spec, CPU).encoder


def scores(probe: TransferProbe, encoder: Encoder) -> NDArray[np.float64]:
    return probe.evaluate(FrozenEncoder(encoder), TILES, LABELS, CONTEXT)["test"]


def training_views(epoch: int, step: int, rows: NDArray[np.int64]) -> Tensor:
    generator = torch_generator(CPU, 0, "probe views", epoch, step)
    crops = draw_crops(len(rows), 20, 20, (0.8, 1.0), 0.5, generator)
    tiles = torch.from_numpy(STORE.tiles[CHOSEN[rows]])
    return normalised(resized_crops(tiles, crops, 16), CONTEXT.scaling.normalisation)


def whole_images() -> Tensor:
    images = torch.from_numpy(STORE.tiles[:6]).permute(0, 3, 1, 2)
    small = F.interpolate(images, size=16, mode="bilinear", antialias=True)
    return normalised(small, CONTEXT.scaling.normalisation)


def adam(value: Tensor, grad: Tensor, state: dict[str, Any], rate: float, decay: float) -> Tensor:
    """AdamW as in Loshchilov & Hutter (2019), Algorithm 2."""
    state["t"] = state.get("t", 0) + 1
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * grad
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * grad**2
    m, v = state["m"] / (1 - 0.9 ** state["t"]), state["v"] / (1 - 0.999 ** state["t"])
    moved: Tensor = value - rate * decay * value - rate * m / (v.sqrt() + 1e-8)
    return moved


def layer_of(name: str) -> int:
    """Return the layer of a parameter of a ViT with two blocks; 0 is before, 2 the last block."""
    inner = name.removeprefix("masked_vit.vit.")
    if inner.startswith("blocks."):
        return 1 + int(inner.split(".")[1])
    return 2 if inner.startswith("norm.") else 0


def test_fine_tuning_by_hand() -> None:
    params = FineTuningParams(**FEW, layer_decay=0.5, learning_rate=0.01)
    encoder = encoder_of()
    tuned_scores = scores(FineTuning(params), encoder)

    tuned = copy.deepcopy(encoder).requires_grad_(True)
    with seeded(0, "probe"):
        linear = nn.Linear(24, 5)
        nn.init.trunc_normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)
    head = nn.Sequential(nn.LayerNorm(24), linear)
    state: dict[str, dict[str, Any]] = {}
    for number in range(3 * 2):  # 12 images in batches of 5 are two steps
        epoch, step = divmod(number, 2)
        order = numpy_generator(0, "order", 0, epoch).permutation(12)
        rows = order[5 * step : 5 * step + 5]
        logits = head(tuned(training_views(epoch, step, rows))[:, 1:].mean(dim=1))
        truth = torch.from_numpy(LABELS[rows]).float()
        p = torch.sigmoid(logits)
        loss = -(truth * p.log() + (1 - truth) * (1 - p).log()).mean()
        rate = (
            0.01 * number / 2 if number < 2 else 0.005 * (1 + math.cos(math.pi * (number - 2) / 4))
        )
        named = {f"head.{n}": p for n, p in head.named_parameters()} | dict(
            tuned.named_parameters()
        )
        grads = torch.autograd.grad(loss, list(named.values()))
        for (name, value), grad in zip(named.items(), grads, strict=True):
            slower = 1.0 if name.startswith("head.") else 0.5 ** (2 - layer_of(name))
            decay = 0.05 if value.ndim > 1 else 0.0
            own = state.setdefault(name, {})
            value.data = adam(value.data, grad, own, rate * slower, decay)
    with torch.no_grad():
        expected = head(tuned(whole_images())[:, 1:].mean(dim=1))
    assert expected.std() > 0.01
    np.testing.assert_allclose(tuned_scores, expected.numpy(), atol=2e-4)


class Keep:
    """Keeps the models that a probe's `adapt` returns."""

    def __init__(self, probe: TransferProbe, monkeypatch: pytest.MonkeyPatch):
        self.models: list[nn.Module] = []
        self.before: list[dict[str, Tensor]] = []
        adapt = probe.adapt

        def kept(encoder: Encoder) -> nn.Module:
            self.models.append(adapt(encoder))
            self.before.append(state_of(self.models[-1]))
            return self.models[-1]

        monkeypatch.setattr(probe, "adapt", kept)

    def changed(self) -> set[str]:
        return set(differing(self.before[-1], state_of(self.models[-1])))


def test_only_declared_parameters_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of()
    encoder.requires_grad_(False)  # an objective may keep a part fixed
    fine = FineTuning(FineTuningParams(**FEW))
    keep = Keep(fine, monkeypatch)
    scores(fine, encoder)
    assert keep.changed() == {f"encoder.{name}" for name in state_of(encoder)}
    for probe in (
        InputAdapterProbe(TransferParams(**FEW)),
        EncoderAdapterProbe(EncoderAdapterParams(**FEW, hidden_dim=8)),
    ):
        keep = Keep(probe, monkeypatch)
        scores(probe, encoder)
        adapter = {name for name in keep.before[-1] if name.startswith("adapter.")}
        assert keep.changed() == adapter
        assert adapter


def test_input_adapter_starts_at_the_encoder() -> None:
    encoder = encoder_of()
    assert isinstance(encoder, ViT)
    model = InputAdapterProbe(TransferParams()).adapt(copy.deepcopy(encoder))
    images = whole_images()
    with torch.no_grad():
        plain = encoder.pool(encoder(images))
        torch.testing.assert_close(model(images), plain)
        change = torch.linspace(-3, 3, 24) ** 3
        model.get_parameter("adapter.fc2.bias").copy_(change)
        moved = copy.deepcopy(encoder)
        moved.cls_token.add_(change)
        torch.testing.assert_close(model(images), moved.pool(moved(images)))
        assert not torch.allclose(model(images), plain, atol=1e-3)


def test_encoder_adapter_sees_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(depth=4)
    assert isinstance(encoder, ViT)
    model = EncoderAdapterProbe(EncoderAdapterParams(hidden_dim=8)).adapt(encoder)
    seen: list[list[Tensor]] = []

    def first(states: list[Tensor]) -> Tensor:
        seen.append(states)
        return states[0]

    monkeypatch.setattr(model.get_submodule("adapter"), "forward", first)
    images = whole_images()
    pooled = model(images)
    outputs: list[Tensor] = []
    vit = encoder.masked_vit.vit
    for block in vit.blocks:
        block.register_forward_hook(lambda _m, _i, out: outputs.append(out))
    final = encoder(images)
    expected = [*outputs[:-1], final]
    assert len(seen[0]) == 4
    for got, wanted in zip(seen[0], expected, strict=True):
        torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(pooled, expected[0][:, 1:].mean(dim=1))


@pytest.mark.parametrize("layer_decay", [0.5, 1.0])
@pytest.mark.parametrize("backbone", [None, RESNET, SWIN])
def test_every_parameter_is_tuned_once(layer_decay: float, backbone: dict[str, Any] | None) -> None:
    probe = FineTuning(FineTuningParams(layer_decay=layer_decay))
    encoder = encoder_of(backbone)
    groups = probe.parameter_groups(probe.adapt(encoder))
    tuned = [id(p) for group in groups for p in group["params"]]
    assert len(tuned) == len(set(tuned))
    assert set(tuned) == {id(p) for p in encoder.parameters()}
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    first = next(iter(encoder.timm_model().parameters()))
    assert (scales[id(first)] < 0.5) == (layer_decay < 1)
    assert max(scales.values()) == 1


def test_convolutions_are_fine_tuned_but_not_adapted() -> None:
    encoder = encoder_of(RESNET)
    context = replace(CONTEXT, image_size=32)
    kept = state_of(encoder)
    probe = FineTuning(FineTuningParams(**FEW))
    tuned = probe.evaluate(FrozenEncoder(encoder), TILES, LABELS, context)["test"]
    assert np.isfinite(tuned).all()
    assert not differing(kept, state_of(encoder))  # batch statistics included
    for adapter in (
        InputAdapterProbe(TransferParams()),
        EncoderAdapterProbe(EncoderAdapterParams()),
    ):
        with pytest.raises(SpecError, match=r"which ResNet has not; set backbone\.name = 'vit'"):
            adapter.evaluate(FrozenEncoder(encoder), TILES, LABELS, context)


def test_diverged_encoder_is_refused() -> None:
    encoder = encoder_of()
    with torch.no_grad():
        next(encoder.parameters()).fill_(math.nan)
    with pytest.raises(TrainingError, match="loss of probe 'FineTuning' is nan at step 0"):
        scores(FineTuning(FineTuningParams(**FEW)), encoder)


@pytest.mark.parametrize("probe", [TransferParams, EncoderAdapterParams, FineTuningParams])
def test_warmup_ends_before_training(probe: type[TransferParams]) -> None:
    for warmup in (3, 5):
        with pytest.raises(ValueError, match=r"warmup_epochs \(\d.0\) must be below epochs \(3\)"):
            probe(epochs=3, warmup_epochs=warmup)
    assert probe(epochs=3, warmup_epochs=2.5).warmup_epochs == 2.5


@pytest.mark.parametrize("name", ["input-adapter", "encoder-adapter", "fine-tuning"])
def test_warmup_of_a_set_value_is_refused_before_packing(
    name: str, runs: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed: list[Any] = []
    monkeypatch.setattr("rscl_bench.engine.prepare.open_task", packed.append)
    scenario = load_scenario(str(TOY))
    probe = scenario.probes[0].model_copy(update={"probe": name, "parameters": {}})
    protocol = scenario.protocols[scenario.default_protocol]
    protocol = protocol.model_copy(update={"defaults": {name: {"epochs": 20}}})
    spec = runs.spec(
        "finetune",
        0,
        f"defaults.{name}.epochs=4",
        probes=(probe,),
        protocols={scenario.default_protocol: protocol},
    )
    with pytest.raises(SpecError, match=r"warmup_epochs \(5\) must be below epochs \(4\)"):
        runs.open(spec)
    assert not packed


def test_batch_of_one_image_is_refused_where_there_is_batch_normalisation() -> None:
    probe = FineTuning(FineTuningParams(**{**FEW, "batch_size": 1}))
    with pytest.raises(SpecError, match="a batch must have at least 2 images"):
        scores(probe, encoder_of(RESNET))


@pytest.mark.parametrize(
    ("warmup", "epoch", "steps", "expected"),
    [(1, 10, 100, 10), (0.5, 3, 30, 2), (0.9, 1, 1, 0), (1.6, 1, 2, 1), (0, 5, 5, 0), (1, 0, 0, 0)],
)
def test_warmup_has_fewer_steps_than_training(
    warmup: float, epoch: int, steps: int, expected: int
) -> None:
    """Rounding could give a warm-up all steps, and the peak rate to none."""
    assert warmup_steps(warmup, epoch, steps) == expected


@pytest.fixture(scope="module")
def runs(toy_data: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(toy_data, toy_cache, tmp_path_factory.mktemp("transfer"))


def test_whole_run(runs: Runner, tmp_path: Path) -> None:
    (toy,) = load_scenario(str(TOY)).probes
    names = ["ml-knn", "linear", "input-adapter", "encoder-adapter", "fine-tuning"]
    few: dict[str, Any] = {"epochs": 2, "warmup_epochs": 1}
    probes = tuple(
        ProbeSpec(
            **toy.model_dump(exclude={"name", "probe", "parameters"}),
            name=name,
            probe=name,
            parameters={**few, "batch_size": 8} if name.endswith(("adapter", "tuning")) else {},
        )
        for name in names
    )
    for seed in (0, 1, 2):
        run = runs.fresh(runs.spec("finetune", seed, probes=probes), tmp_path)
        record = run.record
        assert [set(row) for row in record.scores] == [set(names)] * 4
        # Probes that train an encoder have no score on pixel statistics.
        assert set(record.pixel_statistics) == {"ml-knn", "linear"}
        final = {name: score.test.micro for name, score in record.scores[-1].items()}
        assert len(set(final.values())) == len(names)
    tables = build_leaderboard([tmp_path], tmp_path / "tables")
    text = next(path for path in tables if path.name == "leaderboard.md").read_text()
    sections = {part.split("\n", 1)[0]: part for part in text.split("## Probe ")[1:]}
    assert set(sections) == set(names)
    for name, section in sections.items():
        (row,) = [line for line in section.split("\n") if "pixel-statistics" in line][:1]
        assert any(char.isdigit() for char in row) == (name in {"ml-knn", "linear"}), row
    assert (
        json.loads((run.folder / "record.json").read_text())["probes"][4]["probe"] == "fine-tuning"
    )
