"""Floating-point operations of a training step, counted by running one step."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from rscl_bench.objectives.base import Objective, StepInfo
from rscl_bench.views.crops import whole_tiles
from rscl_bench.views.view import view_size

_BATCH = 2  # the smallest batch on which batch normalisation trains
_SAMPLE = 16  # most images that an objective may sample before a task; not part of a step


class Flops(NamedTuple):
    """Operations per image of one step; a multiplication and its addition count as two.

    Attributes:
        with_gradient: Operations of forward passes with gradient, and of the backward pass.
        without_gradient: Operations of forward passes without gradient, such as a teacher's.
    """

    with_gradient: int
    without_gradient: int


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts products and convolutions by the formulas of torch's registry.

    Attributes:
        with_gradient: Operations counted with gradient so far.
        without_gradient: Operations counted without gradient so far.
        backward: Whether a backward pass runs, whose operations count as with gradient.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.with_gradient = self.without_gradient = 0
        self.backward = False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        if formula is not None:
            count = formula(*args, **(kwargs or {}), out_val=out)
            if self.backward or torch.is_grad_enabled():
                self.with_gradient += count
            else:
                self.without_gradient += count
        return out


def without_others(images: Tensor, places: Sequence[int]) -> Tensor:
    """Return images ``[B, C, H, W]`` that lack all bands but those of some channels."""
    absent = torch.ones(images.shape[1], dtype=torch.bool)
    absent[list(places)] = False
    return images.masked_fill(absent[:, None, None], torch.nan)


def count_flops(
    objective: Objective, image_size: int, places: Sequence[int] | None = None
) -> Flops:
    """Return the operations of one step of an objective, without changing the objective.

    A copy takes the step on the CPU in fp32, on random images, in the second task: some objectives
    have no teacher in the first. Matrix products and convolutions count, attention included.
    Augmentation, strategies, the optimiser's update and the making of kernels from wavelengths,
    once a step, do not. Random choices of an objective, such as the number of masked patches, may
    change the count of a step slightly. `count_strategies` counts what strategies add.

    Args:
        objective: The objective.
        image_size: Side of the protocol's input in pixels.
        places: Channels that the images have, where images differ in bands; None for all.
    """
    counted = _count(objective, image_size, places, _BATCH)
    if objective.encoder.bands is None:
        return Flops(counted.with_gradient // _BATCH, counted.without_gradient // _BATCH)
    doubled = _count(objective, image_size, places, 2 * _BATCH)
    return Flops(
        (doubled.with_gradient - counted.with_gradient) // _BATCH,
        (doubled.without_gradient - counted.without_gradient) // _BATCH,
    )


def _count(
    objective: Objective, image_size: int, places: Sequence[int] | None, batch: int
) -> OperationCounter:
    """Return the count of one step on a batch, all images together."""
    model = copy.deepcopy(objective).cpu().train()
    sizes = [view_size(view, image_size, model.encoder.multiple) for view in model.views]
    channels = model.encoder.channels
    generator = torch.Generator().manual_seed(0)

    def views(count: int) -> list[Tensor]:
        drawn = [torch.randn(count, channels, size, size, generator=generator) for size in sizes]
        return drawn if places is None else [without_others(images, places) for images in drawn]

    crops = [whole_tiles(batch, image_size, image_size, torch.device("cpu")) for _ in sizes]
    counter = OperationCounter()
    # Unfused attention, because torch's registry lacks formulas of some fused kernels.
    with torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH):
        for task in range(2):
            model.before_task(task, lambda count: views(min(count, _SAMPLE)))
        model.before_step(StepInfo(1, 0, 1, 1, [(1, torch.arange(batch))], crops))
        with counter:
            loss = model(views(batch), generator).loss
            counter.backward = True
            loss.backward()
    return counter
