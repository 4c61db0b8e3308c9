"""Objectives and strategies that each break their contract in one way, and sound ones."""

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from rscl_bench.objectives.base import Objective, ObjectiveOutput, StepInfo
from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Context, Strategy, Trainer
from rscl_bench.strategies.quadratic import QuadraticPenalty
from rscl_bench.strategies.si import SI


class NoParams(Spec):
    pass


class Sound(Objective):
    """A sound objective; a subclass breaks one property."""

    Params = NoParams

    def __init__(self, params: NoParams, encoder: Any):
        super().__init__(params, encoder)
        self.predict: nn.Module = nn.Linear(encoder.feature_dim, 1)

    def forward(self, views: Any, generator: torch.Generator) -> ObjectiveOutput:
        (images,) = views
        encoded = self.encoder(images + self.noise(images, generator))
        loss = self.predict(self.encoder.pool(encoded)).square().mean()
        return ObjectiveOutput(self.change(loss), (encoded,))

    def noise(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(images.shape, generator=generator)

    def change(self, loss: Tensor) -> Tensor:
        return loss


class GlobalNoise(Sound):
    def noise(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(images.shape)


class NotFinite(Sound):
    def change(self, loss: Tensor) -> Tensor:
        return loss / 0


class NotScalar(Sound):
    def change(self, loss: Tensor) -> Tensor:
        return loss[None]


class UnusedHead(Sound):
    def __init__(self, params: NoParams, encoder: Any):
        super().__init__(params, encoder)
        self.unused = nn.Linear(3, 3)


class NoGradient(Sound):
    def change(self, loss: Tensor) -> Tensor:
        return loss.detach() + loss * 0


class LateGlobalNoise(Sound):
    """Draws from torch's global stream outside of forward."""

    def after_update(self, info: StepInfo) -> None:
        with torch.no_grad():
            for weight in self.predict.parameters():
                weight.add_(0.01 * torch.randn(weight.shape))


class HiddenCounter(Sound):
    """Counts the steps of a task in an attribute that task_state omits."""

    count = 0

    def before_task(self, task: int, sample: Any) -> None:
        self.count = 0

    def before_step(self, info: StepInfo) -> None:
        self.count += 1

    def change(self, loss: Tensor) -> Tensor:
        return loss * self.count


class HiddenMemory(Sound):
    """Counts the tasks in an attribute that is no buffer."""

    count = 1

    def after_task(self, task: int) -> None:
        self.count += 1

    def change(self, loss: Tensor) -> Tensor:
        return loss * self.count


class WrongWidth(Sound):
    """Declares another width than its projections have."""

    def __init__(self, params: NoParams, encoder: Any):
        super().__init__(params, encoder)
        self.projected_dim = 5


class NaNDistil(Sound):
    """Distils by a root of negative numbers."""

    def distil(self, predicted: Any, past: Any) -> Tensor:
        difference: Tensor = predicted[0] - past[0]
        return difference.sqrt().mean()


class NormalisedBatch(Sound):
    """Declares per_image_loss over a batch normalisation."""

    per_image_loss = True

    def __init__(self, params: NoParams, encoder: Any):
        super().__init__(params, encoder)
        self.predict = nn.Sequential(
            nn.Linear(encoder.feature_dim, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)
        )


class SummedLoss(Sound):
    """Declares per_image_loss for a sum over images."""

    per_image_loss = True

    def forward(self, views: Any, generator: torch.Generator) -> ObjectiveOutput:
        output = super().forward(views, generator)
        return ObjectiveOutput(output.loss * len(views[0]), output.encoded)


class PerImage(Sound):
    per_image_loss = True


class TwoFaults(WrongWidth, NaNDistil):
    pass


class WatchedLoss(Sound):
    """Declares stateless_loss, though forward changes a buffer."""

    stateless_loss = True
    calls: Tensor

    def __init__(self, params: NoParams, encoder: Any):
        super().__init__(params, encoder)
        self.calls: Tensor
        self.register_buffer("calls", torch.ones(()))

    def change(self, loss: Tensor) -> Tensor:
        self.calls += 1
        return loss * float(self.calls)


class Idle(Strategy):
    """Does nothing."""

    Params = NoParams

    def __init__(self, params: NoParams, context: Context):
        super().__init__(params, context)


class Early(Idle):
    """Acts from the first task on."""

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        trainer.loss = trainer.loss * 1.5 + trainer.mb_output.encoded[0].square().mean()


class Declared(Early):
    plain_first_task: ClassVar[bool] = False


class Forgetful(Idle):
    """Counts tasks and does not save the count."""

    tasks = 0

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        trainer.loss = trainer.loss + self.tasks * trainer.mb_output.encoded[0].square().mean()

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        self.tasks += 1


class Amnesiac(Forgetful):
    """Saves its state and does not restore it."""

    def state_dict(self) -> dict[str, Tensor]:
        return {"tasks": torch.tensor(self.tasks)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        pass


class EarlyAndForgetful(Early):
    """Acts from the first task on, by a number of tasks that it does not save."""

    tasks = 1

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        trainer.loss = trainer.loss + self.tasks * trainer.mb_output.encoded[0].square().mean()

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        self.tasks += 1


class GlobalWeight(Idle):
    """Draws from NumPy's global stream."""

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        if trainer.task:
            weight = np.random.rand()  # noqa: NPY002
            trainer.loss = trainer.loss + weight * trainer.mb_output.encoded[0].square().mean()


class PathlessSI(SI):
    """Synaptic intelligence whose state lacks the path of the current task."""

    def state_dict(self) -> dict[str, Tensor]:
        return QuadraticPenalty.state_dict(self)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        QuadraticPenalty.load_state_dict(self, state)


class Adds(Idle):
    """Puts a module into the objective."""

    def before_training_exp(self, trainer: Trainer, **_: Any) -> None:
        self.context.objective.past_head = nn.Linear(2, 2)

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        if trainer.task:
            trainer.loss = trainer.loss + trainer.mb_output.encoded[0].square().mean()


class Needs(Adds):
    needs = ("momentum_encoder",)
