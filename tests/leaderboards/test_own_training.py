"""Methods with a rate of their own on a leaderboard."""

from typing import Any

from helpers.records import record_of

from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.leaderboards.keys import group_key, protocol_overrides, row_key
from rscl_bench.leaderboards.own_training import tuned_rates
from rscl_bench.resolve import resolve_run
from rscl_bench.results.schema import RunRecord


def test_header_names_methods_with_training_of_their_own() -> None:
    """The values come from the records, and the reason from the declarations of this package."""
    spec = resolve_run(load_scenario("scene4"), load_method("maskfeat"))
    scenario = record_of(scenario="scene4", version=spec.scenario.version).identity.scenario
    own = spec.method.model_dump(mode="json")["training"]
    other = {**own, "learning_rate": 3e-4, "clip_norm": 1.0}

    def record(method: str, training: Any, **overrides: Any) -> RunRecord:
        made = record_of(method=method, overrides=overrides)
        recipe = {**made.identity.method, "objective": {"name": method}}
        changed: dict[str, Any] = {
            "scenario": scenario,
            "protocol_name": "cpu",
            "protocol": spec.protocol.model_dump(mode="json"),
            "method": recipe if training is None else {**recipe, "training": training},
        }
        identity = made.identity.model_copy(update=changed)
        return made.model_copy(update={"identity": identity})

    rates = tuned_rates(
        [
            record("maskfeat", own),
            record("maskfeat", own),
            record("ibot", other),
            record("simclr", other, **{"training.learning_rate": 3e-4}),
            record("finetune", None),
        ]
    )
    assert [rate.text() for rate in rates] == [
        "ibot: learning_rate 0.0003, clip_norm 1.0 (how they were chosen is not stated)",
        "maskfeat: learning_rate 0.0001 (seed 0, 5 epochs a task, grid {1e-3, 1e-4}, chosen on "
        "validation)",
    ]


def test_a_rate_is_the_methods_and_was_the_protocols() -> None:
    """Records without a training in their recipe are from before rates were the method's."""
    key = "training.learning_rate"
    old = record_of(overrides={key: 1e-4})
    assert protocol_overrides(old) == {key: 1e-4}
    assert row_key(old).method == "finetune"
    recipe = {**old.identity.method, "training": {"learning_rate": 1e-4}}
    new = old.model_copy(update={"identity": old.identity.model_copy(update={"method": recipe})})
    assert protocol_overrides(new) == {}
    assert row_key(new).method == "finetune[training.learning_rate=0.0001]"
    assert group_key(new) == group_key(record_of())
