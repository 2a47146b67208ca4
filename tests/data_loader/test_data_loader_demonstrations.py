"""Demonstrations from every shape: aliases, CoNaLa, conversations, folders, streaming."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import pytest

from modern_rlhf.data_loader.demonstrations import load_demonstrations, stream_demonstrations
from modern_rlhf.errors import ConfigError, DataError
from modern_rlhf.records import Message


def test_the_five_column_csv_is_read_with_quotes_and_line_breaks(write):
    path = write(
        "sft.csv",
        "question,best_answer,model_tag,source_json,datetime\r\n"
        '"say ""hi"", then stop","print(""hi"")\nexit()",m1,a.json,2024-01-01\r\n',
    )
    loaded = load_demonstrations(path)
    assert [(d.prompt, d.response) for d in loaded.items] == [
        ('say "hi", then stop', 'print("hi")\nexit()')
    ]
    assert loaded.report.columns == {"prompt": "question", "response": "best_answer"}
    assert loaded.items[0].metadata["model_tag"] == "m1"


@pytest.mark.parametrize("prompt", ["prompt", "instruction", "question", "input", "intent"])
@pytest.mark.parametrize(
    "response", ["response", "answer", "output", "completion", "best_answer", "snippet"]
)
def test_every_alias_of_the_two_columns_is_known(write, prompt, response):
    path = write("rows.jsonl", [{prompt: "p", response: "r"}])
    (item,) = load_demonstrations(path).items
    assert (item.prompt, item.response) == ("p", "r")


def test_aliases_ignore_case(write):
    (item,) = load_demonstrations(write("a.csv", "Question, Answer\np,r\n")).items
    assert (item.prompt, item.response) == ("p", "r")


def test_an_earlier_alias_wins_and_the_report_says_which(write):
    path = write("a.jsonl", [{"intent": "no", "prompt": "yes", "answer": "r", "response": "R"}])
    loaded = load_demonstrations(path)
    assert (loaded.items[0].prompt, loaded.items[0].response) == ("yes", "R")
    assert loaded.report.columns == {"prompt": "prompt", "response": "response"}


def test_columns_can_be_named(write):
    path = write("a.jsonl", [{"prompt": "not this", "q": "p", "solution": "r"}])
    (item,) = load_demonstrations(path, columns={"prompt": "q", "response": "solution"}).items
    assert (item.prompt, item.response) == ("p", "r")


def test_a_named_column_that_is_absent_is_an_error_with_the_columns_found(write):
    path = write("a.jsonl", [{"q": "p", "solution": "r"}])
    with pytest.raises(DataError, match=r"no column 'wrong' for the prompt; columns found: q, sol"):
        load_demonstrations(path, columns={"prompt": "wrong"})


def test_an_unknown_role_is_a_usage_error(write):
    path = write("a.jsonl", [{"prompt": "p", "response": "r"}])
    with pytest.raises(ConfigError, match="unknown role 'promt'"):
        load_demonstrations(path, columns={"promt": "prompt"})


def test_instruction_with_input_keeps_both(write):
    rows = [
        {"instruction": "Double it.", "input": "x = 3", "output": "x * 2"},
        {"instruction": "Say hi.", "input": "", "output": "print('hi')"},
    ]
    loaded = load_demonstrations(write("alpaca.json", rows))
    assert [d.prompt for d in loaded.items] == ["Double it.\n\nx = 3", "Say hi."]
    assert loaded.report.columns["prompt"] == "instruction and input"


def test_conala_takes_the_rewritten_intent_unless_it_is_null(write):
    rows = [
        {"intent": "a", "rewritten_intent": "A", "snippet": "1", "question_id": 7},
        {"intent": "b", "rewritten_intent": None, "snippet": "2", "question_id": 8},
    ]
    items = load_demonstrations(write("conala-train.json", rows)).items
    assert [(d.prompt, d.response, d.group_id) for d in items] == [("A", "1", "7"), ("b", "2", "8")]


def test_rows_without_text_are_counted_by_reason_with_their_first_place(write):
    rows = [
        {"prompt": "p", "response": "r"},
        {"prompt": " ", "response": "r"},
        {"prompt": "p", "response": None},
        {"prompt": "p"},
        {"prompt": 5, "response": "r"},
    ]
    report = load_demonstrations(write("a.jsonl", rows)).report
    assert report.skipped == {"row without a prompt": 2, "row without a response": 2}
    assert (report.rows_read, report.rows_kept) == (5, 1)
    assert "first 'row without a response': a.jsonl line 3" in report.line()


def test_blank_lines_of_json_lines_are_counted(write):
    path = write("a.jsonl", '\n{"prompt": "p", "response": "r"}\n  \n')
    report = load_demonstrations(path).report
    assert (report.rows_read, report.rows_kept, report.skipped) == (3, 1, {"blank line": 2})


def test_rows_without_an_id_are_grouped_by_their_normalised_prompt(write):
    rows = [{"prompt": p, "response": "r"} for p in ("Sort  a list.", "sort a list", "other")]
    groups = [d.group_id for d in load_demonstrations(write("a.jsonl", rows)).items]
    assert groups[0] == groups[1] != groups[2]


def test_a_row_number_is_no_group(write):
    rows = [{"id": n, "ID": n, "prompt": "same", "response": str(n)} for n in range(3)]
    groups = {d.group_id for d in load_demonstrations(write("a.jsonl", rows)).items}
    assert len(groups) == 1


def test_line_ends_of_windows_become_plain(write):
    (item,) = load_demonstrations(write("a.jsonl", [{"prompt": "p", "response": "a\r\nb"}])).items
    assert item.response == "a\nb"


def test_both_shapes_of_conversations(write):
    rows = [
        {"messages": [_turn("user", "hi"), _turn("assistant", "hello")]},
        {"messages": [_turn("system", "s"), _turn("user", "u"), _turn("assistant", "a")]},
    ]
    short, long = load_demonstrations(write("talk.jsonl", rows)).items
    assert (short.prompt, short.response, short.messages) == ("hi", "hello", ())
    assert long.messages == (
        Message("system", "s"),
        Message("user", "u"),
        Message("assistant", "a"),
    )
    share = [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}]
    (item,) = load_demonstrations(write("share.jsonl", share)).items
    assert (item.prompt, item.response) == ("q", "a")


def test_a_multi_turn_conversation_ends_with_its_last_answer(write):
    turns = [_turn(r, t) for r, t in (("user", "1"), ("assistant", "2"), ("user", "3"))]
    rows = [{"messages": [*turns, _turn("assistant", "4"), _turn("user", "5")]}]
    loaded = load_demonstrations(write("talk.jsonl", rows))
    (item,) = loaded.items
    assert (item.prompt, item.response, len(item.messages)) == ("3", "4", 4)
    assert "cut from the end" in loaded.report.line()


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([("user", "a"), ("user", "b"), ("assistant", "c")], "alternate"),
        ([("assistant", "a"), ("user", "b")], "alternate"),
        ([("user", "a"), ("tool", "b")], "unknown role 'tool'"),
        ([("user", "a"), ("assistant", " ")], "an empty turn"),
        ([("user", "a")], "without an answer"),
        ([("system", "a")], "no user turn"),
        ([], "not a list of turns"),
    ],
)
def test_unusable_conversations_are_counted_with_the_reason(write, turns, reason):
    good = {"messages": [_turn("user", "hi"), _turn("assistant", "hello")]}
    rows = [good, {"messages": [_turn(role, text) for role, text in turns]}]
    report = load_demonstrations(write("talk.jsonl", rows)).report
    assert report.rows_kept == 1
    assert reason in next(iter(report.skipped))


def test_a_task_file_gives_its_reference_programs(write):
    rows = [{"text": "add", "code": "def f(): return 1", "test_list": ["assert f() == 1"]}]
    (item,) = load_demonstrations(write("tasks.jsonl", rows)).items
    assert (item.prompt, item.response) == ("add", "def f(): return 1")


def test_max_rows_stops_reading(write):
    path = write("a.jsonl", '{"prompt": "p", "response": "r"}\n' * 100 + "broken\n")
    loaded = load_demonstrations(path, max_rows=3)
    assert len(loaded.items) == loaded.report.rows_read == 3
    assert "stopped after 3" in loaded.report.line()


def test_min_prob_filters_mined_rows(write):
    rows = [
        {"intent": f"i{n}", "snippet": "s", "question_id": n, "id": f"{n}_0", "prob": p}
        for n, p in enumerate((0.9, 0.5, 0.499, None))
    ]
    loaded = load_demonstrations(write("conala-mined.jsonl", rows), min_prob=0.5)
    assert [d.prompt for d in loaded.items] == ["i0", "i1"]
    assert loaded.report.skipped == {"row with prob below 0.5": 2}
    assert loaded.items[0].metadata["prob"] == 0.9


def test_min_prob_without_such_a_column_is_an_error(write):
    path = write("a.jsonl", [{"prompt": "p", "response": "r"}])
    with pytest.raises(DataError, match="no column 'prob'"):
        load_demonstrations(path, min_prob=0.5)


def test_streaming_holds_one_row_at_a_time(write):
    # 20,000 rows of 400 characters are 8 MB; the stream may hold its 50 first rows and little more.
    line = json.dumps({"intent": "x" * 200, "snippet": "y" * 200, "question_id": 1, "prob": 0.5})
    path = write("conala-mined.jsonl", (line + "\n") * 20_000)
    stream = stream_demonstrations(path, min_prob=0.1)
    for _ in stream:  # imports and caches are warm before measuring
        break
    tracemalloc.start()
    count = sum(1 for _ in stream)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == stream.report.rows_kept == 20_000
    assert peak < 1_000_000


def test_a_stream_can_be_read_twice(write):
    stream = stream_demonstrations(write("a.jsonl", [{"prompt": "p", "response": "r"}]))
    assert list(stream) == list(stream)
    assert stream.report.rows_read == 1


def test_compressed_text_is_read(write):
    path = write("a.jsonl.gz", gzip.compress(b'{"prompt": "p", "response": "r"}\n'))
    assert load_demonstrations(path).items[0].response == "r"


def test_tab_separated_and_parquet(write, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow

    (item,) = load_demonstrations(write("a.tsv", 'question\tanswer\n"a ""b"""\tr\n')).items
    assert item.prompt == 'a "b"'
    table = pyarrow.table({"prompt": ["p", None], "response": ["r", "s"]})
    parquet.write_table(table, tmp_path / "a.parquet")
    loaded = load_demonstrations(str(tmp_path / "a.parquet"))
    assert [d.response for d in loaded.items] == ["r"]
    assert loaded.report.skipped == {"row without a prompt": 1}


def test_a_byte_order_mark_is_no_part_of_the_first_column(write):
    path = write("a.csv", b"\xef\xbb\xbfprompt,response\np,r\n")
    assert load_demonstrations(path).report.columns["prompt"] == "prompt"


def test_json_lines_in_a_json_file_are_read_and_noted(write):
    # U+2028 inside a string is no line end, though str.splitlines() breaks there.
    text = '{"prompt": "p\u2028q", "response": "r"}\n{"prompt": "s", "response": "t"}\n'
    loaded = load_demonstrations(write("a.json", text))
    assert [d.prompt for d in loaded.items] == ["p\u2028q", "s"]
    assert "holds JSON lines" in loaded.report.line()


def test_a_folder_never_mixes_evaluation_rows_into_training(write, tmp_path):
    row = {"intent": "i", "snippet": "train", "question_id": 1}
    write("conala-corpus/conala-train.json", [row])
    write("conala-corpus/conala-test.json", [{**row, "snippet": "test"}])
    write("conala-corpus/conala-mined.jsonl", [{**row, "snippet": "mined", "prob": 1.0}])
    folder = str(tmp_path / "conala-corpus")
    loaded = load_demonstrations(folder)
    assert [d.response for d in loaded.items] == ["train"]
    assert "only the train files of the folder (2 other data files left)" in loaded.report.line()
    assert [d.response for d in load_demonstrations(folder + "@test").items] == ["test"]
    assert [d.response for d in load_demonstrations(folder + "@mined").items] == ["mined"]
    with pytest.raises(DataError, match="no file of split 'dev'; splits found: mined, test, train"):
        load_demonstrations(folder + "@dev")


def test_a_folder_gives_each_row_once(write, tmp_path):
    write("d/sft.csv", "question,best_answer\nadd,def f(): return 1\nown,x\n")
    tasks = [{"text": "add", "code": "def f(): return 1", "test_list": ["assert f() == 1"]}]
    write("d/tasks.jsonl", tasks)
    write("d/notes.md", "not data")
    write("d/ratings.csv", "name,grade\na,1\n")
    loaded = load_demonstrations(str(tmp_path / "d"))
    assert [d.prompt for d in loaded.items] == ["add", "own"]
    assert loaded.report.skipped == {"row that another file of the folder holds too": 1}
    assert "ratings.csv left out (other columns)" in loaded.report.line()


def test_the_rows_add_up_whatever_happens(write):
    rows = [{"prompt": "p", "response": "r"}, {"prompt": ""}, {"prompt": "p", "response": ""}]
    report = load_demonstrations(write("a.jsonl", rows)).report
    assert report.rows_read == report.rows_kept + sum(report.skipped.values())


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
