"""Maps names to component classes; a class is imported when it is loaded, not when it is listed.

A class has a name in one of three ways: a line below, an entry point of another installed package
(group ``rscl_bench.<kind>``), or a path ``file.py:Class`` written in a TOML.
"""

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel

from rscl_bench.errors import SpecError, unknown
from rscl_bench.user_paths import user_path

Kind = Literal["objectives", "strategies", "probes", "datasets", "backbones"]


@dataclass(frozen=True)
class Entry:
    """What the registry knows about a name.

    Attributes:
        target: Where the class is, ``module:attribute``.
        summary: One line for `rscl-bench list`.
        family: Family of the objective; empty for other kinds.
        has_rgb: Whether the sensor of a dataset has red, green and blue. These bands are then the
            default, which is known without an import: some classes take seconds to import.
    """

    target: str
    summary: str
    family: str = ""
    has_rgb: bool = True


BUILTIN: dict[Kind, dict[str, Entry]] = {
    "backbones": {
        "resnet": Entry("rscl_bench.models.resnet:ResNet", "residual network (timm)"),
        "swin": Entry("rscl_bench.models.swin:Swin", "Swin transformer (timm)"),
        "vit": Entry("rscl_bench.models.vit:ViT", "vision transformer (timm)"),
    },
    "objectives": {
        "barlow-twins": Entry(
            "rscl_bench.objectives.barlow_twins:BarlowTwins",
            "decorrelates dimensions across views (Zbontar et al. 2021)",
            "regularisation",
        ),
        "beit": Entry(
            "rscl_bench.objectives.beit:BEiT",
            "predicts visual tokens of hidden blocks (Bao et al. 2022)",
            "masked",
        ),
        "byol": Entry(
            "rscl_bench.objectives.byol:BYOL",
            "self-distillation (Grill et al. 2020)",
            "distillation",
        ),
        "cmid": Entry(
            "rscl_bench.objectives.cmid:CMID",
            "reconstructs, contrasts and distils masked views (Muhtar et al. 2023)",
            "hybrid",
        ),
        "deepcluster-v2": Entry(
            "rscl_bench.objectives.deepcluster_v2:DeepClusterV2",
            "predicts clusters of the last epoch's embeddings (Caron et al. 2020)",
            "clustering",
        ),
        "dino": Entry(
            "rscl_bench.objectives.dino:DINO",
            "self-distillation over prototypes (Caron et al. 2021)",
            "distillation",
        ),
        "dinov2": Entry(
            "rscl_bench.objectives.dinov2:DINOv2",
            "self-distillation of views and hidden patches (Oquab et al. 2024)",
            "distillation",
        ),
        "dinov3": Entry(
            "rscl_bench.objectives.dinov3:DINOv3",
            "self-distillation with Gram anchoring (Siméoni et al. 2025)",
            "distillation",
        ),
        "i-jepa": Entry(
            "rscl_bench.objectives.ijepa:IJEPA",
            "predicts a momentum encoder's tokens of hidden blocks (Assran et al. 2023)",
            "hybrid",
        ),
        "ibot": Entry(
            "rscl_bench.objectives.ibot:IBOT",
            "self-distillation of views and hidden patches (Zhou et al. 2022)",
            "hybrid",
        ),
        "mae": Entry(
            "rscl_bench.objectives.mae:MAE", "masked autoencoder (He et al. 2022)", "masked"
        ),
        "masked-contrast": Entry(
            "rscl_bench.objectives.masked_contrast:MaskedContrast",
            "reconstructs masked crops and contrasts what is visible of two (this project)",
            "hybrid",
        ),
        "maskfeat": Entry(
            "rscl_bench.objectives.maskfeat:MaskFeat",
            "predicts gradient histograms of hidden blocks (Wei et al. 2022)",
            "masked",
        ),
        "moco-v2": Entry(
            "rscl_bench.objectives.moco_v2:MoCoV2",
            "contrastive learning with a queue of keys (Chen et al. 2020)",
            "contrastive",
        ),
        "moco-v3": Entry(
            "rscl_bench.objectives.moco_v3:MoCoV3",
            "contrastive learning with a momentum teacher (Chen et al. 2021)",
            "contrastive",
        ),
        "momentum-masked-contrast": Entry(
            "rscl_bench.objectives.masked_contrast:MomentumMaskedContrast",
            "masked contrast with a momentum teacher of the second crop (this project)",
            "hybrid",
        ),
        "simclr": Entry(
            "rscl_bench.objectives.simclr:SimCLR",
            "contrastive learning (Chen et al. 2020)",
            "contrastive",
        ),
        "simmim": Entry(
            "rscl_bench.objectives.simmim:SimMIM",
            "predicts hidden pixels (Xie et al. 2022)",
            "masked",
        ),
        "swav": Entry(
            "rscl_bench.objectives.swav:SwAV",
            "predicts balanced codes of other views (Caron et al. 2020)",
            "clustering",
        ),
        "tec": Entry(
            "rscl_bench.objectives.tec:TEC",
            "predicts features and attention of the last task's encoder (Gao et al. 2022)",
            "hybrid",
        ),
        "vicreg": Entry(
            "rscl_bench.objectives.vicreg:VICReg",
            "keeps variance, removes covariance (Bardes et al. 2022)",
            "regularisation",
        ),
    },
    "strategies": {
        "cassle": Entry(
            "rscl_bench.strategies.cassle:CaSSLe",
            "predicts the old feature by the objective's kind of loss (Fini et al. 2022)",
            "regularisation",
        ),
        "cromo-mixup": Entry(
            "rscl_bench.strategies.cromo_mixup:CroMoMixup",
            "compares mixtures of tasks with current and old model (Mushtaq et al. 2024)",
            "rehearsal",
        ),
        "data-mixup": Entry(
            "rscl_bench.strategies.data_mixup:DataMixup",
            "mixes each batch with images of past tasks (CoSMAE, Eq. 2)",
            "rehearsal",
        ),
        "der": Entry(
            "rscl_bench.strategies.der:DER",
            "replayed images keep their old features (Buzzega et al. 2020)",
            "rehearsal",
        ),
        "ema": Entry(
            "rscl_bench.strategies.ema:EMA",
            "probes a moving average of the weights (Soutif-Cormerais et al. 2023)",
            "averaging",
        ),
        "ewc": Entry(
            "rscl_bench.strategies.ewc:EWC",
            "holds parameters by their Fisher information (Kirkpatrick et al. 2017)",
            "regularisation",
        ),
        "joint": Entry(
            "rscl_bench.strategies.joint:Joint",
            "trains on all tasks at once: an upper reference by custom, no bound",
            "reference",
        ),
        "lump": Entry(
            "rscl_bench.strategies.data_mixup:DataMixup",
            "mixes each batch with images of past tasks (Madaan et al. 2022); see data-mixup",
            "rehearsal",
        ),
        "model-mixup": Entry(
            "rscl_bench.strategies.model_mixup:ModelMixup",
            "distils from a mixture of old and current weights (CoSMAE, Eq. 3-5)",
            "regularisation",
        ),
        "osiris": Entry(
            "rscl_bench.strategies.osiris:Osiris",
            "tells tasks apart, keeps the past in its own embedding (Zhang et al. 2024)",
            "rehearsal",
        ),
        "pfr": Entry(
            "rscl_bench.strategies.pfr:PFR",
            "predicts the old encoder's feature from the new one's (Gomez-Villa et al. 2022)",
            "regularisation",
        ),
        "replay": Entry(
            "rscl_bench.strategies.replay:Replay",
            "trains on a memory of past tasks too (ER)",
            "rehearsal",
        ),
        "si": Entry(
            "rscl_bench.strategies.si:SI",
            "holds parameters by what their path did to the loss (Zenke et al. 2017)",
            "regularisation",
        ),
        "weight-averaging": Entry(
            "rscl_bench.strategies.weight_averaging:WeightAveraging",
            "mixes old and new weights at the end of a task (Wortsman et al. 2022)",
            "averaging",
        ),
    },
    "probes": {
        "encoder-adapter": Entry(
            "rscl_bench.probes.adapters:EncoderAdapterProbe",
            "trains an adapter over the blocks of a frozen encoder (Gao et al. 2022)",
        ),
        "fine-tuning": Entry(
            "rscl_bench.probes.fine_tuning:FineTuning",
            "trains a copy of the whole encoder, slower towards its input (He et al. 2022)",
        ),
        "input-adapter": Entry(
            "rscl_bench.probes.adapters:InputAdapterProbe",
            "trains the class token of a frozen encoder (Gao et al. 2022)",
        ),
        "linear": Entry(
            "rscl_bench.probes.linear:LinearProbe",
            "logistic regression of each label on frozen features",
        ),
        "ml-knn": Entry(
            "rscl_bench.probes.ml_knn:MLkNNProbe",
            "multi-label k-nearest neighbours on frozen features (Zhang & Zhou 2007)",
        ),
    },
    "datasets": {
        "aid": Entry("rscl_bench.archives.aid:AIDAdapter", "aerial scenes, 30 classes, RGB"),
        "folder": Entry(
            "rscl_bench.archives.folder.adapter:FolderAdapter",
            "any folder of images; sensor, labels and splits are options",
            has_rgb=False,
        ),
        "hit-uav": Entry(
            "rscl_bench.archives.hit_uav:HITUAVAdapter",
            "thermal frames of a drone, 1 band, 4 labels of objects",
            has_rgb=False,
        ),
        "hurricane-damage": Entry(
            "rscl_bench.archives.hurricane_damage:HurricaneDamageAdapter",
            "satellite chips of buildings after a hurricane, RGB, damaged or not",
        ),
        "mstar": Entry(
            "rscl_bench.archives.mstar:MSTARAdapter",
            "SAR chips of vehicles, 1 band, 10 classes",
            has_rgb=False,
        ),
        "potsdam": Entry(
            "rscl_bench.archives.potsdam:PotsdamAdapter",
            "aerial orthophotos of Potsdam, 5 cm, 4 bands, 6-class masks",
        ),
        "rs4-proxy-city": Entry(
            "rscl_bench.archives.rs4_proxy:SatelliteCityAdapter",
            "satellite images of a city, RGB, 6-class masks; stands in for us3d",
        ),
        "rs4-proxy-drone": Entry(
            "rscl_bench.archives.rs4_proxy:DroneAdapter",
            "oblique drone frames, RGB; stands in for uavid",
        ),
        "rs4-proxy-forest": Entry(
            "rscl_bench.archives.rs4_proxy:ForestAdapter",
            "aerial forest plots, 10 cm, RGB; stands in for treesatai",
        ),
        "rs4-proxy-town": Entry(
            "rscl_bench.archives.rs4_proxy:AerialTownAdapter",
            "drone orthophotos of towns, RGB; stands in for potsdam",
        ),
        "rsscn7": Entry(
            "rscl_bench.archives.rsscn7:RSSCN7Adapter", "aerial scenes, 7 classes, RGB"
        ),
        "torchgeo": Entry(
            "rscl_bench.archives.torchgeo.adapter:TorchGeoAdapter",
            "any dataset of TorchGeo by its class, as torchgeo:EuroSAT",
            has_rgb=False,
        ),
        "treesatai": Entry(
            "rscl_bench.archives.treesatai:TreeSatAIAdapter",
            "aerial forest tiles, 20 cm, 4 bands, 15 genus labels",
        ),
        "uavid": Entry(
            "rscl_bench.archives.uavid:UAVidAdapter",
            "oblique drone video frames, RGB, 8-class masks",
        ),
        "ucmerced": Entry(
            "rscl_bench.archives.ucmerced:UCMercedAdapter",
            "aerial land-use tiles, 0.3 m, RGB, 17 multi-labels",
        ),
        "us3d": Entry(
            "rscl_bench.archives.us3d:US3DAdapter",
            "WorldView-3 images of Jacksonville and Omaha, 8 bands, 5-class masks",
        ),
    },
}

SINGULAR: dict[Kind, str] = {
    "objectives": "objective",
    "strategies": "strategy",
    "probes": "probe",
    "datasets": "dataset",
    "backbones": "backbone",
}

#: The class that components of a kind derive from, as ``module:attribute``.
_BASES: dict[Kind, str] = {
    "objectives": "rscl_bench.objectives.base:Objective",
    "strategies": "rscl_bench.strategies.base:Strategy",
    "probes": "rscl_bench.probes.base:BaseProbe",
    "datasets": "rscl_bench.archives.adapter:DatasetAdapter",
    "backbones": "rscl_bench.models.encoder:Encoder",
}

#: Names of the modules of executed files by path, and the SHA-256 of each file by module.
_MODULES: dict[Path, str] = {}
_FILE_DIGESTS: dict[str, str] = {}

_REFERENCE = re.compile(r"\.py:[A-Za-z_]\w*$")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
#: Keys of TOMLs whose texts may be paths to classes, and keys of tables that hold none.
_NAMING = frozenset({"name", "dataset", "probe"})
_OPAQUE = frozenset({"options", "parameters", "defaults", "title"})

#: Classes that have a name for the duration of a `registered` block.
_REGISTERED: dict[tuple[Kind, str], type] = {}


def entries(kind: Kind) -> dict[str, Entry]:
    """Return the names of a kind: the lines above, and the entry points of other packages.

    Args:
        kind: One of the registry's kinds.

    Returns:
        The entry of each name, sorted by name.

    Raises:
        SpecError: If two packages offer the same name.
    """
    named = dict(BUILTIN[kind])
    for point in entry_points(group=f"rscl_bench.{kind}"):
        package = point.dist.name if point.dist else "?"
        if point.name in named:
            raise SpecError(
                f"Two packages offer the {SINGULAR[kind]} '{point.name}': {package} "
                f"({point.value}) and {named[point.name].target}; uninstall or rename one."
            )
        named[point.name] = Entry(point.value, f"from package {package}")
    return dict(sorted(named.items()))


def load(kind: Kind, name: str) -> Any:
    """Import the class of a name.

    Args:
        kind: One of the registry's kinds.
        name: A registered name, or ``path/to/file.py:Class``. A dataset's name may have a second
            part after a colon, which the method ``named`` of its class takes.

    Returns:
        The class, which derives from the base class of its kind.

    Raises:
        SpecError: If the name is unknown, its class cannot be imported, or it is not a
            complete class of this kind.
    """
    if (kind, name) in _REGISTERED:
        component: Any = _REGISTERED[kind, name]
    elif is_reference(name):
        component = _load_path(kind, name)
    else:
        component = _load_entry(kind, name)
    base = _BASES[kind]
    if not (isinstance(component, type) and issubclass(component, _import(base))):
        raise SpecError(
            f"'{name}' is not {article(SINGULAR[kind])}: it must be a class that derives from "
            f"{base.replace(':', '.')}."
        )
    missing = sorted(getattr(component, "__abstractmethods__", ()))
    if kind != "datasets" and not hasattr(component, "Params"):
        missing.append("Params")
    if hasattr(component, "undeclared"):
        missing += component.undeclared()
    if missing:
        raise SpecError(f"'{name}' is incomplete: the class must define {', '.join(missing)}.")
    options = "Options" if kind == "datasets" else "Params"
    own = getattr(component, options)
    if not (isinstance(own, type) and issubclass(own, BaseModel)):
        raise SpecError(
            f"'{name}' has {options} = {own!r:.60}; it must be a class that derives from "
            "rscl_bench.spec.Spec."
        )
    return component


@contextmanager
def registered(kind: Kind, component: str | type) -> Iterator[str]:
    """Give a class its own name as its registered name, for the duration of a block.

    Args:
        kind: The kind of the class.
        component: The class; a name is returned as it is.

    Yields:
        The name under which `load` finds the class.
    """
    if isinstance(component, str):
        yield component
        return
    name = component.__name__
    _REGISTERED[kind, name] = component
    try:
        yield name
    finally:
        del _REGISTERED[kind, name]


def is_reference(name: Any) -> bool:
    """Return whether a value of a TOML is a path to a class, ``file.py:Class``."""
    return isinstance(name, str) and _REFERENCE.search(name) is not None


def file_of(reference: str) -> Path:
    """Return the file of a path to a class."""
    return Path(reference.rpartition(":")[0])


def absolute(reference: str, folder: Path) -> str:
    """Return a path to a class as an absolute path, relative to the folder of its TOML.

    Raises:
        SpecError: If it cannot be a path.
    """
    path = user_path(file_of(reference), "The path of a class")
    return f"{(folder / path).resolve()}:{reference.rpartition(':')[2]}"


def short_name(kind: Kind, name: str) -> str:
    """Return the name of a component in ``--set``, in ``--grid`` and in messages.

    A registered name is its own short name. A class by path has its ``NAME``, or its class name in
    lower case with hyphens (``L2Previous`` is ``l2-previous``). A dataset has its ``name``.

    Args:
        kind: One of the registry's kinds.
        name: A registered name, or ``path/to/file.py:Class``.

    Raises:
        SpecError: If the class cannot be loaded, or its ``NAME`` is no name.
    """
    if not is_reference(name):
        return name
    component = load(kind, name)
    short = component.name if kind == "datasets" else getattr(component, "NAME", None)
    if short is None:
        short = _HUMP.sub("-", component.__name__.strip("_")).replace("_", "-").lower()
    if not (isinstance(short, str) and re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", short)):
        attribute = "name" if kind == "datasets" else "NAME"
        raise SpecError(
            f"'{short}' is no short name for '{name}'; give the class an attribute {attribute} of "
            "small letters, digits and hyphens, at most 64."
        )
    return short


def references(value: Any) -> Iterator[str]:
    """Yield the paths to classes in the values of a TOML."""
    found: list[str] = []

    def find(reference: str) -> str:
        found.append(reference)
        return reference

    replaced(value, find)
    yield from found


def replaced(value: Any, change: "Callable[[str], str]") -> Any:
    """Return the values of a scenario, protocol or recipe with other paths to classes.

    Paths to classes stand under the keys ``name``, ``dataset`` and ``probe``. Other texts, such as
    titles, and the parameters of components are left alone.

    Args:
        value: The values, or a part of them.
        change: Called with each path; returns its replacement.
    """
    if isinstance(value, list):
        return [replaced(item, change) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: change(item)
        if key in _NAMING and is_reference(item)
        else (item if key in _OPAQUE else replaced(item, change))
        for key, item in value.items()
    }


def portable(value: Any) -> Any:
    """Replace paths to classes by the file's name and a digest of its content.

    ``/somewhere/file.py:Class`` becomes ``file.py:Class@`` and 12 digits of the file's SHA-256, so
    that a run's identity depends on the code and not on its folder.

    Args:
        value: A path to a class, or the JSON values of a scenario, protocol or recipe.

    Returns:
        A copy of the value with the paths replaced.

    Raises:
        SpecError: If a file cannot be read.
    """
    if isinstance(value, str):
        return _portable(value) if is_reference(value) else value
    return replaced(value, _portable)


def _portable(reference: str) -> str:
    path = file_of(reference)
    executed = _MODULES.get(path.resolve())
    try:
        digest = _FILE_DIGESTS[executed] if executed else sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SpecError(
            f"The code of '{reference}' cannot be read ({error.strerror or error})."
        ) from error
    return f"{path.name}:{reference.rpartition(':')[2]}@{digest[:12]}"


def code_digest(component: type) -> str | None:
    """Return the SHA-256 of the files by path that define a class and its bases.

    Returns:
        The digest of the code that was executed, or None for a class of an installed package.
    """
    modules = dict.fromkeys(base.__module__ for base in component.__mro__)
    digests = [_FILE_DIGESTS[name] for name in modules if name in _FILE_DIGESTS]
    return sha256("".join(digests).encode()).hexdigest() if digests else None


def article(singular: str) -> str:
    """Return a noun with ``a`` or ``an``."""
    return f"{'an' if singular[0] in 'aeiou' else 'a'} {singular}"


def _import(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _load_entry(kind: Kind, name: str) -> Any:
    named = entries(kind)
    owner, colon, part = name.partition(":")
    if owner not in named:
        raise unknown(SINGULAR[kind], name, named)
    target = named[owner].target
    try:
        component = _import(target)
    except SystemExit as error:
        raise _ends_the_program(target, error) from error
    except (ImportError, AttributeError) as error:
        raise SpecError(
            f"The {SINGULAR[kind]} '{name}' ({target}) cannot be imported: {error}; install what "
            "it needs, or mend its package."
        ) from error
    if not colon:
        return component
    if kind != "datasets":
        raise unknown(SINGULAR[kind], name, named)
    return component.named(part)


def _load_path(kind: Kind, reference: str) -> Any:
    path_text, _, attribute = reference.rpartition(":")
    path = user_path(path_text, "The path of a class").resolve()
    if not path.is_file():
        raise SpecError(f"The {SINGULAR[kind]} '{reference}' names a file that does not exist.")
    module = _module_of(path)
    if not hasattr(module, attribute):
        raise SpecError(f"'{path}' defines no '{attribute}'; write {path.name}:NAME_OF_THE_CLASS.")
    return getattr(module, attribute)


def reload_changed() -> None:
    """Forget the executed Python files that were edited since, so that `load` executes them anew.

    Within a run, a file is executed once: an edit during the run changes nothing.
    """
    for path, module_name in list(_MODULES.items()):
        with suppress(OSError):
            if sha256(path.read_bytes()).hexdigest() == _FILE_DIGESTS[module_name]:
                continue
        del _MODULES[path]


def _module_of(path: Path) -> ModuleType:
    """Execute a Python file, or return its module if the file was executed before."""
    if path in _MODULES:
        return sys.modules[_MODULES[path]]
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SpecError(f"'{path}' cannot be read ({error.strerror or error}).") from error
    digest = sha256(content).hexdigest()
    # pydantic and dataclasses look a class's module up in sys.modules; so it needs a unique name.
    module_name = f"rscl_bench_path_{sha256(str(path).encode() + content).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise SpecError(f"'{path}' cannot be imported as a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        # The loader of `spec` takes a cached compilation for that of an edit in the same second.
        code = compile(content, str(path), "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # a null byte is a ValueError
        raise SpecError(f"'{path}' cannot be imported: {error}.") from error
    sys.modules[module_name], _FILE_DIGESTS[module_name] = module, digest
    try:
        exec(code, module.__dict__)
    except (SyntaxError, ImportError) as error:
        del sys.modules[module_name]
        raise SpecError(f"'{path}' cannot be imported: {error}.") from error
    except SystemExit as error:
        del sys.modules[module_name]
        raise _ends_the_program(str(path), error) from error
    except BaseException:
        del sys.modules[module_name]
        raise
    _MODULES[path] = module_name
    return module


def _ends_the_program(code: str, error: SystemExit) -> SpecError:
    return SpecError(
        f"'{code}' ends the program with sys.exit({error.code!r}) while it is imported; call that "
        'under `if __name__ == "__main__":` alone.'
    )
