"""Encoders that start from state dicts of timm, torchvision, TorchGeo and this package."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import pytest
import timm
import torch
import torchvision  # type: ignore[import-untyped]
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models import adapt_input_conv
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from rscl_bench.encoder_bands import EncoderBands
from rscl_bench.errors import ArtefactError, SpecError
from rscl_bench.models.build import build_encoder
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.initial_weights import Adaptation, load_initial
from rscl_bench.models.weights_file import digest_of
from rscl_bench.sensors import POTSDAM_RGBIR
from rscl_bench.spec import Component

VIT = {"name": "vit", "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
SWIN = {
    "name": "swin",
    "patch_size": 4,
    "embed_dim": 24,
    "depths": [2, 2],
    "num_heads": [2, 4],
    "window_size": 4,
}
RESNET = {"name": "resnet", "variant": "resnet18"}


def encoder(backbone: Mapping[str, Any], image_size: int = 32, channels: int = 3) -> Encoder:
    return build_encoder(Component.model_validate(dict(backbone)), image_size, channels).eval()


def vit(image_size: int = 32, channels: int = 3, **more: Any) -> VisionTransformer:
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=image_size,
        patch_size=8,
        embed_dim=24,
        depth=2,
        num_heads=2,
        in_chans=channels,
        **{"num_classes": 5, **more},
    ).eval()


def swin(**more: Any) -> SwinTransformer:
    shape = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
    return SwinTransformer(img_size=32, patch_size=4, num_classes=5, **{**shape, **more}).eval()


def saved(weights: Mapping[str, Tensor] | nn.Module, folder: Path) -> Path:
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    path = folder / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def loaded(target: Encoder, path: Path) -> Adaptation:
    return load_initial(target, path, digest_of(path))


def images(size: int = 32, channels: int = 3) -> Tensor:
    return torch.randn(4, channels, size, size, generator=torch.Generator().manual_seed(0))


def features(target: Encoder, batch: Tensor) -> Tensor:
    with torch.no_grad():
        encoded: Tensor = target(batch)
    return encoded


def weight_of(target: Encoder, name: str) -> Tensor:
    weight: Tensor = target.timm_model().state_dict()[name]
    return weight


def assert_equal_features(found: Tensor, expected: Tensor) -> None:
    # Another order of sums, as of fused attention, changes the last bits and no more.
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_timm_vit_gives_the_features_of_timm(tmp_path: Path) -> None:
    theirs, ours = vit(), encoder(VIT)
    fitted = loaded(ours, saved(theirs, tmp_path))
    assert fitted == Adaptation((), ("head.bias", "head.weight"))
    with torch.no_grad():
        assert_equal_features(features(ours, images()), theirs.forward_features(images()))


def test_timm_resnet_gives_the_features_of_timm_to_the_bit(tmp_path: Path) -> None:
    theirs, ours = timm.create_model("resnet18").eval(), encoder(RESNET)
    for layer in theirs.modules():  # running statistics are weights too
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_var is not None
            assert layer.running_mean is not None
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.normal_(layer.running_mean)
    fitted = loaded(ours, saved(theirs, tmp_path))
    assert fitted == Adaptation((), ("fc.bias", "fc.weight"))
    with torch.no_grad():
        assert torch.equal(features(ours, images()), theirs.forward_features(images()))


def test_timm_swin_gives_the_features_of_timm_to_the_bit(tmp_path: Path) -> None:
    theirs, ours = swin(), encoder(SWIN)
    fitted = loaded(ours, saved(theirs, tmp_path))
    assert fitted == Adaptation((), ("head.fc.bias", "head.fc.weight"))
    with torch.no_grad():
        assert torch.equal(features(ours, images()), theirs.forward_features(images()))


def test_swin_of_its_authors_has_mergings_at_the_end_of_a_stage(tmp_path: Path) -> None:
    theirs, ours = swin(), encoder(SWIN)
    state = {
        name.replace("layers.1.downsample", "layers.0.downsample"): value
        for name, value in theirs.state_dict().items()
    }
    index = torch.zeros(16, 16, dtype=torch.long)
    state["layers.0.blocks.0.attn.relative_position_index"] = index
    loaded(ours, saved(state, tmp_path))
    with torch.no_grad():
        assert torch.equal(features(ours, images()), theirs.forward_features(images()))


def test_torchvision_resnet_gives_the_features_of_torchvision(tmp_path: Path) -> None:
    theirs, ours = torchvision.models.resnet18().eval(), encoder(RESNET)
    loaded(ours, saved(theirs, tmp_path))
    theirs.fc = nn.Identity()
    with torch.no_grad():
        assert_equal_features(ours.pool(features(ours, images())), theirs(images()))


def test_torchvision_vit_gives_the_features_of_torchvision(tmp_path: Path) -> None:
    theirs = torchvision.models.VisionTransformer(32, 8, 2, 2, 24, 96, num_classes=5).eval()
    theirs.heads = nn.Identity()
    nn.init.normal_(theirs.conv_proj.bias)
    ours = encoder(VIT)
    loaded(ours, saved(theirs, tmp_path))
    with torch.no_grad():
        assert_equal_features(features(ours, images())[:, 0], theirs(images()))


def test_torchvision_swin_gives_the_features_of_torchvision(tmp_path: Path) -> None:
    theirs = torchvision.models.SwinTransformer(
        [4, 4], 24, [2, 2], [2, 4], [4, 4], stochastic_depth_prob=0.0, num_classes=5
    ).eval()
    for value in theirs.parameters():
        if value.ndim == 1:  # biases and norms that are not 0 and 1 show a wrong name
            nn.init.normal_(value, std=0.5)
    ours = encoder(SWIN)
    fitted = loaded(ours, saved(theirs, tmp_path))
    assert fitted == Adaptation((), ("head.bias", "head.weight"))
    theirs.head = nn.Identity()
    with torch.no_grad():
        assert_equal_features(ours.pool(features(ours, images())), theirs(images()))


@pytest.mark.parametrize("suffix", ["pth", "pt"])
def test_torch_file_of_tensors_is_read_and_a_pickle_is_not(tmp_path: Path, suffix: str) -> None:
    theirs, ours = timm.create_model("resnet18").eval(), encoder(RESNET)
    path = tmp_path / f"resnet18_sentinel2.{suffix}"
    # As training scripts wrap it.
    prefixed = {f"backbone.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"state_dict": prefixed | {"projector.0.weight": torch.ones(2)}, "epoch": 3}, path)
    assert loaded(ours, path).left_out == ("fc.bias", "fc.weight", "projector.0.weight")
    with torch.no_grad():
        assert torch.equal(features(ours, images()), theirs.forward_features(images()))
    torch.save({"model": theirs}, path)
    with pytest.raises(ArtefactError, match="holds more than tensors"):
        loaded(ours, path)


def test_encoder_of_this_package_starts_another(tmp_path: Path) -> None:
    first, second = encoder(VIT), encoder(VIT)
    path = saved(first, tmp_path)
    assert loaded(second, path) == Adaptation((), ())
    assert torch.equal(features(first, images()), features(second, images()))


@pytest.mark.parametrize("channels", [1, 2, 4, 12])
def test_kernels_of_three_bands_follow_the_rule_of_timm(tmp_path: Path, channels: int) -> None:
    theirs, ours = vit(), encoder(VIT, channels=channels)
    (change,) = loaded(ours, saved(theirs, tmp_path)).adapted
    assert change == (
        "kernels of patch_embed.proj.weight adapted to the bands, from 24×3×8×8 to "
        f"24×{channels}×8×8"
    )
    expected = adapt_input_conv(channels, theirs.patch_embed.proj.weight.detach())
    assert torch.equal(weight_of(ours, "patch_embed.proj.weight"), expected)
    if channels == 1:  # a grey image has the features that it has as three equal bands
        grey = images(channels=1)
        with torch.no_grad():
            wanted = theirs.forward_features(grey.repeat(1, 3, 1, 1))
        assert_equal_features(features(ours, grey), wanted)


def test_kernels_of_other_bands_are_their_mean(tmp_path: Path) -> None:
    theirs, ours = vit(channels=12), encoder(VIT, channels=3)
    loaded(ours, saved(theirs, tmp_path))
    constant = torch.full((1, 12, 32, 32), 0.7)
    with torch.no_grad():  # an image of equal bands keeps its features
        wanted = theirs.forward_features(constant)
    assert_equal_features(features(ours, constant[:, :3]), wanted)


def test_positions_are_resampled_to_the_image(tmp_path: Path) -> None:
    theirs, ours = vit(image_size=48), encoder(VIT, image_size=32)
    (change,) = loaded(ours, saved(theirs, tmp_path)).adapted
    assert change == "positions resampled, from 1×37×24 to 1×17×24"
    expected = resample_abs_pos_embed(theirs.pos_embed.detach(), [4, 4], num_prefix_tokens=1)
    assert torch.equal(weight_of(ours, "pos_embed"), expected)
    assert torch.equal(expected[:, 0], theirs.pos_embed[:, 0])


def test_tables_of_relative_positions_are_resampled_to_the_windows(tmp_path: Path) -> None:
    theirs, ours = swin(window_size=8), encoder(SWIN)
    adapted = loaded(ours, saved(theirs, tmp_path)).adapted
    # The second stage has 4 × 4 patches, so that its windows have side 4 in both networks.
    assert [change.split(" resampled, ")[1] for change in adapted] == ["from 225×2 to 49×2"] * 2


def broken(change: Callable[[dict[str, Tensor]], Any], folder: Path) -> Path:
    state = dict(vit().state_dict())
    change(state)
    return saved(state, folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: [state.pop(name) for name in list(state) if "blocks.1" in name],
            "12 missing (blocks.1.attn.proj.bias, blocks.1.attn.proj.weight, "
            "blocks.1.attn.qkv.bias, …)",
        ),
        (
            lambda state: state.update({"blocks.0.ls1.gamma": torch.ones(24)}),
            "1 unexpected (blocks.0.ls1.gamma)",
        ),
        (
            lambda state: state.update({"norm.bias": torch.ones(25)}),
            "1 of another shape (norm.bias is 25 and not 24)",
        ),
    ],
)
def test_what_does_not_fit_is_named(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        loaded(encoder(VIT), broken(change, tmp_path))
    assert str(caught.value) == (
        f"The weights of weights.safetensors do not fit the encoder: {message}. Set backbone.name "
        "and the sizes of the backbone to those of the file."
    )


def test_another_network_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"do not fit the encoder: \d+ missing .*; \d+ unexpected"):
        loaded(encoder(VIT), saved(timm.create_model("resnet18"), tmp_path))


def test_two_encoders_in_one_file_are_refused(tmp_path: Path) -> None:
    state = vit().state_dict()
    both = {
        f"{part}.{name}": value for part in ("student", "teacher") for name, value in state.items()
    }
    with pytest.raises(SpecError, match=r"holds 2 encoders, student\. and teacher\.; give a file"):
        loaded(encoder(VIT), saved({n: v.clone() for n, v in both.items()}, tmp_path))


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = broken(lambda state: state["norm.bias"].fill_(torch.nan), tmp_path)
    with pytest.raises(SpecError, match=r"has values in norm\.bias that are not finite"):
        loaded(encoder(VIT), path)


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(SpecError, match="cannot be read"):
        digest_of(path)
    with pytest.raises(SpecError, match="no file of weights by its name"):
        digest_of(tmp_path / "weights.txt")
    path.write_bytes(b"no weights")
    with pytest.raises(ArtefactError, match="damaged or no safetensors file"):
        loaded(encoder(VIT), path)
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(ArtefactError, match="have changed since the run began"):
        load_initial(encoder(VIT), path, sha256(b"other").hexdigest())
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(ArtefactError, match="holds no state dict"):
        loaded(encoder(VIT), tmp_path / "list.pth")


def of_bands(mode: Literal["spectral", "union"], *names: str) -> Encoder:
    known = {band.name: band for band in POTSDAM_RGBIR.bands}
    bands = EncoderBands(mode, tuple(known[name] for name in names))
    return build_encoder(Component.model_validate(dict(VIT)), 32, len(names), bands=bands).eval()


def test_union_takes_kernels_by_name(tmp_path: Path) -> None:
    theirs, ours = vit(), of_bands("union", "nir", "blue", "red", "green")
    fitted = loaded(ours, saved(theirs, tmp_path))
    assert fitted.adapted == (
        "kernels of patch_embed.proj by name for blue, red, green; their mean for other bands",
    )
    absent = torch.full((4, 1, 32, 32), torch.nan)
    red, green, blue = torch.split(images(), 1, dim=1)
    with torch.no_grad():
        expected = theirs.forward_features(images())
    assert_equal_features(features(ours, torch.cat([absent, blue, red, green], dim=1)), expected)


def test_spectral_leaves_the_first_convolution_out(tmp_path: Path) -> None:
    theirs, ours = vit(), of_bands("spectral", "red", "nir")
    before = ours.state_dict()
    kernels = {n: v.clone() for n, v in before.items() if ".kernels." in n}
    fitted = loaded(ours, saved(theirs, tmp_path))
    assert fitted.left_out == ("head.bias", "head.weight", "patch_embed.proj.weight")
    after = ours.state_dict()
    assert all(torch.equal(after[name], value) for name, value in kernels.items())
    assert torch.equal(weight_of(ours, "norm.bias"), theirs.norm.bias)
    assert torch.equal(weight_of(ours, "blocks.1.mlp.fc1.weight"), theirs.blocks[1].mlp.fc1.weight)


def test_bands_of_an_encoder_of_this_package_keep_their_kernels(tmp_path: Path) -> None:
    first, second = of_bands("union", "red", "nir"), of_bands("union", "green", "nir")
    green = weight_of(second, "patch_embed.proj.kernels.by_band.band_green").clone()
    fitted = loaded(second, saved(first, tmp_path))
    assert fitted == Adaptation((), ("patch_embed.proj.kernels.by_band.band_red",))
    for name, expected in {
        "green": green,
        "nir": weight_of(first, "patch_embed.proj.kernels.by_band.band_nir"),
    }.items():
        found = weight_of(second, f"patch_embed.proj.kernels.by_band.band_{name}")
        assert torch.equal(found, expected)
