"""Compiles the repeated blocks of a network with `torch.compile`."""

from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import nn

_BLOCKS = (Block, SwinTransformerBlock, BasicBlock, Bottleneck)


def compile_blocks(module: nn.Module) -> None:
    """Compile the blocks of a module in place. Parameter names do not change.

    Blocks are compiled one by one, not the module as a whole: blocks of one class share their
    compiled code, and code between the blocks, such as drawing masks, cannot break a graph. A copy
    of the module is not compiled.

    Args:
        module: The module whose blocks are compiled.
    """
    for submodule in module.modules():
        if isinstance(submodule, _BLOCKS):
            submodule.compile()


def is_compiled(module: nn.Module) -> bool:
    """Return whether any block of the module is compiled."""
    return any(getattr(child, "_compiled_call_impl", None) for child in module.modules())
