"""Where the toy scenario and the checkout are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "toy" / "toy.toml"
ADAPTERS = TOY.parent / "adapters.py"
BROKEN = f"{TOY.parent / 'broken.py'}:"
