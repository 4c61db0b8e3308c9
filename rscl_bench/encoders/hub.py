"""Encoders in repositories of the Hugging Face Hub, through ``huggingface_hub``.

Nothing else of this package needs that library, and it is imported when it is used.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

from rscl_bench.atomic import write_atomic
from rscl_bench.encoders.model_card import model_card
from rscl_bench.encoders.run_files import RECORD, read_run_files
from rscl_bench.errors import ArtefactError, SpecError
from rscl_bench.models.encoder_file import FILE
from rscl_bench.results.image_scores import image_scores_path

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEME = "hf://"
CARD = "README.md"
_IMAGE_SCORES = image_scores_path(Path(RECORD)).name
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Place(NamedTuple):
    """A repository of the Hub, and a revision in it.

    Attributes:
        repository: ``owner/name``.
        revision: A branch, tag or commit; None for the main branch.
    """

    repository: str
    revision: str | None

    @classmethod
    def of(cls, text: str) -> "Place":
        """Return the place that ``owner/name`` or ``owner/name@revision`` names.

        Args:
            text: The place; it may begin with ``hf://``.

        Raises:
            SpecError: If it names none.
        """
        repository, at, revision = text.removeprefix(SCHEME).partition("@")
        if not _REPOSITORY.fullmatch(repository) or (at and not revision):
            raise SpecError(
                f"'{text}' is no repository of the Hub; write owner/name, or owner/name@revision."
            )
        return cls(repository, revision or None)


def push(run: Path, repository: str, private: bool) -> str:
    """Upload encoder, record, image scores and a model card, in one commit.

    The repository is made if it does not exist.

    Args:
        run: The run's folder, or its ``record.json``.
        repository: ``owner/name``.
        private: Whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        SpecError: If huggingface_hub is not installed, or ``repository`` names none.
        ArtefactError: If a file of the run is missing or damaged, or the Hub refuses the upload.
    """
    place = Place.of(repository)
    if place.revision is not None:
        raise SpecError(f"'{repository}' names a revision; a push goes to the main branch.")
    files = read_run_files(run.parent if run.is_file() else run)
    card = model_card(files, place.repository)
    hub = _hub()
    from huggingface_hub import CommitOperationAdd

    with _explained(place.repository, "Log in with `hf auth login`, or set HF_TOKEN"):
        address = hub.create_repo(place.repository, private=private or None, exist_ok=True)
        operations = [CommitOperationAdd(path.name, str(path)) for path in files.paths]
        operations.append(CommitOperationAdd(CARD, card.encode()))
        hub.create_commit(
            place.repository,
            operations,
            commit_message=f"Encoder of run {files.record.id}",
        )
    return str(address)


def pull(repository: str, out: Path) -> Path:
    """Download encoder, record, image scores and model card, and check the digests.

    Nothing is written before all digests are checked. Files of the same run are replaced.

    Args:
        repository: ``owner/name``, or ``owner/name@revision``.
        out: Folder to write to.

    Returns:
        The encoder's file in ``out``.

    Raises:
        SpecError: If huggingface_hub is not installed, or ``repository`` names none.
        ArtefactError: If the repository or a file is missing or damaged, a digest is not the
            record's, or ``out`` holds another run.
    """
    place = Place.of(repository)
    with TemporaryDirectory(prefix="rscl-hub-") as scratch:
        folder = _downloaded(place, (FILE, RECORD, _IMAGE_SCORES, CARD), Path(scratch))
        pulled = read_run_files(folder)
        known = out / RECORD
        if known.exists() and known.read_bytes() != (folder / RECORD).read_bytes():
            raise ArtefactError(
                f"{known} is the record of another run than {place.repository}; choose another "
                "folder with --out."
            )
        card = folder / CARD
        for path in (*pulled.paths, *([card] if card.is_file() else [])):
            write_atomic(out / path.name, path.read_bytes())
    return out / FILE


def cached_encoder(place: str) -> Path:
    """Return the encoder's file in the cache of huggingface_hub, downloaded where it is absent.

    The encoder is checked by the record that lies beside it in the repository.

    Args:
        place: ``hf://owner/name``, or ``hf://owner/name@revision``.

    Raises:
        SpecError: If huggingface_hub is not installed, or ``place`` names no repository.
        ArtefactError: If the repository or a file is missing or damaged, or a digest is not the
            record's.
    """
    folder = _downloaded(Place.of(place), (FILE, RECORD), None)
    read_run_files(folder)
    return folder / FILE


def _downloaded(place: Place, names: tuple[str, ...], cache: Path | None) -> Path:
    """Download the files of one commit, and return their folder; encoder and record must be there.

    Raises:
        ArtefactError: If a file cannot be downloaded.
    """
    hub = _hub()
    with _explained(place.repository, "Check the name; a private one needs `hf auth login`"):
        folder = hub.snapshot_download(
            place.repository,
            revision=place.revision,
            allow_patterns=list(names),
            cache_dir=cache,
        )
    for name in (FILE, RECORD):
        if not Path(folder, name).is_file():
            raise ArtefactError(
                f"The repository {place.repository} has no {name}, so it holds no encoder that "
                "`rscl-bench push` uploaded; choose another."
            )
    return Path(folder)


def _hub() -> "HfApi":
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise SpecError(
            "The Hub needs huggingface_hub, which is not installed: pip install 'rscl-bench[hub]'."
        ) from error
    # The library reads this variable when it is imported, which may be long before.
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="rscl-bench")


@contextmanager
def _explained(repository: str, mend: str) -> Iterator[None]:
    """Turn the errors of the Hub and of the network into one sentence."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        with _bars_on_terminals():
            yield
    except HFValidationError as error:
        raise SpecError(f"'{repository}' is no repository of the Hub: {_line(error)}") from error
    except (OSError, ValueError, RuntimeError) as error:
        # An upload in threads wraps the answer of the Hub.
        answer = error if isinstance(error, HfHubHTTPError) else error.__cause__
        if isinstance(answer, HfHubHTTPError):
            status = getattr(answer.response, "status_code", "no answer")
            raise ArtefactError(
                f"The Hub refuses {repository} (status {status}: {_line(answer)}). {mend}."
            ) from error
        raise ArtefactError(
            f"The Hub cannot be used for {repository} ({_line(error)}); check the network and "
            "HF_ENDPOINT."
        ) from error
    except Exception as error:  # of the HTTP library, which differs between versions
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests")):
            raise
        raise ArtefactError(
            f"The Hub cannot be reached for {repository} ({type(error).__name__}: {_line(error)}); "
            "check the network and HF_ENDPOINT."
        ) from error


@contextmanager
def _bars_on_terminals() -> Iterator[None]:
    """Let huggingface_hub draw progress bars on a terminal alone, and not into logs and pipes."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]
