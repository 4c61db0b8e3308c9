"""Devices, threads, and what a record says of the machine."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest
import rasterio
import torch
from helpers.cli import ONE_EPOCH, call, records_in, refused
from helpers.paths import TOY

from rscl_bench import cores
from rscl_bench.cores import THREAD_VARIABLES, let_threads_sleep, usable_cores
from rscl_bench.engine import device as device_module
from rscl_bench.engine.device import cpu_threads, open_device, processor_name
from rscl_bench.engine.recording import provenance_of
from rscl_bench.errors import SpecError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSCL_CACHE", str(tmp_path_factory.getbasetemp() / "device-cache"))
        patch.delenv("RSCL_DATA_ROOT", raising=False)
        for name in THREAD_VARIABLES:  # restored, because `--threads` sets them
            patch.setenv(name, os.environ.get(name, "1"))
        yield


@pytest.mark.parametrize(
    "name",
    ["cpu:3", "auto:7", "cpu:", "cuda:", "cuda:-1", "cuda:x", "", "tpu", "cuda:0:1"],
)
def test_unknown_device(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        open_device(name, "fp32")
    assert str(caught.value) == f"Unknown device '{name}'; use auto, cpu, cuda or cuda:N."


def test_a_device_with_an_index_is_refused_by_the_command_line(tmp_path: Path) -> None:
    given = ("run", "--scenario", TOY, "--method", "finetune", "--out", tmp_path, "--device")
    assert refused(*given, "cpu:3") == "Unknown device 'cpu:3'; use auto, cpu, cuda or cuda:N."


def test_provenance_names_processor_and_decoders() -> None:
    found = provenance_of(open_device("cpu", "fp32"), datetime.now(UTC))
    assert found.processor == processor_name()
    assert found.processor
    assert found.device == f"{found.processor} ({found.threads} thread{'s' * (found.threads > 1)})"
    assert found.cpu_capability == torch.backends.cpu.get_cpu_capability()
    for name in ("rasterio", "Pillow", "kornia", "scipy"):
        assert found.versions[name] == version(name)
    assert found.versions["GDAL"] == rasterio.__gdal_version__


def test_a_processor_without_a_model_has_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "_linux_processor", lambda: "")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert processor_name() == "riscv64"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_model_of_the_processor_is_that_of_the_system() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    assert processor_name() == (models[0] if models else platform.processor())


# Threads


def test_threads_are_set_within_the_block() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before + 2):
        assert torch.get_num_threads() == before + 2
    assert torch.get_num_threads() == before


def test_a_quota_bounds_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with two of many cores has a quota, and an affinity mask with all cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    own, groups = tmp_path / "own", tmp_path / "groups"
    monkeypatch.setattr(cores, "_CONTROL_GROUP", own)
    monkeypatch.setattr(cores, "_CONTROL_GROUPS", groups)
    assert usable_cores() == 64
    (groups / "slice" / "unit").mkdir(parents=True)
    own.write_text("1:name=systemd:/other\n0::/slice/unit\n")
    assert usable_cores() == 64
    (groups / "slice" / "unit" / "cpu.max").write_text("max 100000\n")
    assert usable_cores() == 64
    (groups / "slice" / "cpu.max").write_text("250000 100000\n")
    assert usable_cores() == 3
    (groups / "slice" / "unit" / "cpu.max").write_text("50000 100000\n")
    assert usable_cores() == 1
    before = torch.get_num_threads()
    with cpu_threads(3):
        for name, expected in (("OMP_NUM_THREADS", 3), ("UNUSED", 1)):
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            monkeypatch.setenv(name, "3")
            with cpu_threads(None):
                assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == before


def test_threads_are_printed_and_recorded_and_no_part_of_the_identity(tmp_path: Path) -> None:
    run = ("run", "--scenario", TOY, "--method", "finetune", "--out", tmp_path, *ONE_EPOCH)
    result = call(*run, "--threads", "2")
    (record,) = records_in(tmp_path)
    assert record.provenance.threads == 2
    device = f"{processor_name()} (2 threads)"
    assert record.provenance.device == device
    assert f"Device: {device}, fp32." in result.stdout.splitlines()
    again = call(*run, "--threads", "1")
    assert "This run is recorded already; --force runs it again." in again.stdout.splitlines()
    swept = ("sweep", "--scenario", TOY, "--methods", "finetune", "--seeds", "0", *ONE_EPOCH)
    result = call(*swept, "--out", tmp_path, "--jobs", "1", "--threads", "3")
    assert "1 runs: 1 recorded before, 0 to do; 1 at a time, 3 threads each." in result.stdout
    assert len(records_in(tmp_path)) == 1


def test_a_policy_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    let_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    let_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "active"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    let_threads_sleep()
    assert "OMP_WAIT_POLICY" not in os.environ


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have another OpenMP")
def test_the_policy_reaches_openmp_before_torch_is_imported() -> None:
    """OpenMP prints its settings when it is loaded, which is when torch is imported."""
    script = "from rscl_bench.cli import app; app(['run', '--scenario', 'x', '--method', 'y'])"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", f"import atexit; atexit.register(__import__, 'torch'); {script}"],
        env={**environment, "OMP_DISPLAY_ENV": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr


# Clusters


def test_a_cluster_is_no_reason_for_a_warning_or_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Lightning warns where `srun` exists, and refuses a SLURM job with several tasks."""
    srun = tmp_path / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    open_device("cpu", "fp32")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    open_device("cpu", "fp32")
    assert [str(warning.message) for warning in recwarn] == []
