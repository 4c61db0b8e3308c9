"""Arguments that make versions of TorchGeo read the same labels from the same files."""

from collections.abc import Mapping
from typing import Any

#: Values of the masks of NLCD that are classes.
_NLCD = (11, 12, 21, 22, 23, 24, 31, 41, 42, 43, 52, 71, 81, 82, 90, 95)


def version_arguments(part: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a class, with those that the installed version needs.

    TorchGeo 0.8 counts the background of NLCD, 0, as the first class. Later versions count it, 250,
    as the last, and give pixels of any other value to the first class. With the background named
    first, both give it, and every unknown value, the label 0.

    Args:
        part: Name of the class.
        arguments: Arguments of its constructor.
    """
    if part != "SSL4EOLBenchmark" or arguments.get("product") != "nlcd" or "classes" in arguments:
        return dict(arguments)
    from torchgeo.datasets import NLCD

    background = 250 if hasattr(NLCD, "valid_classes") else 0
    return {**arguments, "classes": [background, *_NLCD]}
