"""Encoders on a stand-in of the Hugging Face Hub."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cli import call, refused
from helpers.hub import Hub, serving_hub
from helpers.pages import code_blocks
from helpers.paths import TOY

import rscl_bench as rb
from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.formats import SKETCH_WARNING, percent
from rscl_bench.results.schema import RunRecord

NAME = "someone/an-encoder"
# huggingface_hub's upload by Git LFS passes a file in a way that its HTTP library deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving_hub(monkeypatch, str(tmp_path / "hub-cache")) as served:
        yield served


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def record(out: Path, toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSCL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RSCL_DATA_ROOT", str(toy_data))
        changed = {"training.epochs": 1}
        return rb.run(TOY, "finetune", set=changed, out=out, device="cpu", verbose=False)


@pytest.fixture
def folder(record: RunRecord, out: Path) -> Path:
    return rb.run_folder(record, out)


IMAGES = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)


def test_a_pushed_encoder_is_pulled_and_loaded_with_equal_features(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    result = call("push", folder, NAME)
    assert result.exit_code == 0, result.output
    assert f"{hub.url}/{NAME}" in result.stdout
    repository = hub.repositories[NAME]
    assert not repository.private
    assert len(repository.commits) == 1
    files = repository.files("main")
    assert files is not None
    assert sorted(files) == [
        "README.md",
        "encoder.safetensors",
        "record.json",
        "record.safetensors",
    ]
    result = call("pull", NAME, "--out", tmp_path / "pulled")
    assert result.exit_code == 0, result.output
    for name in files:
        assert (tmp_path / "pulled" / name).read_bytes() == files[name]
        if name != "README.md":
            assert files[name] == (folder / name).read_bytes()
    expected = rb.load_encoder(folder / "encoder.safetensors").features(IMAGES)
    for place in (tmp_path / "pulled" / "encoder.safetensors", f"hf://{NAME}"):
        assert torch.equal(rb.load_encoder(place).features(IMAGES), expected)
    assert call("pull", NAME, "--out", tmp_path / "pulled").exit_code == 0


def test_an_encoder_of_the_hub_is_embedded_and_probed(
    hub: Hub,
    folder: Path,
    record: RunRecord,
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    rb.push(folder / "record.json", NAME, private=True)
    assert hub.repositories[NAME].private
    shared = ("probe", f"hf://{NAME}", TOY, "--data-root", toy_data)
    result = call(*shared, "--out", tmp_path / "scores.json")
    assert result.exit_code == 0, result.output
    assert "These scores equal those of the run's record." in result.stdout
    asked = len(hub.asked)
    revision = hub.repositories[NAME].head
    rb.load_encoder(f"hf://{NAME}@{revision}")
    fetched = [path for method, path in hub.asked[asked:] if method == "GET" and "resolve" in path]
    assert fetched == [], "the encoder is in the cache"


def test_model_card_is_made_from_the_record(folder: Path, record: RunRecord, hub: Hub) -> None:
    rb.push(folder, NAME)
    files = hub.repositories[NAME].files("main")
    assert files is not None
    card = files["README.md"].decode()
    assert card.startswith("---\nlibrary_name: rscl-bench\n")
    assert "license: other" in card
    (block,) = [b for b in code_blocks(card) if b.language == "python"]
    lines = [line for line in block.code.splitlines() if line]
    assert len(lines) == 3, "how to load it, in three lines"
    names: dict[str, Any] = {"images": IMAGES}
    exec(block.code, names)
    assert names["features"].shape == (3, names["encoder"].feature_dim)
    score = record.scores[-1]["toy"].test
    assert f"| toy | {record.probes[0].test_tiles} | {percent(score.micro)} (" in card
    assert "red (665), green (560), blue (480)" in card
    given = names["encoder"].description.inputs[0]
    assert f"{given.mean[0]:.5g}" in card
    assert given.archive.licence in card
    assert str(record.encoder_digest) in card
    assert SKETCH_WARNING in card


def test_intervals_of_the_card_are_those_of_the_leaderboard(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    rb.push(folder, NAME)
    files = hub.repositories[NAME].files("main")
    assert files is not None
    (table,) = rb.leaderboard(folder).values()
    row = table[table["method"].str.startswith("finetune")].iloc[0]
    for score in ("micro", "macro"):
        low, high = (row[f"T3.toy.{score}.image_{end}"] for end in ("low", "high"))
        assert f" ({low:.2f} to {high:.2f}) |" in files["README.md"].decode()


def test_files_that_do_not_belong_together_are_not_pushed(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    for name in ("record.json", "encoder.safetensors", "record.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    changed = bytearray((folder / "encoder.safetensors").read_bytes())
    changed[-1] ^= 1
    (tmp_path / "encoder.safetensors").write_bytes(changed)
    assert "is not the encoder of" in refused("push", tmp_path, NAME)
    (tmp_path / "encoder.safetensors").unlink()
    assert "There is no encoder beside" in refused("push", tmp_path, NAME)
    assert hub.asked == []


def test_a_changed_encoder_is_not_pulled(hub: Hub, folder: Path, tmp_path: Path) -> None:
    rb.push(folder, NAME)
    files = hub.repositories[NAME].files("main")
    assert files is not None
    files["encoder.safetensors"] = files["encoder.safetensors"][:-1] + b"\0"
    assert "is not the encoder of" in refused("pull", NAME, "--out", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    with pytest.raises(ArtefactError, match="is not the encoder of"):
        rb.load_encoder(f"hf://{NAME}")
    del files["record.json"]
    hub.repositories[NAME].commits = {"1" * 40: files}
    assert "has no record.json" in refused("pull", NAME, "--out", tmp_path / "pulled")


def test_a_folder_of_another_run_is_not_overwritten(hub: Hub, folder: Path, tmp_path: Path) -> None:
    rb.push(folder, NAME)
    (tmp_path / "record.json").write_text("{}", encoding="utf-8")
    assert "is the record of another run" in refused("pull", NAME, "--out", tmp_path)
    assert (tmp_path / "record.json").read_text(encoding="utf-8") == "{}"


def test_refusals_of_the_hub_are_one_sentence(hub: Hub, folder: Path, tmp_path: Path) -> None:
    message = refused("pull", "nobody/nothing", "--out", tmp_path / "pulled")
    assert message.startswith("The Hub refuses nobody/nothing (status 404")
    hub.refuses = 403
    message = refused("push", folder, NAME)
    assert message.startswith(f"The Hub refuses {NAME} (status 403")
    assert message.endswith("Log in with `hf auth login`, or set HF_TOKEN.")
    for name in ("name", "a/b/c", "owner/na me", "owner/name@"):
        assert "is no repository of the Hub" in refused("pull", name, "--out", tmp_path / "pulled")
    assert "a push goes to the main branch" in refused("push", folder, f"{NAME}@v1")


def test_a_hub_that_is_not_there_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_hub(monkeypatch, str(tmp_path / "hub-cache")):
        pass  # the address has no server any more
    message = refused("pull", NAME, "--out", tmp_path / "pulled")
    assert NAME in message
    assert "check the network and HF_ENDPOINT" in message


def test_without_the_library_a_sentence_says_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for words in (("push", folder, NAME), ("pull", NAME, "--out", tmp_path / "pulled")):
        assert "pip install 'rscl-bench[hub]'" in refused(*words)


def test_the_library_is_imported_when_it_is_used() -> None:
    script = (
        "import sys, rscl_bench.cli, rscl_bench.api, rscl_bench.encoders.hub\n"
        "print('huggingface_hub' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stdout + done.stderr
