"""The counts of the real files; skipped with the reason where they are absent."""

from __future__ import annotations

from modern_rlhf.data_loader.demonstrations import load_demonstrations
from modern_rlhf.data_loader.preferences import load_labelled, load_preferences
from modern_rlhf.data_loader.splits import remove_overlap, split_by_group
from modern_rlhf.data_loader.tasks import load_tasks
from modern_rlhf.feedback.store import load_feedback
from modern_rlhf.records import Demonstration


def test_conala(real_data):
    loaded = load_demonstrations(str(real_data / "conala-corpus"))
    assert (loaded.report.rows_read, loaded.report.rows_kept) == (2379, 2379)
    assert len({d.group_id for d in loaded.items}) == 1710
    texts = {(d.prompt, d.response, d.group_id) for d in loaded.items}
    assert len(texts) >= 2360  # 12 rows are repeated whole; nothing is dropped for it


def test_conala_split_by_question_leaks_no_question(real_data):
    items = load_demonstrations(str(real_data / "conala-corpus")).items
    parts = split_by_group(items, fractions={"train": 0.9, "validation": 0.1}, seed=0)
    assert not {d.group_id for d in parts["train"]} & {d.group_id for d in parts["validation"]}
    result = remove_overlap(parts["train"], parts["validation"])
    assert result.counts.get("same_group", 0) == 0
    assert result.concerned == len(parts["train"]) - len(result.kept)
    again = remove_overlap(result.kept, parts["validation"])
    assert again.concerned == 0


def test_mbpp_has_an_entry_point_for_every_task(real_data):
    loaded = load_tasks(str(real_data / "mbpp" / "mbpp-train.jsonl"))
    assert loaded.report.rows_kept == 464
    assert all(task.entry_point and len(task.tests) == 3 for task in loaded.items)
    assert sum(bool(task.setup) for task in loaded.items) == 1


def test_the_207_comparison_forms(real_data):
    folder = real_data / "evaluation_results_server"
    feedback = load_feedback(folder)
    # 28 forms are all zero, and the slider of 16 of them was moved: 12 untouched, 195 kept.
    assert (feedback.report.rows_read, feedback.report.rows_kept) == (207, 195)
    assert feedback.report.skipped == {"untouched forms": 12}
    # Two ratings for each of the 207 - 28 forms with a moved scale.
    assert len(feedback.ratings) == 358
    # 89 ties of the scores, of which the slider breaks 19: 207 - 89 + 19.
    assert len(feedback.pairs) == 137
    line = feedback.report.line()
    assert "19 ties broken by the slider" in line and "3 sliders contradict" in line
    assert load_preferences(str(folder)).items == feedback.pairs
    assert load_labelled(str(folder)).items == feedback.labelled


def test_slider_and_scores_agree_in_direction(real_data):
    """If the sign of the slider were read the wrong way round, this correlation would be negative."""
    from modern_rlhf.feedback.store import load_forms

    forms = [form for _, form in load_forms(real_data / "evaluation_results_server")]
    xs, ys = [-form.slider for form in forms], [form.gap for form in forms]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    pairs = list(zip(xs, ys, strict=True))
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in pairs)
    spread = sum((x - mean_x) ** 2 for x in xs) * sum((y - mean_y) ** 2 for y in ys)
    assert covariance / spread**0.5 > 0.6


def test_the_rated_questions_of_the_conala_test_split_are_found(real_data):
    """Forms name questions by their id; a prompt-only check would miss rewritten ones."""
    feedback = load_feedback(real_data / "evaluation_results_server")
    held_out = [
        Demonstration(f"unrelated {n}", "", group_id=g)
        for n, g in enumerate(sorted({pair.group_id for pair in feedback.pairs})[:5])
    ]
    result = remove_overlap(feedback.pairs, held_out)
    assert result.counts["same_group"] == result.concerned > 0
