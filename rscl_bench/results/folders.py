"""Names the folder of a run's files."""

from pathlib import Path

from rscl_bench.results.schema import Identity
from rscl_bench.spec import edition_folder


def run_folder(out: Path, identity: Identity) -> Path:
    """Return the folder of a run's files; two identities never have one folder."""
    scenario = edition_folder(identity.scenario.name, identity.edition)
    name = f"seed{identity.seed}-{identity.run_id()}"
    return out / scenario / identity.protocol_name / str(identity.method["name"]) / name
