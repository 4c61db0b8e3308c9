"""The commands of docs/encoders.md, on the toy scenario and a stand-in of the Hub."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers.cli import ONE_EPOCH, call
from helpers.hub import Hub, serving_hub
from helpers.pages import code_blocks, commands, read
from helpers.paths import TOY
from PIL import Image
from safetensors.torch import save_file

import rscl_bench as rb

SHOWN = "runs/mini/cpu/cosmae/seed0-0123456789abcdef"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(tmp_path: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in; and a folder with photos, and weights of another project."""
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RSCL_DATA_ROOT", str(toy_data))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    torch.manual_seed(0)
    state = timm.create_model("resnet18", num_classes=0).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, "weights.safetensors")
    with serving_hub(monkeypatch, str(tmp_path / "hub-cache")) as served:
        yield served


def shown(folder: Path | None = None) -> list[list[str]]:
    """Return the commands of the page's blocks, on the toy scenario and the folder of its run."""
    blocks = [b.code for b in code_blocks(read("docs", "encoders.md")) if b.language == "console"]
    words = commands("\n".join(f"```console\n{code}```\n" for code in blocks))
    named = {"mini": str(TOY), "OWNER/NAME": "someone/one", "hf://OWNER/NAME": "hf://someone/one"}
    replaced = [[named.get(word, word) for word in line] for line in words]
    return [[word.replace(SHOWN, str(folder)) for word in line] for line in replaced]


def test_commands_of_the_page_work(hub: Hub, tmp_path: Path) -> None:
    kinds = [line[0] for line in shown()]
    assert kinds == ["run", *["embed"] * 3, *["probe"] * 2, "push", "pull", "embed"]
    assert call(*shown()[0], *ONE_EPOCH).exit_code == 0
    (record,) = Path("runs").rglob("record.json")
    assert len(list(record.parent.glob("encoders/*.safetensors"))) == 3
    lines = shown(record.parent)
    toy = str(TOY.parent / "adapters.py:Toy")
    for line in lines[1:]:
        words = [toy if word == "ucmerced" else word for word in line]
        result = call(*words, "--device", "cpu") if words[0] in ("embed", "probe") else call(*words)
        assert result.exit_code == 0, (words, result.output)
    with Path("features.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["path", "0.png", "1.png", "2.png"]
    assert (
        len(np.load("features.npy")) == len(Path("features.rows.csv").read_text().splitlines()) - 1
    )
    assert Path("scores.json").is_file()
    assert Path("others.json").is_file()
    pulled = Path("pulled/encoder.safetensors")
    assert pulled.read_bytes() == record.with_name("encoder.safetensors").read_bytes()
    assert hub.repositories["someone/one"].private
    (example,) = [
        b.code for b in code_blocks(read("docs", "encoders.md")) if b.language == "python"
    ]
    names: dict[str, object] = {}
    exec(example.replace(SHOWN, str(record.parent)), names)
    encoder, features, model = names["encoder"], names["features"], names["model"]
    assert isinstance(encoder, rb.load_encoder(pulled).__class__)
    assert isinstance(features, torch.Tensor)
    assert isinstance(model, timm.models.VisionTransformer)
    assert features.shape == (2, encoder.feature_dim)
