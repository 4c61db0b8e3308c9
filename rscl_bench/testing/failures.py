"""Collects the failures of a contract's checks, so that all of them are reported together."""

from collections.abc import Iterator
from contextlib import contextmanager


class Failures:
    """The checks of one component that failed.

    Usage::

        failures = Failures("'my-objective'")
        with failures.check("reproducible loss"):
            assert torch.equal(first, second), "The loss changed."
        with failures.check("gradients"):
            ...
        failures.raise_if_any()
    """

    def __init__(self, component: str):
        """Start without a failure.

        Args:
            component: The component as the report names it.
        """
        self._component = component
        self._failed: dict[str, Exception] = {}

    @contextmanager
    def check(self, what: str) -> Iterator[None]:
        """Record the exception that the block raises, and continue after the block.

        Args:
            what: The property that the block checks, in a few words. Where several blocks check
                the same property, only the first failure is reported.
        """
        try:
            yield
        except Exception as error:
            self._failed.setdefault(what, error)

    def __bool__(self) -> bool:
        """Return whether a check failed."""
        return bool(self._failed)

    def raise_if_any(self) -> None:
        """Raise one error with the messages of all checks that failed.

        Raises:
            AssertionError: If a check failed; its cause is the first failure.
        """
        if not self._failed:
            return
        lines = [f"- {what}: {_message(error)}" for what, error in self._failed.items()]
        heading = f"{self._component} breaks its contract:"
        raise AssertionError("\n".join([heading, *lines])) from next(iter(self._failed.values()))


def _message(error: Exception) -> str:
    if isinstance(error, AssertionError):
        return str(error)
    return f"{type(error).__name__}: {error}"
