"""The one place that imports Avalanche, so that its import-time warnings are met once."""

import warnings

with warnings.catch_warnings():
    # Of a quadratic programming package that a plugin not used here needs, and of its solvers:
    # that one is not maintained, or that none was found.
    warnings.simplefilter("ignore")
    from avalanche.benchmarks import CLScenario, DatasetExperience, benchmark_from_datasets
    from avalanche.benchmarks.utils import AvalancheDataset
    from avalanche.benchmarks.utils.data_attribute import DataAttribute
    from avalanche.core import BaseSGDPlugin
    from avalanche.training.plugins import EvaluationPlugin
    from avalanche.training.storage_policy import (
        ExperienceBalancedBuffer,
        ReservoirSamplingBuffer,
    )
    from avalanche.training.templates.base_sgd import BaseSGDTemplate
    from avalanche.training.templates.observation_type import BatchObservation

__all__ = [
    "AvalancheDataset",
    "BaseSGDPlugin",
    "BaseSGDTemplate",
    "BatchObservation",
    "CLScenario",
    "DataAttribute",
    "DatasetExperience",
    "ExperienceBalancedBuffer",
    "ReservoirSamplingBuffer",
    "benchmark_from_datasets",
    "no_evaluation",
]


def no_evaluation() -> EvaluationPlugin:
    """Return an evaluation plugin that measures nothing, without the warning that it logs none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified", category=UserWarning)
        return EvaluationPlugin()
