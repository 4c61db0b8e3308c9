"""The examples of docs/continuing.md, and runs that are extended on the command line."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import call, records_in, refused
from helpers.pages import commands, read, write_examples
from safetensors.torch import load_file

import rscl_bench as rb
from rscl_bench.leaderboards.keys import row_key
from rscl_bench.results.schema import RunRecord
from rscl_bench.testing.tiny import differing

PARENT = "seed0-0123456789abcdef"
REGISTERED = """
name = "two"
version = "3"
title = "Potsdam, and a probe of it"
default_protocol = "tiny"

[[tasks]]
name = "potsdam"
dataset = "potsdam"
split = "train"
tile_size = 32
cut = "whole"

[[probes]]
name = "potsdam"
task = "potsdam"
dataset = "potsdam"
tile_size = 32
cut = "whole"
parameters = { k = 3 }

[protocols.tiny]
image_size = 16
buffer_size = 12
precision = "fp32"
backbone = { name = "vit", patch_size = 8, embed_dim = 24, depth = 2, num_heads = 2 }
training = { epochs = 2, batch_size = 4, learning_rate = 1e-3, warmup_epochs = 1.5 }

[protocols.tiny.defaults.mae]
decoder_dim = 24
decoder_depth = 1
decoder_heads = 2
"""


@pytest.fixture(autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path_factory.getbasetemp() / "docs-cache"))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)


def trained(record: RunRecord) -> list[Any]:
    return [(task.name, task.steps, task.final_loss) for task in record.tasks]


def test_examples_of_the_page_end_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    shown = [c for c in commands(read("docs", "continuing.md")) if "./stripes" in shlex.join(c)]
    assert [words[0] for words in shown] == ["run", "extend", "run"]
    assert call(*shown[0], "--device", "cpu").exit_code == 0
    (parent,) = Path("runs").glob("stripes-sketch/tiny/cosmae/seed0-*")
    extend = [word.replace(PARENT, parent.name) for word in shown[1]]
    assert extend[1] == str(parent)
    result = call(*extend, "--device", "cpu", "--out", "extended")
    assert result.exit_code == 0, result.output
    assert "continuing run" in result.stdout
    assert call(*shown[2], "--device", "cpu").exit_code == 0
    (extended,), (whole,) = records_in(Path("extended")), records_in(Path("in-one-go"))
    assert trained(extended) == trained(whole)
    files = [rb.run_folder(extended, "extended"), rb.run_folder(whole, "in-one-go")]
    encoders = [load_file(folder / "encoder.safetensors") for folder in files]
    assert not differing(*encoders)
    assert extended.unprobed == {"stripes-others": (1,)}
    for row, (one, two) in enumerate(zip(extended.scores, whole.scores, strict=True)):
        assert one["stripes"] == two["stripes"]
        if row != 1:
            assert one["stripes-others"] == two["stripes-others"]
    assert row_key(extended).method == "cosmae+extended"
    result = call("leaderboard", "build", "extended", "in-one-go", "--out", "tables")
    assert result.exit_code == 0, result.output
    table = Path("tables/stripes-v2-sketch/tiny/leaderboard.csv").read_text(encoding="utf-8")
    rows = [line.partition(",")[0] for line in table.splitlines()]
    assert {"cosmae", "cosmae+extended"} < set(rows)
    assert call(*extend, "--device", "cpu", "--out", "extended").stdout.count("recorded already")


def test_task_by_options_adds_a_probe_of_its_domain(tmp_path: Path) -> None:
    scenario = tmp_path / "two.toml"
    scenario.write_text(REGISTERED, encoding="utf-8")
    settings = {"training.epochs": 1, "training.warmup_epochs": 0.5}
    out = tmp_path / "runs"
    parent = rb.run(scenario, "er", set=settings, out=out, device="cpu", verbose=False)
    folder = rb.run_folder(parent, out)
    shared = ("extend", folder, "--dataset", "ucmerced", "--device", "cpu", "--out", out)
    result = call(*shared, "--split", "train", "--no-keep-state")
    assert result.exit_code == 0, result.output
    assert (
        "task 2 ucmerced: ucmerced, split train, red green blue, tiles of 32 pixels, cut whole"
        in result.stdout
    )
    (record,) = [one for one in records_in(out) if one.id != parent.id]
    assert (record.identity.scenario.name, record.identity.scenario.version) == (
        "two-ucmerced",
        "3",
    )
    assert record.identity.protocol == parent.identity.protocol
    assert record.identity.method == parent.identity.method
    assert [(probe.name, probe.task) for probe in record.probes] == [
        ("potsdam", "potsdam"),
        ("ucmerced", "ucmerced"),
    ]
    assert record.unprobed == {}  # the row after the first task is that of the parent's encoder
    assert record.continual.micro.forward_transfer is not None
    assert record.state_digest is None
    same = rb.extend(
        folder,
        dataset="ucmerced",
        split="train",
        name="land",
        tile_size=48,
        out=out,
        device="cpu",
        verbose=False,
    )
    assert same.identity.scenario.name == "two-land"
    assert same.tasks[0] == record.tasks[0]
    assert refused(*shared, "--split", "trian").startswith("Unknown split of ucmerced 'trian'")
    assert refused(*shared, "--split", "train", "--name", "potsdam") == (
        "The run has a task 'potsdam' already; give the new task another --name."
    )
    message = refused("extend", folder, "--dataset", "ucmerced", "--split", "a", "--option", "k")
    assert message.startswith("--option takes key=value")
    assert "Say what comes next" in refused("extend", folder)
