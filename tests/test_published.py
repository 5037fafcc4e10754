"""The literature's table: whole, typed, and refused line by line where a row is wrong."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from project import SHARED

from bench import facts, published
from bench.errors import BenchError

COLLECTION = SHARED / "published"
needs_shared = pytest.mark.skipif(
    not COLLECTION.is_dir(), reason="the collection the table was made of is absent"
)

#: Rows of the literature: the collection of 2024, and what was added in 2026.
ROWS = 3003 + 443

HEADER = "dataset,imbalance_factor,method,metric,shots,value,reported_by,original,source,trust"
ROW = "cifar100,100,BCL,top1,all,51.9,me,no,my run,text"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return published.load()


def write(folder: Path, *lines: str, name: str = "mine.csv") -> Path:
    file = folder / name
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def csv_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


# -- the table ------------------------------------------------------------------------------------
def test_all_numbers_are_there_and_typed(table: pd.DataFrame) -> None:
    assert len(table) == ROWS
    assert table["label"].nunique() == 372
    assert str(table["value"].dtype) == "Float64"
    assert str(table["epochs"].dtype) == "Int64"
    assert table[["dataset", "imbalance_factor", "method", "shots", "value", "source"]].notna().all().all()
    assert table["value"].between(0, 100).all()


@needs_shared
def test_nothing_of_the_collection_is_lost() -> None:
    """Every row's text comes back from the typed columns and their notes, once corrections are undone."""
    datasets = {
        "cifar10": "CIFAR-10-LT",
        "cifar100": "CIFAR-100-LT",
        "imagenet_lt": "ImageNet-LT",
        "inaturalist2018": "iNaturalist2018",
        "places_lt": "Places-LT",
        "mini_imagenet_lt": "mini-ImageNet-LT",
    }
    backbones = {
        "": "n/s",
        "resnet10": "ResNet-10",
        "resnet32_cifar": "ResNet-32",
        "resnet34": "ResNet-34",
        "resnet50": "ResNet-50",
        "resnet101": "ResNet-101",
        "resnet152": "ResNet-152",
        "resnext50_32x4d": "ResNeXt-50",
        "resnext101": "ResNeXt-101",
        "swin_small": "Swin-Small",
        "swin_tiny": "Swin-Tiny",
    }
    augmentations = {"": "n/s", "std": "std", "autoaug_cutout": "AutoAug+Cutout", "randaug": "RandAug"}
    same = ("imbalance_factor", "metric", "value", "reported_by", "original", "source", "year", "trust")
    rows = csv_rows(published.HOME / "published.csv")
    for correction in csv_rows(COLLECTION / "corrections_2026.csv"):
        row = rows[int(correction["line"]) - 2]
        assert row[correction["column"]] == correction["new"]
        row[correction["column"]] = correction["old"]
    ours = [
        {name: row[name] for name in same}
        | {
            "dataset": datasets[row["dataset"]],
            "method": row["label"],
            "backbone": row["backbone_note"] or backbones[row["backbone"]],
            "epochs": row["epochs_note"] or row["epochs"] or "n/s",
            "augmentation": row["augmentation_note"] or augmentations[row["augmentation"]],
            "split": row["shots"],
            "seeds_or_std": row["seeds_note"],
        }
        for row in rows
    ]
    theirs = csv_rows(COLLECTION / "published.csv")
    assert Counter(map(frozenset, map(dict.items, ours))) == Counter(map(frozenset, map(dict.items, theirs)))


@pytest.mark.parametrize(
    ("label", "reported_by", "expected"),
    [
        (
            "GLMC",
            "GLMC (CVPR23) paper column of repo",
            {"width_class": "4x-wide", "data_copy": "glmc_resampled"},
        ),
        ("PaCo", "SCoRe repo", {"epochs": 400, "augmentation": "mixed"}),
        ("CMO", "SCoRe repo", {"epochs": 200}),
        ("TSC", "SCoRe repo", {"epochs": None, "augmentation": None}),
        ("BCL", "OFBD (2026)", {"epochs": None, "epochs_note": "n/s (200)", "augmentation": "mixed"}),
        ("RIDE (4 experts)+distill", "RIDE (ICLR21) model zoo", {"method": "ride_distill", "experts": 4}),
        ("SADE", "SADE (NeurIPS22) repo", {"experts": 3, "selection": "best_test"}),
        (
            "ProCo (last epoch)",
            "ProCo logs (last epoch)",
            {"method": "proco", "selection": "last", "n_seeds": 1},
        ),
        ("BalPoE (3 experts)", "BalPoE (CVPR23) slides", {"selection": "last", "experts": 3}),
        ("BCCL", "BCCL repo", {"selection": "best_test", "views": 2, "augmentation": "autoaug_cutout"}),
        ("CGM+GCLL", "CGM+GCLL repo", {"method": "cgm_gcll", "selection": None, "augmentation": None}),
        ("Remix-DRW (300 ep)", "MiSLAS (CVPR21) slides", {"epochs": 300}),
        ("De-confound-TDE", "De-confound-TDE (NeurIPS20) Table 3", {"pretraining": "other"}),
        (
            "WB: WD + CB&WD&MaxNorm",
            "Weight Balancing (CVPR22) Table 1",
            {"backbone": "resnet34", "epochs": 200},
        ),
    ],
)
def test_what_is_known_is_in_columns_and_what_is_not_is_empty(
    table: pd.DataFrame, label: str, reported_by: str, expected: dict[str, object]
) -> None:
    rows = table[(table["label"] == label) & (table["reported_by"] == reported_by)]
    rows = rows[rows["dataset"].str.startswith("cifar") & (rows["shots"] == "all")]
    assert len(rows)
    for name, value in expected.items():
        values = rows[name].drop_duplicates().tolist()
        assert all(pd.isna(v) for v in values) if value is None else values == [value], name


@pytest.mark.parametrize(
    ("method", "original", "copy"),
    [
        ("los", False, "first_images"),
        ("imbsam", True, "first_images"),
        ("bag_of_tricks", True, "cui"),
        ("balms", True, "unseeded"),
        ("metasaug_ldam", True, "metasaug_subset"),
        ("concutmix", True, "concutmix_subset"),
        ("ldam_drw", True, "original"),
    ],
)
def test_a_number_from_another_draw_is_of_another_copy(
    table: pd.DataFrame, method: str, original: bool, copy: str
) -> None:
    cifar = table[table["dataset"].isin(["cifar10", "cifar100"]) & (table["method"] == method)]
    assert cifar.loc[cifar["original"] == original, "data_copy"].drop_duplicates().tolist() == [copy]


def test_los_is_a_resnet34_whose_epoch_was_chosen_on_the_test_set(table: pd.DataFrame) -> None:
    rows = table[(table["method"] == "los") & (table["dataset"] == "cifar100")]
    assert set(rows["backbone"]) == {"resnet34"}
    assert set(rows["selection"]) == {"best_test"}


def test_a_quoted_number_does_not_take_over_how_the_authors_chose_their_epoch(table: pd.DataFrame) -> None:
    rows = table[(table["method"] == "mislas") & (table["dataset"] == "cifar10")]
    chosen = {original: set(some["selection"].fillna("")) for original, some in rows.groupby("original")}
    assert chosen == {True: {"best_test"}, False: {""}}


def test_labels_stand_for_one_method_each(table: pd.DataFrame) -> None:
    assert table.groupby("label")["method"].nunique().max() == 1
    known = published.load_methods()
    for method, label in table[["method", "label"]].drop_duplicates().itertuples(index=False):
        facts = known.loc[method]
        assert label in (facts["title"], *facts["aliases"]) or label.casefold() == facts["title"].casefold()


def test_methods_that_are_built_are_described_once() -> None:
    registry = pytest.importorskip("bench.registry")
    known = registry.methods()  # with those that other tests registered
    entries = {name: known[name] for name in known if known[name].build.__module__.startswith("methods.")}
    assert list(facts.built_in()) == sorted(entries), "one row of methods/methods.csv for each"
    for name, reported in facts.built_in().items():
        assert {key: getattr(entries[name], key) for key in vars(reported)} == vars(reported)
    elsewhere = {row["method"] for row in csv_rows(published.HOME / "methods.csv")}
    assert not elsewhere & set(entries)
    stages = {name for row in published.load_methods()["stages"].dropna() for name in row.split(">")}
    assert stages <= set(entries)


def test_a_name_stands_for_its_method_and_not_for_another_one_s_title(tmp_path: Path) -> None:
    assert facts.built_in()["supcon_pretrain"].title == "SupCon"
    file = write(tmp_path, HEADER, ROW.replace("BCL", "supcon"))
    assert published.load(file)["method"].iloc[-1] == "supcon"


# -- a user's own rows ----------------------------------------------------------------------------
def test_a_second_file_adds_rows_by_alias(tmp_path: Path) -> None:
    file = write(tmp_path, HEADER, ROW, ROW.replace("BCL", "ldam-drw").replace("51.9", "42"))
    rows = published.load(file).tail(2)
    assert rows["method"].tolist() == ["bcl", "ldam_drw"]
    assert rows["title"].tolist() == ["BCL", "LDAM-DRW"]
    assert rows["place"].tolist() == ["mine.csv:2", "mine.csv:3"]
    assert rows["experts"].tolist() == [1, 1]
    assert rows["epochs"].isna().all()


def test_a_second_file_may_add_methods(tmp_path: Path) -> None:
    methods = write(tmp_path, "method,title,aliases", "my_loss,My loss,ML|Mine", name="my_methods.csv")
    file = write(tmp_path, HEADER, ROW.replace("BCL", "Mine"))
    assert published.load(methods, file)["method"].iloc[-1] == "my_loss"
    with pytest.raises(BenchError, match=r"^mine.csv:2: method: 'Mine' is unknown.*my_methods.csv"):
        published.load(file)


def test_a_spreadsheet_s_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(f"{HEADER}\r\n{ROW}\r\n", encoding="utf-8-sig")
    assert len(published.load(file)) == ROWS + 1


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("value", "", "value: must not be empty"),
        ("value", "fifty", "value: 'fifty' is not a number"),
        ("value", "101", "value: 101 must be from 0 to 100"),
        ("value", "nan", "value: nan must be from 0 to 100"),
        ("imbalance_factor", "0.01", "imbalance_factor: 0.01 must be at least 1"),
        ("imbalance_factor", "inf", "imbalance_factor: inf must be at least 1"),
        ("dataset", "CIFAR-100", "dataset: 'CIFAR-100' is not a name"),
        (
            "method",
            "balanced sofmax",
            "method: 'balanced sofmax' is unknown; did you mean 'balanced softmax'?",
        ),
        ("shots", "med", "shots: 'med' is unknown; did you mean 'medium'?"),
        ("original", "maybe", "original: 'maybe' is unknown"),
        ("trust", "txt", "trust: 'txt' is unknown; did you mean 'text'?"),
        ("metric", "top5", "metric: 'top5' is unknown; did you mean 'top1'?"),
    ],
)
def test_a_wrong_cell_is_named_with_file_line_and_column(
    tmp_path: Path, column: str, cell: str, message: str
) -> None:
    cells = dict(zip(HEADER.split(","), ROW.split(","), strict=True)) | {column: cell}
    with pytest.raises(BenchError) as error:
        published.load(write(tmp_path, HEADER, ROW, ",".join(cells.values())))
    assert str(error.value).startswith(f"mine.csv:3: {message}")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER + ",colour", ROW + ",red"], "mine.csv:1: 'colour' is no column"),
        ([HEADER + ",epoch", ROW + ",200"], "mine.csv:1: 'epoch' is no column; did you mean 'epochs'?"),
        ([HEADER + ",value", ROW + ",1"], "mine.csv:1: value: this column is there twice"),
        ([HEADER.replace("trust", "note"), ROW], "mine.csv:1: trust: this column is missing"),
        ([HEADER, ROW + ",more"], "mine.csv:2: 11 cells, but the header has 10 columns"),
        ([HEADER, ROW, ROW], "mine.csv:3: value: the row is that of mine.csv:2 again"),
        ([HEADER + ",epochs", ROW + ",2e2"], "mine.csv:2: epochs: '2e2' is not a whole number"),
        ([HEADER + ",width_class", ROW + ",wide"], "mine.csv:2: width_class: 'wide' is not 'standard'"),
        (
            [HEADER, 'cifar10,10,CE,top1,all,x,"a', 'b",no,c,text', ROW.replace("51.9", "x")],
            "mine.csv:2: value",
        ),
        ([HEADER, '"' + ROW], "mine.csv: not a readable CSV file"),
        ([], "mine.csv:1: dataset: this column is missing"),
    ],
)
def test_a_wrong_file_is_reported_by_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(BenchError) as error:
        published.load(write(tmp_path, *lines))
    assert str(error.value).startswith(message)


def test_mistakes_can_be_collected_and_the_rest_stays(tmp_path: Path) -> None:
    bad = ROW.replace("51.9", "x")
    file = write(tmp_path, HEADER, bad, ROW, ROW.replace("BCL", "no such thing at all"), "too,few")
    problems: list[str] = []
    rows = published.load(file, tmp_path / "absent.csv", problems=problems)
    assert len(rows) == ROWS + 1
    assert [problem.split(":")[1] for problem in problems[:3]] == ["2", "4", "5"]
    assert "absent.csv: no such file" in problems[3]
    with pytest.raises(BenchError, match=r"\(and 3 more\)"):
        published.load(file, tmp_path / "absent.csv")


def test_an_alias_stands_for_one_method_only(tmp_path: Path) -> None:
    file = write(tmp_path, "method,title,aliases", "other,Other,BCL", name="my_methods.csv")
    with pytest.raises(BenchError, match=r"my_methods.csv:2: aliases: 'bcl' already stands for 'bcl'"):
        published.load(file)


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no such folder"):
        published.load(folder=tmp_path / "nowhere")


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300), st.text(max_size=300).map(lambda text: (HEADER + "\n" + text).encode())
    )
)
def test_no_file_breaks_the_table(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "mine.csv").write_bytes(content)
    problems: list[str] = []
    rows = published.load(folder=folder, problems=problems)
    assert len(rows) == 0  # no method is known here, so no row can be right
    assert not any("\n" in problem for problem in problems)
