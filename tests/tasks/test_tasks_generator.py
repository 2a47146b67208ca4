"""The generator of the embedded tasks: same bytes, no leaks, honest tests, promised counts and bounds."""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))

make_tasks = importlib.import_module("make_tasks")
core = importlib.import_module("task_families.core")
families = importlib.import_module("task_families").FAMILIES
sys.path.remove(str(SCRIPTS))

SMALL = ["--train", "150", "--eval-seen", "120", "--eval-unseen", "40", "--demonstrations", "60"]


@pytest.fixture(scope="module")
def generated():
    """The full default set, made once: the files as text and the tasks behind them."""
    return make_tasks.make_files(
        seed=0,
        train=make_tasks.TRAIN_TASKS,
        eval_seen=make_tasks.EVAL_SEEN_TASKS,
        eval_unseen=make_tasks.EVAL_UNSEEN_TASKS,
        demonstrations=make_tasks.DEMONSTRATIONS,
    )


@pytest.fixture(scope="module")
def shipped():
    train = (ROOT / "datasets_for_training/tasks.jsonl").read_text(encoding="utf-8").splitlines()
    held = (ROOT / "datasets_for_eval/tasks.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in train], [json.loads(line) for line in held]


def renamed(row):
    """The reference with its function and arguments renamed: what `same program` means here. Written
    without the generator's own notion of a canonical program."""
    code, name = row["code"], row["entry_point"]
    arguments = re.match(r"def \w+\(([^)]*)\)", code).group(1).split(", ")
    for position, word in enumerate([name, *arguments]):
        code = re.sub(rf"\b{word}\b", f"@{position}", code)
    return " ".join(code.split())


def asserted_cases(row):
    """`(arguments) == result` of each test, without the function's name."""
    return {t.removeprefix("assert ").replace(row["entry_point"], "", 1) for t in row["test_list"]}


def test_same_seed_gives_same_bytes_under_any_string_hashing(tmp_path):
    outputs = []
    for hash_seed in ("1", "2"):
        out = tmp_path / hash_seed
        subprocess.run(
            [sys.executable, str(SCRIPTS / "make_tasks.py"), "--out-dir", str(out), *SMALL],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        outputs.append({p.name: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()})
    assert len(outputs[0]) >= 4
    assert outputs[0] == outputs[1]


def test_another_seed_gives_other_tasks_but_the_same_sides():
    first = make_tasks.generate(0, 150, 120, 20)
    second = make_tasks.generate(1, 150, 120, 20)
    assert [t.text for t in first["train"]] != [t.text for t in second["train"]]
    train = {t.canonical for t in first["train"] + second["train"]}
    held = {t.canonical for t in first["eval_seen"] + second["eval_seen"]}
    assert not train & held


def test_shipped_files_are_what_the_script_writes(generated):
    files, _ = generated
    for name, content in files.items():
        assert (ROOT / name).read_bytes() == content.encode(), f"{name}: run scripts/make_tasks.py"


def test_counts_and_families(shipped):
    train, held = shipped
    seen = [r for r in held if r["split"] == "eval_seen"]
    unseen = [r for r in held if r["split"] == "eval_unseen"]
    assert len(train) >= 2400 and len(seen) >= 300 and len(unseen) >= 120
    assert len(seen) + len(unseen) == len(held)
    train_families = Counter(r["family"] for r in train)
    unseen_families = {r["family"] for r in unseen}
    assert len(train_families) >= 72
    assert set(train_families) == {name for name, f in families.items() if not f.unseen}
    assert unseen_families == {name for name, f in families.items() if f.unseen}
    assert {r["family"] for r in seen} == set(train_families)
    assert len(unseen_families) >= 12
    assert not unseen_families & set(train_families)
    # Balanced: a family with few combinations may end early, none may dominate.
    mean = len(train) / len(train_families)
    assert max(train_families.values()) <= 1.2 * mean
    assert min(train_families.values()) >= 0.5 * mean


def test_prefixes_are_balanced(shipped):
    train, _ = shipped
    first = Counter(r["family"] for r in train[:300])
    assert max(first.values()) - min(first.values()) <= 1


def test_rows_have_the_promised_fields(shipped):
    train, held = shipped
    expected = [
        "task_id", "text", "code", "test_list", "test_setup_code", "entry_point", "family", "split",
    ]  # fmt: skip
    for row in train + held:
        assert list(row) == expected
        assert len(row["test_list"]) >= 3
        assert f"`{row['entry_point']}(" in row["text"]
        assert row["code"].startswith(f"def {row['entry_point']}(")
    identifiers = [r["task_id"] for r in train + held]
    assert len(set(identifiers)) == len(identifiers)


def test_lengths_stay_in_bounds(shipped):
    train, held = shipped
    for row in train + held:
        assert len(row["text"]) <= 200, row["task_id"]
        assert len(row["code"]) <= 220, row["task_id"]
        assert len(row["code"].splitlines()) <= 6, row["task_id"]
        assert "#" not in re.sub(r"'[^']*'", "", row["code"]), "a comment in a reference"
        assert max(len(t) for t in row["test_list"]) <= 180


def test_no_prompt_program_or_case_is_shared_with_the_evaluation(shipped):
    train, held = shipped
    normal = {core.normalise(r["text"]) for r in train}
    assert not normal & {core.normalise(r["text"]) for r in held}
    assert not {renamed(r) for r in train} & {renamed(r) for r in held}
    cases = set().union(*(asserted_cases(r) for r in train))
    assert not cases & set().union(*(asserted_cases(r) for r in held))


def test_no_prompt_or_program_repeats_within_a_split(shipped):
    train, held = shipped
    for rows in (train, held):
        assert len({core.normalise(r["text"]) for r in rows}) == len(rows)
        assert len({(r["family"], renamed(r)) for r in rows}) == len(rows)


def test_parameters_are_never_shared(generated):
    _, tasks = generated
    train = {(t.family, t.params) for t in tasks["train"]}
    assert not train & {(t.family, t.params) for t in tasks["eval_seen"]}


def test_evaluation_wordings_are_never_used_for_training(generated):
    """The last entry of `does` and `gives` of a family belongs to the evaluation, all others to
    training, and each wording of a family is another text."""
    _, tasks = generated
    used = {"train": set(), "eval_seen": set()}
    for split, seen in used.items():
        for task in tasks[split]:
            family = families[task.family]
            held = (family.does[-1], family.gives[-1])
            assert (task.wording in held) == (split == "eval_seen"), task.text
            seen.add((task.family, task.wording))
    assert not used["train"] & used["eval_seen"]
    assert len(used["train"]) > 0.98 * 6 * 90  # nearly every training wording is really used
    assert len(used["eval_seen"]) > 1.8 * 90


def test_every_family_has_enough_wordings_and_combinations():
    for name, family in families.items():
        wordings = set(family.does + family.gives)
        assert len(wordings) >= (6 if family.unseen else 8), name
        assert "" not in wordings, name
        assert family.combinations() >= 30, name
        assert family.level in ("easy", "medium", "hard"), name
        assert len(set(family.names)) >= 5, name


def test_all_levels_and_topics_are_there():
    seen = [f for f in families.values() if not f.unseen]
    topics = Counter(f.topic for f in seen)
    assert set(topics) == {
        "strings", "lists", "dicts", "sets", "numbers", "sorting", "comprehensions", "recursion",
        "parsing", "dates",
    }  # fmt: skip
    assert min(topics.values()) >= 4
    levels = Counter(f.level for f in seen)
    assert min(levels[level] for level in ("easy", "medium", "hard")) >= 10


def run_tests(code, row):
    namespace = {}
    exec(code, namespace)
    for test in row["test_list"]:
        exec(test, namespace)


def test_references_pass_and_stubs_fail(shipped):
    train, held = shipped
    rows = random.Random(0).sample(train, 400) + random.Random(1).sample(held, 150)
    for row in rows:
        run_tests(row["code"], row)
        for body in ("None", "a[0]", "0", "[]", "''", "True", "False"):
            stub = f"def {row['entry_point']}(*a, **k): return {body}"
            with pytest.raises(AssertionError):
                run_tests(stub, row)


@pytest.mark.slow
def test_all_references_pass_and_all_stubs_fail(shipped):
    train, held = shipped
    for row in train + held:
        run_tests(row["code"], row)
        results = {test.rsplit(" == ", 1)[1] for test in row["test_list"]}
        for body in {"None", "a[0]", *results}:
            stub = f"def {row['entry_point']}(*a, **k): return {body}"
            with pytest.raises(AssertionError):
                run_tests(stub, row)


def test_tests_tell_other_parameters_apart():
    """Of the same family's programs with other parameters, drawn afresh, nearly none passes."""
    rng = random.Random("siblings")
    tasks = make_tasks.generate(0, 200, 1, 1)["train"]
    caught = total = 0
    for task in tasks:
        family = families[task.family]
        expected = [case.rsplit(" -> ", 1) for case in task.cases]
        for _ in range(6):
            other = core.canonical_code(family, core.draw_values(family, rng))
            if other == task.canonical:
                continue
            function = core.load(other, "function")
            passes = all(
                core._outcome(function, eval(arguments)) == result for arguments, result in expected
            )
            total += 1
            caught += not passes
    assert total > 1000
    assert caught / total > 0.98  # measured: 0.991


def test_calls_that_tell_siblings_apart_are_picked_first():
    """Sibling 0 is the identity. Only call `c` tells sibling 2 apart, only `d` sibling 3; `a` and `b`
    are shorter and come first, but bring no more than a new result."""
    table = {
        "a": ("1", ["x", "x", "1", "1"]),
        "b": ("2", ["x", "x", "2", "2"]),
        "cccc": ("3", ["x", "3", "x", "3"]),
        "dddd": ("4", ["x", "4", "4", "x"]),
    }
    chosen = core._pick_cases(table, 3)
    assert {call for call, _ in chosen} >= {"cccc", "dddd"}


def test_a_stub_that_would_pass_is_reported():
    """`verify` is not decoration: a task whose tests a stub passes stops the run."""
    task = core.Built(
        family="broken",
        text="t",
        code="def f(x):\n    return None",
        entry_point="f",
        test_list=("assert f(1) == None",),
        params="",
        canonical="",
    )
    with pytest.raises(SystemExit, match="stub passes"):
        make_tasks.verify([task])


def test_a_family_that_changes_its_arguments_is_refused():
    base = families["list_map"]
    bad = core.Family(
        name="bad",
        level="easy",
        args=base.args,
        options=base.options,
        names=base.names,
        does=base.does,
        gives=base.gives,
        body="{a}.append(1)\nreturn [{m} for x in {a}]",
    )
    rng = random.Random(0)
    with pytest.raises(ValueError, match="changes its arguments"):
        core.build(bad, core.draw_values(bad, rng), rng, unseen_phrasing=False)


def test_too_many_tasks_are_refused():
    """Unseen families have finitely many parameters: the run stops rather than repeat itself."""
    with pytest.raises(SystemExit, match="ask for fewer"):
        make_tasks._rounds([iter([])], 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train", "0"], "--train 0: expected at least 1"),
        (["--eval-seen", "-1"], "--eval-seen -1: expected at least 1"),
        (["--train", "5", "--demonstrations", "6"], "there are --train 5 tasks"),
        (["--out-dir", __file__], "is a file; give a folder"),
    ],
)
def test_sizes_that_cannot_be_made(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        make_tasks.main(["--out-dir", str(tmp_path), *flags])
    assert caught.value.code == 2 and message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
