"""Compilation of the blocks that a network repeats: once for all of them, by `torch.compile`."""

from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import nn

_BLOCKS = (Block, SwinTransformerBlock, BasicBlock, Bottleneck)


def compile_blocks(module: nn.Module) -> None:
    """Compile a module's blocks in place; names of parameters stay as they are.

    Block by block rather than whole: blocks of one kind share their code, and what lies between,
    such as drawing masks, cannot break a graph. A copy of the module is not compiled.

    Args:
        module: The module.
    """
    for part in module.modules():
        if isinstance(part, _BLOCKS):
            part.compile()


def is_compiled(module: nn.Module) -> bool:
    """Return whether any block of a module is."""
    return any(getattr(part, "_compiled_call_impl", None) for part in module.modules())
