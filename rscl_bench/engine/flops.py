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

_BATCH = 2  # the least with which batch normalisation trains
_SHOWN = 16  # images that an objective may look at before it starts; not part of a step


class Flops(NamedTuple):
    """Operations per image of one step; a multiplication with its addition is two.

    Attributes:
        with_gradient: Of the forward passes that are trained through, and of the backward pass.
        without_gradient: Of forward passes without gradient, such as a teacher's.
    """

    with_gradient: int
    without_gradient: int


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what torch's registry knows of each operation: products and convolutions."""

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


def count_flops(objective: Objective, image_size: int) -> Flops:
    """Return the operations of a step of an objective, on the CPU in fp32; it stays as it is.

    Counted are matrix products and convolutions, attention included, on random images in the second
    task, where an objective may have a teacher that the first has not; augmentation, strategies and
    the update are not. What an objective draws, such as how much is hidden, may change the count of
    a step a little.

    Args:
        objective: The objective.
        image_size: Side of the protocol's input in pixels.
    """
    model = copy.deepcopy(objective).cpu().train()
    sizes = [view_size(view, image_size, model.encoder.multiple) for view in model.views]
    channels = model.encoder.channels
    generator = torch.Generator().manual_seed(0)

    def views(count: int) -> list[Tensor]:
        return [torch.randn(count, channels, size, size, generator=generator) for size in sizes]

    crops = [whole_tiles(_BATCH, image_size, image_size, torch.device("cpu")) for _ in sizes]
    counter = _Counter()
    # Torch's registry does not know every fused attention; as plain products it knows all.
    with torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH):
        for task in range(2):
            model.before_task(task, lambda count: views(min(count, _SHOWN)))
        model.before_step(StepInfo(1, 0, 1, 1, [(1, torch.arange(_BATCH))], crops))
        with counter:
            loss = model(views(_BATCH), generator).loss
            counter.backward = True
            loss.backward()
    return Flops(counter.with_gradient // _BATCH, counter.without_gradient // _BATCH)
