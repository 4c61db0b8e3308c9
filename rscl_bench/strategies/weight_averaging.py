"""Weight averaging at task ends: the stream goes on from a mixture of old and new weights."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rscl_bench.models import foreach
from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Context, Strategy, Trainer


class WeightAveragingParams(Spec):
    """The mixture.

    Attributes:
        rule: ``constant`` weighs the new weights by ``alpha`` after every task; ``mean`` weighs
            them by 1/t after task t, so that all tasks count alike.
        alpha: α of ``constant``, the share of the new weights; 1 is plain training.
        part: Whether encoder and heads are averaged ("model"), or the encoder alone.
    """

    rule: Literal["constant", "mean"] = "constant"
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    part: Literal["model", "encoder"] = "model"


class WeightAveraging(Strategy):
    """After every task but the first, θ ← (1 − α) θ̄_{t−1} + α θ_t.

    The form is that of WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models",
    Eq. 1), between the averaged weights at the end of the last task and the weights that training
    has made of them. The next task starts from the average, and probes evaluate it. Trained
    parameters and running statistics of batch normalisation are averaged; momentum teachers are
    not.
    """

    Params = WeightAveragingParams
    needs = ("same_parameters",)
    sets_weights = True

    def __init__(self, params: WeightAveragingParams, context: Context):
        super().__init__(params, context)
        self.params = params
        self.previous: dict[str, Tensor] = {}

    @torch.no_grad()
    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Average, and keep the average for the next task's end."""
        now = self._values()
        if self.previous:
            old = [self.previous[name] for name in now]
            mean = self.params.rule == "mean"
            alpha = 1 / (trainer.task + 1) if mean else self.params.alpha
            foreach.lerp_(old, list(now.values()), alpha)
            foreach.copy_(list(now.values()), old)
        self.previous = {name: value.detach().clone() for name, value in now.items()}

    def _values(self) -> dict[str, Tensor]:
        """Return the tensors that are averaged, by name."""
        objective = self.context.objective
        whole = objective if self.params.part == "model" else objective.encoder
        trained = {name: p for name, p in whole.named_parameters() if p.requires_grad}
        return trained | running_statistics(whole)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the average at the end of the last task."""
        return dict(self.previous)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the average.

        In a stream that goes on with new bands, their weights have no average yet. They have been
        the initial ones until now.
        """
        own = self._values() if state else {}
        self.previous = {n: state.get(n, value).detach().clone() for n, value in own.items()}


def running_statistics(module: nn.Module) -> dict[str, Tensor]:
    """Return means and variances of batch normalisation by name, without those of teachers."""
    return {
        f"{name}.{kind}": statistics
        for name, norm in module.named_modules()
        if isinstance(norm, _BatchNorm) and not name.startswith("teacher")
        for kind, statistics in norm.named_buffers(recurse=False)
        if statistics.is_floating_point()
    }
