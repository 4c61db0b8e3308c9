"""The adapter of every dataset of TorchGeo that has items: ``torchgeo:EuroSAT``.

TorchGeo's class lists and reads the items. This adapter checks what it returns: the bands against
the declared sensor, every value against the stored type, and the files that it opened against those
whose digests are in the identity of a run.
"""

import json
import traceback
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, create_model

from rscl_bench.archives.adapter import DatasetAdapter, MissingArchiveError, Scene
from rscl_bench.archives.declared_sensor import DeclaredSensor, chosen_sensor
from rscl_bench.archives.download import RemoteFile
from rscl_bench.archives.folder.splits import dealt
from rscl_bench.archives.torchgeo import classes, downloads, item_files
from rscl_bench.archives.torchgeo.calls import quiet, seeded
from rscl_bench.archives.torchgeo.known import KNOWN, Known
from rscl_bench.archives.torchgeo.opened_files import noted
from rscl_bench.archives.torchgeo.options import TorchGeoOptions
from rscl_bench.archives.torchgeo.samples import SampleReader
from rscl_bench.archives.torchgeo.sound import require_sound
from rscl_bench.canonical import canonical_json
from rscl_bench.errors import ArchiveError, RsclError, SpecError, shown
from rscl_bench.progress import Reporter
from rscl_bench.sensor_table import SENSORS, with_bands
from rscl_bench.sensors import Sensor
from rscl_bench.spec import Spec, validated

_UNKNOWN = Known("see the source", "")
_DOCUMENTATION = "https://torchgeo.readthedocs.io/en/stable/api/datasets.html"
#: Name of the only split of a dataset that has no splits.
ALL = "all"


class TorchGeoAdapter(DatasetAdapter):
    """One split of a dataset of TorchGeo.

    Attributes:
        part: Name of TorchGeo's class; empty for the base of all.
        known: What is known of the dataset.
        values: Names of the label values, from 0 on.
        ignored: Label values that are no class.
    """

    name = "torchgeo"
    title = "any dataset of TorchGeo"
    images = "those of a class of TorchGeo, named as `torchgeo:EuroSAT`"
    notes = (
        "`rscl-bench show torchgeo:EuroSAT` shows what is known of a class and what it takes.",
        "A class of TorchGeo that is not in this list works too, with a declared sensor. Sensor, "
        f"licence and labels are known of: {', '.join(sorted(KNOWN))}.",
    )
    declared_by_options = True
    several_scenes_per_file = True
    part: ClassVar[str] = ""
    known: ClassVar[Known] = _UNKNOWN
    values: ClassVar[tuple[str, ...]] = ()
    ignored: ClassVar[frozenset[int]] = frozenset()
    Options: ClassVar[type[Spec]] = TorchGeoOptions

    @classmethod
    def named(cls, part: str) -> type[DatasetAdapter]:
        """Return the class of ``torchgeo:part``.

        Raises:
            SpecError: If the installed TorchGeo has no such dataset.
        """
        return _named(part)

    @classmethod
    def configured(cls, options: Mapping[str, Any]) -> type[DatasetAdapter]:
        """Return the class with the bands and classes that the options declare.

        Raises:
            SpecError: If an option is not valid, or the bands are not declared.
        """
        if not cls.part:
            raise SpecError(
                'Dataset torchgeo names no class of TorchGeo; write dataset = "torchgeo:EuroSAT", '
                "for instance."
            )
        if hasattr(cls, "sensor"):
            return cls
        return _configured(cls, canonical_json(dict(options)))

    @classmethod
    def remote_files(cls, split: str, options: Mapping[str, Any]) -> list[RemoteFile]:
        """Return the files that TorchGeo's class downloads."""
        return downloads.files_of(cls.part, cls._arguments_of(split, options))

    @classmethod
    def complete_download(
        cls, data_root: Path, split: str, options: Mapping[str, Any], reporter: Reporter
    ) -> None:
        """Let TorchGeo's class unpack and join what remains."""
        arguments = cls._arguments_of(split, options)
        downloads.complete(cls.part, arguments, data_root / cls.folder, reporter)

    @classmethod
    def _arguments_of(cls, split: str, options: Mapping[str, Any]) -> dict[str, Any]:
        parsed = validated(cls.Options, dict(options), f"dataset '{cls.name}'")
        arguments = _constructor_arguments(cls.part, parsed)
        return {**arguments, "split": split} if classes.takes(cls.part, "split") else arguments

    def _list_files(self) -> list[Path]:
        assert isinstance(self.options, TorchGeoOptions)
        self._place = self.root.absolute()
        with noted(self._place) as opened:
            self._dataset = self._constructed()
        count = len(self._dataset)
        if not count:
            raise self.missing(f"TorchGeo's {self.part} finds no item of split '{self.split}'")
        self._items = item_files.find(self._dataset, self._place, opened.paths, self._opened_by)
        return self._dealt([self._name_of(paths[0]) for paths in self._items.by_item])

    def _name_of(self, path: Path) -> str:
        """Return a file's path below the archive's folder without suffix, for dealing."""
        return path.relative_to(self._place).with_suffix("").as_posix()

    def _dealt(self, groups: Sequence[str]) -> list[Path]:
        """Keep the items of the split, and return their files.

        Args:
            groups: Name of the group of each item; a group lies in one split.
        """
        assert isinstance(self.options, TorchGeoOptions)
        rule = self.options.splits
        count = range(len(groups))
        self._kept = [i for i in count if rule is None or dealt(groups[i], rule) == self.split]
        return [self._below_root(self._items.by_item[item][0]) for item in self._kept]

    def _constructed(self) -> Any:
        arguments = self._arguments()
        try:
            with quiet():
                return classes.dataset_class(self.part)(**arguments)
        except RsclError:
            raise
        except Exception as error:
            raise self._refusal(error, arguments) from error

    def _arguments(self) -> dict[str, Any]:
        arguments = _constructor_arguments(self.part, self.options)
        # The digests of this suite take the place of checksums, whose default differs by version.
        fixed = {"split": self.split, "download": False, "checksum": False, "cache": False}
        arguments |= {k: value for k, value in fixed.items() if classes.takes(self.part, k)}
        arguments["root" if classes.takes(self.part, "root") else "paths"] = str(self._place)
        return arguments

    def _refusal(self, error: Exception, arguments: Mapping[str, Any]) -> RsclError:
        """Return the error for what TorchGeo raised when its class was made."""
        from torchgeo.datasets import DatasetNotFoundError, DependencyNotFoundError

        if isinstance(error, DependencyNotFoundError | ImportError):
            package = getattr(error, "name", None) or str(error).split()[0]
            return SpecError(
                f"Dataset {self.name} needs the package {package}, which is not installed; install "
                f"it with pip install {package}."
            )
        said = shown(str(error).strip().splitlines()[0] if str(error).strip() else "", 200)
        if isinstance(error, DatasetNotFoundError | OSError) or "not found" in said.lower():
            own = "" if isinstance(error, DatasetNotFoundError) else f" ({said})"
            return self.missing(f"TorchGeo's {self.part} does not find its files{own}")
        given = {key: value for key, value in arguments.items() if key not in ("root", "paths")}
        if isinstance(error, AssertionError) and not said:
            said = f"it requires {traceback.extract_tb(error.__traceback__)[-1].line}"
        return SpecError(
            f"TorchGeo's {self.part} refuses {given} ({type(error).__name__}: {said}); correct "
            "the options or the split."
        )

    def missing(self, what: str) -> ArchiveError:
        """Return the error for a missing archive, with the command that downloads it, if any."""
        error = super().missing(what)
        if not classes.takes(self.part, "download"):
            return error
        return MissingArchiveError(f"{error} Or run: rscl-bench data fetch SCENARIO.")

    def _opened_by(self, index: int) -> list[Path]:
        with noted(self._place) as opened:
            try:
                self._sample(index)
            except FileNotFoundError as error:
                raise self.missing(f"{error.filename or error} does not exist") from error
            except (OSError, ValueError, SyntaxError, RuntimeError, LookupError) as error:
                raise self.damaged(
                    f"Item {index} of {self.name} '{self.split}' cannot be read "
                    f"({type(error).__name__}: {shown(str(error), 200)})"
                ) from error
        return opened.paths

    def _sample(self, index: int) -> Mapping[str, Any]:
        """Return a sample; some classes draw a season, which must be the same at every reading."""
        with quiet(), seeded(index):
            sample: Mapping[str, Any] = self._dataset[index]
        return sample

    def _below_root(self, path: Path) -> Path:
        return self.root / path.relative_to(self._place)

    def inputs(self) -> list[Path]:
        """Return the files of all items, and those that the dataset reads as a whole.

        Labels are read with the images, so that tiles without labels depend on these files too.
        """
        paths = [path for item in self._kept for path in self._items.by_item[item]]
        return [self._below_root(path) for path in dict.fromkeys((*paths, *self._items.others))]

    def _read(self, index: int, with_labels: bool) -> Scene:
        own = self._kept[index]
        item = f"Item {own} of {self.name} '{self.split}' ({self.files[index]})"
        with noted(self._place) as opened:
            sample = self._sample(own)
        foreign = self._items.foreign(own, opened.paths)
        if foreign:
            raise ArchiveError(
                f"{item} was also read from {min(foreign)}, which is not among the files that its "
                "tiles were said to depend on; report this, with the version of TorchGeo."
            )
        require_sound(opened, self.sensor.dtype)
        return self._reader.scene(sample, item, with_labels)

    @cached_property
    def _reader(self) -> SampleReader:
        assert isinstance(self.options, TorchGeoOptions)
        options = self.options.model_copy(update=_defaults(self.known, self.options))
        folders = getattr(self._dataset, "class_to_idx", None) or {}
        return SampleReader(
            title=self.title,
            sensor=self.sensor,
            values=self.values,
            ignored=self.ignored,
            options=options,
            folders={index: name for name, index in folders.items()},
        )


@cache
def _named(part: str) -> type[TorchGeoAdapter]:
    known = KNOWN.get(part, _UNKNOWN)
    dataset = classes.dataset_class(part)
    base = _base_of(part)
    title = (dataset.__doc__ or part).strip().splitlines()[0].rstrip(".")
    attributes = {
        "name": f"torchgeo:{part}",
        "part": part,
        "known": known,
        "folder": known.folder or part.lower(),
        "title": f"{title} (TorchGeo's {part})",
        "splits": _splits(part, known),
        "source": _source(dataset),
        "licence": known.licence,
        "layout": f"torchgeo.datasets.{part} describes it ({_DOCUMENTATION})",
        "images": known.images,
        "notes": known.notes,
        "Options": _options_of(part, base),
        "__doc__": f"TorchGeo's {part}.",
    }
    if has_values := (known.values or classes.label_values(part)):
        attributes |= {"values": has_values, "ignored": frozenset(known.ignored)}
        attributes["classes"] = _kept(has_values, frozenset(known.ignored))
    return type(f"TorchGeo{part}", (base,), attributes)


def _base_of(part: str) -> type[TorchGeoAdapter]:
    """Return the class that reads items, or the one that reads windows of rasters.

    Raises:
        SpecError: If the class has neither images nor rasters, but points or outlines.
    """
    if not classes.has_coordinates(part):
        return TorchGeoAdapter
    from rscl_bench.archives.torchgeo.grid_adapter import TorchGeoGridAdapter

    if not classes.has_rasters(part):
        raise SpecError(
            f"TorchGeo's {part} has no images, but points, outlines or arrays of a model; name a "
            "dataset of images."
        )
    return TorchGeoGridAdapter


def _splits(part: str, known: Known) -> tuple[str, ...]:
    if known.splits or classes.split_names(part):
        return known.splits or classes.split_names(part)
    if not classes.takes(part, "split"):
        return (ALL,)
    default = classes.default_split(part)  # the class lists no splits: these are the usual ones
    return tuple(dict.fromkeys(("train", "val", "test", *((default,) if default else ()))))


def _source(dataset: Any) -> str:
    url = getattr(dataset, "url", None)
    return url if isinstance(url, str) and url.startswith("http") else _DOCUMENTATION


def _options_of(part: str, base: type[TorchGeoAdapter]) -> type[Spec]:
    """Return the options of a dataset: those of all, and the parameters of its constructor."""
    own = {
        name: (Any, Field(default=None, description=f"argument of TorchGeo's {part}"))
        for name in classes.parameters(part)
        if name not in base.Options.model_fields
    }
    # pydantic types the fields as keywords, which their dictionary is not.
    make: Any = create_model
    model: type[Spec] = make(f"{part}Options", __base__=base.Options, **own)
    return model


@cache
def _configured(cls: type[TorchGeoAdapter], options_json: bytes) -> type[TorchGeoAdapter]:
    options = validated(cls.Options, json.loads(options_json), f"dataset '{cls.name}'")
    assert isinstance(options, TorchGeoOptions)
    options = options.model_copy(update=_defaults(cls.known, options))
    values = options.class_names or cls.values
    ignored = frozenset(cls.known.ignored if options.ignore is None else options.ignore)
    attributes: dict[str, Any] = {
        "sensor": _sensor(cls, options),
        "values": values,
        "ignored": ignored,
        "classes": _kept(values, ignored),
        "__doc__": cls.__doc__,
    }
    if options.splits is not None:
        if classes.takes(cls.part, "split"):
            raise SpecError(
                f"Dataset {cls.name} has splits of its own ({', '.join(cls.splits)}); leave out "
                "options.splits."
            )
        attributes["splits"] = tuple(options.splits.shares)
    if options.folder is not None:
        attributes["folder"] = options.folder
    return type(cls.__name__, (cls,), attributes)


def _kept(values: tuple[str, ...], ignored: frozenset[int]) -> tuple[str, ...]:
    return tuple(name for value, name in enumerate(values) if value not in ignored)


def _defaults(known: Known, options: TorchGeoOptions) -> dict[str, Any]:
    """Return the known values of the options that the scenario leaves out, as their models."""
    given = options.model_fields_set
    left_out = {name: value for name, value in known.options.items() if name not in given}
    parsed = validated(type(options), left_out, "known options")
    return {name: getattr(parsed, name) for name in left_out}


def _constructor_arguments(part: str, options: Spec) -> dict[str, Any]:
    """Return the arguments of the constructor that the options and what is known set."""
    assert isinstance(options, TorchGeoOptions)
    known = KNOWN.get(part, _UNKNOWN).options
    taken = classes.parameters(part)
    own = set(TorchGeoOptions.model_fields)
    arguments = {name: value for name, value in known.items() if name in taken and name not in own}
    arguments |= {
        name: getattr(options, name)
        for name in options.model_fields_set
        if name in taken and name not in own
    }
    wrong = sorted(set(options.arguments) - set(taken))
    if wrong:
        raise SpecError(
            f"options.arguments of torchgeo:{part} has '{wrong[0]}', which is no parameter of "
            f"TorchGeo's {part}; known: {', '.join(taken)}."
        )
    return arguments | options.arguments


def _sensor(cls: type[TorchGeoAdapter], options: TorchGeoOptions) -> Sensor:
    """Return the sensor of a dataset with its options.

    Raises:
        SpecError: If no sensor is declared or known, or its bands are not those of the dataset.
    """
    names = classes.band_names(cls.part, _constructor_arguments(cls.part, options))
    declared = options.sensor or cls.known.sensor
    if declared is None:
        reads = f" (its class reads {', '.join(names)})" if names else ""
        raise SpecError(
            f"The bands of dataset {cls.name} are not declared{reads}; set options.sensor to one "
            f"of {', '.join(sorted(SENSORS))}, or to a table with bands, unit, dtype and scale."
        )
    sensor = chosen_sensor(declared)
    listed = isinstance(declared, DeclaredSensor) and declared.bands is not None
    if not names or listed or options.channels:
        return sensor
    return with_bands(sensor, names)
