"""The model card of an encoder: a page of Markdown for the Hugging Face Hub."""

from collections.abc import Iterator

import numpy as np

from rscl_bench.encoders.run_files import RunFiles
from rscl_bench.leaderboards.escaping import markdown_code, markdown_text
from rscl_bench.leaderboards.formats import ABSENT, SKETCH_WARNING, percent
from rscl_bench.leaderboards.statistics import Interval, bootstrap_interval
from rscl_bench.models.encoder_file import EncoderInput

_HEADER = """---
library_name: rscl-bench
pipeline_tag: image-feature-extraction
license: other
license_name: licences-of-the-archives
tags:
- remote-sensing
- self-supervised-learning
- continual-learning
- timm
---"""
_POOLED = {"avg": "the mean over all locations", "token": "the class token"}


def model_card(files: RunFiles, repository: str) -> str:
    """Return the model card of a run's encoder.

    Args:
        files: The run's files.
        repository: ``owner/name`` on the Hub.

    Returns:
        Markdown that begins with the Hub's metadata in YAML.
    """
    parts = (
        [_HEADER],
        _title(files),
        _use(files, repository),
        _input(files),
        _scores(files),
        _archives(files),
        _origin(files),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _title(files: RunFiles) -> Iterator[str]:
    identity = files.record.identity
    tasks = ", ".join(markdown_text(task.name) for task in files.record.tasks)
    method = markdown_text(files.description.method)
    scenario = markdown_text(identity.scenario.name)
    yield f"# {method} on {scenario}, seed {identity.seed}"
    yield ""
    yield (
        "An image encoder for remote sensing. It was trained without labels on archives that came "
        f"one after another ({tasks}), with the method {method}, by rscl-bench {identity.code}."
    )
    if identity.edition == "sketch":
        yield ""
        yield f"**{SKETCH_WARNING}**"


def _use(files: RunFiles, repository: str) -> Iterator[str]:
    yield "## Use"
    yield ""
    yield "```python"
    yield "import rscl_bench as rb  # pip install 'rscl-bench[hub]'"
    yield ""
    yield f'encoder = rb.load_encoder("hf://{repository}")'
    yield "features = encoder.features(images)  # [B, C, H, W], raw pixels, to [B, D]"
    yield "```"
    yield ""
    yield (
        f"`encoder.to_timm()` is a model of timm with equal features. "
        f"`rscl-bench embed hf://{repository} FOLDER --out features.parquet` encodes a folder of "
        "images."
    )


def _input(files: RunFiles) -> Iterator[str]:
    description = files.description
    pooled = _POOLED[description.pooling or "avg"]
    yield "## Input"
    yield ""
    yield (
        f"Images are resized to {description.image_size} pixels and normalised per band: "
        f"(pixel − mean) / deviation. The feature is {pooled}. "
        "`features(images, task=NAME)` takes the bands of another task than the last."
    )
    yield ""
    yield "| task | bands (nm) | unit | full scale | mean | deviation |"
    yield "|---|---|---|---|---|---|"
    for given in description.inputs:
        cells = (
            markdown_text(given.task),
            markdown_text(", ".join(_bands(given))),
            markdown_text(given.unit),
            f"{given.scale:g}",
            ", ".join(f"{value:.5g}" for value in given.mean),
            ", ".join(f"{value:.5g}" for value in given.std),
        )
        yield f"| {' | '.join(cells)} |"


def _bands(given: EncoderInput) -> list[str]:
    if given.spectrum is None:
        return list(given.bands)
    return [f"{band.name} ({band.wavelength_nm:g})" for band in given.spectrum]


def _scores(files: RunFiles) -> Iterator[str]:
    record = files.record
    yield "## Scores"
    yield ""
    yield (
        f"Mean average precision in % after the last task, on the test split of each probe of the "
        f"frozen encoder (protocol {markdown_text(record.identity.protocol_name)}). In brackets is "
        "the 95 % interval over test images, where their scores were kept."
    )
    yield ""
    yield "| probe | test images | micro-mAP | macro-mAP | micro-mAP before training |"
    yield "|---|---|---|---|---|"
    for probe in record.probes:
        score = record.scores[-1][probe.name].test
        micro, macro = _intervals(files, probe.name)
        cells = (
            markdown_text(probe.name),
            f"{probe.test_tiles}",
            f"{percent(score.micro)}{_shown(micro)}",
            f"{percent(score.macro)}{_shown(macro)}",
            percent(record.scores[0][probe.name].test.micro),
        )
        yield f"| {' | '.join(cells)} |"
    forgetting = record.continual.micro.forgetting
    if forgetting is not None:
        yield ""
        yield f"Forgetting: {percent(forgetting)} points of micro-mAP."


def _intervals(files: RunFiles, probe: str) -> tuple[Interval | None, Interval | None]:
    """Return the intervals over test images after the last task; None without image scores."""
    if files.images is None or probe not in files.images.scores[-1]:
        return None, None
    labels = np.asarray(files.images.labels[probe]["test"])
    scores = np.asarray(files.images.scores[-1][probe]["test"])
    return bootstrap_interval(labels, [scores], np.ones((1, 1)))[0]


def _shown(interval: Interval | None) -> str:
    return "" if interval is None else f" ({percent(interval.low)} to {percent(interval.high)})"


def _archives(files: RunFiles) -> Iterator[str]:
    yield "## Archives and their licences"
    yield ""
    yield (
        "The encoder was trained on these archives. No image of them is in this repository. Judge "
        "for yourself whether their licences bind the weights."
    )
    yield ""
    yield "| task | archive | licence | source |"
    yield "|---|---|---|---|"
    for given in files.description.inputs:
        archive = given.archive
        texts = (
            (ABSENT, ABSENT, ABSENT)
            if archive is None
            else (archive.title, archive.licence, archive.source)
        )
        yield f"| {' | '.join(map(markdown_text, (given.task, *texts)))} |"


def _origin(files: RunFiles) -> Iterator[str]:
    record = files.record
    yield "## Files"
    yield ""
    yield f"- `encoder.safetensors`: SHA-256 {markdown_code(str(record.encoder_digest))}"
    yield f"- `record.json`: the record of run {markdown_code(record.id)}, its settings and scores"
    if files.images is not None:
        yield (
            "- `record.safetensors`: the scores of every test image, from which the scores of the "
            "record can be computed again"
        )
    yield ""
    yield "`rscl-bench pull` downloads these files and checks the digests."
