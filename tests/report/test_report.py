"""The recipe page: made-up runs in; true numbers, honest gaps and harmless text out."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest
from html_reader import HOSTILE, Reader
from records_factory import CIFAR10, CIFAR10_JPEG, DIGITS, fail, finish, make_cell, make_grid

from bench.cell import BackboneChoice, Protocol
from bench.errors import BenchError
from bench.leaderboard import gather, sets
from bench.records import Results
from bench.report import figures, page, text, values
from bench.report.index_page import render_index
from bench.report.recipe_page import render_recipe
from bench.report.run_page import render_runs
from bench.rundir import RunDir


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def show(results: Path, name: str = "small") -> tuple[str, str]:
    """Render and return HTML and Markdown."""
    reports = results.parent / "reports"
    render_recipe(Results(results), name, reports)
    return (reports / f"{name}.html").read_text(), (reports / f"{name}.md").read_text()


def line_of(table: list[list[str]], start: str) -> dict[str, str]:
    """Return the row whose first cell begins so, by the heads of its columns."""
    rows = [row for row in table[1:] if row[0].startswith(start)]
    assert len(rows) == 1
    return dict(zip(table[0], rows[0], strict=True))


# -- numbers -------------------------------------------------------------------------------------
def test_a_row_is_the_mean_over_its_seeds(results: Path) -> None:
    cells = [make_cell("ldam_drw", seed) for seed in range(3)]
    for cell in cells:
        run = finish(results, cell)
        for epoch in range(3, 3 + values.FEWEST_SCORED):
            run.append_epoch({"epoch": epoch, "accuracy": 50.0})
    make_grid(results, "small", [("ldam", cell) for cell in cells])
    html, md = show(results)
    row = line_of(Reader(html).tables[0], "LDAM-DRW")

    runs = Results(results).table()
    mean, deviation = statistics.mean(runs.accuracy), statistics.stdev(runs.accuracy)
    assert row["accuracy (last epoch)"] == f"{mean:.2f} ± {deviation:.2f}"
    assert row["n"] == "3"
    assert row["many (>100): 8 classes"].startswith(f"{statistics.mean(runs.many):.2f} ± ")
    assert row["few (<20): 0 classes"] == "n/a"
    assert row["best on test (selection optimism)"] == f"{mean + 0.25:.2f} ± {deviation:.2f} (+0.25)"
    assert row["parameters"] == "464,154"
    assert row["minutes"] == "2.83"
    assert f"{mean:.2f} ± {deviation:.2f}" in md
    assert "<code>" not in md


def test_bold_is_what_noise_does_not_tell_from_the_best(results: Path) -> None:
    cells = [make_cell(method, seed) for method in ("ce", "tsc") for seed in range(5)]
    for cell in cells:
        finish(results, cell)
    make_grid(results, "small", [(cell.method.name, cell) for cell in cells])
    runs = Results(results).table()
    means = runs.groupby("method").accuracy.mean()
    assert means["tsc"] > means["ce"] + 5
    md = show(results)[1]
    assert f"**{means['tsc']:.2f}" in md
    assert f"{means['ce']:.2f}" in md
    assert f"**{means['ce']:.2f}" not in md


def test_one_seed_looks_like_one(results: Path) -> None:
    done, absent = make_cell(seed=0), make_cell(seed=1)
    finish(results, done)
    make_grid(results, "small", [("ce", done), ("ce", absent)])
    row = line_of(Reader(show(results)[0]).tables[0], "Cross-entropy")
    assert row["n"] == "1 of 2"
    assert not [value for value in row.values() if "±" in value]


def test_what_was_not_begun_is_named_and_takes_no_row(results: Path) -> None:
    cells = [("ce", make_cell()), ("ldam", make_cell("ldam_drw")), ("ldam", make_cell("ldam_drw", seed=1))]
    make_grid(results, "small", cells)
    assert all("not run yet" not in shown for shown in show(results))  # then all have rows
    finish(results, cells[0][1])
    for shown in show(results):
        assert "1 label not run yet – ldam" in shown.replace("</span>", "")
        assert "0 of 2" not in shown


def test_what_is_not_done_is_seen_with_its_reason(results: Path) -> None:
    failed, stopped, absent = (make_cell(seed=seed) for seed in range(3))
    blocked = make_cell("crt", parent=failed)
    spoilt = make_cell("ldam_drw")
    fail(results, failed, "out of memory\nsecond line")
    RunDir(results, stopped.run_id).write_cell(stopped)
    finish(results, spoilt).record.write_text("{}")
    labels = [("ce", failed), ("ce", stopped), ("ce", absent), ("crt", blocked), ("ldam", spoilt)]
    make_grid(results, "small", labels)
    for shown in show(results):
        plain = shown.replace("\\", "")
        assert "ce, seed 0: failed" in plain
        assert "out of memory" in plain
        assert "second line" not in plain
        assert "ce, seed 1: interrupted" in plain
        assert "seed 2 missing" in plain
        assert f"failed parent {failed.run_id}" in plain
        assert "not a record" in plain
        assert "1 blocked" in plain
        assert "Nothing is measured yet" in plain
    row = line_of(Reader(show(results)[0]).tables[0], "ce")
    assert row["n"] == "0 of 3"
    assert row["accuracy (last epoch)"] == row["parameters"] == row["minutes"] == "n/a"
    assert not list(results.parent.glob("reports/*.svg"))


def test_different_splits_are_never_averaged(results: Path) -> None:
    cells = [make_cell(seed=seed) for seed in range(3)]
    for cell, fingerprint in zip(cells, ("aaaaaaaa", "bbbbbbbb", "aaaaaaaa"), strict=True):
        finish(results, cell, fingerprint=fingerprint)
    make_grid(results, "small", [("ce", cell) for cell in cells])
    html, md = show(results)
    rows = [row for row in Reader(html).tables[0] if row[0].startswith("Cross-entropy")]
    assert [row[1] for row in rows] == ["2", "1"]
    assert ["split aaaaaa" in rows[0][0], "split bbbbbb" in rows[1][0]] == [True, True]
    assert "2 different splits" in html
    assert "2 different splits" in md


def test_different_settings_are_never_averaged(results: Path) -> None:
    cells = [make_cell(protocol=Protocol(epochs=epochs)) for epochs in (200, 400)]
    cells.append(make_cell(backbone=BackboneChoice(name="cifar_resnet56")))
    for cell in cells:
        finish(results, cell)
    make_grid(results, "small", [("ce", cell) for cell in cells])
    rows = Reader(show(results)[0]).tables[0][1:]
    assert [row[2] for row in rows] == ["1", "1", "1"]
    assert [row[1] for row in rows] == ["cifar_resnet32", "cifar_resnet32", "cifar_resnet56"]
    assert "epochs 200" in rows[0][0]
    assert "epochs 400" in rows[1][0]


def test_each_data_set_and_imbalance_factor_has_its_table(results: Path) -> None:
    cells = [make_cell(dataset=DIGITS), make_cell(), make_cell(imbalance_factor=10.0)]
    for cell in cells:
        finish(results, cell)
    make_grid(results, "small", [("ce", cell) for cell in cells])
    html, _ = show(results)
    titles = re.findall("<h2>(.*?)</h2>", html)
    assert titles[:3] == [
        "Digits-LT, imbalance factor 100",
        "CIFAR-10-LT, imbalance factor 100",
        "CIFAR-10-LT, imbalance factor 10",
    ]
    heads = [table[0] for table in Reader(html).tables[:3]]
    assert ["few (<20): 6 classes" in heads[0], "few (<20): 0 classes" in heads[1]] == [True, True]
    assert "medium (20–100): 0 classes" in heads[2]


def test_what_a_reader_must_know_is_there(results: Path) -> None:
    cells = [make_cell("tsc", dataset=CIFAR10_JPEG, params={"tau": 0.25})]
    finish(results, cells[0])
    make_grid(results, "small", [("ours", cells[0])])
    html, md = show(results)
    assert "(reconstruction)" in html
    assert '<a href="https://arxiv.org/abs/2111.13998" rel="noreferrer">TSC</a>' in html
    assert "[TSC](https://arxiv.org/abs/2111.13998) (reconstruction)" in md
    for shown in (html, md):
        assert "changed copy of cifar10 (JPEG quality 75)" in shown
        assert "Nothing of this was measured" in shown
        assert "run_bench.py run recipes/small.yaml" in shown
        assert "tau 0.25" in shown
        assert "5,000 to 50 per class" in shown
    assert line_of(Reader(html).tables[-1], "epochs")["value"] == "200"


def test_protocol_says_where_methods_differ(results: Path) -> None:
    parent = make_cell()
    child = make_cell("crt", parent=parent, protocol=Protocol(epochs=10))
    make_grid(results, "small", [("ce", parent), ("crt", child)])
    table = Reader(show(results)[0]).tables[-1]
    listed = {tuple(row) for row in table}
    assert {("epochs", "200", "ce"), ("epochs", "10", "crt"), ("batch_size", "128", "all methods")} <= listed
    assert ("starts from", "ce, 200 epochs", "crt") in listed


def test_of_many_methods_those_are_named_that_differ(results: Path) -> None:
    usual = [(name, make_cell(name)) for name in ("ce", "focal", "ldam")]
    make_grid(results, "small", [*usual, ("bcl", make_cell("bcl", protocol=Protocol(epochs=400)))])
    listed = [tuple(row) for row in Reader(show(results)[0]).tables[-1]]
    assert listed[1:3] == [("epochs", "400", "bcl"), ("epochs", "200", "all others")]


# -- files ---------------------------------------------------------------------------------------
def test_runs_as_csv_are_tidy(results: Path) -> None:
    done, absent = make_cell(seed=0), make_cell(seed=1)
    finish(results, done)
    make_grid(results, "small", [("ce", done), ("ce", absent)])
    show(results)
    table = pd.read_csv(results.parent / "reports" / "small.csv")
    assert table.status.tolist() == ["done", "missing"]
    assert table.seed.tolist() == [0, 1]
    assert table.accuracy[0] == Results(results).table().accuracy[0]
    assert pd.isna(table.accuracy[1])


def test_the_markdown_page_has_tables_of_one_width_and_its_figure(results: Path) -> None:
    finish(results, make_cell())
    make_grid(results, "small", [("a | b", make_cell())])
    _, md = show(results)
    blocks = re.findall(r"(?:^\|.*\n)+", md, flags=re.M)
    assert len(blocks) == 3
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1
        assert re.fullmatch(r"\|( -+:? \|)+", block.splitlines()[1])
    (figure,) = re.findall(r"!\[.*\]\((.*)\)", md)
    assert (results.parent / "reports" / figure).exists()


def test_the_figure_is_a_file_of_its_own(results: Path) -> None:
    finish(results, make_cell())
    make_grid(results, "small", [("ce", make_cell())], title='A "title" <b>')
    show(results)
    source = (results.parent / "reports" / "small_shots.svg").read_text()
    root = ET.fromstring(source)
    assert root.attrib["aria-label"].startswith('Accuracy of the methods of A "title" <b>')
    assert "currentColor" not in source
    assert "#ffffff" in source
    assert "few" not in "".join(root.itertext())  # no class is few-shot here: no empty panel


def test_the_same_results_give_the_same_bytes_and_need_no_torch(results: Path, tmp_path: Path) -> None:
    cells = [make_cell(name, seed) for name in ("ce", "tsc") for seed in range(2)]
    for cell in cells:
        finish(results, cell)
    make_grid(results, "small", [(cell.method.name, cell) for cell in cells])
    here = render_recipe(Results(results), "small", tmp_path / "here")
    code = (
        "import sys; from pathlib import Path; from bench.records import Results\n"
        "from bench.report.recipe_page import render_recipe\n"
        "render_recipe(Results(Path(sys.argv[1])), 'small', Path(sys.argv[2]))\n"
        "assert not {'torch', 'torchvision', 'timm'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, results, tmp_path / "there"], check=True)
    assert [path.name for path in here] == [
        "small.html",
        "small.md",
        "small.tex",
        "small.csv",
        "small_shots.svg",
    ]
    for path in here:
        assert path.read_bytes() == (tmp_path / "there" / path.name).read_bytes()
    assert str(tmp_path) not in "".join(path.read_text() for path in here)


def test_a_page_leads_to_the_leaderboard_and_to_runs_if_they_are_built(results: Path) -> None:
    done = make_cell("ldam_drw")
    finish(results, done)
    make_grid(results, "small", [("ldam", done)])
    alone = show(results)
    assert not any("index." in shown for shown in alone)
    assert '<a href="https://arxiv.org/abs/1906.07413" rel="noreferrer">LDAM-DRW</a>' in alone[0]
    board = gather(Results(results))
    reports = results.parent / "reports"
    render_index(board, reports)
    (page_of_run,) = render_runs(board, reports)
    html, md = show(results)
    assert f'<a href="runs/{page_of_run.name}" rel="noreferrer">LDAM-DRW</a>' in html
    assert '<a href="index.html">leaderboard</a>' in html
    assert "[the leaderboard](index.md)" in md
    assert "runs/" not in md  # which git keeps, but no pages of runs
    links = [link for link in Reader(html).links if not link.startswith(("#", "https://"))]
    assert {"small.csv", "small.md", "small.tex"} <= set(links)
    assert [link for link in links if not (reports / link).exists()] == []


def test_the_latex_has_a_table_for_each_section(results: Path) -> None:
    cells = [make_cell("ldam_drw"), make_cell(dataset=DIGITS)]
    for cell in cells:
        finish(results, cell)
    make_grid(results, "small", [("a_b & c", cell) for cell in cells])
    show(results)
    source = (results.parent / "reports" / "small.tex").read_text()
    assert source.count(r"\begin{tabular}") == source.count(r"\bottomrule") == 2
    assert r"a\_b \& c" in source
    assert f"{Results(results).table().accuracy[0]:.2f}" in source


def test_a_tail_of_its_own_is_called_by_its_largest_and_smallest_class(results: Path) -> None:
    birds = CIFAR10.model_copy(update={"name": "birds", "title": "Birds", "profile": "natural"})
    finish(results, make_cell(dataset=birds, imbalance_factor=1.0), fingerprint="abc")
    make_grid(results, "small", [("ce", make_cell(dataset=birds, imbalance_factor=1.0))])
    html, md = show(results)
    for shown in (html, md):
        assert "Birds, 5,000 images of each class" in shown
        assert "imbalance factor" not in shown
    board = gather(Results(results))
    assert "Birds, 5,000 images of each class" in [tab.title for tab in board.tabs]
    assert sets.tail([50, 3, 10]) == "its own tail of 50 to 3 images"
    assert sets.known_tail("imagenet_lt") == "its own tail of 1,280 to 5 images"


def test_an_unknown_recipe_is_answered_with_the_nearest(results: Path) -> None:
    make_grid(results, "small", [("ce", make_cell())])
    with pytest.raises(BenchError, match=r"'smal' was not run; did you mean 'small'"):
        render_recipe(Results(results), "smal", results)


# -- hostile text --------------------------------------------------------------------------------
@pytest.fixture
def hostile(results: Path) -> Path:
    evil, failed = make_cell("evil"), make_cell("ce", backbone=BackboneChoice(name=HOSTILE))
    about = {"title": HOSTILE, "paper": "javascript:document.title='owned'", "reconstruction": False}
    finish(results, evil, method=about, environment={"device": HOSTILE})
    fail(results, failed, HOSTILE)
    make_grid(results, "small", [(HOSTILE, evil), ("ce", failed)], title=HOSTILE, notes=HOSTILE)
    return results


def test_hostile_text_is_shown_and_does_nothing(hostile: Path) -> None:
    html, md = show(hostile)
    reader = Reader(html)  # fails on an event handler
    assert reader.scripts == 3  # two are packed data
    assert "&lt;script&gt;document.title" in html
    assert not [link for link in reader.links if not link.startswith(("#", "small."))]
    assert not re.search(r"<(?!br>)", md)
    assert "49" not in re.sub(r"[^\n]*\d{3}[^\n]*", "", md)  # no template ran inside the text
    blocks = re.findall(r"(?:^\|.*\n)+", md, flags=re.M)
    assert all(len({len(re.findall(r"(?<!\\)\|", line)) for line in b.splitlines()}) == 1 for b in blocks)


def test_a_page_lets_only_its_own_script_run(hostile: Path) -> None:
    html, _ = show(hostile)
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="(.*?)"', html)
    (script,) = re.findall("<script>(.*?)</script>", html, flags=re.S)
    assert page.policy([script]) == policy.replace("&#39;", "'")
    assert "default-src 'none'" in page.policy([script])
    assert "unsafe-inline' 'sha" not in page.policy([script])


# -- parts ---------------------------------------------------------------------------------------
def test_numbers_as_text() -> None:
    unknown = text.around(None, None), text.number(None), text.number(float("nan")), text.short(None)
    assert set(unknown) == {"n/a"}
    assert text.around(71.234, None) == "71.23"
    assert text.around(71.0, 1.4142) == "71.00 ± 1.41"
    assert [text.short(v) for v in (0.0, 0.0123, 1.5, 61.26, 1234.5)] == [
        "0",
        "0.0123",
        "1.50",
        "61.3",
        "1,234",
    ]
    assert [text.counted(n, "class") for n in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]
    assert text.counted(2, "seed") == "2 seeds"


def test_links_lead_to_the_web_or_nowhere() -> None:
    assert text.link("https://arxiv.org/abs/1906.07413") == "https://arxiv.org/abs/1906.07413"
    assert text.link("https://a.b/(x) y\"<>'") == "https://a.b/%28x%29%20y%22%3C%3E'"
    for bad in (None, "", "javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", " https://a.b"):
        assert text.link(bad) is None


def test_figures_take_any_label_and_any_number_of_classes() -> None:
    counts = [max(1, 1000 // (c + 1)) for c in range(1000)]
    groups = {"many": range(9), "medium": range(9, 50), "few": range(50, 1000)}
    svg = figures.class_counts(counts, groups, "a & b")
    assert "few: 950 classes" in "".join(ET.fromstring(svg).itertext())
    assert len(svg) < 100_000
    seeds = {"accuracy": {0: 50.0, 1: 52.0}, "many": {0: 60.0}, "few": {}}
    rows = [figures.FigureRow("$\\frac{" + HOSTILE, seeds, {"accuracy": 53.0})]
    shown = figures.accuracies([("", rows)], "x")
    assert "51.0" in "".join(ET.fromstring(shown).itertext())
    assert "currentColor" in shown


def test_a_figure_is_drawn_near_its_data_with_every_seed_and_joins_common_ones() -> None:
    rows = [
        figures.FigureRow("a", {"accuracy": {0: 50.0, 1: 50.4, 2: 50.8}}),
        figures.FigureRow("b", {"accuracy": {0: 51.0, 1: 51.4, 2: 51.8}}, {"accuracy": 51.2}),
        figures.FigureRow("c", {"accuracy": {2: 50.0}}),
    ]
    shown = figures.accuracies([("", rows)], "x")
    root = ET.fromstring(shown)
    texts = "".join(root.itertext())
    ticks = [
        float(text.text)
        for text in root.findall(".//{*}text")
        if text.get("text-anchor") == "middle" and text.text != "◇"
    ]
    assert min(ticks) >= 49
    assert max(ticks) <= 53
    assert texts.count("◇") == 1
    dots = [path for path in root.findall(".//{*}path") if path.get("stroke-linecap") == "round"]
    assert [path.get("d", "").count("M") for path in dots] == [2, 2, 3]  # a dot for each seed of each row
    lines = [
        line.get("points", "").split()
        for line in root.findall(".//{*}polyline")
        if line.get("stroke-opacity") == "0.4"
    ]
    assert [len(line) for line in lines] == [2, 2, 3]  # a line for each seed, through the rows that have it
    whiskers = [line for line in root.findall(".//{*}polyline") if line.get("stroke-width") == "1"]
    assert len(whiskers) == 2  # of three seeds or more


def test_notes_are_read_as_paragraphs_lists_and_code() -> None:
    notes = "One\nparagraph:\n  a 1\n  b 2\nThen\n* an item\n  goes on\n* another\n\n  python run\n"
    assert text.blocks(notes) == [
        ("text", "One paragraph:"),
        ("code", "a 1\nb 2"),
        ("text", "Then"),
        ("item", "an item goes on"),
        ("item", "another"),
        ("code", "python run"),
    ]
    assert text.blocks("") == []
