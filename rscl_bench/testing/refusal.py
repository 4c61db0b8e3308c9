"""Whether and how a call is refused."""

from collections.abc import Callable

from rscl_bench.errors import RsclError


def refusal(kind: type[RsclError], call: Callable[[], object]) -> str | None:
    """Return the message of the error that a call raises, or None if it raises none.

    Args:
        kind: The error that is expected; any other goes through.
        call: What is called.
    """
    try:
        call()
    except kind as error:
        return str(error)
    return None
