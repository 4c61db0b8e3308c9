"""Paths of the toy scenario and of the checkout."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "toy" / "toy.toml"
ADAPTERS = TOY.parent / "adapters.py"
BROKEN = f"{TOY.parent / 'broken.py'}:"
