"""Sketches in the cache: a root for each code of the datasets; killed runs leave nothing."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.cli import refused
from helpers.paths import ADAPTERS

from rscl_bench import registry
from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.archives.sketch import VERSION, render

RSSCN7 = "rsscn7"


def adapter(name: str) -> type[DatasetAdapter]:
    return adapter_class(name, {})


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*")}


def test_registered_datasets_share_one_root(tmp_path: Path) -> None:
    assert render([adapter(RSSCN7)], tmp_path) == tmp_path / f"sketch-v{VERSION}"


def test_an_edited_dataset_draws_its_sketch_anew(tmp_path: Path) -> None:
    path = tmp_path / "adapters.py"
    roots = []
    for drawn in ("0, 255", "9, 255"):
        path.write_text(ADAPTERS.read_text().replace("integers(0, 255", f"integers({drawn}"))
        registry.reload_changed()
        roots.append(render([adapter(f"{path}:Toy"), adapter(RSSCN7)], tmp_path / "cache"))
    first, second = roots
    assert first != second
    assert content(first / "toy") != content(second / "toy")
    assert render([adapter(f"{path}:Toy"), adapter(RSSCN7)], tmp_path / "cache") == second
    # The sketch of a registered dataset is drawn once.
    drawn_once = tmp_path / "cache" / f"sketch-v{VERSION}" / RSSCN7
    for root in roots:
        assert content(root / RSSCN7) == content(drawn_once)
        image = next((root / RSSCN7).rglob("*.jpg"))
        assert image.stat().st_nlink == 3


def test_two_classes_of_one_folder_have_two_sketches(tmp_path: Path) -> None:
    toy, watched = (adapter(f"{ADAPTERS}:{name}") for name in ("Toy", "Watched"))
    assert render([toy], tmp_path) != render([watched], tmp_path)


def test_a_place_that_cannot_be_written_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = refused("data", "sketch", "--scenario", "scene4", "--out", tmp_path / "file")
    assert message.endswith("choose with --out a folder that is writable and has room.")


KILLED = """
import sys
from pathlib import Path
from rscl_bench import registry
from rscl_bench.archives import lookup
adapter = registry.load("datasets", "rsscn7")
draw = adapter._draw_sketch.__func__
def wait(cls, root, rng):
    (root / "begun.jpg").touch()
    print("here", file=sys.stderr, flush=True)
    sys.stdin.read()
adapter._draw_sketch = classmethod(wait)
lookup.adapters_of = lambda _: [adapter]
from rscl_bench.cli import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_killed_rendering_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    command = ["data", "sketch", "--scenario", "scene4", "--out", str(tmp_path)]
    root = tmp_path / f"sketch-v{VERSION}"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, *command],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while process.stderr.readline() != "here\n":
            pass
        assert len(list(root.iterdir())) == 2  # the hidden folder and its lock
        process.send_signal(number)
        expected = -number if number == signal.SIGKILL else 128 + number
        assert process.wait(timeout=60) == expected
    if number != signal.SIGKILL:
        assert list(root.iterdir()) == []
    render([adapter(RSSCN7)], tmp_path)
    assert [path.name for path in root.iterdir()] == [RSSCN7]
