"""Tells whether two runs ran on one machine; another machine changes last bits of training."""

from typing import NamedTuple

from rscl_bench.results.schema import RunRecord


class Machine(NamedTuple):
    """What a record says of the machine that trained the run.

    Attributes:
        device: Full name of the device; for a CPU with the number of threads.
        processor: Model of the processor; None in records of earlier versions.
        cpu_capability: Instruction set of the tensor library's kernels; None in records of earlier
            versions.
    """

    device: str
    processor: str | None
    cpu_capability: str | None


def machine_of(record: RunRecord) -> Machine:
    """Return the machine of a run."""
    provenance = record.provenance
    return Machine(provenance.device, provenance.processor, provenance.cpu_capability)


def same_machine(one: RunRecord, two: RunRecord) -> bool | None:
    """Tell whether two runs ran on machines of one kind; None if their records do not say it.

    Two devices with one name may be machines of different kinds, unless the processor is recorded.
    """
    first, second = machine_of(one), machine_of(two)
    if first.device != second.device:
        return False
    known = zip(first[1:], second[1:], strict=True)
    if any(a is not None and b is not None and a != b for a, b in known):
        return False
    return True if None not in (*first, *second) else None


def machine_name(machine: Machine) -> str:
    """Return the name of a machine for readers."""
    details = [machine.processor or "processor not recorded", machine.cpu_capability]
    return f"{machine.device} ({', '.join(detail for detail in details if detail)})"
