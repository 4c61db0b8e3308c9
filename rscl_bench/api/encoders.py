"""Load a trained encoder."""

from pathlib import Path
from typing import TYPE_CHECKING

from rscl_bench.user_paths import user_path

if TYPE_CHECKING:
    from rscl_bench.pretrained import PretrainedEncoder


def load_encoder(path: str | Path, backbone: str | None = None) -> "PretrainedEncoder":
    """Load the encoder of a finished run, ready to encode new images.

    Args:
        path: The run's ``encoder.safetensors``.
        backbone: For a backbone of your own that was used by path: the path of its class,
            ``file.py:Class``.

    Returns:
        The encoder in evaluation mode, on the CPU; see
        `rscl_bench.pretrained.PretrainedEncoder`.

    Raises:
        ArtefactError: If the file is damaged, or a run of an older version wrote the file.
        SpecError: If the backbone is not installed, or its code is not the code of the run.
    """
    from rscl_bench.pretrained import load_pretrained

    return load_pretrained(user_path(path, "The encoder"), backbone)
