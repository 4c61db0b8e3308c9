"""The copy of an encoder as timm's model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers.encoders import described, three_bands, write_made_up
from helpers.paths import TOY

import rscl_bench as rb

BACKBONES: dict[str, dict[str, Any]] = {
    "vit": {"patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3},
    "swin": {
        "patch_size": 2,
        "embed_dim": 24,
        "depths": [2, 2],
        "num_heads": [3, 6],
        "window_size": 4,
    },
    "resnet": {"variant": "resnet18"},
}
CLASSES = {
    "vit": timm.models.VisionTransformer,
    "swin": timm.models.swin_transformer.SwinTransformer,
    "resnet": timm.models.ResNet,
}


@pytest.mark.parametrize(
    ("name", "pool"),
    [("vit", "patches"), ("vit", "cls"), ("swin", "patches"), ("resnet", "patches")],
)
def test_features_are_equal_to_the_last_bit(name: str, pool: str, tmp_path: Path) -> None:
    backbone = {"name": name, **BACKBONES[name]}
    description = described(
        three_bands("only"), backbone=backbone, image_size=32, probed_feature=pool
    )
    write_made_up(tmp_path / "encoder.safetensors", description)
    encoder = rb.load_encoder(tmp_path / "encoder.safetensors")
    model = encoder.to_timm()
    assert type(model) is CLASSES[name]
    assert not any(module.training for module in model.modules())
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 32, 32), dtype=np.uint8)
    given = description.inputs[0]
    mean, std = (torch.tensor(values)[:, None, None] for values in (given.mean, given.std))
    views = (torch.from_numpy(images).float() - mean) / std
    with torch.inference_mode():
        features = model(views)
    assert features.shape == (9, encoder.feature_dim)
    assert torch.equal(features, encoder.features(images))
    before = encoder.features(images)
    torch.nn.init.zeros_(next(model.parameters()))
    assert torch.equal(before, encoder.features(images)), "the model is a copy"
    assert torch.equal(before, rb.load_encoder(tmp_path / "encoder.safetensors").features(images))


def test_weights_load_into_a_model_that_timm_makes(tmp_path: Path) -> None:
    """The state dict is that of the named model of timm, so that others need nothing of ours."""
    backbone = {"name": "resnet", "variant": "resnet18"}
    description = described(three_bands("only"), backbone=backbone, image_size=32)
    write_made_up(tmp_path / "encoder.safetensors", description)
    encoder = rb.load_encoder(tmp_path / "encoder.safetensors")
    plain = timm.create_model("resnet18", num_classes=0, global_pool="fastavg").eval()
    plain.load_state_dict(encoder.to_timm().state_dict())
    views = torch.randn(2, 3, 32, 32)
    assert torch.equal(plain(views), encoder(views))


def test_description_of_a_run_names_archives_and_wavelengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)
    record = rb.run(
        TOY, "finetune", set={"training.epochs": 1}, out=tmp_path, device="cpu", verbose=False
    )
    description = rb.load_encoder(
        rb.run_folder(record, tmp_path) / "encoder.safetensors"
    ).description
    assert (description.format, description.run, description.pooling) == (2, record.id, "avg")
    assert description.task is not None
    assert (description.task.name, description.task.number, description.task.of) == ("third", 3, 3)
    for given in description.inputs:
        assert given.dtype == "uint8"
        assert given.spectrum is not None
        assert [band.wavelength_nm for band in given.spectrum] == [665, 560, 480]
        assert given.archive is not None
        assert given.archive.dataset.startswith("adapters.py:Toy@")
        assert given.archive.licence
        assert (given.archive.tile_size, given.archive.cut) == (24, "grid")
