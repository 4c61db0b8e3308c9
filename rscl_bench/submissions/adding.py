"""Adds a checked submission to the published records."""

from collections.abc import Mapping
from pathlib import Path

from rscl_bench.atomic import write_atomic
from rscl_bench.results.marks import mark_name, write_mark
from rscl_bench.results.published import published_path
from rscl_bench.results.publishing import Published, publish_runs
from rscl_bench.submissions.bundle import RECIPE, Bundle
from rscl_bench.submissions.checking import Checked
from rscl_bench.submissions.recipes import code_files
from rscl_bench.submissions.reprobing import Reprobed

RECIPE_SUFFIX = ".recipe.toml"


def add_runs(
    bundle: Bundle,
    checked: Checked,
    published: Path,
    by: str,
    reprobed: Mapping[Path, Reprobed] | None = None,
) -> list[Published]:
    """Publish the runs of a bundle with packed scores, recipes, code and marks.

    The recipe lies beside the record, and files of code in ``components``; recipes name them there.

    Args:
        bundle: The unpacked bundle.
        checked: What `check_bundle` found in it.
        published: Folder of published records.
        by: Who sets the marks.
        reprobed: Encoders that were probed again, by path of the record.

    Returns:
        The published records with their marks.

    Raises:
        ArtefactError: If a file cannot be written.
    """
    for path, record in checked.records.items():
        target = published_path(record, published)
        recipe = target.with_name(target.stem + RECIPE_SUFFIX)
        write_atomic(recipe, path.with_name(RECIPE).read_bytes())
        for code in code_files(record):
            write_atomic(published / code.name, bundle.components[code.digits].read_bytes())
    publish_runs(list(checked.records), published, by)
    marked = []
    for path, record in checked.records.items():
        target = published_path(record, published)
        again = (reprobed or {}).get(path)
        if again is not None and again.elsewhere:
            write_mark(target, "reproduced", by, again.machine)
        marked.append(Published(target, mark_name(target)))
    return marked
