"""On the real images of `mini`, training helps, and forgetting is measured."""

from pathlib import Path

import pytest

import rscl_bench as rb
from rscl_bench.results.schema import RunRecord

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path_factory.getbasetemp() / "mini-cache"))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)


def trained(method: str, seed: int, out: Path) -> RunRecord:
    return rb.run("mini", method, seed=seed, out=out, device="cpu", verbose=False)


def aerial(record: RunRecord, task: int) -> float:
    """Return the micro-mAP of the first domain after a task, in points; 0 is before the first."""
    micro = record.scores[task]["aerial"].test.micro
    assert micro is not None
    return 100 * micro


def test_cosmae_ends_above_the_untrained_encoder(tmp_path: Path) -> None:
    record = trained("cosmae", 0, tmp_path)
    assert record.identity.edition == "real"
    assert aerial(record, -1) > aerial(record, 0) + 2
    forgetting = record.continual.micro.forgetting
    assert forgetting is not None
    assert 100 * forgetting == pytest.approx(aerial(record, 1) - aerial(record, 2))
