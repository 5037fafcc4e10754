"""What the documents say is true: code runs, files exist, commands and their options are accepted."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import typer
from commands import Bench
from photo_trees import write
from project import ROOT

import bench
from bench import published, registry
from bench.backbones import create
from bench.cell import Averaging, Optimizer, Schedule, Sharpness
from bench.cli import app
from bench.data.augment import POLICIES
from bench.data.feed.samplers import SAMPLERS
from bench.facts import built_in
from bench.leaderboard import gather
from bench.leaderboard.check import Pair, disagreement, sound, words
from bench.leaderboard.verdict import Verdict
from bench.method import Batch, Clock
from bench.recipe import load
from bench.recipe.files import recipes
from bench.records import Results
from bench.report import text as printing

DOCUMENTS = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))),
]
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS}
README = TEXTS["README.md"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name: str) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", TEXTS[name])
    for path in links:
        assert ((ROOT / name).parent / path).exists(), path
    for path in re.findall(
        r"\b((?:recipes|tests|benchmarks|bench|methods)/[\w/]+\.(?:py|yaml|csv))\b", TEXTS[name]
    ):
        assert (ROOT / path).exists(), path


def test_the_documents_are_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 160
    assert len(TEXTS["ARCHITECTURE.md"].splitlines()) <= 110


def test_each_document_can_be_found_from_the_readme() -> None:
    """Every page of docs/ is linked there, or from a page that is."""
    seen, to_read = set[str](), ["README.md"]
    while to_read:
        name = to_read.pop()
        if name not in seen:
            seen.add(name)
            folder = Path(name).parent
            linked = re.findall(r"\]\((?!http)([^)#]+\.md)(?:#[^)]*)?\)", TEXTS[name])
            paths = [os.path.normpath(folder / path) for path in linked]
            to_read += [path for path in paths if path in TEXTS]
    assert seen == set(DOCUMENTS)


COMMANDS = set(typer.main.get_command(app).commands)
PROGRAM = r"\b(?:run_bench\.py|longtail-bench) (?=[a-z])"


def commands(name: str, text: str) -> list[tuple[str, str]]:
    """The commands of a document: in lines of code, and in backticks also without the program's name."""
    text = re.sub(r"\\\n\s*", "", text)
    code = [line.split(" # ")[0] for line in re.findall(r"^ {4}(.+)$", text, re.MULTILINE)]
    spans = re.findall(r"`([^`\n]+)`", text)
    found = [re.split(PROGRAM, part)[1:] for line in (*code, *spans) for part in line.split(" && ")]
    found += [[span] for span in spans if span.split()[0] in COMMANDS and with_arguments(span)]
    return [(name, line.strip()) for lines in found for line in lines]


def with_arguments(span: str) -> bool:
    """Whether it is more than the name of a command, such as `rerun` or `data check`."""
    return len(span.split()) > (2 if span.startswith("data ") else 1)


EVERY = [found for name, text in TEXTS.items() for found in commands(name, text)]


def only_parsed(command: Any) -> Any:
    """Return the command line, whose commands check their arguments and then do nothing."""
    command.callback = None
    for one in getattr(command, "commands", {}).values():
        only_parsed(one)
    return command


def accepted(line: str) -> bool:
    with pytest.raises(SystemExit) as end:
        only_parsed(typer.main.get_command(app)).main(shlex.split(line), prog_name="run_bench.py")
    return end.value.code in (0, None)


@pytest.mark.parametrize(("name", "line"), EVERY)
def test_commands_are_commands(name: str, line: str) -> None:
    assert accepted(line), f"{name}: {line}"
    command, argument, *_ = [*line.split(), ""]
    if command in ("run", "plan") and not argument.endswith(".yaml"):
        assert argument in {path.stem for path in recipes(ROOT / "recipes")}, f"{name}: {line}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_command_of_a_document_is_looked_at(name: str) -> None:
    """Wherever a command is broken, it is among those that the test above sees."""
    text = TEXTS[name]
    for command in re.finditer(r"run_bench\.py (?=[a-z])", text):
        broken = f"{text[: command.end()]}x{text[command.end() :]}"
        assert any(line.startswith("x") for _, line in commands(name, broken)), command


def test_scripts_have_the_options_that_documents_name() -> None:
    called = [
        (script, option)
        for text in TEXTS.values()
        for script, line in re.findall(r"^ {4}.*\b(benchmarks/\w+\.py) (.+)$", text, re.MULTILINE)
        for option in re.findall(r"--[\w-]+", line.split(" # ")[0])
    ]
    assert called
    for script, option in called:
        assert f'"{option}"' in (ROOT / script).read_text(encoding="utf-8"), f"{script} {option}"


@pytest.mark.parametrize(
    "wrong", ["runn quick", "run quick --nlo seed=0", "run quick --jobs many", "list metods"]
)
def test_a_command_that_is_none_is_noticed(wrong: str) -> None:
    assert not accepted(wrong)


def test_the_documents_name_every_command_and_no_other_target_of_make() -> None:
    assert {line.split()[0] for _, line in EVERY} == COMMANDS
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name, text in TEXTS.items():
        called = re.findall(r"(?:^ {4}|`)make (\w+)", text, re.MULTILINE)
        assert set(called) <= targets, name


def test_what_the_documents_call_from_python_is_there() -> None:
    for name in ("README.md", "docs/python.md"):
        called = set(re.findall(r"\bbench\.(\w+)\(", TEXTS[name]))
        assert {"run", "load_leaderboard", "build_method"} <= called <= set(bench.__all__)
    assert {name for name in bench.__all__ if f"bench.{name}(" in TEXTS["docs/python.md"]} == set(
        bench.__all__
    )


def test_recipes_of_the_repository_are_valid() -> None:
    paths = [path for path in recipes(ROOT / "recipes") if path.parent.name != "shared"]
    assert len({path.name for path in paths}) == len(paths), "names stand for one recipe each"
    for path in paths:
        recipe = load(path)
        assert recipe.notes, path
        assert recipe.title, path


def block(document: str, mark: str, language: str) -> str:
    """Return the code below a mark of a document."""
    (code,) = re.findall(rf"<!-- {mark} -->\n```{language}\n(.*?)```", TEXTS[document], flags=re.S)
    return str(code)


def test_the_recipe_of_the_documents_is_valid(tmp_path: Path) -> None:
    (tmp_path / "shown.yaml").write_text(block("docs/recipes.md", "recipe", "yaml"))
    assert len(load(tmp_path / "shown.yaml").points) == 2 * 3 * 3


def test_the_recipe_for_own_data_trains(tmp_path: Path, bench: Bench) -> None:
    recipe = tmp_path / "my_birds.yaml"
    recipe.write_text(block("README.md", "own data", "yaml"))
    assert len(load(recipe).points) == 3 * 3
    names = [f"{part}/{bird}/{i}.jpg" for part in ("train", "test") for bird in "abc" for i in range(4)]
    write(tmp_path / "data" / "birds", names, seed=0)
    where = ("--results", tmp_path / "results", "--data", tmp_path / "data")
    small = ("grid.backbone=resnet8_cifar", "protocol.epochs=1", "datasets.my_birds.image_size=16")
    sets = [word for value in small for word in ("--set", value)]
    only = ("--only", "seed=0", "--only", "label=ce", "--gpus", "none", "--reports", tmp_path / "reports")
    code, out = bench("run", recipe, *where, *sets, *only)
    assert code == 0, out
    assert "1 done" in out


def test_the_method_of_the_readme_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_specs", registry.methods())  # all, and the test takes its own away
    code = block("README.md", "method", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    (tmp_path / "my_method.py").write_text(code)
    registry.load_files([tmp_path / "my_method.py"])
    entry = registry.find("temperature_ce")
    assert entry.choose(tau=0.5, reweight_from=0.8).changed == ("reweight_from", "tau")
    torch.manual_seed(0)
    method = entry.build(lambda **_: create("resnet8_cifar"), np.array([9, 3, 1]), tau=0.5)
    method.before_epoch(Clock(0, 1, 0, 1))
    batch = Batch((torch.randn(4, 3, 16, 16),), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    expected = F.cross_entropy(method(batch.images) / 0.5, batch.labels)
    torch.testing.assert_close(method.loss(batch), expected)


def verdicts(dataset: str, factor: float) -> str:
    """The measured cells of a data set that have a published number of their network.

    Of several cells of a method it has the one of most seeds.
    """
    board = gather(Results(ROOT / "results"))
    entries = {entry["key"]: entry for entry in board.entries}
    lines = [
        "| method | n | last epoch | many / medium / few | compared | published | gap | verdict | by |",
        "|---|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    pairs = [
        pair
        for pair in board.check()[0]
        if (pair["dataset"], pair["imbalance_factor"]) == (dataset, factor)
        and pair["published"] is not None
        and "backbone" not in pair["differs"]  # short protocols, which are compared with nothing
    ]
    most = {pair["title"]: pair for pair in sorted(pairs, key=lambda pair: pair["n"])}
    for pair in sorted(most.values(), key=lambda pair: -pair["measured"]):
        entry, alike = entries[pair["key"]], pair["verdict"] != Verdict.DIFFERS
        row = [
            pair["title"],
            str(pair["n"]),
            printing.number(entry["accuracy"]),
            " / ".join(printing.number(entry[name]) for name in ("many", "medium", "few")),
            f"{printing.number(pair['measured'])} ({'best' if pair['ours'] == 'best_test' else 'last'})",
            _published(board.pairs[pair["key"]]),
            printing.gap(pair["d"]) if alike else "",
            _verdict(board.pairs[pair["key"]]) if alike else f"{pair['verdict']}: {words(pair['differs'])}",
            pair["reported_by"],
        ]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _verdict(pairs: Sequence[Pair]) -> str:
    """Write the verdict, and those of all reports of its protocol if they disagree."""
    several = disagreement(pairs)
    return str(pairs[0]["verdict"]) + (f" ({several})" if several else "")


def _published(pairs: Sequence[Pair]) -> str:
    """Write the number that judges, with the range of all that have its protocol."""
    alike = [printing.printed(pair["published"]) for pair in sound(pairs)]
    ends = list(dict.fromkeys((alike[0], alike[-1])))
    return printing.printed(pairs[0]["published"]) + (f" ({'–'.join(ends)})" if len(ends) > 1 else "")


def test_the_verdicts_of_the_readme_are_those_of_check() -> None:
    marked = re.compile(r"(<!-- verdicts (\S+) (\S+) -->\n)(.*?)(<!-- /verdicts -->)", flags=re.S)
    found = marked.findall(README)
    assert found
    if os.environ.get("UPDATE_EXPECTED"):
        filled = marked.sub(lambda m: m[1] + verdicts(m[2], float(m[3])) + m[5], README)
        (ROOT / "README.md").write_text(filled)
        found = marked.findall(filled)
    for _, dataset, factor, table, _ in found:
        assert table == verdicts(dataset, float(factor)), "run this test with UPDATE_EXPECTED=1"


def test_the_values_that_a_protocol_takes_are_listed() -> None:
    _, _, after = TEXTS["docs/recipes.md"].partition("## Values")
    listed = set(re.findall(r"`([\w.]+)`", after.partition("\n\nAll keys")[0]))
    kinds = (
        get_args(cls.model_fields[field].annotation)
        for cls, field in ((Schedule, "kind"), (Optimizer, "name"), (Averaging, "kind"), (Sharpness, "form"))
    )
    assert {*POLICIES, *SAMPLERS, *itertools.chain(*kinds)} <= listed


def test_the_counts_of_the_results_are_right() -> None:
    file, marked = ROOT / "docs" / "results.md", re.compile(r"<!-- (\w+) -->([\d,]+)<!-- / -->")
    literature, runs = published.load(), bench.load_results(ROOT / "results")
    digits = runs[(runs.dataset == "digits") & (runs.status == "done")]
    counts = {
        "numbers": len(literature),
        "published": literature.method.nunique(),
        "sources": literature.source.nunique(),
        "trained": digits.method.nunique(),
        "methods": len(built_in()),
    }
    text = file.read_text(encoding="utf-8")
    filled = marked.sub(lambda m: f"<!-- {m[1]} -->{counts[m[1]]:,}<!-- / -->", text)
    assert {name for name, _ in marked.findall(text)} == counts.keys()
    if os.environ.get("UPDATE_EXPECTED"):
        file.write_text(filled, encoding="utf-8")
    else:
        assert text == filled, "run this test with UPDATE_EXPECTED=1"
