"""Python files that are no modules of a package."""

import importlib.util
from pathlib import Path
from types import ModuleType


def load_file(path: Path) -> ModuleType:
    """Execute a Python file and return its module, which is not registered."""
    spec = importlib.util.spec_from_file_location(f"file_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
