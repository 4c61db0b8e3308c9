"""Tests files that no run wrote: a sentence, never a traceback, and nothing waits for ever."""

import json
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cli import call
from helpers.records import record_of, save
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load
from safetensors.numpy import save as save_tensors

from rscl_bench.errors import ArtefactError
from rscl_bench.results import reading
from rscl_bench.results.image_scores import image_scores_path, read_image_scores
from rscl_bench.results.record import read_record, write_record
from rscl_bench.results.validation import verdicts

SOUND = record_of()


@pytest.fixture
def text(tmp_path: Path) -> str:
    """The text of a sound record."""
    path = tmp_path / "sound.json"
    write_record(SOUND, path)
    return path.read_text()


def nested(depth: int) -> str:
    return '{"format": 2, "identity": ' + "[" * depth + "]" * depth + "}"


#: Changes of a sound record's text, and what the refusal says.
CONTENTS: dict[str, tuple[Callable[[str], bytes], str]] = {
    "nested": (lambda _: nested(50_000).encode(), "nested too deeply"),
    "nested within reach": (lambda _: nested(500).encode(), "recursion limit"),
    "key twice": (
        lambda text: text.replace('"id"', '"format": 2, "id"', 1).encode(),
        "the key 'format' stands twice in one object",
    ),
    "inner key twice": (
        lambda text: text.replace('"seed": 0', '"seed": 0, "seed": 1', 1).encode(),
        "the key 'seed' stands twice",
    ),
    "format 2.0": (
        lambda text: text.replace('"format": 3', '"format": 2.0', 1).encode(),
        "field 'format' is 2.0",
    ),
    "format true": (
        lambda text: text.replace('"format": 3', '"format": true', 1).encode(),
        "field 'format' is True",
    ),
    "format of a later version": (
        lambda text: text.replace('"format": 3', '"format": 4', 1).encode(),
        "field 'format' is 4 and this version reads 2 and 3",
    ),
    "lone surrogate": (
        lambda text: text.replace("Some CPU", "\\ud800").encode(),
        "hex escape",
    ),
    "raw surrogate": (
        lambda text: text.encode().replace(b"Some CPU", b"\xed\xa0\x80"),
        "is damaged",
    ),
    "UTF-16": (lambda text: text.encode("utf-16"), "is damaged"),
    "byte order mark": (lambda text: text.encode("utf-8-sig"), "is damaged .*BOM"),
    "NUL": (lambda text: text.encode() + b"\0", "is damaged"),
    "NUL in a text": (
        lambda text: text.replace("Some CPU", "Some\\u0000CPU").encode(),
        "field 'provenance.device'",
    ),
    "5000 digits": (
        lambda text: text.replace('"seed": 0', '"seed": ' + "9" * 5000, 1).encode(),
        "is damaged .*digits",
    ),
    "4000 digits": (
        lambda text: text.replace('"seed": 0', '"seed": ' + "9" * 4000, 1).encode(),
        "field 'identity.seed'",
    ),
    "100 digits in the protocol": (
        lambda text: text.replace('"batch_size": 4', '"batch_size": ' + "9" * 100, 1).encode(),
        "field 'id'|identity.protocol.training.batch_size",
    ),
    "Infinity": (
        lambda text: text.replace('"final_loss": 0.7', '"final_loss": Infinity').encode(),
        "field 'tasks.0.final_loss'",
    ),
    "empty": (lambda _: b"", "is damaged"),
    "a list": (lambda _: b"[1, 2]", "is no run record"),
    "a number": (lambda _: b"2", "is no run record"),
    "a text": (lambda _: b'"format"', "is no run record"),
    "text in place of tasks": (
        lambda text: json.dumps({**json.loads(text), "tasks": "sea"}).encode(),
        "field 'tasks'",
    ),
    "escapes in the name of a field": (
        lambda text: json.dumps({**json.loads(text), "\x1b[31m\u202e": 1}).encode(),
        r"field '\\x1b\[31m\\u202e'",
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_content_is_refused_with_a_sentence(name: str, text: str, tmp_path: Path) -> None:
    change, message = CONTENTS[name]
    path = tmp_path / "strange.json"
    path.write_bytes(change(text))
    with pytest.raises(ArtefactError, match=message) as caught:
        read_record(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000 + len(str(path))


def test_large_file_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(reading.LARGEST + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda _: pytest.fail("the file was read"))
    with pytest.raises(ArtefactError, match=f"has {reading.LARGEST + 1} bytes, and at most"):
        read_record(path)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(before)


SPECIAL: dict[str, tuple[Callable[[Path], None], str]] = {
    "fifo": (fifo, "is no regular file"),
    "socket": (unix_socket, "is no regular file"),
    "folder": (Path.mkdir, "is no regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "is no regular file"),
    "link to itself": (lambda path: path.symlink_to(path.name), "cannot be read"),
    "dangling link": (lambda path: path.symlink_to("nothing"), "cannot be read"),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_file_is_refused_and_the_others_are_judged(name: str, tmp_path: Path) -> None:
    make, message = SPECIAL[name]
    save(tmp_path, "sound", 1.0, seeds=1)
    path = tmp_path / "strange.json"
    make(path)
    with pytest.raises(ArtefactError, match=message):
        read_record(path)
    if name == "folder":  # of this name; its content is searched
        path.rmdir()
        return
    signal.alarm(300)  # a pipe that is opened waits for ever
    done = call("leaderboard", "validate", tmp_path)
    signal.alarm(0)
    assert done.exit_code == 1
    (refused,) = done.stderr.splitlines()
    assert refused.startswith(f"refused: {path} ")
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'sound-0.json'}: valid",
        "2 records: 1 valid, 0 not recomputable, 1 refused",
    ]


def test_file_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The superuser may read every file, so the refusal is the system's in words only."""

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "run.json"
    write_record(SOUND, path)
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ArtefactError, match=r"run\.json cannot be read \(Permission denied\)"):
        read_record(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_record_is_read_or_refused(
    data: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever value stands in whatever field, there is a record or a sentence."""
    raw = json.loads(SOUND.model_dump_json())
    value = data.draw(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(10**40), 10**40)
            | st.floats()
            | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.text(max_size=3), inner, max_size=2)
            ),
            max_leaves=3,
        )
    )
    current: Any = raw
    while isinstance(current, dict | list) and current:
        keys = sorted(current) if isinstance(current, dict) else range(len(current))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(current[key], dict | list) or data.draw(st.integers(0, 4)) == 0:
            current[key] = value
            break
        current = current[key]
    path = tmp_path_factory.mktemp("mutated") / "run.json"
    path.write_text(json.dumps(raw))
    sentence = ""
    with suppress(ArtefactError):
        try:
            record = read_record(path)
        except ArtefactError as error:
            sentence = str(error)
            raise
        assert record.id == record.identity.run_id()
    assert sentence.isprintable()


Tensors = dict[str, Any]


def with_digest(path: Path, content: bytes) -> None:
    """Write image scores beside a record, and their digest into the record."""
    image_scores_path(path).write_bytes(content)
    raw = json.loads(path.read_text())
    raw["image_scores_digest"] = sha256(content).hexdigest()
    path.write_text(json.dumps(raw))


def without(name: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.pop(name)


def added(name: str) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: np.zeros((1, 1))})


def turned(name: str, change: Callable[[Any], Any]) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({name: np.ascontiguousarray(change(tensors[name]))})


FIRST, LABELS = "scores.0.outer.test", "labels.outer.test"


def one_nan(array: Any) -> Any:
    changed = array.copy()
    changed[3, 1] = np.nan
    return changed


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tensors: tensors.clear(), "it lacks the tensor 'labels.outer.test'"),
        (without("scores.1.outer.test"), "it lacks the tensor 'scores.1.outer.test'"),
        (without(LABELS), "it lacks the tensor 'labels.outer.test'"),
        (without("pixel_statistics.outer.test"), "it lacks the tensor 'pixel_statistics"),
        (
            added("more"),
            "the record has no field for the tensor 'more'",
        ),
        (turned(FIRST, lambda a: a[:-1]), f"the tensor '{FIRST}' is float64 of shape [149, 3]"),
        (turned(FIRST, lambda a: a[:, :2]), f"the tensor '{FIRST}' is float64 of shape [150, 2]"),
        (turned(FIRST, np.ravel), f"the tensor '{FIRST}' is float64 of shape [450]"),
        (turned(FIRST, lambda a: a[None]), f"the tensor '{FIRST}' is float64 of shape [1, 150, 3]"),
        (turned(FIRST, lambda a: a.astype("f4")), f"the tensor '{FIRST}' is float32"),
        (turned(FIRST, one_nan), f"the tensor '{FIRST}' holds a score that is not finite"),
        (turned(FIRST, lambda a: a * np.inf), f"the tensor '{FIRST}' holds a score that is not"),
        (turned(LABELS, lambda a: a * 7), f"the tensor '{LABELS}' holds a label that is neither"),
        (turned(LABELS, lambda a: a.astype("i8")), f"the tensor '{LABELS}' is int64"),
        (turned(LABELS, lambda a: a[:, :1]), f"the tensor '{LABELS}' is uint8 of shape [150, 1]"),
        (turned(LABELS, lambda a: a[:0]), f"the tensor '{LABELS}' is uint8 of shape [0, 3]"),
    ],
)
def test_tensor_that_does_not_fit_is_named(
    change: Callable[[Tensors], None], named: str, tmp_path: Path
) -> None:
    save(tmp_path, "one", 1.0, seeds=1)
    path = tmp_path / "one-0.json"
    tensors = dict(load(image_scores_path(path).read_bytes()))
    change(tensors)
    with_digest(path, save_tensors(tensors, {"run": read_record(path).id}))
    with pytest.raises(ArtefactError) as caught:
        read_image_scores(path, read_record(path))
    assert named in str(caught.value)
    assert f"{image_scores_path(path)} does not fit {path}" in str(caught.value)
    (verdict,) = verdicts([path]).values()
    assert (verdict.state, verdict.reason) == ("refused", str(caught.value))


GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "garbage": lambda _: bytes(range(256)),
    "truncated": lambda content: content[:-1],
    "truncated in the header": lambda content: content[:20],
    "longer": lambda content: content + b"\0",
    "header of 2^63 bytes": lambda content: b"\xff" * 7 + b"\x7f" + content[8:],
    "no tensors": lambda _: save_tensors({}),
    "header is a list": lambda _: (2).to_bytes(8, "little") + b"[]",
    "unknown type": lambda content: content.replace(b'"F64"', b'"F99"', 1),
    "metadata is a number": lambda content: content.replace(b'"run":"', b'"run":7,"', 1),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_damaged_image_scores_with_fitting_digest_are_refused(name: str, tmp_path: Path) -> None:
    save(tmp_path, "one", 1.0, seeds=1)
    path = tmp_path / "one-0.json"
    with_digest(path, GARBAGE[name](image_scores_path(path).read_bytes()))
    with pytest.raises(ArtefactError, match=r"one-0\.safetensors does not fit .*one-0\.json"):
        read_image_scores(path, read_record(path))


def test_image_scores_that_are_a_pipe_are_refused(tmp_path: Path) -> None:
    save(tmp_path, "one", 1.0, seeds=1)
    path = tmp_path / "one-0.json"
    image_scores_path(path).unlink()
    os.mkfifo(image_scores_path(path))
    with pytest.raises(ArtefactError, match=r"one-0\.safetensors is no regular file"):
        read_image_scores(path, read_record(path))


def test_image_scores_without_the_run_are_those_of_format_2(tmp_path: Path) -> None:
    save(tmp_path, "one", 1.0, seeds=1)
    path = tmp_path / "one-0.json"
    tensors = load(image_scores_path(path).read_bytes())
    with_digest(path, save_tensors(dict(tensors)))
    record = read_record(path)
    old, new = (record.model_copy(update={"format": number}) for number in (2, 3))
    read = read_image_scores(path, old)
    assert read is not None
    assert read.run is None
    with pytest.raises(ArtefactError, match="its header names the run None"):
        read_image_scores(path, new)


def test_validation_of_nothing_is_refused(tmp_path: Path) -> None:
    result = call("leaderboard", "validate", tmp_path)
    assert result.exit_code == 1
    assert result.stderr == "error: There is no run record to validate; check the path.\n"
    (tmp_path / "package.json").write_text('{"name": "other", "version": "1"}')
    result = call("leaderboard", "validate", tmp_path)
    assert result.exit_code == 1
    assert "no run record to validate" in result.stderr


def test_other_json_is_left_out_and_counted_and_a_broken_record_is_named(tmp_path: Path) -> None:
    records = tmp_path / "records"
    save(records, "one", 1.0, seeds=1)
    (records / "package.json").write_text('{"name": "other", "format": 1}')
    (records / "list.json").write_text("[]")
    (records / "tuning").mkdir()
    (records / "tuning" / "mae.json").write_text('{"format": 1}')
    note = (
        "note: 2 JSON files are no run record and left out: "
        f"{records / 'list.json'}, {records / 'package.json'}\n"
    )
    result = call("leaderboard", "validate", records)
    assert (result.exit_code, result.stderr) == (0, note)
    result = call("leaderboard", "build", records, "--out", tmp_path / "out")
    assert (result.exit_code, result.stderr) == (0, note)
    broken = records / "broken.json"
    for content in ("", "{", (records / "one-0.json").read_text()[:-9], '{"identity": 1}'):
        broken.write_text(content)
        result = call("leaderboard", "build", records, "--out", tmp_path / "out")
        assert result.exit_code == 1
        assert str(broken) in result.stderr
    result = call("leaderboard", "build", records / "package.json", "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert "package.json" in result.stderr


def test_formats_2_and_3_are_read_with_their_digests(tmp_path: Path) -> None:
    raw = json.loads(SOUND.model_dump_json())
    digests = dict.fromkeys(raw["identity"]["data"], "1" * 64)
    path = tmp_path / "run.json"
    fewer = dict(list(digests.items())[1:])
    other = {**fewer, "tasks.air": "1" * 64}
    for number, pixels, sound in (
        (2, {}, True),
        (2, digests, False),
        (3, digests, True),
        (3, {}, False),
        (3, fewer, False),
        (3, other, False),
    ):
        path.write_text(json.dumps({**raw, "format": number, "pixel_digests": pixels}))
        if sound:
            record = read_record(path)
            assert (record.format, record.pixel_digests) == (number, pixels)
            assert record.id == SOUND.id
        else:
            with pytest.raises(ArtefactError, match="field 'pixel_digests'"):
                read_record(path)
