"""TEC: targets, adapters and losses against transcriptions, and its course over a stream."""

import copy
import math
from itertools import product
from typing import Any

import pytest
import torch
from helpers.backbones import RESNET
from helpers.joint_embeddings import Watch, mean, noise
from safetensors.torch import load, save
from torch import Tensor

from rscl_bench.engine.build import build_objective
from rscl_bench.errors import SpecError
from rscl_bench.models.adapters import EncoderAdapter
from rscl_bench.objectives.tec import TEC, TECParams
from rscl_bench.randomness import torch_generator
from rscl_bench.spec import RunSpec
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import State, differing, recipe, state_of

DECODER: dict[str, Any] = {"decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2}
SMALL: dict[str, Any] = {**DECODER, "target_depth": 1, "relations": 0.15}
#: Four blocks, which the adapter fuses as three and one; 16 patches, two of them with rows.
BACKBONE = {"name": "vit", "patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 3}


def spec_of(*strategies: dict[str, Any], seed: int = 0, **parameters: Any) -> RunSpec:
    method = recipe({"name": "tec", **SMALL, **parameters}, strategies)
    return tiny_spec(method, seed=seed, backbone=BACKBONE)


def look(count: int) -> list[Tensor]:
    raise AssertionError("TEC looks at no tiles before a task")


def later(**parameters: Any) -> TEC:
    """Return an objective in its second task, with a base model and new weights of all sizes."""
    objective = build_objective(spec_of(**parameters), torch.device("cpu"))
    assert isinstance(objective, TEC)
    objective.before_task(0, look)
    objective.before_task(1, look)
    generator = torch_generator("cpu", 0, "weights")
    for name, parameter in objective.named_parameters():
        if "pos_embed" not in name:
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.data.add_(0.2 * drawn)
    objective.write_class_token()
    return objective


# Targets.


def watched_base(objective: TEC, images: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the outputs of the base model's blocks, and the last block's queries and keys."""
    blocks, projected = [], []
    vit = objective.base.masked_vit.vit
    handles = [
        block.register_forward_hook(lambda _, __, out: blocks.append(out)) for block in vit.blocks
    ]
    last = vit.blocks[-1].attn.qkv
    handles.append(last.register_forward_hook(lambda _, __, out: projected.append(out)))
    with torch.no_grad():
        objective.base(images)
    for handle in handles:
        handle.remove()
    return blocks, projected[0].double()


def slow_rows(projected: Tensor, image: int, rows: list[int], scale: float) -> Tensor:
    """Return logits ``[heads, rows, N]``, product by product; the keys are those of patches."""
    width, tokens = 8, projected.shape[1]
    result = torch.zeros(3, len(rows), tokens - 1, dtype=torch.float64)
    for head, (number, row), patch in product(range(3), enumerate(rows), range(1, tokens)):
        query = projected[image, row, head * width : (head + 1) * width]
        key = projected[image, patch, 24 + head * width : 24 + (head + 1) * width]
        result[head, number, patch - 1] = scale * float(query @ key)
    return result


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_targets_are_of_the_last_blocks(blocks: int) -> None:
    objective, images = later(target_blocks=blocks), noise(3, 3, 16, 16)
    states, projected = watched_base(objective, images)
    features, logits, rows = objective.targets_of(images)
    assert features.shape == (3, 16, 24)
    assert logits.shape == (3, 3, 3, 16)
    for image in range(3):
        for feature in range(24):
            column = [
                mean([float(state[image, patch, feature]) for state in states[-blocks:]])
                for patch in range(1, 17)
            ]
            middle = mean(column)
            variance = sum((value - middle) ** 2 for value in column) / 15
            expected = [(value - middle) / math.sqrt(variance + 1e-6) for value in column]
            assert features[image, :, feature].tolist() == pytest.approx(expected, abs=1e-4)
        attended = slow_rows(projected, image, [0], 8**-0.5).mean(dim=0)[0]
        best = sorted(range(16), key=lambda patch: -float(attended[patch]))[:2]
        assert rows[image, 0] == 0
        assert set(rows[image, 1:].tolist()) == {1 + patch for patch in best}
        expected_logits = slow_rows(projected, image, rows[image].tolist(), 8**-0.5)
        torch.testing.assert_close(logits[image].double(), expected_logits, atol=1e-4, rtol=1e-4)


def test_as_many_rows_as_the_authors() -> None:
    assert round(TECParams().relations * 196) == 15
    objective = later(relations=0.001)
    assert objective.targets_of(noise(2, 3, 16, 16))[2].shape == (2, 2)
    assert later(relations=1.0).targets_of(noise(2, 3, 16, 16))[2].shape == (2, 17)


# Adapters, decoders and losses.


def layer_norm(token: Tensor, module: Any, epsilon: float) -> Tensor:
    centred = token - token.mean()
    scaled = centred / torch.sqrt((centred * centred).mean() + epsilon)
    result: Tensor = scaled * module.weight.double() + module.bias.double()
    return result


def linear(token: Tensor, module: Any) -> Tensor:
    result: Tensor = module.weight.double() @ token + module.bias.double()
    return result


def mlp(token: Tensor, module: Any) -> Tensor:
    hidden = linear(token, module.fc1)
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return linear(hidden, module.fc2)


def adapted_by_hand(adapter: EncoderAdapter, states: list[Tensor]) -> Tensor:
    """Return the adapter's output for one token: normalise, fuse in threes, refine, add."""
    normed = layer_norm(torch.cat(states), adapter.before, 1e-5)
    total = torch.zeros(24, dtype=torch.float64)
    for number, (first, last) in enumerate([(0, 72), (72, 96)]):
        fused = linear(normed[first:last], adapter.fuse[number])
        total += fused + mlp(fused, adapter.refine[number])
    return layer_norm(total, adapter.after, 1e-5)


def loss_by_hand(objective: TEC, images: Tensor, seed: int) -> float:
    """Return the loss of a step of a later task, token by token, with the module's own blocks."""
    conditional, vit = objective.conditional, objective.vit.masked_vit.vit
    order = torch.rand(len(images), 16, generator=torch_generator("cpu", seed)).argsort(dim=1)
    features, logits, rows = objective.targets_of(images)
    patches = vit.patch_embed(images).flatten(1, 2)
    squared, entropies = [], []
    for image in range(len(images)):
        visible, hidden = order[image, :4].tolist(), order[image, 4:].tolist()
        first = mlp(conditional.token.double()[0, 0], conditional.input).float()
        tokens = [first] + [patches[image, n] + vit.pos_embed[0, 1 + n] for n in visible]
        state, states = torch.stack(tokens)[None], []
        for block in vit.blocks:
            state = block(state)
            states.append(state[0].double())
        states[-1] = torch.stack([layer_norm(one, vit.norm, 1e-6) for one in states[-1]])
        adapted = [
            adapted_by_hand(conditional.encoder, [one[token] for one in states])
            for token in range(5)
        ]
        decoded = []
        for part in range(2):
            placed = [conditional.hidden[part][0, 0].double()] * 17
            for token, place in enumerate([0, *[1 + n for n in visible]]):
                placed[place] = linear(adapted[token], conditional.embed[part])
            whole = torch.stack(placed).float() + objective.decoder.pos_embed[0]
            out = conditional.blocks(whole[None])[0].double()
            decoded.append([layer_norm(one, conditional.norms[part], 1e-6) for one in out])
        for n in hidden:
            predicted = linear(decoded[0][1 + n], conditional.features)
            squared.append(float((predicted - features[image, n]).square().mean()))
        projected = torch.stack([linear(one, conditional.relations) for one in decoded[1]])
        own = slow_rows(projected[None], 0, rows[image].tolist(), 24**-0.5)
        for head, row in product(range(3), range(3)):
            wanted = (logits[image, head, row].double() / 1.8).softmax(dim=0)
            entropies.append(-float((wanted * own[head, row].log_softmax(dim=0)).sum()))
    return mean(squared) + objective.params.attention_weight * mean(entropies)


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_loss_by_hand(weight: float) -> None:
    objective, images = later(attention_weight=weight), noise(3, 3, 16, 16)
    with torch.no_grad():
        output = objective([images], torch_generator("cpu", 7))
        expected = loss_by_hand(objective, images, 7)
    assert float(output.loss) == pytest.approx(expected, rel=1e-4)
    assert output.encoded[0].shape == (3, 5, 24)


@pytest.mark.parametrize(
    ("depth", "groups"), [(12, [3] * 4), (24, [3] * 8), (5, [3, 2]), (2, [2]), (1, [1])]
)
def test_groups_of_blocks(depth: int, groups: list[int]) -> None:
    adapter = EncoderAdapter(8, depth, 16)
    assert adapter.widths == [8 * blocks for blocks in groups]
    assert adapter([noise(2, 3, 8, seed=number) for number in range(depth)]).shape == (2, 3, 8)


def test_loss_is_fp32_under_autocast() -> None:
    objective, images = later(), noise(3, 3, 16, 16)
    exact = objective([images], torch_generator("cpu", 7)).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective([images], torch_generator("cpu", 7)).loss
        assert objective.targets_of(images)[1].dtype == torch.float32
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(float(exact.detach()), rel=0.05)


def test_base_model_sees_all_patches_and_the_encoder_a_quarter() -> None:
    objective, seen = later(), []
    for vit in (objective.vit, objective.base):
        vit.masked_vit.vit.norm_pre.register_forward_pre_hook(
            lambda _, given: seen.append(given[0].shape[1])
        )
    objective([noise(2, 3, 16, 16)], torch_generator("cpu", 0))
    assert seen == [5, 17]


# Trained parameters.


def test_gradients_of_later_tasks() -> None:
    objective = later()
    objective([noise(4, 3, 16, 16)], torch_generator("cpu", 0)).loss.backward()
    reached = {name for name, p in objective.named_parameters() if p.grad is not None}
    assert reached == {name for name, p in objective.named_parameters() if p.requires_grad}
    assert all(p.grad is None or p.grad.any() for p in objective.parameters())
    parts = {name.split(".")[0] for name in reached}
    assert parts == {"encoder", "conditional"}
    encoder = {name for name in reached if name.startswith("encoder.")}
    fixed = {"encoder.masked_vit.vit.cls_token", "encoder.masked_vit.vit.pos_embed"}
    assert encoder | fixed == {f"encoder.{name}" for name in state_of(objective.encoder)}


def test_first_task_is_a_masked_autoencoder() -> None:
    mae = tiny_spec(recipe({"name": "mae", **DECODER}), backbone=BACKBONE)
    (plain,), (tec,) = train(start(mae), [0]), train(start(spec_of()), [0])
    assert plain.keys() < tec.keys()
    assert not differing(plain, {name: tec[name] for name in plain})
    trained = {n for n, p in start(spec_of()).model.named_parameters() if p.requires_grad}
    assert trained == {n for n, p in start(mae).model.named_parameters() if p.requires_grad}


# The stream.


def encoder_of(state: State) -> State:
    return {n.removeprefix("encoder."): v for n, v in state.items() if n.startswith("encoder.")}


@pytest.mark.parametrize("begin", ["random", "continue"])
def test_base_model_is_the_encoder_of_the_last_tasks_end(begin: str) -> None:
    watch = Watch()
    ends = [encoder_of(state) for state in train(start(spec_of(start=begin), plugins=[watch]))]
    for step in watch.steps:
        base = {n[5:]: v for n, v in step.after.items() if n.startswith("base.")}
        if step.task:
            assert not differing(base, ends[step.task - 1])
            assert step.before.later
        assert all(not p.requires_grad for p in step.before.base.parameters())
    losses = [step.loss for step in watch.steps]
    assert all(math.isfinite(loss) for loss in losses)


def begun(objective: TEC, task: int) -> State:
    objective.before_task(task, look)
    return state_of(objective)


def test_random_start_is_new_in_every_task_and_keyed() -> None:
    template = start(spec_of())
    (end,) = train(template, [0])
    objective: Any = template.model
    again, other = copy.deepcopy(objective), copy.deepcopy(objective)
    fresh = start(spec_of(seed=1)).model
    fresh.load_state_dict({**end, "seed": state_of(fresh)["seed"]})
    with torch.random.fork_rng():
        torch.manual_seed(5)
        before = torch.random.get_rng_state()
        first = begun(objective, 1)
        assert torch.equal(torch.random.get_rng_state(), before)
    assert not differing(first, begun(again, 1))
    weights = {
        name
        for name in first
        if name.startswith(("encoder.", "conditional."))
        and first[name].ndim > 1
        and "pos_embed" not in name
    }
    assert len(weights) > 30
    for another in (end, begun(other, 2), begun(fresh, 1)):
        assert weights <= set(differing(first, another))
    # The weights are those of a new ViT, not the old weights with noise.
    for name, value in encoder_of(first).items():
        if name.endswith("norm1.weight"):
            assert (value == 1).all()


def test_continued_start_keeps_all_but_the_class_token() -> None:
    template = start(spec_of(start="continue"))
    for task in (0, 1):
        (end,) = train(template, [task])
        first = begun(copy.deepcopy(template.model), task + 1)
        changed = {name for name in differing(end, first) if not name.startswith("base.")}
        # From the second task on, the class token is already the adapter's output.
        assert changed == ({"encoder.masked_vit.vit.cls_token"} if task == 0 else set())


def test_encoder_has_the_adapters_class_token_after_every_step() -> None:
    watch = Watch()
    template = start(spec_of(), plugins=[watch])
    train(template, [0, 1])
    tokens = set()
    for step in watch.steps[4:]:
        objective = copy.deepcopy(template.model)
        objective.load_state_dict(step.after)
        token = objective.vit.cls_token
        assert torch.equal(token, objective.conditional.class_token())
        tokens.add(float(token.sum().detach()))
        images = noise(2, 3, 16, 16)
        encoded, _ = objective.vit.forward_blocks(images, None, objective.conditional.class_token())
        torch.testing.assert_close(objective.encoder(images), encoded)
    assert len(tokens) > 1


def test_blocks_of_the_encoder() -> None:
    objective, images = later(), noise(2, 3, 16, 16)
    keep = torch.tensor([[0, 3, 7, 16], [0, 1, 2, 9]])
    for chosen in (None, keep):
        encoded, states = objective.vit.forward_blocks(images, chosen)
        torch.testing.assert_close(encoded, objective.vit(images, chosen))
        assert len(states) == 5
        blocks = objective.vit.blocks
        for block, before, after in zip(blocks, states, states[1:], strict=False):
            torch.testing.assert_close(block(before), after)


@pytest.mark.parametrize("begin", ["random", "continue"])
def test_training_goes_on_from_the_saved_state_of_a_later_task(begin: str) -> None:
    spec = spec_of(start=begin)
    template = start(spec)
    state = train(template, [0, 1])[1]
    resumed = build_objective(spec, torch.device("cpu"))
    resumed.load_state_dict(load(save({name: one.contiguous() for name, one in state.items()})))
    (expected,), (found,) = train(template, [2]), train(start(spec, objective=resumed), [2])
    assert not differing(expected, found)


def test_later_tasks_are_learnt() -> None:
    objective, images = later(), noise(8, 3, 16, 16)
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimiser, losses = torch.optim.AdamW(trained, lr=3e-3), []
    for step in range(40):
        loss = objective([images], torch_generator("cpu", step)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert mean(losses[-5:]) < 0.9 * mean(losses[:5])


# Strategies and errors.


@pytest.mark.parametrize("strategy", [{"name": "replay"}, {"name": "pfr"}, {"name": "data-mixup"}])
def test_other_strategies_work(strategy: dict[str, Any]) -> None:
    states = train(start(spec_of(strategy)))
    assert all(torch.isfinite(value).all() for value in states[-1].values())


@pytest.mark.parametrize("name", ["ewc", "joint", "si"])
def test_strategies_that_need_the_same_parameters_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match=f"'{name}' needs an objective with 'same_parameters'"):
        start(spec_of({"name": name}))


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(SpecError, match="Objective 'tec' needs an encoder"):
        start(tiny_spec(recipe({"name": "tec", **SMALL}), backbone=RESNET))
    with pytest.raises(SpecError, match="target_blocks 5 is more than the encoder's 4 blocks"):
        start(spec_of(target_blocks=5))
