"""`ModernDataLoader`, and the imports that must stay cheap."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from modern_rlhf.data_loader.modern import ModernDataLoader
from modern_rlhf.errors import DataError


def data_section(**fields):
    defaults = {
        "train_data_path": "",
        "eval_data_path": "",
        "prompts_path": None,
        "human_feedback_path": None,
        "conala_local_path": "./conala-corpus",
        "rater_weights": {},
        "max_train_samples": None,
        "max_prompts": None,
        "min_prob": None,
        "evaluation_fraction": 0.3,
        "remove_overlap": True,
        "overlap_threshold": 0.9,
    }
    return SimpleNamespace(**{**defaults, **fields})


def test_the_real_data_section_has_every_field_used():
    from modern_rlhf.config.sections import DataConfig

    assert set(vars(data_section())) <= set(vars(DataConfig()))


def test_training_and_evaluation_files(write):
    train = write("train.jsonl", [{"prompt": p, "response": "r"} for p in ("a", "b")])
    held = write("eval.jsonl", [{"prompt": "B.", "response": "x"}])
    loader = ModernDataLoader(data_section(train_data_path=train, eval_data_path=held))
    (sample,) = loader.load_training_data()
    assert (sample.prompt, sample.response, sample.reference) == ("a", "r", "r")
    assert loader.leaks is not None and loader.leaks.concerned == 1
    assert [s.prompt for s in loader.load_eval_data()] == ["B."]
    assert loader.reports["train"].rows_kept == 2
    assert loader.load_train_data() == loader.load_training_data()


def test_leaks_stay_when_asked(write):
    train = write("train.jsonl", [{"prompt": "a", "response": "r"}])
    loader = ModernDataLoader(
        data_section(train_data_path=train, eval_data_path=train, remove_overlap=False)
    )
    assert len(loader.load_training_data()) == 1 and loader.leaks is None


def test_training_rows_that_all_leak_are_an_error(write):
    train = write("train.jsonl", [{"prompt": "a", "response": "r"}])
    loader = ModernDataLoader(data_section(train_data_path=train, eval_data_path=train))
    with pytest.raises(DataError, match="data.remove_overlap=false"):
        loader.load_training_data()


def test_without_an_evaluation_file_groups_are_held_out(write):
    rows = [
        {"intent": f"intent {n}", "snippet": f"s{n}{k}", "question_id": n}
        for n in range(40)
        for k in range(2)
    ]
    data = data_section(train_data_path=write("train.jsonl", rows))
    loader = ModernDataLoader(SimpleNamespace(data=data, training=SimpleNamespace(seed=3)))
    train, held = loader.load_training_data(), loader.load_eval_data()
    assert len(train) + len(held) == 80 and min(len(train), len(held)) > 0
    assert not {s.metadata["group_id"] for s in train} & {s.metadata["group_id"] for s in held}


def test_an_empty_path_and_the_name_conala_stand_for_the_local_corpus(write, tmp_path):
    write("corpus/conala-train.json", [{"intent": "i", "snippet": "s", "question_id": 1}])
    for path in ("", "conala"):
        section = data_section(
            train_data_path=path,
            conala_local_path=str(tmp_path / "corpus"),
            evaluation_fraction=0.0,
        )
        assert ModernDataLoader(section).load_training_data()[0].response == "s"
        assert ModernDataLoader(section).load_prompts()[0].reference == "s"
    with pytest.raises(DataError, match="no evaluation data"):
        ModernDataLoader(section).load_eval_data()


def test_the_name_conala_means_the_same_in_a_run():
    from modern_rlhf.config import ModernRLHFConfig
    from modern_rlhf.pipeline.data import resolved

    config = ModernRLHFConfig()
    config.data.train_data_path, config.data.eval_data_path = "conala", "conala@test"
    config.data.conala_local_path = "builtin:conala-corpus"
    data = resolved(config).data
    assert data.train_data_path.endswith("/conala-corpus")
    assert data.eval_data_path == f"{data.train_data_path}@test"


def test_what_is_held_out_is_what_a_run_evaluates_on(write):
    from modern_rlhf.config import ModernRLHFConfig
    from modern_rlhf.pipeline.data import load_run_data

    rows = [{"intent": f"intent {n}", "snippet": f"s{n}", "question_id": n} for n in range(60)]
    config = ModernRLHFConfig()
    config.data.train_data_path, config.data.eval_data_path = write("train.jsonl", rows), None
    config.data.human_feedback_path = None
    for most in (None, 3):
        config.evaluation.eval_samples = most
        held = ModernDataLoader(config).load_eval_data()
        run = load_run_data(config)
        assert [s.prompt for s in held] == run.evaluation.prompts and len(held) >= 3
        assert [s.response for s in held] == run.evaluation.references
    shown = {s.prompt for s in ModernDataLoader(config).load_training_data()}
    assert {d.prompt for d in run.demonstrations} <= shown and not shown & set(
        run.evaluation.prompts
    )


def test_prompts_and_human_feedback(write):
    ratings = write(
        "ratings.json", [{"id": 1, "prompt": "p", "response": "r", "rating": 4, "comment": ""}]
    )
    section = data_section(prompts_path="synthetic", human_feedback_path=ratings, max_prompts=4)
    loader = ModernDataLoader(section)
    assert len(loader.load_prompts()) == 4
    (sample,) = loader.load_human_feedback()
    assert (sample.prompt, sample.response, sample.rating) == ("p", "r", 4.0)
    assert set(loader.reports) == {"prompts", "feedback"}
    with pytest.raises(DataError, match="data.human_feedback_path"):
        ModernDataLoader(data_section()).load_human_feedback()


def test_the_package_reexports_and_loads_no_torch():
    code = (
        "import sys, modern_rlhf.data_loader as d, modern_rlhf.feedback.store\n"
        "names = [getattr(d, n) for n in d.__all__]\n"
        "assert d.ModernDataLoader.__name__ == 'ModernDataLoader' and set(d.__all__) <= set(dir(d))\n"
        "heavy = {'torch', 'datasets', 'pyarrow', 'transformers', 'fastapi'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    import modern_rlhf.data_loader as package

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018
