"""Tables for papers and long tables: structure, values, bold cells, names that need escapes."""

import io
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from helpers.cli import call
from helpers.paths import ROOT
from helpers.records import record_of, save

from rscl_bench import api
from rscl_bench.errors import SpecError
from rscl_bench.leaderboards.export import ExportTable, export_table, separated_above_all
from rscl_bench.leaderboards.export_choice import choose_board, choose_rows
from rscl_bench.leaderboards.export_text import latex_table, latex_text, markdown_table
from rscl_bench.results.record import write_record

SHIFT4 = ROOT / "leaderboards" / "records" / "shift4"
STRANGE = {"strategies.data-mixup.alpha": 0.5, "objective.weird_name": "a&b%$#{}~^\\"}


@pytest.fixture(scope="module")
def separated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One method far above two others, with image scores and five seeds."""
    folder = tmp_path_factory.mktemp("records")
    for method, quality in (("low", 0.30), ("mid", 0.33), ("high", 0.60)):
        save(folder, method, quality, seeds=5, spread=0.004)
    return folder


def body(latex: str) -> list[list[str]]:
    """Return the cells of the lines of a tabular, its head included."""
    inside = latex.split(r"\toprule")[1].split(r"\bottomrule")[0]
    lines = [line for line in inside.splitlines() if line.endswith(r"\\")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line[:-2])] for line in lines]


def check_latex(latex: str) -> None:
    """Check what a LaTeX run would: balanced groups and environments, equal numbers of columns."""
    code = [line for line in latex.splitlines() if not line.startswith("%")]
    text = "\n".join(code)
    bare = re.sub(r"\\[\\{}&%$#_]", "", text)
    depth = 0
    for character in bare:
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[#_^~%]", re.sub(r"\\label\{[^}]*\}", "", bare))
    assert re.findall(r"\\(begin|end)\{(\w+)\}", text) == [
        ("begin", "table"),
        ("begin", "tabular"),
        ("end", "tabular"),
        ("end", "table"),
    ]
    (layout,) = re.findall(r"\\begin\{tabular\}\{(l[r]*)\}", text)
    for line in body(latex)[1:]:
        assert len(line) == len(layout)
    spans = re.findall(r"\\multicolumn\{(\d+)\}", text)
    head = body(latex)[0]
    assert len(head) - len(spans) + sum(map(int, spans)) == len(layout)
    order = [r"\toprule", r"\midrule", r"\bottomrule"]
    assert [text.index(rule) for rule in order] == sorted(text.index(rule) for rule in order)


def test_latex_of_the_published_records_has_their_numbers() -> None:
    latex = api.export(SHIFT4, "latex")
    check_latex(latex)
    table = pd.read_csv(ROOT / "leaderboards" / "shift4-v1" / "cpu" / "leaderboard.csv")
    lines = {line[0]: line[1:] for line in body(latex)[2:]}
    assert list(lines) == table["method"].tolist()
    for _, row in table.iterrows():
        shown = lines[row["method"]]
        means = [f"T4.{p}.micro" for p in ("ucmerced", "aid", "hurricane-damage", "hit-uav")]
        for column, cell in zip(means, shown, strict=False):
            half = row[f"{column}.ci95"]
            mean = f"{float(row[f'{column}.mean']):.2f}"
            assert cell == (mean if pd.isna(half) else rf"{mean} $\pm$ {half:.2f}")
    forgetting = table.set_index("method").loc["finetune", "continual.forgetting.micro.mean"]
    assert lines["finetune"][-1].startswith(f"{float(str(forgetting)):.2f}".replace("-", "$-$"))
    assert "No row is separated above all other trained rows" in latex
    assert latex.count(r"\midrule") == 2  # below the head, and below the lower references


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
def test_latex_compiles(tmp_path: Path) -> None:
    table = api.export(SHIFT4, "latex", columns=["seeds", "tasks", "forgetting", "operations"])
    (tmp_path / "page.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        f"{table}\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_only_what_is_separated_above_all_is_bold(separated: Path) -> None:
    board = choose_board(separated)
    probe = board.layout.probes[0]
    rows = choose_rows(board, [])
    best = separated_above_all(board, rows, probe, "micro")
    assert best is not None
    assert best.method == "high"
    latex = api.export(separated, "latex")
    check_latex(latex)
    bold = [line for line in body(latex) if any(r"\textbf" in cell for cell in line)]
    assert [line[0] for line in bold] == ["high"]
    assert [r"\textbf" in cell for cell in bold[0]] == [False, False, True]  # after the last task
    assert "Bold: separated above all other trained rows" in latex
    markdown = api.export(separated, "markdown")
    assert re.findall(r"\*\*[\d.]+\*\* ±", markdown)
    assert markdown.count("**") == 2
    # Without the best method, nothing is separated above all others by chance alone.
    others = choose_rows(board, ["low", "mid"])
    assert separated_above_all(board, others[:1], probe, "micro") is None


def test_names_are_shown_and_nothing_else(tmp_path: Path) -> None:
    for seed in (0, 1):
        record = record_of(seed=seed, random=0.2 + seed / 100, overrides=STRANGE)
        write_record(record, tmp_path / f"{seed}.json")
    board = choose_board(tmp_path)
    (row,) = choose_rows(board, [])
    table = export_table(board)
    latex = latex_table(table)
    check_latex(latex)
    plain = latex_text(board.label(row))
    for character, command in ((r"\textbackslash{}", "\\"), (r"\&", "&"), (r"\_", "_")):
        assert character in plain or command not in board.label(row)
    assert plain in latex
    assert "Small synthetic images: these numbers are no result." in latex
    assert board.label(row).split("[")[0] in markdown_table(table)


def test_columns_can_be_chosen() -> None:
    table = export_table(
        choose_board(SHIFT4),
        probes=["aid", "ucmerced"],
        methods=["cosmae", "finetune"],
        kind="macro",
        columns=["rank", "seeds", "T2", "final", "mean-over-tasks", "forward-transfer", "hours"],
    )
    assert [(column.group, column.title) for column in table.columns] == [
        ("", "rank, ucmerced"),
        ("", "rank, aid"),
        ("", "seeds"),
        ("ucmerced", "hurricane-damage"),
        ("ucmerced", "final"),
        ("ucmerced", "mean over tasks"),
        ("aid", "hurricane-damage"),
        ("aid", "final"),
        ("domains", "forward transfer"),
        ("cost", "hours"),
    ]
    assert list(table.names) == ["random-encoder", "pixel-statistics", "cosmae", "finetune"]
    assert table.references == 2
    check_latex(latex_table(table))
    pipes = {line.count("|") for line in markdown_table(table).splitlines() if line[:1] == "|"}
    assert pipes == {12}


def test_operations_are_those_of_the_records() -> None:
    table = export_table(choose_board(SHIFT4), columns=["operations"])
    (column,) = table.columns
    cells = dict(zip(table.names, column.cells, strict=True))
    costs = pd.read_csv(ROOT / "leaderboards" / "shift4-v1" / "cpu" / "leaderboard.csv")
    line = costs.set_index("method").loc["cosmae"]
    total = line["gflops_with_gradient"] + line["gflops_without_gradient"]
    assert float(cells["cosmae"].mean) == pytest.approx(total, rel=1e-3)
    assert cells["random-encoder"].mean == "–"


def test_unknown_columns_are_refused(separated: Path) -> None:
    with pytest.raises(SpecError, match="did you mean 'forgetting'"):
        api.export(SHIFT4, "latex", columns=["forgeting"])
    with pytest.raises(SpecError, match="Unknown column 'T5'"):
        api.export(SHIFT4, "latex", columns=["T5"])
    with pytest.raises(SpecError, match="needs probes of the tasks' domains"):
        api.export(separated, "latex", columns=["forgetting"])
    with pytest.raises(SpecError, match="leave --columns out"):
        api.export(separated, "csv-long", columns=["final"])


def test_long_csv_has_the_rows_of_the_published_file() -> None:
    published = pd.read_csv(ROOT / "leaderboards" / "shift4-v1" / "cpu" / "scores.csv")
    pd.testing.assert_frame_equal(
        pd.read_csv(io.StringIO(api.export(SHIFT4, "csv-long"))), published
    )
    some = pd.read_csv(
        io.StringIO(
            api.export(SHIFT4, "csv-long", probes=["aid"], methods=["er", "ewc"], score="macro")
        )
    )
    chosen = published[
        (published["probe"] == "aid")
        & published["method"].isin(["er", "ewc"])
        & (published["score"] == "macro_map")
    ]
    pd.testing.assert_frame_equal(some, chosen.reset_index(drop=True))
    names = ["method", "seed", "task", "task_name", "probe", "split", "score", "value"]
    assert set(names) <= set(some.columns)
    with pytest.raises(SpecError, match="Unknown probe among these records"):
        api.export(SHIFT4, "csv-long", probes=["aidd"])


def test_commands_write_files(tmp_path: Path, separated: Path) -> None:
    result = call("leaderboard", "export", SHIFT4, "--format", "latex", "--probe", "aid")
    assert result.exit_code == 0, result.output
    check_latex(result.stdout)
    out = tmp_path / "deep" / "table.md"
    result = call("leaderboard", "export", separated, "--format", "markdown", "--out", out)
    assert (result.exit_code, result.stdout.strip()) == (0, str(out))
    assert out.read_text() == api.export(separated, "markdown")
    figure = tmp_path / "figure.pdf"
    result = call("plot", "matrix", SHIFT4, "--method", "er", "--score", "macro", "--out", figure)
    assert (result.exit_code, result.stdout.strip()) == (0, str(figure))
    assert figure.read_bytes().startswith(b"%PDF")
    result = call("plot", "matrix", SHIFT4, "--out", tmp_path / "x.png")
    assert result.exit_code == 1
    assert "choose one with --method: er, cosmae, ewc, finetune" in result.output
    result = call("plot", "loss", SHIFT4, "--out", tmp_path / "x.png")
    assert "There is no losses.csv among these runs" in result.output
    result = call("plot", "curves", SHIFT4, "--out", tmp_path / "x.jpeg")
    assert "does not end with .svg, .pdf or .png" in result.output


def test_table_without_rows_of_methods_has_no_second_rule() -> None:
    table = ExportTable(["only"], 1, [], "caption", "label")
    assert latex_table(table).count(r"\midrule") == 1
