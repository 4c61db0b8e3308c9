"""Whatever a TOML or ``--set`` holds, a wrong value is refused in one sentence."""

import json
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import refused
from helpers.paths import ROOT, TOY
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rscl_bench import registry
from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.errors import RsclError, SpecError
from rscl_bench.resolve import parse_assignments, resolve_run
from rscl_bench.sensors import Band, Sensor
from rscl_bench.spec import Method, Scenario, validated
from rscl_bench.sweeps.selection import parse_grid, split_seeds

COSMAE = ROOT / "methods" / "cosmae.toml"


def written(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    return str(path)


def refusal_of(path: Path, text: str | bytes) -> str:
    load = load_scenario if "tasks" in str(text) else load_method
    with pytest.raises(SpecError) as caught:
        load(written(path, text))
    return str(caught.value)


# Files.


@pytest.mark.parametrize("depth", [300, 5_000, 50_000])
@pytest.mark.parametrize("kind", ["array", "table", "header"])
def test_deep_nesting(depth: int, kind: str, tmp_path: Path) -> None:
    nested = {
        "array": f"x = {'[' * depth}{']' * depth}",
        "table": f"x = {'{a=' * depth}1{'}' * depth}",
        "header": f"[{'.'.join('a' * depth)}]",
    }[kind]
    path = tmp_path / "mine.toml"
    sentence = refusal_of(path, f"{COSMAE.read_text(encoding='utf-8')}\n{nested}\n")
    assert "too deeply" in sentence or "Unknown key" in sentence


def test_numbers_of_thousands_of_digits(tmp_path: Path) -> None:
    sentence = refusal_of(tmp_path / "mine.toml", f"name = {'9' * 5_000}")
    assert "is not valid TOML" in sentence
    with pytest.raises(SpecError, match="takes a value of usual size"):
        parse_assignments([f"training.epochs={'9' * 5_000}"])
    with pytest.raises(SpecError, match="--seeds takes whole numbers"):
        split_seeds(f"0,{'9' * 5_000}")


def test_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    content = COSMAE.read_bytes()
    found = load_method(written(tmp_path / "mine.toml", b"\xef\xbb\xbf" + content))
    assert found == load_method("cosmae")


def test_another_encoding_is_refused(tmp_path: Path) -> None:
    text = COSMAE.read_text(encoding="utf-8").encode("utf-16")
    assert "is not valid TOML" in refusal_of(tmp_path / "mine.toml", text)


def test_a_folder_or_a_link_to_itself_is_no_toml(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)
    for path in (tmp_path / "folder.toml", loop):
        with pytest.raises(SpecError):
            load_method(str(path))


# Values.


def changed(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('version = "1"', 'version = "1-2"', "'version': String should match pattern"),
        ('version = "1"', 'version = "../../evil"', "'version': String should match pattern"),
        ('version = "1"', f'version = "{"1" * 65}"', "'version': String should have at most 64"),
        ('name = "toy"', f'name = "{"a" * 65}"', "'name': String should have at most 64"),
        ('title = "Three', 'title = 2020-01-01 #"', "'title': a date or time is no value here"),
        ("tile_size = 24", "tile_size = 99999999999", "'tasks.0.tile_size'"),
        ("epochs = 2", "epochs = 99999999999999999999999", "training.epochs': Input should be"),
        ("epochs = 2", "betas = [1.0, 1.0], epochs = 2", "betas.0': Input should be less than 1"),
        ("epochs = 2", "clip_norm = 0, epochs = 2", "clip_norm': Input should be greater than 0"),
        ("[protocols.tiny]", '[protocols."a b"]\n[protocols.tiny]', "protocols"),
        ("[protocols.tiny]", '[protocols."../../x"]\n[protocols.tiny]', "protocols"),
    ],
)
def test_what_no_record_could_hold_is_refused_first(
    old: str, new: str, sentence: str, tmp_path: Path
) -> None:
    text = TOY.read_text(encoding="utf-8").replace("adapters.py", str(TOY.parent / "adapters.py"))
    assert sentence in refusal_of(tmp_path / "toy.toml", changed(text, old, new))


@pytest.mark.parametrize("seed", [-1, 2**63, 10**300])
def test_seeds_have_63_bits(seed: int) -> None:
    scenario, method = load_scenario("scene4"), load_method("cosmae")
    with pytest.raises(SpecError, match=r"give a whole number from 0 to 2\^63 - 1"):
        resolve_run(scenario, method, seed=seed)
    assert resolve_run(scenario, method, seed=2**63 - 1).seed == 2**63 - 1


@pytest.mark.parametrize("key", ["backbone.depth", "objective.decoder_depth"])
def test_networks_have_at_most_1000_blocks(key: str) -> None:
    scenario, method = load_scenario("scene4"), load_method("cosmae")
    with pytest.raises(SpecError, match="less than or equal to 1000"):
        resolve_run(scenario, method, overrides={key: 1_000_000_000})
    resolve_run(scenario, method, overrides={key: 1000})


def test_seed_of_many_digits_on_the_command_line() -> None:
    sentence = refused("run", "--scenario", TOY, "--method", "cosmae", "--seed", "9" * 300)
    assert sentence == "The seed is too large; give a whole number from 0 to 2^63 - 1."


def test_an_encoder_that_memory_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)
    run = ("run", "--scenario", TOY, "--method", "finetune", "--out", tmp_path / "runs")
    for width in (10**9, 2**62):
        sentence = refused(*run, "--device", "cpu", "--set", f"backbone.embed_dim={width}")
        assert "use a smaller backbone" in sentence


def test_an_unknown_key_names_a_few_near_ones() -> None:
    scenario, method = load_scenario("scene4"), load_method("cosmae")
    with pytest.raises(SpecError) as caught:
        resolve_run(scenario, method, overrides={"training.learningrate": 1e-4})
    sentence = str(caught.value)
    assert "did you mean 'training.learning_rate'?" in sentence
    listed = sentence.partition(": ")[2].rstrip(".").split(", ")
    assert 3 <= len(listed) <= 5, sentence
    with pytest.raises(SpecError, match=r"did you mean 'objective.mask_ratio'"):
        resolve_run(scenario, method, overrides={"objektive.mask_ratio": 0.5})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dtype": "float32"}, "has pixels of type 'float32', but tiles are stored as uint8 or"),
        ({"dtype": "int16"}, "has pixels of type 'int16'"),
        ({"dtype": "int8"}, "has pixels of type 'int8'"),
        ({"bands": ()}, "name at least one"),
        ({"bands": (Band("a", 1.0), Band("a", 2.0))}, "each once"),
        ({"scale": 0.0}, "a finite number above 0"),
        ({"scale": float("nan")}, "a finite number above 0"),
        ({"scale": 1.0, "amplitude": "db"}, "give a scale above 1"),
    ],
)
def test_sensors_that_cannot_be_stored(changes: dict[str, Any], sentence: str) -> None:
    fields: dict[str, Any] = {
        "name": "s",
        "bands": (Band("red", 665.0),),
        "unit": "digital number",
        "dtype": "uint8",
        "scale": 255.0,
        "gsd_m": None,
    }
    Sensor(**fields)
    with pytest.raises(SpecError, match="Sensor s has") as caught:
        Sensor(**{**fields, **changes})
    assert sentence in str(caught.value)


@pytest.mark.parametrize("params", ["5", "int", "None"])
def test_params_that_are_no_spec(params: str, tmp_path: Path) -> None:
    code = (
        "from rscl_bench.strategies.base import Strategy\n\n\n"
        f"class Mine(Strategy):\n    Params = {params}\n"
    )
    path = written(tmp_path / "mine.py", code)
    with pytest.raises(SpecError, match=r"it must be a class that derives from rscl_bench.spec"):
        registry.load("strategies", f"{path}:Mine")


def test_code_that_is_no_text(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.py", b"x = 1\0")
    with pytest.raises(SpecError, match="cannot be imported"):
        registry.load("strategies", f"{path}:Mine")


# Anything.

SCENARIO: dict[str, Any] = registry.replaced(
    tomllib.loads(TOY.read_text(encoding="utf-8")),
    lambda reference: registry.absolute(reference, TOY.parent),
)
RECIPE: dict[str, Any] = {
    **tomllib.loads(COSMAE.read_text(encoding="utf-8")),
    "training": {"learning_rate": 1e-4},
}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.sampled_from(["mae", "vit", "x.py:Y", "a\0.py:X", "red", "~", "../..", "1e-3"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the places of all values within tables and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [
        found
        for key, inner in items
        for found in [
            (*place, key),
            *(places(inner, (*place, key)) if isinstance(inner, dict | list) else []),
        ]
    ]


def put(raw: Any, place: tuple[Any, ...], value: Any) -> Any:
    copy: Any = dict(raw) if isinstance(raw, dict) else list(raw)
    copy[place[0]] = value if len(place) == 1 else put(copy[place[0]], place[1:], value)
    return copy


quiet = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quiet
@given(st.sampled_from(places(SCENARIO)), VALUES)
def test_any_value_of_a_scenario(place: tuple[Any, ...], value: Any) -> None:
    with suppress(RsclError):
        scenario = validated(Scenario, put(SCENARIO, place, value), "toy.toml")
        resolve_run(scenario, load_method("cosmae"))


@quiet
@given(st.sampled_from(places(RECIPE)), VALUES)
def test_any_value_of_a_recipe(place: tuple[Any, ...], value: Any) -> None:
    scenario = validated(Scenario, SCENARIO, "toy.toml")
    with suppress(RsclError):
        resolve_run(scenario, validated(Method, put(RECIPE, place, value), "mine.toml"))


@quiet
@given(st.data())
def test_any_damage_of_a_toml(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes are replaced, doubled or lost."""
    content = data.draw(st.sampled_from([TOY, COSMAE])).read_bytes()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 40)))
    middle = data.draw(st.binary(max_size=8) | st.just(content[start:end] * 2))
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    path = folder / "any.toml"
    path.write_bytes(content[:start] + middle + content[end:])
    for load in (load_scenario, load_method):
        with suppress(RsclError):
            load(str(path))


KEYS = st.sampled_from(
    [
        *(f"training.{key}" for key in ("epochs", "learning_rate", "betas", "clip_norm", "x")),
        *("training", "training_for", "training_for.mae.learning_rate", "backbones", "seeds"),
        *("backbone", "backbone.name", "backbone.depth", "objective", "objective.mask_ratio"),
        *("strategies", "strategies.data-mixup", "strategies.data-mixup.alpha", "defaults"),
        *("defaults.mae", "defaults.mae.decoder_dim", "defaults.swav.queue", "views.min_scale"),
        *("precision", "image_size", "compile", ".", "a..b", "backbone.", "objective."),
    ]
) | st.text(max_size=12)
TEXTS = (
    st.text(max_size=12)
    | VALUES.map(lambda value: json.dumps(value, default=str))
    | st.sampled_from(["1979-05-27", "07:32:00", "1e999", "-0", "{a=1}", "[[1]]", "'x'", "0x1f"])
)


@quiet
@example("defaults.swav.queue", "nan")
@example("training_for.mae.learning_rate", "1e-3")
@example("backbone", "{name='resnet'}")
@example("backbone.name", "resnet")
@given(KEYS, TEXTS)
def test_any_assignment(key: str, text: str) -> None:
    scenario = validated(Scenario, SCENARIO, "toy.toml")
    with suppress(RsclError):
        spec = resolve_run(
            scenario, load_method("cosmae"), overrides=parse_assignments([f"{key}={text}"])
        )
        assert json.loads(json.dumps(spec.model_dump(mode="json"), allow_nan=False))


@quiet
@given(KEYS, st.text(max_size=20))
def test_any_grid_and_any_seeds(key: str, text: str) -> None:
    with suppress(RsclError):
        parse_grid([f"{key}={text}"])
    with suppress(RsclError):
        assert all(0 <= seed < 10**19 for seed in split_seeds(text))
