"""Objectives and strategies that break their contract in one way each, and sound twins."""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rscl_bench.objectives.base import Objective, ObjectiveOutput
from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Context, Strategy, Trainer


class NoParams(Spec):
    pass


class Sound(Objective):
    """A sound objective, but for what a subclass breaks."""

    Params = NoParams

    def __init__(self, params: NoParams, encoder: Any):
        super().__init__(params, encoder)
        self.predict = nn.Linear(encoder.feature_dim, 1)

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
        return loss * 0


class Idle(Strategy):
    """Does nothing."""

    Params = NoParams

    def __init__(self, params: NoParams, context: Context):
        super().__init__(params, context)


class Early(Idle):
    """Acts in the first task already."""

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        trainer.loss = trainer.loss * 1.5 + trainer.mb_output.encoded[0].square().mean()


class Declared(Early):
    plain_first_task: ClassVar[bool] = False


class Forgetful(Idle):
    """Keeps something over tasks that it does not save."""

    tasks = 0

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        trainer.loss = trainer.loss + self.tasks * trainer.mb_output.encoded[0].square().mean()

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        self.tasks += 1


class Adds(Idle):
    """Puts a module into the objective."""

    def before_training_exp(self, trainer: Trainer, **_: Any) -> None:
        self.context.objective.teacher = nn.Linear(2, 2)

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        if trainer.task:
            trainer.loss = trainer.loss + trainer.mb_output.encoded[0].square().mean()


class Needs(Adds):
    needs = ("momentum_encoder",)
