"""The file of a trained encoder: weights, and all that is needed to use them.

Safetensors with one JSON text in the header, under the key ``rscl_bench``; no pickle.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rscl_bench import registry
from rscl_bench.atomic import write_atomic
from rscl_bench.encoder_bands import EncoderBands, selected
from rscl_bench.errors import ArtefactError, SpecError, unknown
from rscl_bench.models.build import build_encoder
from rscl_bench.models.encoder import Encoder
from rscl_bench.randomness import seeded
from rscl_bench.sensors import Band
from rscl_bench.spec import (
    BandMode,
    Component,
    Edition,
    Name,
    Pool,
    Positive,
    ProbedEncoder,
    Spec,
    first_problem,
)

FILE = "encoder.safetensors"
_KEY = "rscl_bench"
#: Folder of the encoders after every task, beside `FILE`.
FOLDER = "encoders"
#: timm's names of the ways of pooling.
POOLING: dict[Pool, Literal["avg", "token"]] = {"patches": "avg", "cls": "token"}
_PositiveValue = Annotated[float, Field(gt=0)]


def _is_none(value: object) -> bool:
    """Return whether a field is left out, as in files of format 1."""
    return value is None


class EncoderArchive(Spec):
    """The archive of a task, as its dataset adapter declares it.

    Attributes:
        dataset: Registered dataset; of a class by path, file name, class and digest.
        split: Split of the dataset.
        title: Full name.
        source: Where the archive can be fetched.
        licence: Licence or terms of use.
        tile_size: Side of the tiles in pixels.
        cut: As in `rscl_bench.spec.Source`.
    """

    dataset: str
    split: str
    title: str
    source: str
    licence: str
    tile_size: Positive
    cut: Literal["grid", "whole"]


class EncoderTask(Spec):
    """The last task before the encoder was written.

    Attributes:
        name: Name of the task.
        number: Number of tasks that the encoder was trained on.
        of: Number of tasks of the stream.
    """

    name: Name
    number: Positive
    of: Positive

    @model_validator(mode="after")
    def _within_the_stream(self) -> "EncoderTask":
        if self.number > self.of:
            raise ValueError("number must be at most of")
        return self


class EncoderInput(Spec):
    """The images of one task, and their normalisation: ``(pixel - mean) / std`` per band.

    Attributes:
        task: Name of the task.
        bands: Names of the bands of an image, in their order.
        unit: Declared unit of the pixels, for instance ``8-bit digital number``.
        scale: Value of full brightness in the declared unit.
        mean: Mean per band in the declared unit.
        std: Deviation per band in the declared unit.
        places: Channel of every band, where images differ in bands. Absent otherwise.
        dtype: Type of the pixels. Absent in format 1, as all fields below.
        spectrum: The bands with their central wavelengths and widths in nanometres.
        archive: The archive, its licence and its tiles.
    """

    task: Name
    bands: Annotated[tuple[str, ...], Field(min_length=1)]
    unit: str
    scale: _PositiveValue
    mean: tuple[float, ...]
    std: tuple[_PositiveValue, ...]
    places: Annotated[tuple[int, ...] | None, Field(exclude_if=lambda places: places is None)] = (
        None
    )
    dtype: Annotated[Literal["uint8", "uint16"] | None, Field(exclude_if=_is_none)] = None
    spectrum: Annotated[tuple[Band, ...] | None, Field(exclude_if=_is_none)] = None
    archive: Annotated[EncoderArchive | None, Field(exclude_if=_is_none)] = None

    @property
    def pixel_type(self) -> str:
        """Type of the pixels; in format 1, the smallest that holds full brightness."""
        return self.dtype or ("uint8" if self.scale <= 255 else "uint16")

    @model_validator(mode="after")
    def _one_value_per_band(self) -> "EncoderInput":
        places = self.bands if self.places is None else self.places
        if not len(self.bands) == len(self.mean) == len(self.std) == len(places):
            raise ValueError("mean, std and places must have one value per band")
        if self.spectrum is not None and tuple(b.name for b in self.spectrum) != self.bands:
            raise ValueError("spectrum must have the bands, in their order")
        return self


class EncoderDescription(Spec):
    """The origin of an encoder, and its input.

    Attributes:
        format: Version of this description. Format 1, of versions before 0.4.0, lacks ``pooling``,
            ``task``, and ``dtype``, ``spectrum`` and ``archive`` of the inputs.
        rscl_bench: Version of the package that trained the encoder.
        run: Id of the run, which the run's record has too. The record holds the digest of this
            file, so this file cannot hold the digest of the record.
        scenario: Name of the scenario.
        scenario_version: Version of the scenario.
        edition: Whether the archives were ``real`` or ``sketch`` ones.
        protocol: Name of the protocol.
        method: Name of the method.
        seed: Seed of the run.
        backbone: Registered backbone (``name``) and its parameters.
        probed: Whether the file holds the trained encoder ("student"), the moving average that
            makes the objective's targets ("teacher"), or the average that a strategy keeps
            ("average"): the encoder that was probed. Absent from a file of the student.
        probed_feature: How probes pooled the output: "patches" or "cls". Absent for "patches".
        pooling: The same by timm's name: "avg", the mean over all locations without the class
            token, or "token", the class token.
        task: The last task that the encoder was trained on.
        image_size: Side of the input in pixels.
        bands: Names of the bands of the images, as in the last task.
        band_mode: How the bands of images reach the encoder: the protocol's ``bands``. Absent where
            the encoder gets all bands of an image.
        channels: The band of every channel, where images differ in bands. Absent otherwise.
        inputs: The images of every task, in the order of training; the last is the default.
    """

    format: Literal[1, 2] = 2
    rscl_bench: str
    run: str
    scenario: str
    scenario_version: str
    edition: Edition
    protocol: str
    method: str
    seed: int
    backbone: Component
    probed: ProbedEncoder = "student"
    probed_feature: Annotated[Pool, Field(exclude_if=lambda pool: pool == "patches")] = "patches"
    pooling: Annotated[Literal["avg", "token"] | None, Field(exclude_if=_is_none)] = None
    task: Annotated[EncoderTask | None, Field(exclude_if=_is_none)] = None
    image_size: Positive
    bands: Annotated[tuple[str, ...], Field(min_length=1)]
    band_mode: Annotated[BandMode | None, Field(exclude_if=lambda mode: mode is None)] = None
    channels: Annotated[
        tuple[Band, ...] | None, Field(exclude_if=lambda channels: channels is None)
    ] = None
    inputs: Annotated[tuple[EncoderInput, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _channels_agree(self) -> "EncoderDescription":
        differing = self.band_mode in ("spectral", "union")
        places = [place for given in self.inputs for place in given.places or ()]
        if differing != (self.channels is not None) or any(
            (given.places is not None) != differing for given in self.inputs
        ):
            raise ValueError("channels and places must stand beside band_mode spectral or union")
        if any(not 0 <= place < len(self.channels or ()) for place in places):
            raise ValueError("places must be channels of the encoder")
        return self

    @model_validator(mode="after")
    def _is_whole(self) -> "EncoderDescription":
        if self.format == 1:
            return self
        if self.pooling != POOLING[self.probed_feature]:
            raise ValueError("pooling must be that of probed_feature")
        last = self.inputs[-1]
        if self.task is None or (self.task.name, self.task.number) != (last.task, len(self.inputs)):
            raise ValueError("task must be that of the last input")
        if any(None in (i.dtype, i.spectrum, i.archive) for i in self.inputs):
            raise ValueError("inputs must have dtype, spectrum and archive")
        return self

    def after(self, number: int) -> "EncoderDescription":
        """Return the description of the encoder after the first tasks of the run.

        Args:
            number: Number of tasks.
        """
        assert self.task is not None
        inputs = self.inputs[:number]
        task = EncoderTask(name=inputs[-1].task, number=number, of=self.task.of)
        return self.model_copy(update={"inputs": inputs, "bands": inputs[-1].bands, "task": task})

    @property
    def encoder_bands(self) -> EncoderBands | None:
        """The bands of the encoder's channels, where images differ in bands."""
        if self.channels is None or self.band_mode not in ("spectral", "union"):
            return None
        return EncoderBands(self.band_mode, self.channels)

    def input_of(self, task: str | None = None) -> EncoderInput:
        """Return the input of a task, by default of the last task.

        Raises:
            SpecError: If the encoder was not trained on the task.
        """
        if task is None:
            return self.inputs[-1]
        by_task = {given.task: given for given in self.inputs}
        if task not in by_task:
            raise unknown("task of this encoder", task, by_task)
        return by_task[task]


def write_encoder(path: Path, encoder: Encoder, description: EncoderDescription) -> str:
    """Write an encoder completely or not at all.

    Args:
        path: The file.
        encoder: The encoder.
        description: Its origin and input.

    Returns:
        SHA-256 of the file.

    Raises:
        ArtefactError: If the file cannot be written.
    """
    state = encoder.state_dict()
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    # One key: safetensors writes several keys in an order that changes from run to run.
    content = save(tensors, {_KEY: description.model_dump_json()})
    write_atomic(path, content)
    return hashlib.sha256(content).hexdigest()


def describes_encoder(path: Path) -> EncoderDescription | None:
    """Return the description in a file; None if the file is no encoder of this package.

    Raises:
        ArtefactError: If the description is not valid.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
    except (OSError, SafetensorError):
        return None
    return None if text is None else _described(path, text)


def read_encoder(path: Path, backbone: str | None = None) -> tuple[Encoder, EncoderDescription]:
    """Build the encoder of a file and load its weights.

    Args:
        path: The file of `write_encoder`.
        backbone: Where the class of a backbone by path lies now, ``file.py:Class``; the file of an
            encoder does not know this. None for a registered backbone.

    Returns:
        The encoder on the CPU in evaluation mode, and its description.

    Raises:
        ArtefactError: If the file is missing, damaged, or no encoder of this package.
        SpecError: If the backbone is not installed, or its code is not the code of the run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be read ({error.strerror or error}); check the path."
        ) from error
    except SafetensorError as error:
        raise ArtefactError(
            f"{path} is damaged or no safetensors file ({error}); copy the file again."
        ) from error
    if text is None:
        raise ArtefactError(
            f"{path} holds no encoder of rscl-bench: its header has no text '{_KEY}'; give the "
            f"{FILE} of a run."
        )
    description = _described(path, text)
    with seeded(0, "encoder file"):  # leaves global randomness alone; all weights are replaced
        found = _found(description.backbone, backbone)
        encoder = build_encoder(
            found,
            description.image_size,
            len(selected(description.bands, description.band_mode)),
            description.probed_feature,
            description.encoder_bands,
        )
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise ArtefactError(
            f"{path} does not hold the weights of its backbone '{description.backbone.name}'; "
            "use the version of rscl-bench that wrote the file."
        ) from error
    return encoder.eval(), description


def _described(path: Path, text: str) -> EncoderDescription:
    try:
        return EncoderDescription.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ArtefactError(
            f"{path} does not describe its encoder as this version needs it: "
            f"{first_problem(error)}; run the method again to write the file anew."
        ) from error


def _found(described: Component, given: str | None) -> Component:
    """Return the backbone of an encoder's file with the present path of its class.

    Raises:
        SpecError: If the path is missing, or leads to other code than the run's.
    """
    by_path = "@" in described.name  # see `registry.portable`
    if given is None:
        if by_path:
            raise SpecError(
                f"The backbone of this encoder is the class {described.name.partition('@')[0]}; "
                "give the path of that class as 'backbone'."
            )
        return described
    if not registry.is_reference(given):
        raise SpecError(f"'backbone' takes file.py:Class, the path of a class; got '{given}'.")
    reference = registry.absolute(given, Path())
    registry.load("backbones", reference)
    if registry.portable(reference) != described.name:
        raise SpecError(
            f"This encoder was trained with {described.name}, but '{given}' is "
            f"{registry.portable(reference)}; give the file of the run."
        )
    return described.model_copy(update={"name": reference})
