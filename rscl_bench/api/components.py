"""Components by name: list, explain, load and begin."""

from pathlib import Path
from typing import TYPE_CHECKING

from rscl_bench.api.arguments import Settings

if TYPE_CHECKING:
    from rscl_bench.explain import Explained
    from rscl_bench.skeletons.writing import SkeletonKind, WrittenSkeleton
    from rscl_bench.spec import Method, Scenario


def list_components(kind: str) -> dict[str, str]:
    """Return the registered names of one kind, each with a description in one line.

    Args:
        kind: ``scenarios``, ``methods``, ``objectives``, ``strategies``, ``probes``,
            ``datasets`` or ``backbones``.

    Raises:
        SpecError: If there is no such kind.
    """
    from rscl_bench import catalogue

    return catalogue.summaries(kind)


def explain(
    name: str,
    *,
    scenario: str | None = None,
    protocol: str | None = None,
    set: Settings | None = None,
) -> "list[Explained]":
    """Explain a method, scenario, component or sensor: values, parameters and their meanings.

    Args:
        name: A name, a path to a TOML, or ``KIND:NAME``, such as ``strategy:ewc``.
        scenario: For a method: a known scenario or a path to a TOML; the values are then those of a
            run. None leaves the values of protocols out.
        protocol: As in `run`.
        set: As in `run`.

    Returns:
        One explanation for each thing of this name; see `rscl_bench.explain.Explained`.

    Raises:
        SpecError: If nothing has the name, or a value is not valid.
    """
    from rscl_bench import explain as explaining

    return explaining.explain(name, scenario, protocol, set)


def new(kind: "SkeletonKind", name: str, into: str | Path = ".") -> "WrittenSkeleton":
    """Write a working component with its TOML and its test, to begin from.

    Args:
        kind: ``dataset``, ``method``, ``objective``, ``probe``, ``scenario`` or ``strategy``.
        name: Name of the component: small letters, digits and single hyphens. Files and class have
            names made from it: ``my-probe`` gives ``my_probe.py`` with the class ``MyProbe``,
            ``my-probe.toml`` and ``test_my_probe.py``.
        into: Folder to write to; made where absent.

    Returns:
        The files, and the commands that run and test them.

    Raises:
        SpecError: If the kind is unknown, or the name is not allowed or taken.
        ArtefactError: If a file exists or cannot be written. No file is written then.
    """
    from rscl_bench.skeletons.writing import write_skeleton

    return write_skeleton(kind, name, into)


def load_scenario(name: str | Path) -> "Scenario":
    """Return a scenario by name or by path to a TOML.

    Raises:
        SpecError: If the scenario is unknown or not valid.
    """
    from rscl_bench import declarations

    return declarations.load_scenario(str(name))


def load_method(name: str | Path) -> "Method":
    """Return a method by name or by path to a TOML.

    Raises:
        SpecError: If the method is unknown or not valid.
    """
    from rscl_bench import declarations

    return declarations.load_method(str(name))
