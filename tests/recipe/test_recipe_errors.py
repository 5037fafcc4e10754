"""What a recipe is refused for: file, line, path, and what to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_fakes import GRID, SMALL, fakes, read, recipes

from bench.errors import BenchError
from bench.recipe import load
from bench.recipe.axes import MOST_CELLS

__all__ = ["fakes", "recipes"]

pytestmark = pytest.mark.usefixtures("recipes")


def error_of(text: str, *sets: str, name: str = "r.yaml") -> str:
    with pytest.raises(BenchError) as error:
        read(text, sets, name)
    return str(error.value)


def shortened(said: str, message: str) -> str:
    """Cut what was said where the expected message ends in dots."""
    return f"{said[: len(message) - 3]}..." if message.endswith("...") else said


GRID_LINES = "grid:\n  dataset: digits\n  imbalance_factor: 10\n  backbone: resnet8_cifar\n"  # 4 lines
TWO = "methods:\n  plain: {}\n  two: {method: second, from: plain}\n" + GRID_LINES  # 7 lines

RECIPES = {
    "unknown section": (
        SMALL + "protocl: {}\n",
        "r.yaml:3: protocl: unknown key 'protocl'; did you mean 'protocol'?",
    ),
    "missing section": ("methods: {plain: {}}\n", "r.yaml:1: needs 'grid'"),
    "section of a wrong kind": (
        "methods: [plain]\n" + GRID_LINES,
        "r.yaml:1: methods: should be a mapping, got a list",
    ),
    "unknown mode": (SMALL + "mode: quick\n", "r.yaml:3: mode: should be 'fast' or 'exact', got 'quick'"),
    "title that is a number": (SMALL + "title: 2024\n", "r.yaml:3: title: should be text, got 2024"),
    # methods
    "no method": ("methods: {}\n" + GRID_LINES, "r.yaml:1: methods: names no method"),
    "unknown method": (
        "methods:\n  plain: {}\n  tial: {}\n" + GRID_LINES,
        "r.yaml:3: methods.tial: unknown method 'tial'; did you mean 'tail'?"
        "; give your own methods with --methods FILE",
    ),
    "unknown method under a label": (
        "methods:\n  x:\n    method: zzz\n" + GRID_LINES,
        "r.yaml:3: methods.x.method: unknown method 'zzz'; there are: plain, second, tail"
        "; give your own methods with --methods FILE",
    ),
    "a label without a value": (
        "methods:\n  plain:\n" + GRID_LINES,
        "r.yaml:2: methods.plain: should be a mapping, got null; write {} for an empty one",
    ),
    "a label that is no name": (
        "methods:\n  a.b: {method: plain}\n" + GRID_LINES,
        "r.yaml:2: methods.a.b: a name is 1 to 64 letters, digits, _, + and -, no dot, and not - first",
    ),
    "unknown key of a method": (
        "methods:\n  plain:\n    parms: {alpha: 1}\n" + GRID_LINES,
        "r.yaml:3: methods.plain.parms: unknown key 'parms'; did you mean 'params'?",
    ),
    "unknown hyper-parameter": (
        "methods:\n  plain:\n    params:\n      alhpa: 1\n" + GRID_LINES,
        "r.yaml:4: methods.plain.params.alhpa: method 'plain' has no hyper-parameter 'alhpa'; "
        "did you mean 'alpha'?",
    ),
    "hyper-parameter of a wrong kind": (
        "methods:\n  plain: {params: {alpha: big}}\n" + GRID_LINES,
        "r.yaml:2: methods.plain.params.alpha: should be a number, got 'big'",
    ),
    "hyper-parameter outside of its choices": (
        "methods:\n  plain: {params: {kind: sft}}\n" + GRID_LINES,
        "r.yaml:2: methods.plain.params.kind: should be 'soft' or 'hard', got 'sft'",
    ),
    "an element of a list of a wrong kind": (
        "methods:\n  plain:\n    params:\n      scales:\n      - 1\n      - one\n" + GRID_LINES,
        "r.yaml:6: methods.plain.params.scales[1]: should be a number, got 'one'",
    ),
    "a parent is needed": (
        "methods:\n  second: {}\n" + GRID_LINES,
        "r.yaml:2: methods.second: 'second' starts from a trained cell; name its label with from:",
    ),
    "a parent is of no use": (
        "methods:\n  plain: {}\n  tail:\n    from: plain\n" + GRID_LINES,
        "r.yaml:4: methods.tail.from: 'tail' does not start from another cell; leave from: out",
    ),
    "unknown parent": (
        "methods:\n  plain: {}\n  second: {from: plian}\n" + GRID_LINES,
        "r.yaml:3: methods.second.from: unknown label 'plian'; did you mean 'plain'?",
    ),
    "parents in a circle": (
        "methods:\n  a: {method: second, from: b}\n  b: {method: second, from: a}\n" + GRID_LINES,
        "r.yaml:2: methods.a.from: a loop: a -> b -> a\nr.yaml:3: methods.b.from: a loop: b -> a -> b",
    ),
    "own parent": (
        "methods:\n  second: {from: second}\n" + GRID_LINES,
        "r.yaml:2: methods.second.from: a loop: second -> second",
    ),
    # grid
    "empty grid": (
        "methods: {plain: {}}\ngrid: {}\n",
        "r.yaml:2: grid: needs dataset, imbalance_factor, backbone",
    ),
    "empty axis": (TWO + "  seed: []\n", "r.yaml:8: grid.seed: is empty; give it a value"),
    "a value twice": (TWO + "  seed: [0, 1, 0]\n", "r.yaml:8: grid.seed[2]: 0 is listed twice"),
    "unknown axis": (
        TWO + "  seeds: 1\n",
        "r.yaml:8: grid.seeds: unknown axis 'seeds'; did you mean 'seed'?",
    ),
    "a data set's field as an axis": (
        TWO + "  dataset.n_max: [5, 6]\n",
        "r.yaml:8: grid.dataset.n_max: unknown axis 'dataset.n_max'; did you mean 'dataset'?",
    ),
    "unknown key of the protocol as an axis": (
        TWO + "  protocol.epocs: [1, 2]\n",
        "r.yaml:8: grid.protocol.epocs[0]: unknown key 'epocs'; did you mean 'epochs'?\n"
        "r.yaml:8: grid.protocol.epocs[1]: unknown key 'epocs'; did you mean 'epochs'?",
    ),
    "hyper-parameter that no method has": (
        TWO + "  params.gamma: 1\n",
        "r.yaml:8: grid.params.gamma: no method here has it; did you mean 'params.alpha'?",
    ),
    "an axis that all labels overrule": (
        "methods:\n  plain: {params: {alpha: 3}}\n" + GRID_LINES + "  params.alpha: [3, 4]\n",
        "r.yaml:7: grid.params.alpha[0]: changes no cell: every label that has params.alpha sets it itself\n"
        "r.yaml:7: grid.params.alpha[1]: changes no cell: every label that has params.alpha sets it itself",
    ),
    "negative seed": (
        TWO + "  seed: -1\n",
        "r.yaml:8: grid.seed: should be greater than or equal to 0, got -1",
    ),
    "a factor below 1, as LDAM writes it": (
        "methods: {plain: {}}\ngrid: {dataset: digits, imbalance_factor: 0.01, backbone: resnet8_cifar}\n",
        "r.yaml:2: grid.imbalance_factor: should be greater than or equal to 1, got 0.01"
        "; it is the largest class over the smallest: did you mean 100?",
    ),
    "unknown data set": (
        "methods: {plain: {}}\ngrid:\n  dataset: [digits, cifar1O]\n  imbalance_factor: 1\n"
        "  backbone: resnet8_cifar\n",
        "r.yaml:3: grid.dataset[1]: unknown data set 'cifar1O'; did you mean 'cifar10'?",
    ),
    "unknown backbone": (
        "methods: {plain: {}}\ngrid:\n  dataset: digits\n  imbalance_factor: 1\n"
        "  backbone:\n  - name: resnt8_cifar\n",
        "r.yaml:6: grid.backbone[0].name: unknown backbone 'resnt8_cifar'; did you mean 'resnet8_cifar'?",
    ),
    "unknown pretrained weights": (
        "methods: {plain: {}}\ngrid: {dataset: digits, imbalance_factor: 1, backbone: resnet18.a1_in2k}\n",
        "r.yaml:2: grid.backbone: unknown backbone 'resnet18.a1_in2k'; did you mean 'resnet18.a1_in1k'?",
    ),
    "unknown key of a backbone": (
        "methods: {plain: {}}\ngrid: {dataset: digits, imbalance_factor: 1, backbone: {nam: resnet18}}\n",
        "r.yaml:2: grid.backbone: needs 'name'\n"
        "r.yaml:2: grid.backbone.nam: unknown key 'nam'; did you mean 'name'?",
    ),
    "zipped axes of unequal length": (
        TWO + "zip:\n  - protocol.epochs: [1, 2]\n    protocol.batch_size: [1, 2, 3]\n",
        "r.yaml:9: zip[0].protocol.epochs: has 2 values beside 3",
    ),
    "an axis in grid and zip": (
        TWO + "zip:\n  - {dataset: [digits, cifar10], seed: [0, 1]}\n",
        "r.yaml:9: zip[0].dataset: 'dataset' is an axis already at r.yaml:5",
    ),
    "an empty zip group": (TWO + "zip:\n  - {}\n", "r.yaml:9: zip[0]: has no axis"),
    "two labels of one cell": (
        "methods:\n  plain: {}\n  same: {method: plain, params: {alpha: 1}}\n" + GRID_LINES,
        "r.yaml:3: methods.same: 'same' and 'plain' are the same cell (digits-if10-plain-s0-...",
    ),
    # protocol, data sets, overrides
    "unknown key deep inside": (
        SMALL + "protocol:\n  optimizer:\n    nestrov: true\n",
        "r.yaml:5: protocol.optimizer.nestrov: unknown key 'nestrov'; did you mean 'nesterov'?",
    ),
    "unknown augmentation": (
        SMALL + "protocol: {augmentation: cropflip}\n",
        "r.yaml:3: protocol.augmentation: unknown augmentation 'cropflip'; did you mean 'crop_flip'?",
    ),
    "unknown sampler": (
        "methods:\n  plain:\n    protocol:\n      sampler: clas_balanced\n" + GRID_LINES,
        "r.yaml:4: methods.plain.protocol.sampler: unknown sampler 'clas_balanced'; "
        "did you mean 'class_balanced'?",
    ),
    "keys that do not go together": (
        SMALL + "protocol:\n  schedule:\n    kind: steps\n",
        "r.yaml:4: protocol.schedule: milestones and factors belong to 'kind: steps', and it needs them",
    ),
    "several mistakes": (
        SMALL + "protocol:\n  epochs: many\n  batch_size: 0\n  optimizer: {lr: -1, lrr: 1}\n",
        "r.yaml:6: protocol.optimizer.lrr: unknown key 'lrr'; did you mean 'lr'?\n"
        "r.yaml:4: protocol.epochs: should be a whole number, got 'many'\n"
        "r.yaml:5: protocol.batch_size: should be greater than or equal to 1, got 0\n"
        "r.yaml:6: protocol.optimizer.lr: should be greater than 0, got -1",
    ),
    "a data set without a source": (
        SMALL + "datasets:\n  mine: {}\n",
        "r.yaml:4: datasets.mine: needs 'source'",
    ),
    "a data set from an unknown one": (
        SMALL + "datasets:\n  mine: {base: cifar11}\n",
        "r.yaml:4: datasets.mine.base: unknown data set 'cifar11'; did you mean 'cifar10'?",
    ),
    "data sets from each other": (
        SMALL + "datasets:\n  a: {base: b}\n  b: {base: a}\n",
        "r.yaml:5: datasets.b.base: a loop: a -> b -> a\nr.yaml:4: datasets.a.base: a loop: b -> a -> b",
    ),
    "a data set from itself": (
        SMALL + "datasets:\n  a: {base: a}\n",
        "r.yaml:4: datasets.a.base: a loop: a -> a",
    ),
    "data sets from one another without end": (
        SMALL
        + "datasets:\n"
        + "".join(f"  d{n}: {{base: d{n + 1}}}\n" for n in range(21))
        + "  d21: {base: cifar10}",
        "r.yaml:24: datasets.d20.base: bases nest more than 20 deep",
    ),
    "another tail under a known name": (
        SMALL + "datasets:\n  cifar10:\n    profile: step\n",
        "r.yaml:5: datasets.cifar10.profile: cifar10 has 'exponential'; give a changed one another name, "
        "with base: cifar10",
    ),
    "a data set named twice": (
        SMALL + "datasets:\n  mine:\n    base: cifar10\n    name: other\n",
        "r.yaml:6: datasets.mine.name: the key is the name; leave this out",
    ),
    "a data set that is a path": (
        SMALL + "datasets:\n  ../x: {base: cifar10}\n",
        "r.yaml:4: datasets.'../x': a name is 1 to 64 letters, digits, _, + and -, no dot, and not - first",
    ),
    "wrong field of a data set": (
        SMALL + "datasets:\n  cifar10:\n    shots:\n      many: 3\n",
        "r.yaml:6: datasets.cifar10.shots.many: unknown key 'many'; there are: few_below, many_above",
    ),
    "shots that overlap": (
        SMALL + "datasets:\n  mine:\n    base: cifar10\n    shots: {few_below: 50, many_above: 20}\n",
        "r.yaml:6: datasets.mine.shots: few_below (50) above many_above (20): a class would be both",
    ),
    "a deviation of 0": (
        SMALL + "datasets:\n  mine:\n    base: cifar10\n    std: [0.0, 1.0, 1.0]\n",
        "r.yaml:6: datasets.mine.std[0]: ...",
    ),
    "swa over no epoch": (
        SMALL + "protocol:\n  averaging: {kind: swa, start: 1.0}\n",
        "r.yaml:4: protocol.averaging: swa with 'start: 1' averages no epoch; choose a share below 1",
    ),
    "nesterov without momentum": (
        SMALL + "protocol:\n  optimizer: {nesterov: true, momentum: 0.0}\n",
        "r.yaml:4: protocol.optimizer: 'nesterov: true' needs a momentum above 0",
    ),
    "own images of no stated size": (
        SMALL + "datasets:\n  mine: {source: folder, folder: x}\n",
        "r.yaml:4: datasets.mine: needs image_size, the pixels to which images are resized: 32, for example",
    ),
    "a mean of pixels from 0 to 255": (
        SMALL + "datasets:\n  mine: {source: folder, folder: x, mean: [123.7, 0.4, 0.4]}\n",
        "r.yaml:4: datasets.mine.mean[0]: should be less than or equal to 1, got 123.7",
    ),
    "a negative milestone": (
        SMALL + "protocol:\n  schedule: {kind: steps, milestones: [-1], factors: [0.1]}\n",
        "r.yaml:4: protocol.schedule.milestones[0]: ...",
    ),
    "match of an unknown key": (
        SMALL + "overrides:\n  - {match: {lable: plain}, protocol: {epochs: 1}}\n",
        "r.yaml:4: overrides[0].match.lable: unknown key 'lable'; did you mean 'label'?",
    ),
    "match of nothing": (
        SMALL + "overrides:\n  - match: {imbalance_factor: [10, 100]}\n    protocol: {epochs: 1}\n",
        "r.yaml:4: overrides[0].match.imbalance_factor[1]: no cell of the grid has imbalance_factor 100; "
        "did you mean '10'?",
    ),
    "match of a number as text": (
        SMALL + "overrides:\n  - {match: {seed: '0'}, protocol: {epochs: 1}}\n",
        "r.yaml:4: overrides[0].match.seed: no cell of the grid has seed '0', but 0; remove the quotes",
    ),
    "matches that exclude each other": (
        TWO + "overrides:\n  - {match: {label: two, method: plain}, protocol: {epochs: 1}}\n",
        "r.yaml:9: overrides[0].match: matches no cell of the grid",
    ),
    "match of all": (
        SMALL + "overrides:\n  - {match: {}, protocol: {epochs: 1}}\n",
        "r.yaml:4: overrides[0].match: matches all cells; what is for all of them belongs in protocol:",
    ),
    "override without a change": (
        SMALL + "overrides:\n  - {match: {label: plain}}\n",
        "r.yaml:4: overrides[0]: changes nothing; give it protocol: or params:",
    ),
    "hyper-parameter that not all matched methods have": (
        TWO + "overrides:\n  - {match: {dataset: digits}, params: {alpha: 2}}\n",
        "r.yaml:9: overrides[0].params.alpha: method 'second' has no hyper-parameter 'alpha'; there are: tau",
    ),
}


@pytest.mark.parametrize(("text", "message"), RECIPES.values(), ids=RECIPES)
def test_a_mistake_is_reported_with_its_place_and_remedy(text: str, message: str) -> None:
    assert shortened(error_of(text), message) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("protocol.epocs=2", "--set: protocol.epocs: unknown key 'epocs'; did you mean 'epochs'?"),
        ("protocol.epochs=two", "--set: protocol.epochs: should be a whole number, got 'two'"),
        ("protocol.epochs=", "--set: protocol.epochs: should be a whole number, got null"),
        ("protocol.epochs=[1", "--set: expected ',' or ']', but got '<stream end>'"),
        ("grid.seed=[0, -1]", "--set: grid.seed[1]: should be greater than or equal to 0, got -1"),
        ("protocol", "--set: 'protocol': write key=value, as in protocol.epochs=2"),
        ("protocol..epochs=1", "--set: 'protocol..epochs=1': write key=value, as in protocol.epochs=2"),
        ("=1", "--set: '=1': write key=value, as in protocol.epochs=2"),
        ("include=x.yaml", "--set: include: unknown key 'include'; there are: ..."),
        ("protocol.epochs.x=1", "--set: protocol.epochs: should be a whole number, got a mapping"),
    ],
)
def test_a_mistake_of_set_is_reported_as_such(change: str, message: str) -> None:
    assert shortened(error_of(SMALL + "protocol: {epochs: 3}\n", change), message) == message


def test_very_many_mistakes_are_reported_in_part() -> None:
    keys = "".join(f"  key{i}: 1\n" for i in range(50))
    lines = error_of(SMALL + "protocol:\n" + keys).split("\n")
    assert len(lines) == 21
    assert lines[-1] == "... and 30 more"


def test_a_grid_beyond_reason_is_refused() -> None:
    said = error_of(SMALL, f"grid.seed={list(range(1000))}", f"grid.protocol.epochs={list(range(1000))}")
    assert said == f"--set: grid: makes 1,000,000 cells; the most is {MOST_CELLS:,}"


# -- include ----------------------------------------------------------------------------------------
def test_a_mistake_in_an_included_file_names_that_file() -> None:
    Path("base.yaml").write_text("protocol:\n  epochs: 3\n  epocs: 4\n")
    message = "base.yaml:3: protocol.epocs: unknown key 'epocs'; did you mean 'epochs'?"
    assert error_of("include: base.yaml\n" + SMALL) == message


def test_a_loop_of_includes_shows_the_chain() -> None:
    Path("a.yaml").write_text("# x\ninclude: [b.yaml]\n")
    Path("b.yaml").write_text("include: r.yaml\n")
    message = "b.yaml:1: include: a loop: r.yaml -> a.yaml -> b.yaml -> r.yaml"
    assert error_of("include: a.yaml\n" + SMALL) == message
    assert error_of("include: ./r.yaml\n" + SMALL) == "r.yaml:1: include: a loop: r.yaml -> r.yaml"


@pytest.mark.parametrize("name", ["../x.yaml", "/etc/passwd", "sub/../../x.yaml", "link.yaml"])
def test_an_include_cannot_leave_the_recipes(name: str) -> None:
    Path("sub").mkdir()
    Path("link.yaml").symlink_to("/etc/passwd")
    home = Path.cwd().name
    message = f"r.yaml:1: include: '{name}' lies outside of {home}/; include a file from inside"
    assert error_of(f"include: {name}\n" + SMALL) == message


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ("bse.yaml", "r.yaml:1: include: 'bse.yaml': no such file; did you mean 'base.yaml'?"),
        ("[base.yaml, sub]", "r.yaml:1: include[1]: 'sub': is a folder; name one recipe in it"),
        ("3", "r.yaml:1: include: should be the name of a file, got 3"),
        ("[]", "r.yaml:1: include: names no file; leave it out"),
        ('"a\\0b"', "r.yaml:1: include: should be the name of a file, got 'a\\x00b'"),
        ("{a: b}", "r.yaml:1: include: should be the name of a file, got a mapping"),
    ],
)
def test_an_include_that_is_no_file(include: str, message: str) -> None:
    Path("base.yaml").write_text("protocol: {}\n")
    Path("sub").mkdir()
    assert error_of(f"include: {include}\n" + SMALL).startswith(message)


def test_included_files_that_disagree_must_be_settled() -> None:
    Path("a.yaml").write_text("protocol:\n  epochs: 5\n  batch_size: 8\n")
    Path("b.yaml").write_text("protocol: {batch_size: 8,\n  epochs: 6}\n")
    text = "include: [a.yaml, b.yaml]\n" + SMALL
    assert error_of(text) == "a.yaml:2: protocol.epochs: b.yaml:2 has another value; set one in r.yaml"
    assert read(text + "protocol: {epochs: 7}\n").points[0].cell.protocol.epochs == 7
    assert read(text, ["protocol.epochs=8"]).points[0].cell.protocol.epochs == 8


def test_a_missing_recipe_is_answered_with_the_nearest() -> None:
    Path("recipes").mkdir()
    Path("recipes/quick.yaml").write_text(SMALL)
    with pytest.raises(BenchError, match=r"^recipes/quik.yaml: no such file; did you mean 'quick.yaml'\?$"):
        load(Path("recipes/quik.yaml"))
    with pytest.raises(BenchError, match=r"^recipes: is a folder; name one recipe in it"):
        load(Path("recipes"))


def test_a_hyper_parameter_without_a_type_is_named() -> None:
    from recipe_fakes import Plain

    from bench import registry

    def init(self, *args, tau=1.0): ...

    with pytest.raises(BenchError, match="'odd': hyper-parameter 'tau' needs a type"):
        registry.register("odd", title="Odd", family="fake")(type("Odd", (Plain,), {"__init__": init}))


def test_a_default_of_a_wrong_type_is_the_method_s_fault_not_a_traceback() -> None:
    from recipe_fakes import Plain

    from bench import registry

    registry.register("odd", title="Odd", family="fake", kind="loud")(type("Odd", (Plain,), {}))
    try:
        said = error_of("methods: {odd: {}}\n" + GRID)
    finally:
        del registry._specs["odd"]
    assert said.startswith("r.yaml:1: methods.odd: method 'odd': kind: Input should be 'soft' or 'hard'")
