"""Tasks in the four published shapes: the reference passes its own tests when both are executed."""

from __future__ import annotations

import pytest

from modern_rlhf.data_loader.preferences import load_labelled, load_preferences
from modern_rlhf.data_loader.prompts import load_prompts
from modern_rlhf.data_loader.synthetic import synthetic_demonstrations
from modern_rlhf.data_loader.tasks import find_entry_point, load_tasks
from modern_rlhf.records import Task

MBPP = {
    "text": "Write a function to add.",
    "code": "import math\r\ndef helper(a):\r\n    return a\r\ndef add(a, b):\r\n    return helper(a) + b",
    "task_id": 601,
    "test_setup_code": "limit = 3",
    "test_list": ["assert add(1, 2) == limit", "assert int(add(0, 0)) == 0"],
    "challenge_test_list": [],
}
HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(x):\n    """Twice x."""\n',
    "canonical_solution": "    return 2 * x\n",
    "test": "METADATA = {}\n\ndef check(candidate):\n    assert candidate(2) == 4\n",
    "entry_point": "double",
}
ODEX = {
    "task_id": 3283984,
    "prompt": "def f_3283984(x):\n\treturn ",
    "suffix": "",
    "canonical_solution": "x.upper()",
    "test_start": "\ndef check(candidate):",
    "test": ["\n    assert candidate('a') == 'A'\n", "\n    assert candidate('') == ''\n"],
    "entry_point": "f_3283984",
    "intent": "make a string upper case",
    "library": [],
}

CHECK_WITHOUT_NAME = {"prompt": "t", "canonical_solution": "x = 1", "entry_point": None}


def run(task: Task) -> None:
    """Execute the reference and every test of a task written in this file."""
    space: dict = {}
    exec(task.reference, space)
    for test in task.tests:
        exec(task.setup + "\n" + test, space)


@pytest.mark.parametrize("row", [MBPP, HUMAN_EVAL, ODEX])
def test_the_reference_passes_its_own_tests(write, row):
    (task,) = load_tasks(write("tasks.jsonl", [row])).items
    run(task)


@pytest.mark.parametrize("row", [MBPP, HUMAN_EVAL, ODEX])
def test_a_wrong_program_fails_them(write, row):
    (task,) = load_tasks(write("tasks.jsonl", [row])).items
    space: dict = {}
    exec(f"def {task.entry_point}(*args):\n    return 'wrong'", space)
    with pytest.raises((AssertionError, ValueError)):
        for test in task.tests:
            exec(task.setup + "\n" + test, space)


def test_mbpp_fields(write):
    (task,) = load_tasks(write("tasks.jsonl", [MBPP])).items
    assert (task.task_id, task.entry_point, task.mode) == ("601", "add", "assert")
    assert task.setup == "limit = 3" and len(task.tests) == 2
    assert "\r" not in task.reference
    assert task.metadata == {"challenge_test_list": []}


def test_human_eval_fields(write):
    (task,) = load_tasks(write("tasks.jsonl", [HUMAN_EVAL])).items
    assert task.reference == HUMAN_EVAL["prompt"] + HUMAN_EVAL["canonical_solution"]
    assert len(task.tests) == 1 and task.tests[0].endswith("check(double)")
    assert task.metadata["prefix"] == HUMAN_EVAL["prompt"]


def test_a_check_that_is_called_already_is_not_called_twice(write):
    row = {**HUMAN_EVAL, "test": HUMAN_EVAL["test"] + "\ncheck(double)\n"}
    (task,) = load_tasks(write("tasks.jsonl", [row])).items
    assert task.tests[0].count("check(double)") == 1


def test_odex_gives_one_test_a_body_and_puts_the_intent_before_the_signature(write):
    (task,) = load_tasks(write("tasks.jsonl", [ODEX])).items
    assert len(task.tests) == 2
    assert task.prompt == "make a string upper case\n\ndef f_3283984(x):\n\treturn "
    assert task.metadata["intent"] == ODEX["intent"]


def test_the_projects_own_fields(write):
    row = {**MBPP, "entry_point": "add", "family": "numbers", "split": "eval_unseen"}
    (task,) = load_tasks(write("tasks.jsonl", [row])).items
    assert (task.family, task.split, task.entry_point) == ("numbers", "eval_unseen", "add")


@pytest.mark.parametrize(
    ("tests", "code", "expected"),
    [
        (["assert Split ([1]) == [1]"], "def Split(x): return x", "Split"),
        (["assert int(lobb(5, 3)) == 35"], "def binom(n): pass\ndef lobb(n, m): pass", "lobb"),
        (
            ["assert max(f(1), g(2)) == 2", "assert g(1) == 1"],
            "def f(x): pass\ndef g(x): pass",
            "g",
        ),
        (["assert f(1) == 1"], "print 'old'\ndef f(x):\n  return x", "f"),
        (["assert area(2) == 4"], "area = lambda x: x * x", "area"),
        (["assert Stack().pop() is None"], "class Stack: pass", "Stack"),
        (["assert 1 == 1"], "def f(): pass", None),
    ],
)
def test_the_entry_point_is_found_in_the_tests(tests, code, expected):
    assert find_entry_point(tests, code) == expected


def test_tests_may_be_shown_in_the_prompt(write):
    (task,) = load_tasks(write("tasks.jsonl", [MBPP]), show_tests=1).items
    assert task.prompt.endswith("tests:\nassert add(1, 2) == limit")


def test_prompts_that_do_not_name_their_function_are_noted(write):
    row = {**MBPP, "text": "Write a function that sums."}
    report = load_tasks(write("tasks.jsonl", [row])).report
    assert "1 prompts do not name the function" in report.line()


def test_repeated_ids_and_bad_rows_are_counted(write):
    rows = [MBPP, MBPP, {**MBPP, "task_id": 2, "mode": "magic"}]
    report = load_tasks(write("tasks.jsonl", rows)).report
    assert report.skipped == {"repeated task_id": 1, "row of unknown mode 'magic'": 1}
    nameless = {**HUMAN_EVAL, **CHECK_WITHOUT_NAME, "task_id": 3}
    nameless = load_tasks(write("more.jsonl", [HUMAN_EVAL, nameless])).report
    assert nameless.skipped == {"row whose check() has no entry_point": 1}


def test_tests_in_a_csv_cell_are_a_json_array(write):
    text = 'text,code,test_list\nt,def f(): return 1,"[""assert f() == 1"", ""assert f()""]"\n'
    (task,) = load_tasks(write("tasks.csv", text)).items
    assert task.tests == ("assert f() == 1", "assert f()")


def test_every_synthetic_example_passes_its_asserts_and_fails_without_a_body():
    tasks = load_tasks("synthetic").items
    assert len(tasks) == len(synthetic_demonstrations()) == 11
    assert {"factorial", "is_palindrome", "sort_numbers"} <= {task.entry_point for task in tasks}
    for task in tasks:
        assert len(task.tests) == 3
        run(task)
        space: dict = {}
        exec(f"def {task.entry_point}(*args): return ...", space)
        with pytest.raises(AssertionError):
            exec("\n".join(task.tests), space)


def test_prompts_of_tasks_carry_task_and_reference(write):
    (prompt,) = load_prompts(write("tasks.jsonl", [MBPP])).items
    assert prompt.task is not None and prompt.task.entry_point == "add"
    assert prompt.reference == prompt.task.reference and prompt.group_id == "601"


def test_prompts_of_demonstrations_carry_the_answer_as_reference(write):
    row = {"intent": "a", "rewritten_intent": None, "snippet": "s", "question_id": 9}
    (prompt,) = load_prompts(write("conala.json", [row])).items
    assert (prompt.prompt, prompt.reference, prompt.group_id) == ("a", "s", "9")


def test_bare_prompts_from_json_lines_and_text(write):
    assert [p.prompt for p in load_prompts(write("a.jsonl", [{"prompt": "p"}])).items] == ["p"]
    loaded = load_prompts(write("a.txt", "one\n\n  two \n"))
    assert [p.prompt for p in loaded.items] == ["one", "two"]
    assert loaded.report.skipped == {"blank line": 1}
    assert loaded.report.rows_read == 3


def test_prompts_of_conversations_end_with_the_users_turn(write):
    talk = [
        {"role": r, "content": c} for r, c in (("user", "1"), ("assistant", "2"), ("user", "3"))
    ]
    rows = [{"messages": talk}, {"messages": talk[:2]}]
    first, second = load_prompts(write("a.jsonl", rows)).items
    assert first.prompt == "User: 1\n\nAssistant: 2\n\nUser: 3" and first.reference is None
    assert (second.prompt, second.reference) == ("1", "2")


def test_a_folder_gives_a_prompt_with_its_tests_once(write, tmp_path):
    write("d/sft.csv", f"question,best_answer\n{MBPP['text']},x\nother,y\n")
    write("d/tasks.jsonl", [MBPP])
    loaded = load_prompts(str(tmp_path / "d"))
    assert [(p.prompt, p.task is None) for p in loaded.items] == [
        ("other", True),
        (MBPP["text"], False),
    ]
    assert loaded.report.rows_read == loaded.report.rows_kept + sum(loaded.report.skipped.values())


def test_preferences_in_text(write):
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_rating": 4, "rejected_rating": 1.5},
        {"prompt": "p", "chosen": "a", "rejected": "b", "chosen_rating": 1, "rejected_rating": 2},
        {"prompt": "p", "chosen": "a", "rejected": " a "},
        {"prompt": "p", "chosen": "a", "rejected": None},
    ]
    loaded = load_preferences(write("pairs.jsonl", rows))
    assert [pair.margin for pair in loaded.items] == [2.5, 0.0]
    assert loaded.report.skipped == {"row with two equal answers": 1, "row without two answers": 1}
    assert "rejected answer scores higher" in loaded.report.line()


def test_preferences_in_messages_with_and_without_a_prompt_column(write):
    user, good, bad = (
        {"role": role, "content": text}
        for role, text in (("user", "q"), ("assistant", "good"), ("assistant", "bad"))
    )
    rows = [
        {"chosen": [user, good], "rejected": [user, bad]},
        {"prompt": [user], "chosen": [good], "rejected": [bad]},
        {"prompt": "q", "chosen": [user, good], "rejected": [user, bad]},
    ]
    for row in rows:
        (pair,) = load_preferences(write("pairs.jsonl", [row])).items
        assert (pair.prompt, pair.chosen, pair.rejected) == ("q", "good", "bad")


def test_preferences_whose_conversations_differ_have_no_prompt(write):
    def talk(question: str, answer: str) -> list:
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    rows = [
        {"chosen": talk("q", "a"), "rejected": talk("q", "b")},
        {"chosen": talk("q", "a"), "rejected": talk("other", "b")},
    ]
    report = load_preferences(write("pairs.jsonl", rows)).report
    assert report.skipped == {"row without a prompt": 1}


def test_the_preference_csv(write):
    path = write(
        "pairs.csv",
        "question,preferred_answer,other_answer,preferred_model_tag,other_model_tag,preference,"
        "source_json,datetime\nq,a,b,m1,m2,-2,f.json,2024-01-01\n",
    )
    (pair,) = load_preferences(path).items
    # The slider's sign says left or right; the columns say already which answer is preferred.
    assert (pair.prompt, pair.chosen, pair.rejected, pair.margin) == ("q", "a", "b", 2.0)


def test_labelled_answers(write):
    rows = [
        {"prompt": "p", "completion": "c", "label": label}
        for label in (True, False, 1, 0, "true", "False", "perhaps")
    ]
    loaded = load_labelled(write("kto.jsonl", rows))
    assert [item.label for item in loaded.items] == [True, False, True, False, True, False]
    assert loaded.report.skipped == {"row whose label is neither true nor false": 1}


def test_pairs_as_labelled_answers(write):
    path = write("pairs.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    items = load_labelled(path).items
    assert [(item.completion, item.label) for item in items] == [("a", True), ("b", False)]
