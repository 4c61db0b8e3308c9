import json
import tomllib
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ADAPTERS, TOY
from hypothesis import given, settings
from hypothesis import strategies as st

from rscl_bench import registry
from rscl_bench.declarations import (
    code_files,
    declarations,
    is_scenario,
    known_scenario,
    load_method,
    load_scenario,
)
from rscl_bench.errors import SpecError
from rscl_bench.resolve import parse_assignments, resolve_run
from rscl_bench.resolve import resolve as resolve_with_origins
from rscl_bench.results.schema import Identity, ScenarioName
from rscl_bench.spec import Method, RunSpec, Scenario, Spec, identity, validated

Raw = dict[str, Any]


def toy() -> Raw:
    """The values of the toy scenario's TOML file, which a test may change."""
    raw = tomllib.loads(TOY.read_text(encoding="utf-8"))
    absolute: Raw = registry.replaced(raw, lambda name: registry.absolute(name, TOY.parent))
    return absolute


def mine() -> Raw:
    return {
        "name": "mine",
        "title": "A recipe",
        "objective": {"name": "mae", "mask_ratio": 0.5},
        "strategies": [{"name": "data-mixup"}, {"name": "model-mixup", "beta": 0.2}],
    }


def scenario(raw: Raw) -> Scenario:
    return validated(Scenario, raw, "toy.toml")


def method(raw: Raw | None = None) -> Method:
    return validated(Method, raw or mine(), "mine.toml")


def resolve(*assignments: str, recipe: Raw | None = None, raw: Raw | None = None) -> RunSpec:
    return resolve_run(
        scenario(raw or toy()), method(recipe), overrides=parse_assignments(assignments)
    )


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(SpecError) as caught:
        call()
    return str(caught.value)


def put(raw: Raw, place: str, value: Any) -> Raw:
    """Return a copy with one value changed; the path may contain indices of lists."""
    changed = deepcopy(raw)
    *path, last = [int(part) if part.isdigit() else part for part in place.split("/")]
    inner: Any = changed
    for part in path:
        inner = inner[part]
    inner[last] = value
    return changed


# Error messages.


@pytest.mark.parametrize(
    ("place", "nearest"),
    [
        ("titel", "title"),
        ("tasks/0/tile", "tasks.0.tile_size"),
        ("tasks/2/dataste", "tasks.2.dataset"),
        ("probes/0/testsplit", "probes.0.test_split"),
        ("protocols/tiny/imagesize", "protocols.tiny.image_size"),
        ("protocols/tiny/training/epoch", "protocols.tiny.training.epochs"),
    ],
)
def test_unknown_key_of_a_scenario(place: str, nearest: str) -> None:
    sentence = refusal(lambda: scenario(put(toy(), place, 1)))
    assert sentence.startswith(f"Unknown key in toy.toml: '{place.replace('/', '.')}'")
    assert f"did you mean '{nearest}'?" in sentence


def test_unknown_key_of_views() -> None:
    raw = put(toy(), "protocols/tiny/views", {"min_scales": 0.5})
    assert "did you mean 'protocols.tiny.views.min_scale'?" in refusal(lambda: scenario(raw))


def test_unknown_key_of_a_method() -> None:
    sentence = refusal(lambda: method(put(mine(), "strategy", [])))
    assert "did you mean 'strategies'?" in sentence


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("objective/mask_rato", "Unknown key in 'mae': 'mask_rato'; did you mean 'mask_ratio'?"),
        ("strategies/1/betta", "Unknown key in 'model-mixup': 'betta'; did you mean 'beta'?"),
        ("objective/name", "Unknown objective '1'"),
        ("strategies/0/name", "Unknown strategy '1'"),
    ],
)
def test_unknown_component_or_parameter(place: str, sentence: str) -> None:
    assert sentence in refusal(lambda: resolve(recipe=put(mine(), place, "1")))


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("version", 1, "'version': Input should be a valid string"),
        ("tasks", [], "'tasks'"),
        ("tasks/0/tile_size", "24", "'tasks.0.tile_size': Input should be a valid integer"),
        ("tasks/0/tile_size", 24.0, "'tasks.0.tile_size': Input should be a valid integer"),
        ("tasks/0/tile_size", True, "'tasks.0.tile_size': Input should be a valid integer"),
        ("tasks/0/tile_size", 0, "'tasks.0.tile_size': Input should be greater than 0"),
        ("tasks/0/cut", "squares", "'tasks.0.cut': Input should be 'grid' or 'whole'"),
        ("tasks/0/name", "First Task", "'tasks.0.name': String should match pattern"),
        ("tasks/0/bands", "red", "'tasks.0.bands'"),
        ("probes/0/task", "fourth", "probe 'toy' is of unknown task 'fourth'"),
        ("probes/0/min_share", 1.5, "'probes.0.min_share'"),
        ("default_protocol", "huge", "default_protocol 'huge' is not in protocols"),
        ("protocols/tiny/training/learning_rate", float("nan"), "finite number"),
        ("protocols/tiny/training/learning_rate", -1e-3, "greater than 0"),
        ("protocols/tiny/training/warmup_epochs", 2, "warmup_epochs (2.0) must be below epochs"),
        ("protocols/tiny/precision", "fp16", "'auto', 'bf16' or 'fp32'"),
    ],
)
def test_wrong_value_of_a_scenario(place: str, value: Any, sentence: str) -> None:
    found = refusal(lambda: scenario(put(toy(), place, value)))
    assert found.startswith("toy.toml is not valid")
    assert sentence in found


@pytest.mark.parametrize("kind", ["tasks", "probes"])
def test_duplicate_names_are_refused(kind: str) -> None:
    raw = toy()
    raw[kind].append(raw[kind][0])
    assert f"two {kind} have the same name" in refusal(lambda: scenario(raw))


@pytest.mark.parametrize("place", ["tasks/1/bands", "probes/0/bands"])
def test_band_counts_must_agree(place: str) -> None:
    raw = put(toy(), place, ["red", "green"])
    part = "task 'second'" if place.startswith("tasks") else "probe 'toy'"
    sentence = refusal(lambda: resolve(raw=raw))
    assert f"{part} 2 (red, green)" in sentence
    assert "task 'first' 3 (red, green, blue)" in sentence
    assert "bands = 'spectral', 'union' or 'grey3' in protocol tiny" in sentence


def test_strategy_twice_is_refused() -> None:
    recipe = put(mine(), "strategies/1", {"name": "data-mixup"})
    assert "lists a strategy twice" in refusal(lambda: resolve(recipe=recipe))


def test_defaults_of_an_unknown_component_are_refused() -> None:
    raw = put(toy(), "protocols/tiny/defaults/mea", {"decoder_dim": 24})
    assert "'mea'; did you mean 'mae'?" in refusal(lambda: resolve(raw=raw))


def test_defaults_with_an_unknown_parameter_are_refused() -> None:
    raw = put(toy(), "protocols/tiny/defaults/mae/decoder_dimension", 24)
    assert "did you mean 'decoder_dim'?" in refusal(lambda: resolve(raw=raw))


def test_unused_defaults_do_not_change_the_identity() -> None:
    """A new default of a component must not change the identity of runs without the component."""
    plain = resolve()
    more = put(toy(), "protocols/tiny/defaults/ewc", {"weight": 3.0})
    more = put(more, "protocols/tiny/defaults/data-mixup", {"alpha": 0.3})
    more = put(more, "protocols/tiny/defaults/ml-knn", {"k": 5})
    taken = resolve(raw=more)
    assert taken.protocol.defaults == {
        **plain.protocol.defaults,
        "data-mixup": {"alpha": 0.3},
        "ml-knn": {"k": 5},
    }
    assert taken.method.strategies[0].parameters["alpha"] == 0.3
    set_otherwise = resolve("strategies.data-mixup.alpha=0.9", raw=more)
    assert "data-mixup" not in set_otherwise.protocol.defaults
    assert set_otherwise.method.strategies[0].parameters["alpha"] == 0.9
    recipe = put(mine(), "strategies/0", {"name": "data-mixup", "alpha": 0.7})
    in_the_recipe = resolve(raw=more, recipe=recipe)
    assert "data-mixup" not in in_the_recipe.protocol.defaults
    assert in_the_recipe.method.strategies[0].parameters["alpha"] == 0.7


def test_backbone_without_a_name_is_refused() -> None:
    raw = put(toy(), "protocols/tiny/backbone", {})
    assert "'protocols.tiny.backbone.name': Field required" in refusal(lambda: resolve(raw=raw))


def test_unknown_protocol_is_refused() -> None:
    sentence = refusal(lambda: resolve_run(scenario(toy()), method(), "tyni"))
    assert "did you mean 'tiny'?" in sentence


# --set.


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("training.epochs=5", lambda s: s.protocol.training.epochs == 5),
        ("training.learning_rate=1", lambda s: s.training.learning_rate == 1.0),
        ("training.betas=[0.8, 0.9]", lambda s: s.training.betas == (0.8, 0.9)),
        ("precision=fp32", lambda s: s.protocol.precision == "fp32"),
        ("precision='bf16'", lambda s: s.protocol.precision == "bf16"),
        ("views.normalisation=range", lambda s: s.protocol.views.normalisation == "range"),
        ("backbone.mlp_ratio=2.0", lambda s: s.protocol.backbone.parameters["mlp_ratio"] == 2.0),
        ("objective.norm_pix=true", lambda s: s.method.objective.parameters["norm_pix"] is True),
        (
            "strategies.model-mixup.loss=eq4",
            lambda s: s.method.strategies[1].parameters["loss"] == "eq4",
        ),
        (
            "strategies.data-mixup.constant=0",
            lambda s: s.method.strategies[0].parameters["constant"] == 0.0,
        ),
        (
            "defaults.mae.decoder_depth=2",
            lambda s: s.method.objective.parameters["decoder_depth"] == 2,
        ),
        (" training.epochs = 5 ", lambda s: s.protocol.training.epochs == 5),
    ],
)
def test_assignment_is_typed(assignment: str, read: Callable[[RunSpec], bool]) -> None:
    assert read(resolve(assignment))


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("training.epochs", "--set takes key=value"),
        ("=5", "--set takes key=value"),
        ("training.epochs=", "--set takes key=value"),
        ("training.epochs=5\nseeds=2", "one key=value at a time"),
        ("training.epochs=five", "'training.epochs': Input should be a valid integer, got"),
        ("training.epochs='5'", "'training.epochs': Input should be a valid integer, got"),
        ("training.epochs=true", "'training.epochs': Input should be a valid integer, got"),
        ("training.epochs=2.0", "'training.epochs': Input should be a valid integer, got"),
        ("training.epochs=1979-05-27", "'training.epochs': a date or time is no value here, got"),
        ("training.epochs=-1", "'training.epochs': Input should be greater than 0, got"),
        ("training.learning_rate=nan", "Input should be a finite number, got"),
        ("training.learning_rate=inf", "Input should be a finite number, got"),
        ("training=5", "'training': Input should be an object, got"),
        ("views.min_scale=0", "'views.min_scale': Input should be greater than 0, got"),
        ("training.epoch=5", "did you mean 'training.epochs'?"),
        ("epochs=5", "did you mean"),
        ("tasks=[]", "Unknown key of --set 'tasks'"),
        ("name=x", "Unknown key of --set 'name'"),
        ("backbone.patch=7", "did you mean 'patch_size'?"),
        ("backbone.name=restnet", "Unknown backbone 'restnet'"),
        ("objective=mae", "--set objective needs a parameter"),
        ("objective.norm_pix=1", "'norm_pix': Input should be a valid boolean, got"),
        ("objective.mask=0.5", "did you mean 'mask_ratio'?"),
        ("strategies.mixup.alpha=1", "did you mean 'strategies.data-mixup'?"),
        ("strategies.data-mixup=1", "--set strategies.data-mixup needs a parameter"),
        ("strategies.data-mixup.alpha=nan", "Input should be a finite number, got"),
        (
            "strategies.model-mixup.feature=max",
            "'feature': Input should be 'patches' or 'cls', got",
        ),
        ("defaults.mae=3", "'defaults.mae'"),
        ("defaults.mea={}", "did you mean 'mae'?"),
    ],
)
def test_wrong_assignment_is_refused(assignment: str, sentence: str) -> None:
    assert sentence in refusal(lambda: resolve(assignment))


def test_parameter_of_an_absent_strategy_is_refused() -> None:
    recipe = put(mine(), "strategies", [])
    sentence = refusal(lambda: resolve("strategies.model-mixup.beta=1", recipe=recipe))
    assert "Unknown component of method mine 'strategies.model-mixup'" in sentence


def test_last_assignment_wins_and_overrides_are_sorted() -> None:
    spec = resolve("training.epochs=5", "seeds=1", "training.epochs=6")
    assert spec.overrides == {"seeds": 1, "training.epochs": 6}
    assert list(spec.overrides) == ["seeds", "training.epochs"]
    assert spec.protocol.training.epochs == 6


# Precedence: component, protocol, recipe, --set.


def test_precedence() -> None:
    plain = put(toy(), "protocols/tiny/defaults", {})
    recipe = put(mine(), "objective", {"name": "mae"})
    in_protocol = put(toy(), "protocols/tiny/defaults", {"mae": {"mask_ratio": 0.6}})
    in_recipe = put(recipe, "objective/mask_ratio", 0.7)
    by_set = "objective.mask_ratio=0.8"
    found = [
        resolve(recipe=recipe, raw=plain),
        resolve(recipe=recipe, raw=in_protocol),
        resolve(recipe=in_recipe, raw=in_protocol),
        resolve(by_set, recipe=in_recipe, raw=in_protocol),
    ]
    ratios = [spec.method.objective.parameters["mask_ratio"] for spec in found]
    assert ratios == [0.75, 0.6, 0.7, 0.8]


# A method's own training.


def rates(**training_for: Raw) -> Raw:
    """Return the toy scenario whose protocol trains some methods in other ways."""
    return put(toy(), "protocols/tiny/training_for", training_for)


def test_precedence_of_the_training() -> None:
    """--set > recipe > protocol for the method > protocol for the objective > protocol."""
    raw = rates(
        mae={"learning_rate": 2e-3, "weight_decay": 0.2, "warmup_epochs": 0.2, "clip_norm": 2.0},
        mine={"learning_rate": 3e-3, "weight_decay": 0.3, "warmup_epochs": 0.3},
        simclr={"betas": [0.5, 0.5]},
    )
    recipe = put(mine(), "training", {"learning_rate": 4e-3, "weight_decay": 0.4})
    found = resolve("training.learning_rate=5e-3", raw=raw, recipe=recipe)
    assert dict(found.training) == {
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 5e-3,
        "weight_decay": 0.4,
        "warmup_epochs": 0.3,
        "clip_norm": 2.0,
        "betas": (0.9, 0.95),
        "schedule": None,
        "anneal": None,
    }
    assert found.trained_protocol().training == found.training
    origins = resolve_with_origins(
        scenario(raw), method(recipe), overrides={"training.learning_rate": 5e-3}
    ).origins["training"]
    assert origins == {
        "epochs": "protocol tiny",
        "batch_size": "protocol tiny",
        "betas": "default",
        "learning_rate": "--set",
        "weight_decay": "recipe mine",
        "warmup_epochs": "protocol tiny, for mine",
        "clip_norm": "protocol tiny, for mae",
        "schedule": "default",
        "anneal": "default",
    }


def test_own_training_is_the_methods_and_not_the_protocols() -> None:
    """The part of the identity by which leaderboards group is that of every other method."""
    plain = resolve()
    for changed in (
        resolve(raw=rates(mae={"learning_rate": 1e-4})),
        resolve(recipe=put(mine(), "training", {"learning_rate": 1e-4})),
        resolve("training.learning_rate=1e-4"),
    ):
        assert changed.protocol == plain.protocol
        own = changed.method.model_dump(mode="json")["training"]
        assert own == {
            "learning_rate": 1e-4,
            "warmup_epochs": 0.5,
            "weight_decay": 0.05,
            "betas": [0.9, 0.95],
        }
        assert identity_of(changed.model_copy(update={"overrides": {}})) != identity_of(plain)
    other = resolve(raw=rates(simclr={"learning_rate": 1e-4}))
    assert identity_of(other) == identity_of(plain)
    assert "training" not in plain.method.model_dump(mode="json")


def test_how_a_rate_was_chosen_is_no_part_of_the_identity() -> None:
    noted = {"learning_rate": 1e-4, "chosen": "grid {1e-3, 1e-4}"}
    with_note, without = (
        resolve(raw=rates(mae=noted)),
        resolve(raw=rates(mae={"learning_rate": 1e-4})),
    )
    assert identity_of(with_note) == identity_of(without)


def test_warmup_is_checked_against_the_epochs_of_the_run() -> None:
    assert resolve("training.epochs=1", "training.warmup_epochs=0").training.warmup_epochs == 0
    assert resolve("training.warmup_epochs=5", "training.epochs=6").training.epochs == 6
    sentence = refusal(lambda: resolve(recipe=put(mine(), "training", {"warmup_epochs": 2})))
    assert "warmup_epochs (2.0) must be below epochs (2); lower warmup_epochs or" in sentence
    assert "recipe mine" in sentence


@pytest.mark.parametrize("field", ["epochs", "batch_size"])
def test_what_is_the_protocols_is_refused_in_a_recipe(field: str) -> None:
    sentence = refusal(lambda: method(put(mine(), "training", {field: 5})))
    assert f"'training.{field}' belongs to the protocol" in sentence
    assert "learning_rate, warmup_epochs, weight_decay, betas, clip_norm" in sentence
    raw = rates(mae={field: 5})
    named = f"'protocols.tiny.training_for.mae.{field}' belongs to the protocol"
    assert named in refusal(lambda: scenario(raw))


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"rate": 1e-4}, "'training.rate'; did you mean 'training.learning_rate'?"),
        ({"learning_rate": 0}, "'training.learning_rate': Input should be greater than 0"),
        ({"learning_rate": "1e-4"}, "'training.learning_rate': Input should be a valid number"),
        ({"betas": [0.9, 1.0]}, "'training.betas.1': Input should be less than 1"),
        ({"image_size": 32}, "Unknown key in mine.toml: 'training.image_size'"),
    ],
)
def test_wrong_training_of_a_recipe(training: Raw, sentence: str) -> None:
    assert sentence in refusal(lambda: method(put(mine(), "training", training)))


def test_training_for_an_unknown_method_is_refused() -> None:
    sentence = refusal(lambda: resolve(raw=rates(maskfaet={"learning_rate": 1e-4})))
    assert "'maskfaet'; did you mean 'maskfeat'?" in sentence
    assert resolve(raw=rates(mine={"learning_rate": 1e-4})).training.learning_rate == 1e-4


#: Scenarios whose small protocols have the rates that were chosen for scene4.
_CHOSEN = {
    "scene4": "cpu",
    "scene4-transfer": "cpu",
    "shift4": "cpu",
    "shift4-bands": "spectral",
    "rs4-proxy": "cpu",
}


@pytest.mark.parametrize("name", _CHOSEN)
def test_small_protocols_train_maskfeat_and_ibot_slower(name: str) -> None:
    """The rates that were chosen on validation; see scenarios/scene4.md."""
    scenario = load_scenario(name)
    for recipe in declarations("methods"):
        slower = recipe in ("maskfeat", "ibot")
        rate = resolve_run(scenario, load_method(recipe), _CHOSEN[name]).training.learning_rate
        assert rate == (1e-4 if slower else 1e-3), recipe


# Backbones.


def test_another_backbone_drops_what_it_does_not_have() -> None:
    spec = resolve("backbone.name=resnet", "backbone.variant=resnet18")
    assert spec.protocol.backbone.model_dump() == {"name": "resnet", "variant": "resnet18"}
    (note,) = spec.notes
    assert "depth, embed_dim, num_heads, patch_size of protocol tiny do not apply" in note
    assert resolve().notes == ()


def test_another_backbone_takes_the_protocols_parameters_for_it() -> None:
    raw = put(toy(), "protocols/tiny/backbones", {"resnet": {"variant": "resnet34"}})
    spec = resolve("backbone.name=resnet", raw=raw)
    assert spec.protocol.backbone.parameters == {"variant": "resnet34"}
    assert spec.notes == ()
    assert identity_of(resolve(raw=raw)) == identity_of(resolve())
    assert "Unknown backbone 'restnet'" in refusal(
        lambda: resolve(raw=put(toy(), "protocols/tiny/backbones", {"restnet": {}}))
    )
    assert "backbones.vit repeats" in refusal(
        lambda: scenario(put(toy(), "protocols/tiny/backbones", {"vit": {}}))
    )


def test_every_parameter_is_filled_in() -> None:
    spec = resolve()
    for kind, component in (
        ("objectives", spec.method.objective),
        *(("strategies", strategy) for strategy in spec.method.strategies),
    ):
        params = registry.load(kind, component.name).Params  # type: ignore[arg-type]
        assert set(component.parameters) == set(params.model_fields)
    assert set(spec.protocol.backbone.model_dump()) == {
        "name",
        *registry.load("backbones", "vit").Params.model_fields,
    }


def test_resolving_does_not_change_its_arguments() -> None:
    given_scenario, given_method = scenario(toy()), method()
    resolve_run(given_scenario, given_method, overrides={"training.epochs": 7})
    assert given_scenario == scenario(toy())
    assert given_method == method()


# Identity.


def identity_of(spec: RunSpec, **changes: Any) -> str:
    """Return the identity of a run as the engine computes the identity, without tiles."""
    content = spec.scenario.model_dump(mode="json", include={"tasks", "probes"})
    fields: Raw = {
        "scenario": ScenarioName(
            name=spec.scenario.name, version=spec.scenario.version, digest=identity(content)
        ),
        "edition": "real",
        "protocol_name": spec.protocol_name,
        "protocol": spec.protocol.model_dump(mode="json"),
        "method": spec.method.model_dump(mode="json"),
        "overrides": spec.overrides,
        "seed": spec.seed,
        "precision": "fp32",
        "data": {"tasks.first": "0" * 64},
        "code": "1.0",
    }
    return Identity(**{**fields, **changes}).run_id()


@settings(max_examples=25)
@given(st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=10, unique=True))
def test_two_seeds_never_share_an_identity(seeds: list[int]) -> None:
    spec = resolve()
    ids = [identity_of(spec.model_copy(update={"seed": seed})) for seed in seeds]
    assert len(set(ids)) == len(seeds)


CHANGES = {
    "training.epochs": st.integers(3, 10_000),
    "training.batch_size": st.integers(1, 10_000).filter(lambda n: n != 8),
    "training.learning_rate": st.floats(1e-9, 1e9).filter(lambda x: x != 1e-3),
    "views.min_scale": st.floats(1e-3, 1).filter(lambda x: x != 0.8),
    "views.normalisation": st.just("range"),
    "buffer_size": st.integers(13, 10_000),
    "image_size": st.integers(1, 15),
    "backbone.depth": st.integers(3, 100),
    "objective.mask_ratio": st.floats(0.51, 0.99),
    "objective.norm_pix": st.just(True),
    "strategies.data-mixup.alpha": st.floats(0.5, 100),
    "strategies.data-mixup.per_image": st.just(True),
    "strategies.model-mixup.constant": st.floats(0, 1),
}
changes = st.sampled_from(sorted(CHANGES)).flatmap(
    lambda name: CHANGES[name].map(lambda value: (name, value))
)


PLAIN = identity_of(resolve())


@settings(max_examples=40)
@given(changes)
def test_any_change_of_protocol_or_method_is_another_run(change: tuple[str, Any]) -> None:
    name, value = change
    changed = resolve(f"{name}={json.dumps(value)}")
    assert identity_of(changed) != PLAIN
    # The resolved specs must differ too, and not only the recorded overrides.
    assert identity_of(changed.model_copy(update={"overrides": {}})) != PLAIN


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("version", "2"),
        ("name", "toys"),
        ("tasks/0/split", "val"),
        ("tasks/0/tile_size", 25),
        ("tasks/0/cut", "whole"),
        ("tasks/0/name", "one"),
        ("tasks/0/options", {"classes": ["red"]}),
        ("tasks/1/bands", ["blue", "green", "red"]),
        ("probes/0/parameters", {"k": 4}),
        ("probes/0/min_share", 0.02),
        ("probes/0/max_tiles", 5),
    ],
)
def test_any_change_of_the_scenario_is_another_run(place: str, value: Any) -> None:
    raw = put(toy(), place, value)
    if place == "tasks/0/name":
        raw = put(raw, "probes/0/task", value)
    assert identity_of(resolve(raw=raw)) != identity_of(resolve())


def test_order_of_tasks_and_strategies_is_another_run() -> None:
    raw, recipe = toy(), mine()
    raw["tasks"].reverse()
    recipe["strategies"].reverse()
    ids = {
        identity_of(resolve()),
        identity_of(resolve(raw=raw)),
        identity_of(resolve(recipe=recipe)),
    }
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("edition", "sketch"),
        ("precision", "bf16"),
        ("data", {"tasks.first": "1" * 64}),
        ("code", "1.1"),
        ("protocol_name", "other"),
    ],
)
def test_any_other_field_of_the_identity_counts(field: str, value: Any) -> None:
    assert identity_of(resolve(), **{field: value}) != identity_of(resolve())


def test_identity_is_an_allow_list() -> None:
    """The identity has no field for device, threads, paths or times."""
    assert set(Identity.model_fields) == {
        "scenario",
        "edition",
        "protocol_name",
        "protocol",
        "method",
        "overrides",
        "seed",
        "precision",
        "data",
        "code",
        "plugins",
        "init",
        "parent",
    }


def test_titles_and_other_protocols_do_not_count() -> None:
    raw = put(put(toy(), "title", "Another title"), "default_protocol", "tiny")
    raw["protocols"]["huge"] = raw["protocols"]["tiny"]
    assert identity_of(resolve(raw=raw)) == identity_of(resolve())


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), values, max_size=5))
def test_identity_does_not_depend_on_the_order_of_keys(payload: Raw) -> None:
    assert identity(payload) == identity(dict(reversed(payload.items())))
    assert identity(payload) == identity(json.loads(json.dumps(payload)))
    assert len(identity(payload)) == 16


def test_identity_refuses_values_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        identity({"x": float("nan")})


# Files.


def test_every_declaration_is_valid() -> None:
    for name in declarations("scenarios"):
        found = load_scenario(name)
        assert found.name == name
        for recipe in declarations("methods"):
            for protocol in found.protocols:
                assert resolve_run(found, load_method(recipe), protocol).method.name == recipe


def test_path_is_taken_as_given(tmp_path: Path) -> None:
    copy = tmp_path / "copy.toml"
    copy.write_bytes(declarations("methods")["cosmae"].read_bytes())
    assert load_method(str(copy)) == load_method("cosmae")


def test_working_directory_is_never_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = declarations("methods")["cosmae"].read_text(encoding="utf-8")
    (tmp_path / "methods").mkdir()
    for path in (tmp_path / "mine.toml", tmp_path / "methods" / "mine.toml"):
        path.write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert "Unknown method 'mine'" in refusal(lambda: load_method("mine"))
    assert load_method("mine.toml").name == "cosmae"


def test_scenario_is_not_accepted_as_method() -> None:
    assert "Unknown method 'rs4'" in refusal(lambda: load_method("rs4"))
    assert is_scenario("rs4")
    assert not is_scenario("cosmae")
    assert "Unknown scenario or method 'rs44'" in refusal(lambda: is_scenario("rs44"))


def test_python_path_is_relative_to_its_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    recipe = tmp_path / "there" / "mine.toml"
    (tmp_path / "there" / "mine.py").write_text(
        "from rscl_bench.objectives.mae import MAE\n\nclass Mine(MAE):\n    pass\n",
        encoding="utf-8",
    )
    recipe.write_text(
        'name = "mine"\ntitle = "Mine"\n[objective]\nname = "./mine.py:Mine"\nmask_ratio = 0.5\n',
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    loaded = load_method("there/mine.toml")
    assert loaded.objective.name == f"{tmp_path / 'there' / 'mine.py'}:Mine"
    resolved = resolve_run(scenario(toy()), loaded).method.objective
    assert resolved.parameters["mask_ratio"] == 0.5


def test_dataset_path_is_relative_to_its_toml() -> None:
    loaded = load_scenario(str(TOY))
    datasets = {task.dataset for task in loaded.tasks} | {p.dataset for p in loaded.probes}
    assert datasets == {f"{TOY.parent / 'adapters.py'}:Toy"}


# Models.


def test_specs_are_frozen() -> None:
    spec: Any = resolve()
    with pytest.raises(ValueError, match="frozen"):
        spec.protocol.image_size = 3
    with pytest.raises(ValueError, match="frozen"):
        spec.method.objective.name = "other"


def test_probe_without_validation_split_has_no_such_role() -> None:
    raw = toy()
    raw["probes"] = [{"name": "p", "dataset": "aid", "tile_size": 24}]
    (probe,) = scenario(raw).probes
    assert probe.splits() == {"train": "train", "test": "test"}
    (probe,) = scenario(put(raw, "probes/0/val_split", "val")).probes
    assert probe.splits() == {"train": "train", "val": "val", "test": "test"}
    source = probe.source("val")
    assert (source.split, source.tile_size, source.bands) == ("val", 24, probe.bands)


class Numbers(Spec):
    count: int = 1
    share: float = 0.5
    names: tuple[str, ...] = ()


@given(st.integers() | st.floats() | st.text() | st.booleans() | st.none())
def test_validation_never_converts(value: Any) -> None:
    for field, allowed in (("count", (int,)), ("share", (int, float)), ("names", ())):
        finite = not isinstance(value, float) or value - value == 0
        fits = isinstance(value, allowed) and not isinstance(value, bool) and finite
        try:
            found = validated(Numbers, {field: value}, "here")
        except SpecError:
            assert not fits or abs(value) > 1e300 or isinstance(value, int)
        else:
            assert fits
            assert getattr(found, field) == value


def test_an_order_of_the_tasks_is_another_scenario() -> None:
    scenario = load_scenario("shift4")
    own = [task.name for task in scenario.tasks]
    rows = [own]
    for order in scenario.orders:
        ordered = load_scenario(f"shift4:{order}")
        assert ordered.name == f"shift4-{order}"
        assert ordered.probes == scenario.probes
        assert {task.name: task for task in ordered.tasks} == {t.name: t for t in scenario.tasks}
        assert known_scenario(ordered.name) == ordered
        rows.append([task.name for task in ordered.tasks])
    # A Latin square that is balanced: every pair of neighbours stands in one row.
    assert all(sorted(column) == sorted(own) for column in zip(*rows, strict=True))
    assert len({pair for row in rows for pair in pairwise(row)}) == 12
    assert known_scenario("shift4-e") is None
    with pytest.raises(SpecError, match="Unknown order of scenario shift4 'e'"):
        load_scenario("shift4:e")


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["third", "second"], "does not name each of the tasks once"),
        (["first", "second", "third"], "is the order of the tasks"),
    ],
)
def test_a_wrong_order_is_refused(tmp_path: Path, tasks: list[str], message: str) -> None:
    path = tmp_path / "toy.toml"
    text = TOY.read_text("utf-8").replace("adapters.py", str(ADAPTERS))
    path.write_text(f"{text}\n[orders]\nother = {json.dumps(tasks)}\n", "utf-8")
    with pytest.raises(SpecError, match=f"order 'other' {message}"):
        load_scenario(f"{path}:other")
    path.write_text(f'{text}\n[orders]\nother = ["third", "first", "second"]\n', "utf-8")
    tasks = [task.name for task in load_scenario(f"{path}:other").tasks]
    assert tasks == ["third", "first", "second"]
    assert code_files(f"{path}:other") == [ADAPTERS]
