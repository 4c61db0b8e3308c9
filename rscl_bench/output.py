"""Standard output that a run outlives: a closed pipe or a full disk loses lines, nothing more."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class LastingStream:
    """A text stream whose lines are lost where they cannot be written.

    Attributes:
        error: The first error of a write; None without one.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write a text, or note the error."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self.error = self.error or error
            return len(text)

    def flush(self) -> None:
        """Flush the stream, or note the error."""
        try:
            self._stream.flush()
        except OSError as error:
            self.error = self.error or error

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the stream."""
        return getattr(self._stream, name)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Let a block go on when its standard output or error stream cannot be written.

    Use it where the results are files. A line on standard error says what was lost.
    """
    before = sys.stdout, sys.stderr
    out, err = LastingStream(sys.stdout), LastingStream(sys.stderr)
    sys.stdout, sys.stderr = cast("TextIO", out), cast("TextIO", err)
    try:
        yield
    finally:
        out.flush()
        if out.error is not None:
            reason = out.error.strerror or out.error
            print(f"note: lines of the output could not be written ({reason})", file=sys.stderr)
        err.flush()
        sys.stdout, sys.stderr = before
        for stream, lasting in zip(before, (out, err), strict=True):
            if lasting.error is not None:
                discard_unwritten(stream)


def discard_unwritten(stream: TextIO) -> OSError | None:
    """Flush a stream; if that fails, drop its text and return the error.

    Without this, Python would flush the stream once more at its end, and would change the exit
    status to 120.
    """
    try:
        stream.flush()
    except OSError as error:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return error
    return None


def reader_gone(stream: TextIO) -> bool:
    """Return whether a stream is a pipe that nobody reads."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # closed, or no file
        return False


def say(text: str) -> None:
    """Print one line; if that fails, the line is lost."""
    with suppress(OSError):
        print(text, flush=True)
