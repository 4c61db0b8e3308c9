"""Finds the adapter class of a dataset as a scenario names it, with its options."""

from collections.abc import Mapping
from typing import Any

from rscl_bench import registry
from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.spec import Probe, Scenario, Source


def adapter_class(dataset: str, options: Mapping[str, Any]) -> type[DatasetAdapter]:
    """Return the class that reads a dataset, with the class attributes that its options declare.

    Args:
        dataset: Registered name, ``name:part``, or ``file.py:Class``.
        options: The options of the task or probe.

    Raises:
        SpecError: If the dataset is unknown or an option is not valid.
    """
    adapter: type[DatasetAdapter] = registry.load("datasets", dataset)
    return adapter.configured(options)


def adapters_of(scenario: Scenario) -> list[type[DatasetAdapter]]:
    """Return the adapter classes of the tasks and probes of a scenario, each once, in order.

    Raises:
        SpecError: As `adapter_class`.
    """
    parts: list[Source | Probe] = [*scenario.tasks, *scenario.probes]
    return list(dict.fromkeys(adapter_class(part.dataset, part.options) for part in parts))


def outside_adapters(scenario: Scenario) -> list[type[DatasetAdapter]]:
    """Return the adapter classes of `adapters_of` whose archives are no part of this package.

    Raises:
        SpecError: As `adapter_class`.
    """
    return [adapter for adapter in adapters_of(scenario) if not adapter.embedded]
