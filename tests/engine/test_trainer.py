import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.plugins import Look
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.engine import clock as clock_module
from rscl_bench.engine.probing import normalisation_of
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.errors import TrainingError
from rscl_bench.models.encoder import evaluating
from rscl_bench.models.optimiser import learning_rate
from rscl_bench.probes.encoding import EvalContext, TileSubset, encode_tiles
from rscl_bench.strategies.base import Strategy
from rscl_bench.strategies.mixing import MixingParams
from rscl_bench.testing import start, tiny_spec, tiny_stores, train
from rscl_bench.testing.tiny import differing, recipe, state_of
from rscl_bench.tiles.loader import TaskTiles, read_tiles
from rscl_bench.views.crops import normalised, resized_crops
from rscl_bench.views.view import View

HOOKS = [
    "before_training",
    "before_training_exp",
    "before_train_dataset_adaptation",
    "after_train_dataset_adaptation",
    "before_training_epoch",
    "before_training_iteration",
    "before_forward",
    "after_forward",
    "before_backward",
    "after_backward",
    "before_update",
    "after_update",
    "after_training_iteration",
    "after_training_epoch",
    "after_training_exp",
    "after_training",
]


class Recorder(BaseSGDPlugin):  # type: ignore[misc]
    """A plain Avalanche plugin, which uses nothing of this package."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        for hook in HOOKS:
            setattr(self, hook, self._recorder(hook))

    def _recorder(self, hook: str) -> Any:
        def record(trainer: SelfSupervisedTrainer, *_: Any, **__: Any) -> None:
            assert isinstance(trainer, SelfSupervisedTrainer)
            self.calls.append(hook)

        return record


def test_avalanche_plugins_get_their_hooks() -> None:
    recorder = Recorder()
    train(start(tiny_spec(), plugins=[recorder]), [0, 1])
    assert set(recorder.calls) == set(HOOKS)
    assert recorder.calls.count("before_training_exp") == 2
    assert recorder.calls.count("after_training_epoch") == 4
    for hook in ("before_forward", "after_forward", "before_backward", "after_update"):
        assert recorder.calls.count(hook) == 8
    step = [call for call in recorder.calls if call in HOOKS[5:13]]
    assert step[:8] == HOOKS[5:13]


def test_order_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    trainer: Any = start(tiny_spec(), plugins=[recorder])

    def record_calls_of(owner: Any, method: str) -> None:
        original = getattr(owner, method)

        def call(*arguments: Any, **named: Any) -> Any:
            recorder.calls.append(f"{owner.name}.{method}")
            return original(*arguments, **named)

        monkeypatch.setattr(owner, method, call)

    def watch_optimiser(trainer: Any) -> None:
        trainer.optimizer.name = "optimiser"
        record_calls_of(trainer.optimizer, "step")

    trainer.model.name = "objective"
    for method in ("before_step", "forward", "before_update", "after_update"):
        record_calls_of(trainer.model, method)
    trainer.plugins.append(Look(watch_optimiser, "before_training_exp"))
    train(trainer, [0])
    first = recorder.calls.index("objective.before_step")
    assert recorder.calls[first : first + 13] == [
        "objective.before_step",
        "before_training_iteration",
        "before_forward",
        "objective.forward",
        "after_forward",
        "before_backward",
        "after_backward",
        "before_update",
        "objective.before_update",
        "optimiser.step",
        "objective.after_update",
        "after_update",
        "after_training_iteration",
    ]


def test_plugins_come_after_strategies() -> None:
    def shapes(trainer: Any) -> None:
        if trainer.task == 1:
            added.append(bool(trainer.loss != trainer.mb_output.loss))

    added: list[bool] = []
    train(start(tiny_spec("cosmae"), plugins=[Look(shapes, "before_backward")]), [0, 1])
    assert added == [True] * 4


def test_passive_plugin_leaves_the_weights_alone() -> None:
    one = train(start(tiny_spec("cosmae"), plugins=[Recorder()]))
    other = train(start(tiny_spec("cosmae")))
    assert not differing(one[-1], other[-1])


def test_global_randomness_is_left_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    train(start(tiny_spec("cosmae")))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_methods_agree_in_the_first_task_alone() -> None:
    plain, cosmae = train(start(tiny_spec())), train(start(tiny_spec("cosmae")))
    assert not differing(plain[0], cosmae[0])
    for number in (1, 2):
        changed = differing(plain[number], cosmae[number])
        assert any(name.startswith("encoder.") for name in changed)


def test_weights_carry_over() -> None:
    trainer = start(tiny_spec())
    (first,) = train(trainer, [0])
    begins: list[dict[str, Tensor]] = []
    look = Look(lambda t: begins.append(state_of(t.model)), "before_training_exp")
    trainer.plugins.append(look)
    train(trainer, [1])
    assert not differing(begins[0], first)


def test_steps_epochs_and_dropped_remainder() -> None:
    seen: list[tuple[int, int, int, int]] = []
    look = Look(lambda t: seen.append((t.task, t.step, t.steps, len(t.views[0]))), "before_forward")
    train(start(tiny_spec(), tiny_stores(3, tiles=21), plugins=[look]), [0, 1])
    assert seen == [(task, step, 4, 8) for task in (0, 1) for step in range(4)]


def test_optimiser_and_schedule_start_anew() -> None:
    optimisers: list[torch.optim.Optimizer] = []
    rates: list[list[float]] = [[], [], []]
    ages: list[float] = []

    def look(trainer: Any) -> None:
        if trainer.step == 0:
            optimisers.append(trainer.optimizer)
        rates[trainer.task] += {group["lr"] for group in trainer.optimizer.param_groups}
        ages.append(next(iter(trainer.optimizer.state.values()))["step"].item())

    trainer = start(tiny_spec(), plugins=[Look(look)])
    train(trainer)
    assert len({id(optimiser) for optimiser in optimisers}) == 3
    assert ages == [1, 2, 3, 4] * 3
    expected = [learning_rate(step, 4, 1, 1e-3) for step in range(4)]
    assert expected[0] == 0 < expected[3] < expected[1] == 1e-3
    assert rates == [expected] * 3
    decayed, plain = trainer.optimizer.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)
    assert decayed["betas"] == (0.9, 0.95)


def test_update_is_adamws() -> None:
    """One step of the trainer against AdamW's formula, on a weight and on a bias."""
    wanted = ["predict.weight", "predict.bias"]
    before: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}

    def keep(trainer: Any) -> None:
        if trainer.step == 0:
            named = dict(trainer.model.named_parameters())
            before.update({name: named[name].detach().clone() for name in wanted})
            gradients.update({name: named[name].grad.clone() for name in wanted})

    after: dict[str, Tensor] = {}

    def take(trainer: Any) -> None:
        if trainer.step == 0:
            after.update(state_of(trainer.model))

    spec = tiny_spec(assignments=["training.warmup_epochs=0"])
    plugins = [Look(keep, "before_update"), Look(take, "after_update")]
    train(start(spec, plugins=plugins), [0])
    for name, decay in zip(wanted, (0.05, 0.0), strict=True):
        gradient = gradients[name].double()
        step = gradient / (gradient.abs() + 1e-8)  # the first: both infos are corrected in full
        expected = before[name].double() * (1 - 1e-3 * decay) - 1e-3 * step
        assert torch.allclose(after[name].double(), expected, atol=1e-7)


def test_poisoned_weights_stop_at_that_step() -> None:
    def poison(trainer: Any) -> None:
        if (trainer.task, trainer.step) == (1, 2):
            with torch.no_grad():
                trainer.model.predict.weight[0, 0] = math.nan

    trainer = start(tiny_spec(), plugins=[Look(poison, "before_training_iteration")])
    with pytest.raises(TrainingError, match="NaN or infinite at step 2 of task 2; lower"):
        train(trainer)


def test_diverging_rate_stops() -> None:
    spec = tiny_spec(assignments=["training.learning_rate=1e30"])
    with pytest.raises(TrainingError, match=r"at step [12] of task 1"):
        train(start(spec))


def test_strategy_that_gives_nan_stops() -> None:
    def poison(trainer: Any) -> None:
        if trainer.step == 1:
            trainer.loss = trainer.loss * math.inf

    trainer = start(tiny_spec(), plugins=[])
    trainer.plugins.insert(0, Look(poison, "before_backward"))
    with pytest.raises(TrainingError, match="step 1 of task 1"):
        train(trainer)


def test_final_loss_is_the_mean_of_the_last_epoch() -> None:
    losses: list[tuple[int, float]] = []

    def listen(task: int, step: int, steps: int, loss: Tensor) -> None:
        assert steps == 4
        assert loss.numel() == 1
        losses.append((task, float(loss)))
        told.append(step)

    told: list[int] = []
    trainer = start(tiny_spec("cosmae"))
    trainer.on_step = listen
    train(trainer)
    assert told == [1, 2, 3, 4] * 3
    for task in range(3):
        mine = [loss for number, loss in losses if number == task]
        assert trainer.final_loss[task] == pytest.approx(sum(mine[2:]) / 2, rel=1e-6)
    assert len(trainer.task_clock.train_seconds) == 3
    assert all(seconds > 0 for seconds in trainer.task_clock.train_seconds)


def test_time_of_a_task_includes_hooks_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the hooks move the clock of this test."""
    now = [0.0]
    monkeypatch.setattr(clock_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    class Slow(BaseSGDPlugin):  # type: ignore[misc]
        def before_training_exp(self, *_: Any, **__: Any) -> None:
            now[0] += 100

        def before_forward(self, *_: Any, **__: Any) -> None:
            now[0] += 1

        def after_training_exp(self, *_: Any, **__: Any) -> None:
            now[0] += 1000

    trainer = start(tiny_spec(), plugins=[Slow()])
    for task in range(3):
        train(trainer, [task])
        now[0] += 1e6  # probing, which does not count
    assert trainer.task_clock.train_seconds == [1104.0] * 3  # four steps


# The interface for strategies


class TrainsOn(BaseSGDPlugin):  # type: ignore[misc]
    """Trains some tasks on chosen tiles."""

    def __init__(self, tiles: dict[int, list[TaskTiles]]) -> None:
        super().__init__()
        self.tiles = tiles
        self.seen: dict[int, list[tuple[int, int, int]]] = {}

    def before_training_exp(self, trainer: Any, **_: Any) -> None:
        if trainer.task in self.tiles:
            trainer.train_on(self.tiles[trainer.task])

    def before_forward(self, trainer: Any, **_: Any) -> None:
        count = len(trainer.views[0])
        self.seen.setdefault(trainer.task, []).append((trainer.step, trainer.steps, count))


def test_training_on_other_tiles() -> None:
    tiles = {0: [(0, torch.arange(16)), (2, torch.arange(9))], 1: []}
    plugin = TrainsOn(tiles)
    trainer = start(tiny_spec(), plugins=[plugin])
    first, second, third = train(trainer)
    assert plugin.seen == {
        0: [(step, 6, 8) for step in range(6)],  # 25 tiles are three batches of 8
        2: [(step, 4, 8) for step in range(4)],  # of its own tiles again
    }
    assert trainer.steps_taken == [6, 0, 4]
    assert not differing(first, second)
    assert differing(second, third)
    assert trainer.final_loss[1] is None
    assert all(loss is not None for loss in (trainer.final_loss[0], trainer.final_loss[2]))


def test_training_on_the_same_tiles_changes_nothing() -> None:
    same = TrainsOn({task: [(task, torch.arange(16))] for task in range(3)})
    asked, plain = train(start(tiny_spec(), plugins=[same])), train(start(tiny_spec()))
    assert not differing(asked[-1], plain[-1])


def test_schedule_is_of_the_tiles_that_are_trained_on() -> None:
    rates: list[float] = []
    look = Look(lambda t: rates.append(t.optimizer.param_groups[0]["lr"]))
    union = TrainsOn({0: [(task, torch.arange(16)) for task in range(3)]})
    train(start(tiny_spec(), plugins=[union, look]), [0])
    assert rates == [learning_rate(step, 12, 3, 1e-3) for step in range(12)]


def test_counts_of_tiles() -> None:
    stores = [tiny_stores(1, tiles=count)[0] for count in (16, 20, 9)]
    assert start(tiny_spec(), stores).tile_counts == [16, 20, 9]


def test_whole_views_are_what_probes_see() -> None:
    """Views keep the given order, are uncropped, and use mean and std of their own archive."""
    trainer = start(tiny_spec(), tiny_stores(3, size=16))
    asked = [(2, torch.tensor([4, 1])), (0, torch.tensor([7]))]
    views = trainer.whole_views_of(asked)
    expected = [
        ((store.tiles[index] - store.mean) / store.std).transpose(2, 0, 1)
        for store, index in ((trainer.stores[task], i) for task, i in ((2, 4), (2, 1), (0, 7)))
    ]
    assert np.allclose(views.numpy(), np.stack(expected), atol=1e-4)


def test_evaluating_restores_every_part() -> None:
    model = start(tiny_spec()).model.train()
    kept = model.encoder.blocks[0].eval()

    def fail() -> None:
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        fail()
    for module in model.modules():
        assert module.training != any(module is part for part in kept.modules())


def test_model_learns() -> None:
    """The loss on constant tiles falls below a tenth."""
    stores = tiny_stores(1, tiles=16)
    stores[0].tiles[:] = 90
    losses: list[float] = []
    spec = tiny_spec(tasks=1, assignments=["training.epochs=30", "views.normalisation=range"])
    trainer = start(spec, stores)
    trainer.on_step = lambda task, step, steps, loss: losses.append(float(loss))
    train(trainer)
    assert losses[-1] < 0.1 * losses[0]


def test_views_are_keyed_by_step_not_by_history() -> None:
    """The views of the second task are the same with and without training on the first."""
    views: list[Tensor] = []
    plugins = [Look(lambda t: views.append(t.views[0]), "before_forward")]
    train(start(tiny_spec(), plugins=plugins), [0, 1])
    after_first = views[4:]
    views.clear()
    train(start(tiny_spec(), plugins=plugins), [1])
    assert len(views) == 4
    for one, other in zip(views, after_first, strict=True):
        assert torch.equal(one, other)


def test_draws_differ_by_step_and_purpose() -> None:
    """Crops of one set of tiles differ by task, step and purpose, as do an objective's masks."""
    crops: list[Tensor] = []
    masks: list[Tensor] = []

    def look(trainer: Any) -> None:
        crops.extend(trainer.views_of([(0, torch.arange(8))], name)[0] for name in ("a", "b"))

    trainer = start(tiny_spec(), plugins=[Look(look, "before_forward")])

    def mask(_model: Any, given: tuple[Any, torch.Generator]) -> None:
        masks.append(torch.rand(5, generator=given[1].clone_state()))

    trainer.model.register_forward_pre_hook(mask)
    train(trainer)
    for draws, count in ((crops, 24), (masks, 12)):
        assert len(draws) == count
        assert len({tuple(draw.flatten().tolist()) for draw in draws}) == count


def test_two_views_are_two_draws() -> None:
    trainer = start(tiny_spec())
    trainer.model.views = (View(), View())
    trainer.task = 0
    first, second = trainer.views_of([(0, torch.arange(8))], "test")
    assert first.shape == second.shape
    assert not torch.equal(first, second)


@pytest.mark.parametrize("mode", ["concat", "batch"])
def test_crops_of_a_step_make_the_views_of_its_tiles(mode: str) -> None:
    """Crops are those of each view, in the order of the tiles, also in a batch of several tasks."""
    view = {"min_scale": 0.3}
    method = recipe(
        {"name": "simclr", "hidden_dim": 8, "output_dim": 4, "view": view},
        [{"name": "replay", "mode": mode}],
    )
    infos: list[Any] = []
    views: list[list[Tensor]] = []
    plugins = [Look(lambda t: views.append(t.views), "before_forward")]
    trainer: Any = start(tiny_spec(method, tasks=2), plugins=plugins)
    trainer.model.before_step = infos.append
    train(trainer)
    assert len(views) == len(infos)
    assert any(len(info.tiles) == 2 for info in infos) == (mode == "concat")
    for info, shown in zip(infos, views, strict=True):
        tiles = torch.cat([read_tiles(trainer.stores[t], i.numpy()) for t, i in info.tiles])
        tasks = [task for task, indices in info.tiles for _ in indices]
        assert len(info.crops) == len(shown) == 2
        for crops, images in zip(info.crops, shown, strict=True):
            plain = resized_crops(tiles, crops, 16)
            for number, task in enumerate(tasks):
                kind = trainer.view_maker.scalings[task].normalisation
                expected = normalised(plain[number : number + 1], kind)
                torch.testing.assert_close(images[number : number + 1], expected)


def test_uint16_tiles_train() -> None:
    spec = tiny_spec(tasks=2, bands=5)  # up to four bands of bytes are rounded
    states = train(start(spec, tiny_stores(2, bands=5, dtype="uint16")))
    as_bytes = train(start(spec, tiny_stores(2, bands=5)))
    assert not differing(states[1], as_bytes[1])


def test_model_is_in_training_mode() -> None:
    modes: list[bool] = []
    look = Look(lambda t: modes.append(all(m.training for m in t.model.modules())))
    train(start(tiny_spec("cosmae"), plugins=[look]))
    assert all(modes)


def context_of(trainer: SelfSupervisedTrainer) -> EvalContext:
    archive, protocol = trainer.view_maker.scalings[0], trainer.protocol
    size, device = protocol.image_size, torch.device("cpu")
    return EvalContext(size, protocol.views, archive, device, trainer.autocast)


@pytest.mark.parametrize("training", [True, False])
def test_probing_leaves_the_encoder_alone(training: bool) -> None:
    trainer = start(tiny_spec())
    encoder = trainer.model.encoder.train(training)
    encoder.blocks[0].eval()  # a part that is frozen by choice stays so
    before = state_of(encoder)
    modes = [module.training for module in encoder.modules()]
    store = trainer.stores[0]
    features = encode_tiles(encoder, TileSubset(store, np.array([3, 0, 5])), context_of(trainer))
    assert features.shape == (3, 24)
    assert features.dtype == np.float32
    assert not differing(before, state_of(encoder))
    assert [module.training for module in encoder.modules()] == modes
    assert all(p.grad is None for p in encoder.parameters())
    trainable = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert len(trainable) == len(before) - 1  # all but the positions
    alone = encode_tiles(encoder, TileSubset(store, np.array([0])), context_of(trainer))
    assert np.allclose(alone[0], features[1], atol=1e-5)


def test_encoding_that_fails_restores_the_mode() -> None:
    trainer = start(tiny_spec())
    encoder = trainer.model.encoder.train()
    store = trainer.stores[0]
    context = replace(context_of(trainer), image_size=20)
    with pytest.raises(AssertionError):  # 20 pixels are no whole patches
        encode_tiles(encoder, TileSubset(store, np.array([0])), context)
    assert encoder.training


def test_normalisation_of_dataset_and_range() -> None:
    store = tiny_stores(1)[0]
    spec = tiny_spec()
    dataset = normalisation_of(store, spec.protocol)
    assert np.allclose(dataset.mean, store.mean)
    assert np.allclose(dataset.std, store.std)
    ranged = tiny_spec(assignments=["views.normalisation=range"])
    by_range = normalisation_of(store, ranged.protocol)
    assert by_range.mean.tolist() == [0.0] * 3
    assert by_range.std.tolist() == [255.0] * 3
    store.std[1] = 0.0
    assert normalisation_of(store, spec.protocol).std[1] == 1.0


def test_default_strategy_keeps_no_state() -> None:
    class Plain(Strategy):
        Params = MixingParams

    plain = Plain(MixingParams(), start(tiny_spec("cosmae")).strategies[0].context)
    assert plain.state_dict() == {}
    plain.load_state_dict({})
    with pytest.raises(ValueError, match="Plain cannot restore the state"):
        plain.load_state_dict({"x": torch.zeros(1)})


def test_gradients_are_clipped_to_their_total_norm() -> None:
    """The limit counts for all trained parameters together, and None leaves every bit alone."""

    def norms(*assignments: str) -> tuple[list[float], Any]:
        seen: list[float] = []

        def look(trainer: Any) -> None:
            squares = [
                p.grad.double().square().sum()
                for p in trainer.model.parameters()
                if p.grad is not None
            ]
            seen.append(float(torch.stack(squares).sum().sqrt()))

        template = start(
            tiny_spec("finetune", tasks=1, assignments=assignments), plugins=[Look(look)]
        )
        return seen, train(template)[-1]

    free, plain = norms()
    limit = sorted(free)[len(free) // 2]
    clipped, changed = norms(f"training.clip_norm={limit}")
    assert all(norm <= limit * (1 + 1e-4) for norm in clipped)
    assert max(clipped) == pytest.approx(limit, rel=1e-4)
    assert differing(plain, changed)
    loose, same = norms("training.clip_norm=1e9")
    assert not differing(plain, same)
    assert loose == free
