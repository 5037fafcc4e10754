"""YAML text to nodes: the dialect, its traps, and hostile files that must end in one plain error."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recipe_fakes import GRID, SMALL, fakes, recipes

from bench.errors import BenchError
from bench.recipe import load
from bench.recipe.tree import Node, dotted, shown
from bench.recipe.yaml_text import compose

__all__ = ["fakes", "recipes"]


def error_of(text: str) -> str:
    with pytest.raises(BenchError) as error:
        compose(text, "f.yaml")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [("title: a: b", "put text with a colon in quotes"), ("a:\n\tb: 1", "indent with spaces")],
)
def test_what_yaml_reports_comes_with_a_remedy(text: str, remedy: str) -> None:
    assert error_of(text).endswith(f"; {remedy}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-1", 0.1),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("2.", 2.0),
        ("+3", 3),
        ("0", 0),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("'yes'", "yes"),
        ('"010"', "010"),
        ("y", "y"),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("e5", "e5"),
        ("[1, [a, b], {c: 1.5}]", [1, ["a", "b"], {"c": 1.5}]),
        ("a: &x {b: [1]}\nc: *x", {"a": {"b": [1]}, "c": {"b": [1]}}),
        ("=", "="),
    ],
)
def test_scalars_are_what_they_look_like(text: str, value: object) -> None:
    plain = compose(text, "f.yaml").plain
    assert plain == value
    assert type(plain) is type(value)


@pytest.mark.parametrize(
    "text", ["yes", "No", "ON", "off", "010", "0x1F", "0b11", "0o17", "1_000", "1:30", "1:30.5"]
)
def test_what_yaml_readers_disagree_on_is_refused(text: str) -> None:
    message = (
        f"f.yaml:2: a[1]: {text!r} means different things to different YAML readers; "
        "write true, false or a plain decimal number, or quote it"
    )
    assert error_of(f"# comment\na: [1, {text}]") == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3: duplicate key 'a'; the first is at f.yaml:1"),
        ("x:\n  'a': 1\n  \"a\": 3", "f.yaml:3: x: duplicate key 'a'; the first is at f.yaml:2"),
        ("x:\n  1: 2", "f.yaml:2: x: a key should be text, got '1'; quote it"),
        ("[a]: 2", "f.yaml:1: a key should be text, got a list; quote it"),
        ("? {a: 1}\n: 2", "f.yaml:1: a key should be text, got a list; quote it"),
        ("x:\n  <<: {a: 2}", "f.yaml:2: x: merge keys (<<) are not read; repeat the keys, or `include`"),
        ("on: 2", "f.yaml:1: 'on' means different things to different YAML readers"),
        (
            "a: !!python/object/apply:os.system ['echo hi']",
            "f.yaml:1: tags are not allowed, got 'tag:yaml.org,2002:python/object/apply:os.system'; "
            "quote it if it is text",
        ),
        ("a:\n - !x 1", "f.yaml:2: tags are not allowed, got '!x'; quote it if it is text"),
        ("a: 1e999", "f.yaml:1: a: 1e999 is not a finite number of 64 bits"),
        ("a: .nan", "f.yaml:1: a: .nan is not a finite number of 64 bits"),
        ("a: -.inf", "f.yaml:1: a: -.inf is not a finite number of 64 bits"),
        ("a: 9223372036854775808", "f.yaml:1: a: 9223372036854775808 is not a finite number"),
        ("a: " + "9" * 5000, "f.yaml:1: a: " + "9" * 40 + " is not a finite number"),
        ("a: [1, 2", "f.yaml:1: expected ',' or ']', but got '<stream end>'"),
        ("a: b: c", "f.yaml:1: mapping values are not allowed here"),
        ("a: *b", "f.yaml:1: found undefined alias 'b'"),
        ("a: 1\n---\nb: 2", "f.yaml:2: but found another document"),
        ("a:\n\t- 1", "f.yaml:2: found character '\\t' that cannot start any token"),
        ("a: 1\nb: \x07", "f.yaml:2: not valid YAML: special characters are not allowed"),
        ('a: "\\UFFFFFFFF"', "f.yaml:1: not valid YAML: "),
        ('a: "\\ud800"', "f.yaml:1: a: '\\ud800' is not valid text"),
        ("a: &a [*a]", "f.yaml:1: a[0][0]"),
        ("[" * 5000, "f.yaml:1: nested more than 20 deep"),
        ("- " * 5000 + "1", "f.yaml:1: nested more than 20 deep"),
        ("[" * 30 + "]" * 30, "f.yaml:1: [0][0][0]"),
    ],
)
def test_mistakes_have_a_line(text: str, message: str) -> None:
    said = error_of(text)
    assert said.startswith(message)
    assert "\n" not in said


def test_an_alias_counts_as_all_it_stands_for() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    assert "more than 20000 values in one file; aliases count in full" in error_of("\n".join(lines))


def test_nodes_know_where_they_are() -> None:
    tree = compose("a:\n  b:\n  - x\n  - c: 1\n", "f.yaml")
    found = {dotted(node.path): node.location for node in tree.walk()}
    assert found == {
        "": "f.yaml:1",
        "a": "f.yaml:1",
        "a.b": "f.yaml:2",
        "a.b[0]": "f.yaml:3",
        "a.b[1]": "f.yaml:4",
        "a.b[1].c": "f.yaml:4",
    }
    assert tree.find(("a", "b", 1, "c", "nothing")).plain == 1
    assert tree.find(("a", "b", 7)).path == ("a", "b")
    assert tree.find(("a", "b", 0, 0)).plain == "x"


def test_long_and_odd_values_are_shown_in_one_short_line() -> None:
    assert len(shown("x" * 10_000_000)) == 60
    assert shown("a\nb") == r"'a\nb'"
    assert dotted(("a", "b\nc", 0, "d")) == r"a.'b\nc'[0].d"
    assert str(Node(1, "f:1", ("k",)).fault("is bad")) == "f:1: k: is bad"


# -- whole files ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "r.yaml:1: should be a mapping, got null"),
        (b"# only a comment\n", "r.yaml:1: should be a mapping, got null"),
        (b"- a\n- b\n", "r.yaml:1: should be a mapping, got a list"),
        (b"just text", "r.yaml:1: should be a mapping, got 'just text'"),
        (b"title: caf\xe9\n", "r.yaml: not UTF-8 text (byte 10); save it as UTF-8"),
        (b"\xff\xfea\x00", "r.yaml: not UTF-8 text (byte 0); save it as UTF-8"),
        (b"\x00\x01", "r.yaml:1: not valid YAML: special characters are not allowed"),
        (b"a: " + b"x" * 1_000_000, "r.yaml: larger than 256 KiB; that is not a recipe"),
    ],
)
def test_a_file_that_is_no_recipe(recipes: Path, content: bytes, message: str) -> None:
    (recipes / "r.yaml").write_bytes(content)
    with pytest.raises(BenchError) as error:
        load(Path("r.yaml"))
    assert str(error.value) == message


@pytest.mark.parametrize(
    "text",
    [
        "methods: {%s: {}}\n" + GRID,
        "methods: {plain: {params: {%s: 1}}}\n" + GRID,
        "%s: 1\n" + SMALL,
        SMALL + "protocol: {augmentation: %s}\n",
        SMALL + "datasets: {%s: {base: cifar10}}\n",
        "methods: {plain: {}}\ngrid: {dataset: %s, imbalance_factor: 1, backbone: resnet18}\n",
    ],
)
def test_a_huge_name_makes_a_short_error(recipes: Path, text: str) -> None:
    (recipes / "r.yaml").write_text(text % ("n" * 1000))
    with pytest.raises(BenchError) as error:
        load(Path("r.yaml"))
    assert len(str(error.value)) < 500


def test_a_byte_order_mark_and_windows_lines_are_fine(recipes: Path) -> None:
    (recipes / "r.yaml").write_bytes(b"\xef\xbb\xbf# Note.\r\n" + SMALL.replace("\n", "\r\n").encode())
    recipe = load(Path("r.yaml"))
    assert (recipe.notes, len(recipe.points)) == ("Note.", 1)


WHOLE = (
    "# note\ntitle: T\nmode: fast\nmethods:\n  plain: {params: {alpha: 2, scales: [1, 2]}}\n"
    "  tail: {}\n  child: {method: second, from: tail, protocol: {epochs: 3}}\n" + GRID + ""
    "  params.gamma: [1, 2]\nzip:\n  - {protocol.epochs: [1, 2], protocol.batch_size: [3, 4]}\n"
    "datasets: {mine: {base: cifar10, folder: x}}\nprotocol: {optimizer: {lr: 1e-1}}\n"
    "overrides:\n  - {match: {label: plain}, protocol: {epochs: 5}}\n"
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
WORDS = st.sampled_from(
    re.findall(
        r"\S+",
        "methods grid zip datasets protocol overrides plain tail child method from params alpha scales gamma "
        "dataset imbalance_factor backbone seed mode digits resnet8_cifar epochs schedule kind match label "
        "base name options protocol.epochs params.gamma include title a.b x 0 -1 1e9 [] {} ~ !!x &a *a <<",
    )
)
VALUES = st.recursive(
    SCALARS | WORDS, lambda v: st.lists(v, max_size=3) | st.dictionaries(WORDS, v, max_size=4), max_leaves=8
)


def loads_or_says_why(content: bytes, sets: tuple[str, ...] = ()) -> None:
    """Load a recipe: nothing but cells or a `BenchError` may come of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.yaml"
        path.write_bytes(content)
        try:
            recipe = load(path, sets)
        except BenchError:
            return
    assert recipe.points


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(at=st.integers(0, len(WHOLE)), cut=st.integers(0, 12), put=st.text(max_size=6) | WORDS)
def test_a_damaged_recipe_loads_or_says_why(at: int, cut: int, put: str) -> None:
    loads_or_says_why((WHOLE[:at] + put + WHOLE[at + cut :]).encode("utf-8", "surrogatepass"))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    key=st.lists(WORDS, min_size=1, max_size=3).map(".".join),
    value=VALUES,
    raw=st.booleans(),
)
def test_a_set_of_anything_loads_or_says_why(key: str, value: object, raw: bool) -> None:
    text = str(value) if raw else json.dumps(value)
    loads_or_says_why(WHOLE.encode(), (f"{key}={text}",))


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_load_or_say_why(content: bytes) -> None:
    loads_or_says_why(content)
