"""Random-resized crop and flip of 128 tiles, 256 to 224 pixels, by us and by others, on a CPU.

Others work image by image in a loop, or on whole batches as kornia does, with as many threads of
torch as we have. Theirs draw their crops too, as ours are.
"""

import torch
from kornia.augmentation import AugmentationSequential, RandomHorizontalFlip, RandomResizedCrop
from lightly.transforms import MAETransform
from PIL import Image
from torchvision.transforms import v2  # type: ignore[import-untyped]

from benchmarks.ratio import Ratio, in_turn, milliseconds, over
from rscl_bench.randomness import torch_generator
from rscl_bench.views.crops import (
    Normalisation,
    crops_as_products,
    draw_crops,
    normalised,
    resized_crops,
)

BATCH, SIDE, SIZE, SCALE = 128, 256, 224, (0.2, 1.0)


def measure(_device_name: str, rounds: int) -> list[Ratio]:
    """Return how many times as long others take for the same; this part is of CPUs only."""
    tiles = torch.randint(0, 256, (BATCH, SIDE, SIDE, 3), dtype=torch.uint8)
    images = tiles.permute(0, 3, 1, 2).contiguous()
    pictures = [Image.fromarray(tile.numpy()) for tile in tiles]
    values = Normalisation(torch.full((3,), 127.0), torch.full((3,), 50.0))
    generator = torch_generator("cpu", 0)
    crop = v2.Compose(
        [v2.RandomResizedCrop(SIZE, SCALE, antialias=True), v2.RandomHorizontalFlip()]
    )
    whole = v2.Compose(
        [crop, v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.2] * 3)]
    )
    batched = AugmentationSequential(
        RandomResizedCrop((SIZE, SIZE), scale=SCALE), RandomHorizontalFlip(), data_keys=["input"]
    )
    lightly = MAETransform(input_size=SIZE, min_scale=SCALE[0])

    def ours() -> torch.Tensor:
        crops = draw_crops(BATCH, SIDE, SIDE, SCALE, 0.5, generator)
        return resized_crops(tiles, crops, SIZE)

    def ours_normalised() -> torch.Tensor:
        return normalised(ours(), values)

    def products() -> torch.Tensor:
        crops = draw_crops(BATCH, SIDE, SIDE, SCALE, 0.5, generator)
        return crops_as_products(tiles, crops, SIZE)

    def row(name: str, mine: object, theirs: object, least: float | None = None) -> Ratio:
        a, b = in_turn(mine, theirs, rounds)  # type: ignore[arg-type]
        note = f"{milliseconds(a, BATCH)} an image by us, {milliseconds(b, BATCH)} by it"
        return Ratio("augmentation", f"{name} over ours", over(b, a), least, note=note)

    return [
        row("torchvision v2, each image", ours, lambda: torch.stack([crop(i) for i in images]), 4),
        row(
            "torchvision v2 with normalisation",
            ours_normalised,
            lambda: torch.stack([whole(i) for i in images]),
        ),
        row(
            "lightly's MAETransform",
            ours_normalised,
            lambda: torch.stack([lightly(p)[0] for p in pictures]),
        ),
        row("kornia, whole batch", ours, lambda: batched(images.float())),
        row("our products for GPUs", ours, products),
    ]
