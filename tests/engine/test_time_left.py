"""The estimate of a whole run's time, and how the reporters show it."""

import pytest

from rscl_bench.console import PlainReporter, clock_time
from rscl_bench.engine import time_left
from rscl_bench.engine.time_left import WholeRun, WholeRunClock
from rscl_bench.progress import SilentReporter, WholeRunReporter


def test_estimate_counts_steps_of_all_tasks_and_all_probings() -> None:
    state = WholeRun([10, 20, 30], 15, 30.0, 4, 2, 8.0)
    assert state.seconds_left() == pytest.approx(45 * 2.0 + 2 * 4.0)
    assert WholeRun([10, 20, 30], 60, 120.0, 4, 4, 16.0).seconds_left() == 0
    assert WholeRun([10, 20, 30], 0, 0.0, 4, 1, 4.0).seconds_left() is None


def test_more_steps_than_expected_leave_no_negative_time() -> None:
    assert WholeRun([10, 5], 20, 20.0, 3, 2, 2.0).seconds_left() == pytest.approx(1.0)


def test_plain_lines_show_the_whole_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rscl_bench.console.PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(time_left, "_SECONDS", 0.0)
    reporter = PlainReporter()
    clock = WholeRunClock(reporter)
    assert clock.due()
    clock.tell(WholeRun([10, 20, 30], 15, 30.0, 4, 2, 8.0))
    reporter.progress("training task 2 b", 5, 20)
    assert "; whole run: 28% done, about 0:01:38 left" in capsys.readouterr().out


def test_reporters_without_a_view_of_the_whole_are_not_asked() -> None:
    assert not isinstance(SilentReporter(), WholeRunReporter)
    assert not WholeRunClock(SilentReporter()).due()


def test_time_is_written_as_hours_minutes_and_seconds() -> None:
    assert [clock_time(s) for s in (0, 59.6, 3725.2)] == ["0:00:00", "0:01:00", "1:02:05"]
