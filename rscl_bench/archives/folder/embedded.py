"""The folders of images that are part of this package."""

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

import rscl_bench
from rscl_bench.declarations import read_toml
from rscl_bench.errors import unknown
from rscl_bench.spec import Spec, validated

#: Holds a folder for each archive, and nothing else.
EMBEDDED = Path(rscl_bench.__file__).parent / "embedded"
#: The file in each of these folders that says where its images come from.
_ABOUT = "about.toml"


class About(Spec):
    """Where embedded images come from.

    Attributes:
        title: Full name of the archive.
        source: Where the whole archive can be fetched.
        licence: Licence or terms of use of the images and of their labels.
        changes: What was done to the images.
        citations: Links to the papers to cite.
    """

    title: str
    source: str
    licence: str
    changes: str
    citations: Annotated[tuple[str, ...], Field(min_length=1)]


@cache
def about(folder: str) -> About:
    """Return where the images of an embedded folder come from.

    Args:
        folder: Name of the folder.

    Raises:
        SpecError: If no folder of this name is part of the package.
    """
    known = sorted(path.parent.name for path in EMBEDDED.glob(f"*/{_ABOUT}"))
    if folder not in known:
        raise unknown("embedded folder", folder, known)
    path = EMBEDDED / folder / _ABOUT
    return validated(About, read_toml(path), str(path))
