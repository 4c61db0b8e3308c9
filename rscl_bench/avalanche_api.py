"""All imports from Avalanche, so that the warnings of its import are silenced in one place."""

import warnings

with warnings.catch_warnings():
    # Avalanche's GEM plugin imports a package for quadratic programs, which warns that a solver is
    # unmaintained or missing. Nothing here uses the package.
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
    """Return an evaluation plugin without metrics, without a warning about missing loggers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified", category=UserWarning)
        return EvaluationPlugin()
