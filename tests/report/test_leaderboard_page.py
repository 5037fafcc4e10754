"""The leaderboard's pages: true numbers, bold by the rule, ranges with sources, no page lost to bad input."""

from __future__ import annotations

import csv
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from html_reader import HOSTILE, Reader
from hypothesis import given
from hypothesis import strategies as st
from leaderboard_fakes import METHODS, NUMBER, literature
from project import ROOT
from records_factory import CIFAR10, CIFAR10_JPEG, DIGITS, finish, make_cell

from bench.cell import BackboneChoice, Protocol
from bench.leaderboard import Board, best, gather, sets
from bench.leaderboard.check import words
from bench.leaderboard.lines import bold, marks, rows
from bench.records import Results
from bench.report import text, values
from bench.report.board_figures import front
from bench.report.exports import table
from bench.report.index_page import render_index
from bench.report.run_page import render_runs
from bench.report.values import FOOTNOTES
from bench.rundir import RunDir

RESNET32 = BackboneChoice(name="resnet32_cifar")
EXPECTED = ROOT / "tests/expected"

#: Published numbers beside what the fakes measure: conflicts, a best epoch, a doubtful one, shot groups.
NUMBERS = [
    {"method": "ce", "value": "70.4", "original": "no", "reported_by": "One"},
    {"method": "ce", "value": "71.2", "original": "no", "reported_by": "Two", "trust": "read from an image"},
    {"method": "ce", "value": "99", "original": "no", "reported_by": "Three", "note": "doubtful: a typo"},
    {"method": "crt", "value": "75.25", "selection": "best_test", "std": "0.4", "n_seeds": "3"},
    {"method": "ride", "value": "95.5", "epochs": "400"},
    {"method": "bcl", "value": "51.9", "dataset": "cifar100"},
    {"method": "bcl", "value": "63", "dataset": "cifar100", "shots": "many"},
]


def cell(method: str = "ce", seed: int = 0, **changes: Any) -> Any:
    return make_cell(method, seed, **({"backbone": RESNET32} | changes))


def write_literature(folder: Path, *numbers: dict[str, str], methods: str = METHODS) -> Path:
    """Write a small literature on CIFAR-10-LT and return its folder."""
    folder.mkdir(parents=True)
    base = {"dataset": "cifar10", "augmentation": "std"}
    fields = dict.fromkeys(("std", "n_seeds", "note"), "")
    literature(folder, {**base, "method": "ce"}, methods=methods)  # for the file of methods
    with (folder / "published.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*NUMBER, *fields])
        writer.writeheader()
        writer.writerows([NUMBER | fields | base | number for number in numbers])
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_literature(tmp_path / "literature", *NUMBERS)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Four methods on CIFAR-10-LT, one of them with one seed, and one on a copy of it."""
    results = tmp_path / "results"
    for method, seeds in (("ce", 3), ("ldam_drw", 3), ("tsc", 3), ("focal", 1)):
        for seed in range(seeds):
            finish(results, cell(method, seed))
    finish(results, cell("ce", dataset=CIFAR10_JPEG, protocol=Protocol(epochs=20)))
    return results


def show(results: Path, folder: Path) -> tuple[Board, dict[str, str]]:
    """Render the index; return the board and the files by name."""
    board = gather(Results(results), folder)
    reports = results.parent / "reports"
    written = render_index(board, reports)
    return board, {path.relative_to(reports).as_posix(): path.read_text() for path in written}


def tables(page: str, anchor: str) -> list[list[str]]:
    """Return the table of a tab."""
    section = page[re.search(f'<section class="tab( open)?" id="{anchor}"', page).start() :]
    return Reader(section[: section.index("</section>") + 10]).tables[0]


def row(table: list[list[str]], start: str) -> dict[str, str]:
    (found,) = [line for line in table[1:] if line[1].startswith(start)]
    return dict(zip(table[0], found, strict=True))


# -- golden files ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["index.md", "index.tex", "index.bib"])
def test_documents_are_as_expected(results: Path, folder: Path, name: str) -> None:
    """Compare with tests/expected; UPDATE_EXPECTED=1 writes it again, for the diff to be read."""
    _, files = show(results, folder)
    expected = EXPECTED / name
    if os.environ.get("UPDATE_EXPECTED"):
        expected.write_text(files[name])
    assert files[name] == expected.read_text()


def test_the_latex_is_balanced(results: Path, folder: Path) -> None:
    _, files = show(results, folder)
    source = re.sub(r"%.*", "", files["index.tex"].replace(r"\%", ""))
    bare = re.sub(r"\\[{}&]", "", source)
    assert bare.count("{") == bare.count("}")
    bodies = re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", bare, flags=re.S)
    assert len(bodies) == bare.count(r"\begin{tabular}") > 0
    for body in bodies:
        lines = [line for line in body[1].splitlines() if line.rstrip().endswith("\\\\")]
        assert len(lines) > 1
        assert {line.count("&") for line in lines} == {len(body[0]) - 1}
    assert files["index.tex"].count(r"\toprule") == files["index.tex"].count(r"\bottomrule")


# -- numbers ---------------------------------------------------------------------------------------
def test_measured_stands_beside_published(results: Path, folder: Path) -> None:
    _, files = show(results, folder)
    shown = row(tables(files["index.html"], "cifar10-100"), "LDAM-DRW")
    table = Results(results).table()
    runs = table[table["method"] == "ldam_drw"]
    mean, deviation = runs["accuracy"].mean(), runs["accuracy"].std()
    assert shown["measured (last epoch)"] == f"{mean:.2f} ± {deviation:.2f}"
    assert shown["n"] == "3"
    assert "best on test (selection optimism)" not in shown  # these runs scored no epoch but the last
    assert (shown["published"], shown["verdict"]) == ("n/a", "n/a")

    table = tables(files["index.html"], "cifar10-100")
    lines = [dict(zip(table[0], line, strict=True)) for line in table[1:] if "Cross-entropy" in line[1]]
    (copy,) = [line for line in lines if line["n"] == "1"]
    (original,) = [line for line in lines if line["n"] == "3"]
    mean = Results(results).table().query("method == 'ce' and copy_of.isna()")["accuracy"].mean()
    assert original["verdict"] == f"below {text.gap(mean - 70.4)}"
    assert (copy["published"], copy["verdict"]) == ("n/a", "protocol differs epochs, data copy")
    assert original["published"] == "70.4q 70.4–71.2, 2 reports"
    assert not [line for line in table if line[1].startswith("CE")]  # it stands in the row that it judges
    assert "(u) |" not in files["index.md"]


def test_what_a_source_does_not_state_is_marked(results: Path, tmp_path: Path) -> None:
    numbers = [{"method": "ce", "value": "57.4", "epochs": "", "experts": "", "original": "no"}]
    _, files = show(results, write_literature(tmp_path / "vague", *numbers))
    assert "| **57.4** (q) (u) | inconclusive<br>+0.02 |" in files["index.md"]
    shown = tables(files["index.html"], "cifar10-100")
    assert [line for line in shown if line[1].startswith("CE")]  # in the league of what states no epochs
    assert "not stated there, and taken to match: epochs, experts" in files["index.html"]


def test_what_is_quoted_or_read_from_an_image_or_doubtful_is_marked(tmp_path: Path) -> None:
    numbers = [
        {"method": "ce", "value": "70", "original": "no", "trust": "read from an image"},
        {"method": "bcl", "value": "71", "selection": "best_test"},
        {"method": "ride", "value": "99", "original": "no", "note": "doubtful: a typo"},
        {"method": "crt", "value": "69", "trust": "third-party notes"},
    ]
    _, files = show(tmp_path / "none" / "results", write_literature(tmp_path / "marked", *numbers))
    cells = {
        line.split("<br>")[0].split()[-1]: line.split(" | ")[3]
        for line in files["index.md"].splitlines()
        if re.match(r"\| (\d|n/a)", line)
    }
    assert cells["CE"] == "70.0 (q) (i) |"
    assert cells["BCL"] == "**71.0** (b) |"  # the best of what is not doubtful
    assert cells["RIDE"] == "99.0 (q) (d) |"
    assert cells["cRT"] == "69.0 (t) |"
    assert re.search(r"\| n/a \| RIDE", files["index.md"]), "what is doubtful has no rank"
    assert "nothing measured here; best published BCL 71.0." in files["index.md"]
    for letter, note in FOOTNOTES.items():
        assert f"<b>{letter}</b> {note}".replace("'", "&#39;") in files["index.html"]
        assert f"({letter}) {note}" in files["index.md"]


def test_doubtful_shot_groups_are_marked_and_never_bold(tmp_path: Path) -> None:
    numbers = [
        {"method": "bcl", "value": "71"},
        {"method": "bcl", "value": "40", "shots": "few"},
        {"method": "ride", "value": "72", "note": "doubtful: shot groups do not fit"},
        {"method": "ride", "value": "60", "shots": "few", "note": "doubtful: shot groups do not fit"},
    ]
    board, _ = show(tmp_path / "none" / "results", write_literature(tmp_path / "marked", *numbers))
    (tab,) = board.tabs
    marked = marks(tab.lines)
    few = {line.entry["method"]: values.metric(line, "few", marked) for line in tab.lines}
    assert (few["bcl"].bold, few["bcl"].kind) == (True, "")
    assert (few["ride"].bold, few["ride"].kind) == (False, "doubtful")


def test_verdicts_have_a_word_a_sign_and_a_style(results: Path, folder: Path) -> None:
    board, files = show(results, folder)
    for tab in board.tabs:
        for line in tab.lines:
            if line.pair:
                verdict = str(line.pair["verdict"])
                style = verdict.partition(",")[0].replace(" ", "-")
                cell = f'{verdict} <span class="note gap">{text.gap(line.pair["d"])}</span>'
                if line.pair["differs"]:  # then the difference means nothing
                    cell = (
                        f'{verdict} <button type="button" class="note detail">{words(line.pair["differs"])}'
                    )
                    assert text.gap(line.pair["d"]) not in files["index.html"]
                assert re.search(f'<td class="{style}"[^>]*>{re.escape(cell)}', files["index.html"])
                assert text.gap(line.pair["d"])[0] in "+−"


def test_several_reports_are_one_row_with_a_range_and_its_sources(results: Path, folder: Path) -> None:
    board, files = show(results, folder)
    (line,) = [
        line
        for tab in board.tabs
        for line in tab.lines
        if line.kind == "published" and line.entry["method"] == "ce"
    ]
    assert line.entry["accuracy"] == 70.4  # the lower middle of what is not doubtful
    lines = [line for line in tables(files["index.html"], "cifar10-100") if "Cross-entropy" in line[1]]
    assert lines[0][4] == "70.4q 70.4–71.2, 2 reports"
    hint = re.findall(r'<td data-order="70.4" title="([^"]*)"', files["index.html"])[0]
    for part in ("70.4  One", "71.2  Two", "read from an image", "99.0  Three", "doubtful: a typo"):
        assert part in hint


def test_the_authors_own_number_goes_before_others(tmp_path: Path) -> None:
    numbers = [
        {"method": "bcl", "value": value, "original": own}
        for value, own in (("50", "no"), ("51.93", "yes"), ("50.1", "no"), ("50.2", "no"))
    ]
    board = gather(Results(tmp_path), write_literature(tmp_path / "literature", *numbers))
    (line,) = board.tabs[0].lines
    assert line.entry["accuracy"] == 51.93
    assert len(line.reports["accuracy"]) == 4


def test_one_seed_looks_like_one(results: Path, folder: Path) -> None:
    _, files = show(results, folder)
    shown = row(tables(files["index.html"], "cifar10-100"), "focal")
    assert shown["n"] == "1"
    assert not [value for value in shown.values() if "±" in value]
    assert shown["#"].startswith("(")
    assert 'class="headline single"' in files["index.html"]
    assert "single strong" not in files["index.html"]


def test_bold_is_the_best_and_all_that_noise_does_not_tell_from_it(results: Path, folder: Path) -> None:
    board, files = show(results, folder)
    tab = board.opening
    lines = tab.leagues[tab.opening]
    scores = {line.key: line.by_seed("accuracy") for line in lines if line.kind == "measured"}
    published = max((line for line in lines if line.reported), key=lambda line: line.reported)
    assert bold(lines, "accuracy") == best(scores)
    assert bold(lines, "published") == {published.key}
    for line in rows(lines):
        start = f"runs/{line.page}" if line.page else f"| {line.entry['title']}<br>"
        shown = [row.split(" | ") for row in files["index.md"].splitlines() if start in row][-1]
        assert shown[3].startswith("**") == (line.key in bold(lines, "accuracy"))
        assert shown[4].startswith("**") == (line.key in bold(lines, "published"))


def test_ranks_are_within_leagues_measured_apart_from_published_and_na_has_none(
    results: Path, folder: Path
) -> None:
    board, files = show(results, folder)
    for tab in board.tabs:
        for lines in tab.leagues.values():
            for published in (False, True):
                rivals = [line for line in rows(lines) if (line.kind == "published") == published]
                values = [line.entry["accuracy"] for line in rivals]
                known = sorted((value for value in values if value is not None), reverse=True)
                ranks = [None if value is None else known.index(value) + 1 for value in values]
                assert [line.rank for line in rivals] == ranks
    for name in ("RIDE", "cRT", "TSC"):
        assert row(tables(files["index.html"], "cifar10-100"), name)["#"] == "1"


def test_a_data_set_of_a_recipe_s_own_is_called_as_the_recipe_calls_it(results: Path, folder: Path) -> None:
    birds = CIFAR10.model_copy(update={"name": "birds", "title": "Birds of a garden"})
    finish(results, make_cell(dataset=birds))
    board, files = show(results, folder)
    assert [tab.title for tab in board.tabs][-1] == "Birds of a garden, imbalance factor 100"
    assert "Birds of a garden" in files["index.md"]


def test_a_tab_opens_on_the_league_with_most_runs_of_ours(results: Path, folder: Path) -> None:
    leagues = gather(Results(results), folder).opening.leagues.values()
    sizes = [(sum(line.kind == "measured" for line in lines), len(lines)) for lines in leagues]
    assert sizes == [(4, 6), (1, 1), (0, 1)]


def test_heads_have_the_class_counts(results: Path, folder: Path) -> None:
    finish(results, cell(dataset=DIGITS, imbalance_factor=20.0))
    _, files = show(results, folder)
    assert tables(files["index.html"], "cifar10-100")[0][6:8] == [
        "many (>100): 8 classes",
        "medium (20–100): 2 classes",
    ]
    assert "few (<20): 4 classes" in tables(files["index.html"], "digits-20")[0]
    assert sets.group_sizes("cifar100", 100) == {"many": 35, "medium": 35, "few": 30}
    assert sum((sets.group_sizes("inaturalist2018", 500) or {}).values()) == 8142


def test_series_of_one_method_are_kept_apart(results: Path, folder: Path) -> None:
    finish(results, cell("ldam_drw", params={"scale": 10.0}))
    finish(results, cell("ldam_drw", params={"scale": 30.0}))
    _, files = show(results, folder)
    methods = [line[1] for line in tables(files["index.html"], "cifar10-100")[1:]]
    assert [name for name in methods if "scale 10" in name]
    assert [name for name in methods if "scale 30" in name]


def test_the_time_of_a_stage_has_in_it_what_it_starts_from(results: Path, folder: Path) -> None:
    parent = cell("ce", 0)
    finish(results, cell("crt", parent=parent, protocol=Protocol(epochs=10)))
    finish(results, cell("crt", 1, parent=cell("ce", 7), protocol=Protocol(epochs=10)))
    board, files = show(results, folder)
    known = {one.run.run_id: one.seconds for one in board.done}
    assert known[cell("crt", parent=parent, protocol=Protocol(epochs=10)).run_id] == 340
    assert list(known.values()).count(None) == 1  # its parent is not here
    table = tables(files["index.html"], "cifar10-100")
    assert {line[table[0].index("device time")] for line in table[1:]} == {"", "2.8 min", "5.7 min"}


def test_the_average_rank_says_on_what_it_rests_and_needs_three_leagues(
    results: Path, folder: Path, tmp_path: Path
) -> None:
    _, files = show(results, folder)
    assert "No method was ranked in 3 leagues yet." in files["index.md"].partition("## Average rank")[2]
    numbers = [
        {"method": method, "value": str(60 + i), "epochs": str(epochs)}
        for epochs in (200, 400, 100)
        for i, method in enumerate(("ce", "crt", "ride", "bcl", "gcl"))
        if (method, epochs) != ("ce", 100)
    ]
    numbers.append({"method": "bbn", "value": "59", "epochs": "100"})
    more = write_literature(tmp_path / "more", *numbers, methods=f"{METHODS}gcl,GCL,,\nbbn,BBN,,\n")
    _, files = show(tmp_path / "none" / "results", more)
    section = files["index.md"].partition("## Average rank")[2]
    assert "| BCL | 25 | 3 |" in section
    assert "| CE |" not in section


# -- without runs, and with bad input --------------------------------------------------------------
def test_without_any_run_it_is_a_leaderboard_of_the_literature(tmp_path: Path, folder: Path) -> None:
    board, files = show(tmp_path / "absent", folder)
    assert not (tmp_path / "absent").exists()
    assert "Nothing is measured here yet" in files["index.html"]
    assert tables(files["index.html"], "cifar10-100")[0] == [
        "#",
        "method",
        "n",
        "published",
        "year",
        "protocol",
    ]
    assert row(tables(files["index.html"], "cifar10-100"), "cRT")["n"] == "3"
    assert "No measured cell has the protocol of a published number yet." in files["index.html"]
    assert render_runs(board, tmp_path / "reports") == []


def test_the_whole_literature_is_browsable(tmp_path: Path) -> None:
    board = gather(Results(tmp_path / "absent"))
    assert board.problems == ()
    shown = sum(len(reports) for tab in board.tabs for ln in tab.lines for reports in ln.reports.values())
    assert shown == len(board.numbers)
    assert board.opening.title == "CIFAR-100-LT, imbalance factor 100"
    assert len(board.opening.leagues[board.opening.opening]) > 50


def test_bad_input_is_reported_and_costs_only_itself(results: Path, folder: Path) -> None:
    _, before = show(results, folder)
    mine = results / "published" / "mine.csv"
    mine.parent.mkdir()
    head = "dataset,imbalance_factor,method,metric,shots,value,reported_by,original,source,trust\n"
    good = "cifar10,100,BCL,top1,all,80.5,our lab,no,report 7,text\n"
    mine.write_text(
        head
        + good
        + "cifar10,100,BCL,top1,all,eighty,our lab,no,report 7,text\n"
        + "cifar10,100,Blc,top1,all,80,our lab,no,report 7,text\n"
    )
    (results / "external").mkdir()
    (results / "external" / "theirs.json").write_text("{}")
    spoilt = finish(results, cell("tsc", 3))
    spoilt.record.write_text(spoilt.record.read_text().replace('"done"', '"gone"', 1))
    empty = finish(results, cell("crt"), metrics=None)
    board, files = show(results, folder)
    for problem in (
        "mine.csv:3: value: &#39;eighty&#39; is not a number",
        "mine.csv:4: method: &#39;Blc&#39; is unknown; did you mean &#39;bcl&#39;?",
        "theirs.json: not scored predictions",
        f"{spoilt.run_id}: record.json: changed since it was written",
        f"{empty.run_id}: record.json: is done, but has no metrics",
    ):
        assert problem in files["index.html"]
    assert len(board.problems) == 5
    assert "mine.csv:3" in files["index.md"]
    kept = [line[1:] for line in tables(before["index.html"], "cifar10-100")]
    now = tables(files["index.html"], "cifar10-100")
    assert row(now, "BCL")["published"] == "80.5q"
    assert all(any(line[0] == other[1] for other in now) for line in kept)


def test_external_predictions_are_marked(results: Path, folder: Path) -> None:
    from bench.leaderboard import external

    scores = results.parent / "mine.npz"
    labels = np.repeat(np.arange(10), 5)
    np.savez(scores, scores=np.eye(10)[labels])
    made = external.scored(scores, "mine", CIFAR10, 100.0, labels, np.arange(10, 0, -1) * 20)
    external.save(results, made)
    _, files = show(results, folder)
    shown = row(tables(files["index.html"], "cifar10-100"), "mine")
    assert shown["method"].endswith("external")
    assert shown["measured (last epoch)"] == "100.00"
    assert shown["verdict"] == "n/a"


def test_hostile_text_is_shown_and_does_nothing(results: Path, tmp_path: Path) -> None:
    evil = {"title": HOSTILE, "paper": "javascript:0", "reconstruction": True, "scores": "distances"}
    about = {"name": "evil", "venue": HOSTILE, "year": 2020, "family": HOSTILE}
    finish(results, cell("evil"), method=evil | about, environment={"device": HOSTILE})
    numbers = [{"method": "ce", "value": "70", "source": HOSTILE, "reported_by": HOSTILE, "note": HOSTILE}]
    board, files = show(results, write_literature(tmp_path / "hostile", *numbers))
    reader = Reader(files["index.html"])
    assert reader.scripts == 4  # two are packed data
    assert "&lt;script&gt;document.title" in files["index.html"]
    outside = [
        link
        for link in reader.links
        if not re.match(r"(#|index\.\w+$|test_agnostic\.html$|runs/[\w.+-]+\.html$)", link)
    ]
    assert outside == []
    assert not re.search(r"<(?!br>)", files["index.md"])
    assert "$x" not in files["index.tex"].replace("\\$", "")
    for page in render_runs(board, tmp_path / "reports"):
        reader = Reader(page.read_text())
        assert reader.scripts == 0
        assert all(re.match(r"(#|\.\./index\.html#|https://|data:image/png;)", link) for link in reader.links)


# -- files -----------------------------------------------------------------------------------------
def test_the_tidy_table_as_csv_and_as_json(results: Path, folder: Path) -> None:
    board, files = show(results, folder)
    exported = pd.read_csv(results.parent / "reports" / "index.csv")
    assert len(exported) == len(board.entries)
    measured = exported[exported["kind"] == "measured"].set_index("key")
    assert set(measured["verdict"]) >= {"protocol differs", "no published number"}
    assert measured["n"].sum() == len(board.done)
    entries = json.loads(files["index.json"])
    expected = table(board).astype(object)
    for made, (_, known) in zip(entries, expected.iterrows(), strict=True):
        assert made == {name: value for name, value in known.items() if pd.notna(value)}


def test_bibtex_says_what_is_known_and_no_author(results: Path, folder: Path) -> None:
    _, files = show(results, folder)
    assert "@misc{ldam_drw," in files["index.bib"]
    assert "url = {https://arxiv.org/abs/1906.07413}" in files["index.bib"]
    assert "author =" not in files["index.bib"]
    assert "@misc{ride," not in files["index.bib"]  # nothing is known of it


def test_every_link_leads_somewhere(results: Path, folder: Path) -> None:
    board, files = show(results, folder)
    reports = results.parent / "reports"
    pages = render_runs(board, reports)
    assert len(pages) == 5
    links = {link for link in Reader(files["index.html"]).links if not link.startswith("#")}
    links |= set(re.findall(r"\]\(([^)]*)\)", files["index.md"]))
    assert {f"runs/{page.name}" for page in pages} <= links
    assert [link for link in links if not (reports / link).exists()] == []


def test_the_same_results_give_the_same_bytes_and_need_no_torch(
    results: Path, folder: Path, tmp_path: Path
) -> None:
    _, files = show(results, folder)
    code = (
        "import sys; from pathlib import Path; from bench.records import Results\n"
        "from bench.leaderboard import gather\n"
        "from bench.report.index_page import render_index\n"
        "from bench.report.run_page import render_runs\n"
        "board = gather(Results(Path(sys.argv[1])), Path(sys.argv[2])); there = Path(sys.argv[3])\n"
        "render_index(board, there); render_runs(board, there)\n"
        "assert not {'torch', 'torchvision', 'timm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, results, folder, tmp_path / "there"], check=True)
    for name, content in files.items():
        assert (tmp_path / "there" / name).read_text() == content
    assert str(tmp_path) not in "".join(files.values())


def test_the_index_stays_small_with_the_literature_and_300_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # which takes most of the time
    results = tmp_path / "results"
    methods = ("ce", "ldam_drw", "balanced_softmax", "tsc", "focal")
    known = {method: finish(results / "one", cell(method)).read_record() for method in methods}
    for number, seed in itertools.product(range(100), range(3)):
        method, factor = methods[number % 5], (10.0, 100.0)[number % 2]
        made = cell(method, seed, protocol=Protocol(epochs=200 + number // 10), imbalance_factor=factor)
        record = {name: value for name, value in known[method].items() if name not in ("schema", "run_id")}
        metrics = record["metrics"] | {"accuracy": record["metrics"]["accuracy"] + seed}
        RunDir(results, made.run_id).write_cell(made)
        RunDir(results, made.run_id).write_record(
            record | {"cell": made.model_dump(mode="json"), "metrics": metrics}
        )
    board = gather(Results(results))
    assert (len(board.done), sum(tab.measured for tab in board.tabs)) == (300, 100)
    index, *_ = render_index(board, tmp_path / "reports")
    assert index.stat().st_size < 2_500_000


# -- run pages -------------------------------------------------------------------------------------
def test_a_run_page_tells_all_there_is(results: Path, folder: Path) -> None:
    board, _ = show(results, folder)
    pages = {page.name: page.read_text() for page in render_runs(board, results.parent / "reports")}
    (name,) = [name for name in pages if name.startswith("cifar10-if100-ce-") and "3 seeds" in pages[name]]
    page = pages[name]
    runs = Results(results).table().query("method == 'ce' and copy_of.isna()")
    for run in runs["run_id"]:
        assert f"python run_bench.py rerun {run}\n" in page
    seeds, beside, *_ = Reader(page).tables
    assert [line[0] for line in seeds[1:]] == ["0", "1", "2", "mean"]
    accuracy = runs["accuracy"]
    assert seeds[-1][1] == text.around(accuracy.mean(), accuracy.std())
    fields = {line[0]: line[1:] for line in beside[1:]}
    assert fields["epochs"] == ["200", "200", "same"]
    assert fields["accuracy"][1] == "70.4"
    for part in ("Other shot rules", "Calibration", "Post-hoc logit adjustment", "Skewed test sets"):
        assert f"<h3>{part}</h3>" in page
    for part in ("0123456789abcdef", "Some CPU", "crop_flip", "464,154", "the paper; read from text"):
        assert part in page
    assert page.count("<svg") == 3
    assert "All other published numbers" in page

    (copy,) = [
        name for name in pages if name.startswith("cifar10-if100-ce-") and name != name_of(page, pages)
    ]
    assert "protocol differs: epochs, data copy" in pages[copy]


def name_of(page: str, pages: dict[str, str]) -> str:
    return next(name for name, content in pages.items() if content == page)


def test_without_scores_a_run_page_says_how_to_have_them(results: Path, folder: Path) -> None:
    for file in results.glob("runs/*ldam_drw*/logits.npz"):
        file.unlink()
    board = gather(Results(results), folder)
    pages = [page.read_text() for page in render_runs(board, results.parent / "reports")]
    (page,) = [page for page in pages if "<h1>LDAM-DRW" in page]
    assert re.search(r"its logits are not here; `rerun \S+` makes them again", page)
    assert "Calibration" not in page
    assert str(results) not in page


def test_pages_of_series_that_are_gone_go(results: Path, folder: Path) -> None:
    reports = results.parent / "reports"
    stale = reports / "runs" / "gone.html"
    stale.parent.mkdir(parents=True)
    stale.write_text("")
    render_runs(gather(Results(results), folder), reports)
    assert not stale.exists()
    assert len(list(stale.parent.iterdir())) == 5


# -- parts -----------------------------------------------------------------------------------------
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=20))
def test_the_front_is_what_no_other_beats(points: list[tuple[float, float]]) -> None:
    kept = front(points)
    for cost, gain in points:
        assert any(points[i][0] <= cost and points[i][1] >= gain for i in kept)
    for i in kept:
        beaten = [p for p in points if p != points[i] and p[0] <= points[i][0] and p[1] >= points[i][1]]
        assert beaten == []


def test_more_numbers_as_text() -> None:
    assert [text.printed(value) for value in (52.0, 51.93, 38.3, None)] == ["52.0", "51.93", "38.3", "n/a"]
    assert [text.gap(value) for value in (0.5, -0.5, 0.0, None)] == ["+0.50", "−0.50", "+0.00", "n/a"]
    durations = [text.duration(seconds) for seconds in (None, 0.0, 4.2, 61, 99.7, 600, 9000)]
    assert durations == ["n/a", "<0.1 s", "4.2 s", "61 s", "1.7 min", "10.0 min", "2.5 h"]
    assert text.link("runs/a-b_c.html") == "runs/a-b_c.html"
    assert text.link("runs/../../secret.html") is None
