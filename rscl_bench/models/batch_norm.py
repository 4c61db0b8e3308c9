"""Whether a module has batch normalisation, which needs batches of two images."""

from torch import nn


def has_batch_norm(module: nn.Module) -> bool:
    """Return whether a module normalises over the batch in training."""
    return any(isinstance(child, nn.modules.batchnorm._BatchNorm) for child in module.modules())
