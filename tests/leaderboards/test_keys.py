"""Keys of leaderboards and rows."""

from helpers.records import record_of

from rscl_bench.leaderboards.keys import group_key, protocol_overrides, row_key


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
