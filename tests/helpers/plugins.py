"""Avalanche plugins that observe training."""

from collections.abc import Callable
from typing import Any

from rscl_bench.avalanche_api import BaseSGDPlugin


class Look(BaseSGDPlugin):  # type: ignore[misc]
    """Calls a function with the trainer at one hook."""

    def __init__(self, look: Callable[[Any], object], hook: str = "after_update") -> None:
        super().__init__()
        setattr(self, hook, lambda trainer, *_, **__: look(trainer))
