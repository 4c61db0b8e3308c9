"""Names the folder of a run's files."""

from pathlib import Path

from rscl_bench.results.schema import Identity
from rscl_bench.spec import edition_folder


def protocol_folder(out: Path, identity: Identity) -> Path:
    """Return the folder of all runs of a scenario and protocol."""
    return out / edition_folder(identity.scenario.name, identity.edition) / identity.protocol_name


def run_folder(out: Path, identity: Identity) -> Path:
    """Return the folder of a run's files; two identities never have one folder."""
    name = f"seed{identity.seed}-{identity.run_id()}"
    return protocol_folder(out, identity) / str(identity.method["name"]) / name
