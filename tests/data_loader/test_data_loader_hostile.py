"""Bad input: every bad file ends in one clear `DataError` line."""

from __future__ import annotations

import builtins
import gzip
import os
import sys
import types

import pytest

from modern_rlhf.data_loader.demonstrations import load_demonstrations
from modern_rlhf.data_loader.preferences import load_labelled, load_preferences
from modern_rlhf.data_loader.prompts import load_prompts
from modern_rlhf.data_loader.sources import hub_match
from modern_rlhf.data_loader.tasks import load_tasks
from modern_rlhf.errors import ConfigError, DataError

WHOLE = gzip.compress(b'{"prompt": "p", "response": "r"}\n' * 50)
FLIPPED = WHOLE[:10] + b"\xff" * 4 + WHOLE[14:]
LOADERS = [load_demonstrations, load_tasks, load_preferences, load_labelled, load_prompts]

GOOD = '{"prompt": "p", "response": "r"}\n'


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.jsonl", "", "is empty"),
        ("empty.json", "", "is empty"),
        ("empty.csv", "", "is empty"),
        ("blank.jsonl", "\n \n", "holds no usable row (2 blank line)"),
        ("header.csv", "prompt,response\n", "holds no usable row"),
        ("narrow.csv", "prompt,response,tag\np,r\n", "(1 row without exactly 3 cells)"),
        ("none.json", "[]", "holds no usable row"),
        (
            "latin.csv",
            b"prompt,response\np,caf\xe9\n",
            "line 2: not UTF-8 (byte 0xe9 at position 6",
        ),
        ("wide.csv", "prompt,response\n".encode("utf-16"), "is UTF-16 or UTF-32; save it as UTF-8"),
        ("bare.csv", "prompt,response\np,r\n".encode("utf-16-le"), "UTF-16 without its mark"),
        ("semicolon.csv", "prompt;response\np;r\n", "line 1: one column 'prompt;response'"),
        ("mac.csv", "prompt,response\rp,r\r", "line 1: a line ends in a carriage return alone"),
        ("digits.jsonl", f'{GOOD}{{"id": {"9" * 5000}}}\n', "line 2: broken JSON ("),
        ("digits.json", f'[{{"id": {"9" * 5000}}}]', "broken JSON ("),
        (
            "half.jsonl",
            GOOD + '{"prompt": "\\ud800"}\n',
            "line 2: \\ud800 is half of a surrogate pair",
        ),
        ("half.json", '[{"prompt": "\\uD83D"}]', "item 0: \\ud83d is half of a surrogate pair"),
        ("nested.json", '[[{"prompt": "p"}]]', "item 0: expected a JSON object, found an array"),
        ("broken.jsonl", GOOD + '{"prompt": "p",\n', "line 2: broken JSON ("),
        ("broken.json", '[{"prompt": "p"},\n{]', "line 2: broken JSON ("),
        ("list.jsonl", GOOD + "[1]\n", "line 2: expected a JSON object, found an array"),
        ("scalar.json", "3", "expected a JSON array of objects, found a number"),
        ("deep.json", "[" * 100_000, "broken JSON ("),
        ("quote.csv", 'prompt,response\np,"never closed\n', "broken CSV ("),
        ("twice.csv", "prompt,prompt\na,b\n", "column 'prompt' stands twice"),
        ("other.jsonl", '{"x": 1, "y": 2}\n', "columns found: x, y; known names: "),
        ("fake.parquet", b"PAR0 this is not parquet", "not a readable Parquet file"),
        ("fake.jsonl.gz", b"no gzip", "damaged gzip file"),
        ("flipped.jsonl.gz", FLIPPED, "damaged gzip file"),
        ("data.xlsx", b"PK", "unknown file type '.xlsx'; expected one of .csv, "),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(write, loader, name, content, message):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = write(name, content)
    with pytest.raises(DataError) as caught:
        loader(path)
    text = str(caught.value)
    assert name in text and message in text and "\n" not in text


@pytest.mark.parametrize("loader", LOADERS)
def test_a_missing_file_suggests_the_nearest_name(write, loader):
    path = write("answers.jsonl", GOOD)
    with pytest.raises(DataError, match=r"no such file or folder; did you mean .*answers\.jsonl\?"):
        loader(path.replace("answers", "anwsers"))


def test_a_whole_surrogate_pair_is_a_character(write):
    path = write("pair.jsonl", '{"prompt": "\\ud83d\\ude00", "response": "r"}\n')
    assert load_demonstrations(path).items[0].prompt == "\U0001f600"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "the path of the data is empty"),
        ("~nobody-of-this-name/x.csv", "no such file or folder"),
        ("a\0b.csv", "no path has a zero byte in it"),
        ("x" * 5000, "cannot be read (ENAMETOOLONG"),
    ],
)
@pytest.mark.parametrize("loader", LOADERS)
def test_a_path_that_is_none(loader, path, message):
    with pytest.raises(DataError) as caught:
        loader(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("loader", LOADERS)
def test_links_that_lead_nowhere(tmp_path, loader):
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    with pytest.raises(DataError, match="ELOOP"):
        loader(str(tmp_path / "loop.csv"))
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match="is a link to nowhere"):
        loader(str(tmp_path / "gone.csv"))


@pytest.mark.parametrize("loader", LOADERS)
def test_a_cap_that_keeps_nothing(write, loader):
    with pytest.raises(ConfigError, match="max_rows=0: expected at least 1"):
        loader(write("a.jsonl", GOOD), max_rows=0)


def test_columns_without_a_name_are_passed_over_and_said(write):
    loaded = load_demonstrations(write("a.csv", "prompt,response,,\np,r,,\n"))
    assert loaded.items[0].metadata == {}
    assert "2 columns of a.csv have no name and were not read" in loaded.report.notes


def test_rows_without_an_id_are_no_group_of_their_own(write):
    """NaN and infinity, which Python writes into JSON lines, are no question ids."""
    rows = [
        {"intent": text, "snippet": "s", "question_id": number}
        for text, number in (("one", float("nan")), ("two", float("nan")), ("three", float("inf")))
    ]
    groups = {item.group_id for item in load_demonstrations(write("a.jsonl", rows)).items}
    assert len(groups) == 3 and all(group.startswith("prompt-") for group in groups)


def test_conala_rows_without_an_intent_are_counted(write):
    rows = [
        {"intent": None, "rewritten_intent": None, "snippet": "x", "question_id": 1},
        {"intent": "i", "rewritten_intent": None, "snippet": "y", "question_id": 2},
        {"intent": None, "rewritten_intent": "r", "snippet": "z", "question_id": 3},
    ]
    loaded = load_demonstrations(write("conala-train.json", rows))
    assert [item.prompt for item in loaded.items] == ["i", "r"]
    assert loaded.report.skipped == {"row without a prompt": 1}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_folder_without_data_files(tmp_path, loader):
    (tmp_path / "notes.md").write_text("no data")
    with pytest.raises(DataError, match=r"holds no data file; expected one of \.csv"):
        loader(str(tmp_path))


@pytest.mark.parametrize("loader", LOADERS)
def test_no_permission_is_said(write, loader, monkeypatch):
    # chmod does not stop root, so the refusal itself is put in place.
    path = write("a.jsonl", GOOD)
    real = builtins.open

    def refuse(file, *args, **kwargs):
        if os.fspath(file) == path:
            raise PermissionError(13, "Permission denied", path)
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", refuse)
    with pytest.raises(DataError, match=r"a\.jsonl: permission denied; make it readable"):
        loader(path)


@pytest.mark.parametrize(
    ("loader", "row", "expected"),
    [
        (load_demonstrations, {"prompt": "", "response": ""}, "1 row without a prompt"),
        (load_tasks, {"text": "t", "code": "c", "test_list": []}, "1 row without tests"),
        (load_preferences, {"prompt": "p", "chosen": "a", "rejected": "a"}, "two equal answers"),
        (load_labelled, {"prompt": "p", "completion": "c", "label": "maybe"}, "neither true nor"),
        (load_prompts, {"prompt": "  "}, "1 row without a prompt"),
    ],
)
def test_zero_usable_rows_is_an_error_with_the_reasons(write, loader, row, expected):
    with pytest.raises(DataError) as caught:
        loader(write("a.jsonl", [row]))
    assert "none of 1 rows is usable" in str(caught.value) and expected in str(caught.value)


def test_a_csv_row_of_another_width_is_counted(write):
    path = write("a.csv", "prompt,response\np,r\nhello, world,r\n\nonly\n")
    report = load_demonstrations(path).report
    assert report.skipped == {"row without exactly 2 cells": 2, "blank line": 1}
    assert report.rows_read == 4


def test_a_csv_field_may_be_longer_than_the_standard_limit(write):
    import csv

    limit = csv.field_size_limit()
    path = write("a.csv", f"prompt,response\np,{'x' * (limit + 1)}\n")
    assert len(load_demonstrations(path).items[0].response) == limit + 1
    assert csv.field_size_limit() == limit  # the global limit is put back


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("org/name", ("org/name", None, None)),
        ("org/name@test", ("org/name", None, "test")),
        ("org/na-me.v2:main@train[:10%]", ("org/na-me.v2", "main", "train[:10%]")),
        ("data/file.csv", None),
        ("./org/name", None),
        ("/org/name", None),
        ("~/name", None),
        ("a/b/c", None),
        ("plain", None),
    ],
)
def test_what_counts_as_a_hub_id(path, parts):
    match = hub_match(path)
    assert (match and (match["name"], match["config"], match["split"])) == parts


def test_a_hub_dataset_is_read_through_datasets(monkeypatch):
    asked = []

    class Fake(list):
        column_names = ["instruction", "output"]

    def load_dataset(name, config, split):
        asked.append((name, config, split))
        return Fake([{"instruction": "p", "output": "r"}])

    _fake_datasets(monkeypatch, load_dataset)
    loaded = load_demonstrations("org/name:python@test")
    assert asked == [("org/name", "python", "test")]
    assert loaded.items[0].response == "r" and loaded.items[0].source == "org/name:python@test"
    assert loaded.report.format == "hub"


def test_an_unreachable_hub_names_the_ways_on(monkeypatch):
    def load_dataset(name, config, split):
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub")

    _fake_datasets(monkeypatch, load_dataset)
    with pytest.raises(DataError) as caught:
        load_demonstrations("org/name")
    text = str(caught.value)
    assert "org/name: no such local file or folder, and the hub gave nothing" in text
    assert "ways on: give a local file or folder" in text and "'synthetic'" in text


def test_a_wrong_split_of_a_hub_dataset_passes_on_what_the_library_says(monkeypatch):
    def load_dataset(name, config, split):
        raise ValueError('Unknown split "tset".\nShould be one of ["train", "test"].')

    _fake_datasets(monkeypatch, load_dataset)
    with pytest.raises(DataError, match=r'org/name@tset: Unknown split "tset"\. Should be one of'):
        load_demonstrations("org/name@tset")


def test_the_real_library_offline_ends_in_one_line(monkeypatch):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="ways on"):
        load_demonstrations("no-such-org/no-such-dataset")


def test_without_the_package_datasets_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets"):
        load_demonstrations("org/name")


def test_without_pyarrow_the_error_names_it(write, monkeypatch):
    path = write("a.parquet", b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="pip install pyarrow"):
        load_demonstrations(path)


def _fake_datasets(monkeypatch, load_dataset):
    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
