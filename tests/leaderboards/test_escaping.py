"""Tests that text of strangers' records changes no table, whatever the text."""

import csv
import io
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.html import parsed_page
from helpers.records import record_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.board import Board, make_board
from rscl_bench.leaderboards.csv_tables import (
    comparisons_csv,
    costs_csv,
    leaderboard_csv,
    scores_csv,
)
from rscl_bench.leaderboards.escaping import csv_file, csv_text, markdown_code, markdown_text
from rscl_bench.leaderboards.keys import LoadedRecord, group_key, row_key
from rscl_bench.leaderboards.markdown import leaderboard_markdown
from rscl_bench.leaderboards.page.document import leaderboard_page
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord
from rscl_bench.spec import identity

HOSTILE = (
    '=HYPERLINK("http://evil","x")',
    '=cmd|"/c calc"!A1\n# Heading <img src=x onerror=alert(1)>',
    "fp32\n| 1 | winner | fp32 | 99.99 |\n",
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "![x](http://evil/x.png)",
    "`code` | cell \\| \\",
    "\x1b[31mred\x1b[0m",
    "\u202eabc\u2066",
    "\t=1+1",
    "\r=1+1",
    "@SUM(A1)",
    "-1+1",
    "+1+1",
    "＝1+1",
    '"quoted", "twice"',
    "https://evil.example www.evil.example",
    "**bold** _slanted_ ~~gone~~ &lt;",
    "---",
)
texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=40),
    st.text(alphabet="=+-@\t\r\n|\\`[]()<>!&;*_~#'\",:/ aw.\u202e\x1b\u2028\x85", max_size=40),
)


def parsed(markdown: str) -> list[Token]:
    tokens = MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(markdown)
    return [inner for token in tokens for inner in (token, *(token.children or ()))]


def shown(tokens: list[Token]) -> str:
    return "".join(token.content for token in tokens if token.type in ("text", "code_inline"))


@settings(max_examples=100)
@given(text=texts)
def test_csv_cell_is_one_cell_and_no_formula(text: str) -> None:
    frame = pd.DataFrame({"method": [text, "b"], "value": ["-1.25", "2"], "=head": [1, 2]})
    rows = list(csv.reader(io.StringIO(csv_file(frame))))
    assert rows[0] == ["method", "value", "'=head"]
    assert [row[1:] for row in rows[1:]] == [["-1.25", "1"], ["2", "2"]]
    cell = rows[1][0]
    assert cell.isprintable()
    assert cell[:1] not in tuple("=+-@＝＋－＠") or re.fullmatch(r"[+-][\d.e+-]+", cell)
    assert csv_file(frame).count("\n") == 3


@settings(max_examples=300)
@given(text=texts)
def test_markdown_text_is_shown_as_text_and_nothing_else(text: str) -> None:
    table = f"| a | b |\n| --- | --- |\n| {markdown_text(text)} | 1 |\n| 2 | 3 |\n"
    tokens = parsed(table)
    kinds = [token.type for token in tokens]
    assert kinds.count("tr_open") == 3
    assert kinds.count("td_open") == 4
    assert not {"link_open", "image", "html_inline", "html_block", "code_inline"} & set(kinds)
    assert not {"strong_open", "em_open", "s_open", "heading_open"} & set(kinds)
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    assert shown(tokens) == f"ab{plain}123"
    kinds = [token.type for token in parsed(f"{markdown_text(text)}, more")]
    assert kinds[:3] == ["paragraph_open", "inline", "text"]


@settings(max_examples=200)
@given(text=texts)
def test_markdown_code_is_one_code_span(text: str) -> None:
    tokens = parsed(f"- References: {markdown_code(text + 'x')}, and more")
    assert [t.content for t in tokens if t.type == "code_inline"] != []
    assert shown(tokens).startswith("References: ")
    assert shown(tokens).endswith(", and more")
    assert not {"link_open", "image", "html_inline", "html_block"} & {t.type for t in tokens}


def test_escaped_text_reads_well() -> None:
    assert csv_text("AMD EPYC (1 thread)") == "AMD EPYC (1 thread)"
    assert markdown_text("AMD EPYC (1 thread), Intel(R)") == "AMD EPYC (1 thread), Intel(R)"
    assert markdown_text("cosmae[strategies.lump.alpha=1]") == (
        "cosmae\\[strategies.lump.alpha=1\\]"
    )
    assert csv_text("=1+1") == "'=1+1"
    assert csv_text("\t=1+1") == "'=1+1"
    assert csv_text("-1.25") == "-1.25"
    assert markdown_text("a\nb\u202e") == "a b"


#: Free fields of a record by their dotted paths.
FREE_FIELDS = (
    "provenance.device",
    "provenance.processor",
    "provenance.cpu_capability",
    "provenance.platform",
    "provenance.python",
    "provenance.rscl_bench",
    "provenance.device_type",
    "identity.code",
    "identity.method.name",
    "identity.method.title",
    "identity.method.objective.name",
    "identity.overrides.objective.x",
    "identity.protocol_name",
    "identity.protocol.note",
    "identity.scenario.name",
    "identity.scenario.version",
    "identity.scenario.digest",
    "probes.0.probe",
    "probes.0.name",
    "tasks.0.name",
)
KEYS = ("identity.overrides", "provenance.versions", "identity.data", "identity.method")


def changed(path: str, text: str, *, key: bool = False) -> dict[str, Any]:
    """Return a record with a text in one field or as a field's name, and with a fitting id."""
    raw: dict[str, Any] = json.loads(record_of(overrides={"objective.x": "a"}).model_dump_json())
    names = ["identity", "overrides", "objective.x"] if path.endswith(".x") else path.split(".")
    current: Any = raw
    for name in names if key else names[:-1]:
        current = current[int(name) if name.isdigit() else name]
    current[text if key else names[-1]] = text
    raw["id"] = identity(raw["identity"])
    return raw


@pytest.mark.parametrize("text", HOSTILE[:9])
@pytest.mark.parametrize("path", FREE_FIELDS)
def test_hostile_text_is_refused_or_one_plain_line(path: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps(changed(path, text)))
    try:
        record = read_record(file)
    except ArtefactError as error:
        sentence = str(error)
    else:
        sentence = ""
        assert text.isprintable()
        assert path in (
            "provenance.device",
            "provenance.processor",
            "provenance.cpu_capability",
            "provenance.platform",
            "identity.method.title",
            "identity.overrides.objective.x",
            "identity.protocol.note",
        )
        assert json.loads(record.model_dump_json()) == changed(path, text)
    assert sentence.isprintable()


@pytest.mark.parametrize("text", HOSTILE[1:4])
@pytest.mark.parametrize("path", KEYS)
def test_hostile_name_of_a_field_is_refused(path: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps(changed(path, text + "\n", key=True)))
    with pytest.raises(ArtefactError, match=path.replace(".", r"\.")):
        read_record(file)


def test_long_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    for path in ("provenance.device", "identity.method.name", "probes.0.probe"):
        file.write_text(json.dumps(changed(path, "a" * 201)))
        with pytest.raises(ArtefactError, match=r"200 characters|not one of"):
            read_record(file)


def unchecked(record: RunRecord, text: str) -> RunRecord:
    """Return a record with a text in every free field that a table shows, past all checks."""
    own = record.identity.model_copy(
        update={
            "method": {**record.identity.method, "name": text},
            "overrides": {"objective.x": text, text: 1, "training.epochs": text},
            "code": text,
            "plugins": (text,),
        }
    )
    provenance = record.provenance.model_copy(
        update={
            "device": text,
            "processor": text,
            "cpu_capability": text,
            "versions": {**record.provenance.versions, "torch": text, "Pillow": text, "GDAL": text},
        }
    )
    probes = tuple(probe.model_copy(update={"probe": text}) for probe in record.probes)
    return record.model_copy(update={"identity": own, "provenance": provenance, "probes": probes})


@cache
def plain_board() -> Board:
    return board_of("plain")


def board_of(text: str) -> Board:
    """Return a leaderboard of one stranger's record beside two sound ones."""
    sound = [record_of(method="one"), record_of(method="two")]
    stranger = unchecked(record_of(method="three", steps=(8, 0)), text)
    loaded = [LoadedRecord(Path(f"{i}.json"), r) for i, r in enumerate([*sound, stranger])]
    return make_board(
        group_key(sound[0]), sorted(loaded, key=lambda item: row_key(item.record)), {}
    )


@settings(max_examples=10)
@given(text=texts)
@example(text="- 0")
@example(text="1. x")
@example(text="a | b")
@example(text="=1+1")
def test_any_text_gives_a_table_with_the_same_rows_and_cells(text: str) -> None:
    """The record has passed no check, so that the tables stand alone."""
    board, plain = board_of(text), plain_board()
    writers = (leaderboard_csv, scores_csv, costs_csv, lambda b: comparisons_csv(b.compared))
    for write in writers:
        rows, expected = (list(csv.reader(io.StringIO(write(b)))) for b in (board, plain))
        assert [len(row) for row in rows] == [len(row) for row in expected]
        for cell in (cell for row in rows for cell in row):
            assert cell.isprintable()
            assert cell[:1] not in ("=", "@", "\t", "\r")
    _check_page(board, plain)
    tokens, expected_tokens = (parsed(leaderboard_markdown(b)) for b in (board, plain))
    for kind in ("tr_open", "td_open", "th_open", "heading_open", "list_item_open", "link_open"):
        found = [t.attrs for t in tokens if t.type == kind]
        assert found == [t.attrs for t in expected_tokens if t.type == kind], kind
    assert not {"html_inline", "html_block", "image", "fence"} & {t.type for t in tokens}


def _check_page(board: Board, plain: Board) -> None:
    """The page has the elements and attributes of a plain one, and the text as text."""
    page, expected = (parsed_page(leaderboard_page(one)) for one in (board, plain))
    assert {node.tag for node in page.all()} <= {node.tag for node in expected.all()}
    for tag in ("table", "tr", "td", "th", "a", "input", "script", "style", "meta", "details"):
        found, wanted = ([n.tag for n in one.all(tag)] for one in (page, expected))
        assert len(found) == len(wanted), tag
    named = {(n.tag, name) for n in expected.all() for name in n.attributes}
    assert {(n.tag, name) for n in page.all() for name in n.attributes} <= named
    for name in ("href", "id", "http-equiv", "type"):
        values = {n.attributes.get(name) for n in expected.all()}
        assert {n.attributes.get(name) for n in page.all()} <= values, name
    assert [n.text for n in page.all("script")] == [n.text for n in expected.all("script")]
    assert page.text.replace("\n", "").isprintable()
