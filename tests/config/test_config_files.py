"""Configurations through JSON, YAML and `--set`, and what unusable files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modern_rlhf.config import (
    PRESETS,
    ModernRLHFConfig,
    apply_overrides,
    config_from_dict,
    dump_config,
    get_preset,
    load_config,
)
from modern_rlhf.errors import ConfigError


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml"])
@pytest.mark.parametrize("preset", PRESETS)
def test_round_trip(preset: str, suffix: str, tmp_path: Path) -> None:
    config = get_preset(preset)
    path = tmp_path / f"config{suffix}"
    dump_config(config, path)
    assert load_config(path) == config
    dump_config(load_config(path), path.with_stem("again"))
    assert path.with_stem("again").read_bytes() == path.read_bytes()


@settings(max_examples=30, deadline=None)
@example(rate=0.5, seed=1, prompt="\x85", tags=["a\u2028b", "\u2029"])
@given(
    rate=st.floats(0, 1, allow_subnormal=False),
    seed=st.integers(0, 2**32 - 1),
    prompt=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    tags=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), max_size=3),
)
def test_any_value_survives_both_formats(
    rate: float,
    seed: int,
    prompt: str | None,
    tags: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    config = config_from_dict(
        {
            "training": {"learning_rate": rate, "seed": seed},
            "model": {"system_prompt": prompt},
            "tags": tags,
        }
    )
    folder = tmp_path_factory.mktemp("any")
    for name in ("c.json", "c.yaml"):
        dump_config(config, folder / name)
        assert load_config(folder / name) == config


def test_a_partial_file_keeps_the_base(tmp_path: Path) -> None:
    path = tmp_path / "part.yaml"
    path.write_text("training:\n  seed: 3\nmodel:\n", encoding="utf-8")
    config = load_config(path, base=get_preset("cpu-test"))
    assert config.training.seed == 3
    assert config.model == get_preset("cpu-test").model


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("", encoding="utf-8")
    assert load_config(path) == ModernRLHFConfig()


def test_the_config_a_run_leaves_can_be_given_again(tmp_path: Path) -> None:
    config = get_preset("cpu-test")
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps({"schema": 1, "config": config.to_dict(), "versions": {}, "seed": 42})
    )
    assert load_config(path) == config


def test_yaml_numbers_without_a_point_are_numbers(tmp_path: Path) -> None:
    """YAML 1.1 reads `1e-4` as text; everyone who writes it means a number."""
    path = tmp_path / "rate.yaml"
    path.write_text("training: {learning_rate: 1e-4}\n", encoding="utf-8")
    assert load_config(path).training.learning_rate == 1e-4


UNUSABLE = {
    "missing.json": (None, "does not exist"),
    "broken.json": (b'{"training": {', "not valid JSON: line 1"),
    "broken.yaml": (b"training: [1", "not valid YAML"),
    "latin.json": (b'{"tags": ["\xe9"]}', "UTF-8"),
    "list.json": (b"[1, 2]", "must be a mapping"),
    "config.toml": (b"x = 1", "ends in .json, .yaml or .yml"),
    "object.yaml": (b"training: !!python/object/apply:os.getcwd []", "not valid YAML"),
    "unknown.json": (b'{"training": {"epochs": 3}}', "unknown key training.epochs"),
    "flat.yaml": (b"learning_rate: 1", "did you mean 'training.learning_rate'?"),
    "list.yaml": (b"- training", "must be a mapping of sections"),
    "utf16.json": ('{"tags": ["a"]}'.encode("utf-16"), "is UTF-16; save it as UTF-8"),
    "latin.yaml": (b"tags:\n- caf\xe9", "byte 0xe9 on line 2"),
    "twice.json": (b'{"tags": ["a"], "tags": ["b"]}', "key 'tags' stands twice"),
    "twice.yaml": (
        b"training:\n  seed: 1\n  seed: 2",
        "key 'seed' stands twice in the mapping from",
    ),
    "deep.json": (b"[" * 100_000, "nested too deeply"),
    "range.yaml": (b"training:\n  learning_rate: .nan", "out of range"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_file_says_why_in_one_line(name: str, tmp_path: Path) -> None:
    content, message = UNUSABLE[name]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value) and name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    for name in ("c.json", "c.yaml"):
        (tmp_path / name).write_bytes(b'\xef\xbb\xbf{"training": {"seed": 3}}')
        assert load_config(tmp_path / name).training.seed == 3


def test_a_misspelt_file_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "example.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"does not exist; did you mean .*example\.yaml\?"):
        load_config(tmp_path / "exmaple.yaml")


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)
    (tmp_path / "dir.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"dir\.yaml cannot be read: Is a directory"):
        load_config(tmp_path / "dir.yaml")


OVERRIDES = [
    ("training.seed=7", ("training", "seed"), 7),
    ("training.learning_rate=3e-4", ("training", "learning_rate"), 3e-4),
    ("training.use_dpo=True", ("training", "use_dpo"), True),
    ("training.total_steps=null", ("training", "total_steps"), None),
    ("training.total_steps=None", ("training", "total_steps"), None),
    ("model.base_model_name=123", ("model", "base_model_name"), "123"),
    ("model.system_prompt=a = b", ("model", "system_prompt"), "a = b"),
    ("data.prompts_path=x.jsonl", ("data", "prompts_path"), "x.jsonl"),
    ("training.learning_rate=.5", ("training", "learning_rate"), 0.5),
    ("training.learning_rate=+1e-4", ("training", "learning_rate"), 1e-4),
    ("training.total_steps=NULL", ("training", "total_steps"), None),
    ("model.system_prompt=123", ("model", "system_prompt"), "123"),
    ('model.system_prompt="null"', ("model", "system_prompt"), "null"),
    ("data.eval_data_path=2024", ("data", "eval_data_path"), "2024"),
    ("data.eval_data_path=none", ("data", "eval_data_path"), None),
    ("training.stop_strings=a, b", ("training", "stop_strings"), ["a", "b"]),
    ('training.stop_strings=["a,b"]', ("training", "stop_strings"), ["a,b"]),
    ("reward.custom_reward_head_names=null", ("reward", "custom_reward_head_names"), None),
    ('data.rater_weights={"ann": 2}', ("data", "rater_weights"), {"ann": 2}),
]


@pytest.mark.parametrize(("override", "place", "value"), OVERRIDES)
def test_overrides_take_the_field_s_type(
    override: str, place: tuple[str, str], value: object
) -> None:
    config = apply_overrides(get_preset("fast"), [override])
    assert config.to_dict()[place[0]][place[1]] == value


def test_overrides_apply_left_to_right_and_copy() -> None:
    base = get_preset("fast")
    config = apply_overrides(
        base, ["training.seed=1", "training.seed=2", "tags=a,b", "trackers=wandb"]
    )
    assert (config.training.seed, config.tags) == (2, ["a", "b"])
    assert config.trackers == ["wandb"]
    assert apply_overrides(base, ['tags=["a", "b,c"]']).tags == ["a", "b,c"]
    assert base == get_preset("fast")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.seed", "expected section.field=value"),
        ("seed=3", "unknown section 'seed'"),
        ("trainin.seed=3", "did you mean 'training'"),
        ("training.sed=3", "did you mean 'seed'"),
        ("training.seed=x", "wrong type: expected int"),
        ("training.learning_rate=NaN", "out of range"),
        ("training.learning_rate=Infinity", "training.learning_rate"),
        ("training.=3", "unknown key"),
        ("learning_rate=1", "did you mean 'training.learning_rate'"),
        ("training.stop_strings=[a]", "not valid JSON"),
        (f"training.seed={'[' * 100_000}", "not valid JSON"),
        (f"training.seed={'9' * 400}", "out of range"),
        (f"training.learning_rate={'9' * 400}", "out of range"),
        (f"training.learning_rate={'9' * 5000}", "out of range"),
        ("training.gradient_checkpointing=yes", "expected true or false"),
        ("training.algorithm=PPO", "did you mean 'ppo'"),
        ("data.rater_weights={}{", "not valid JSON"),
        (
            "training.sft_epochs=0",
            "out of range: expected 1e-06",
        ),  # it would train one step all the same
        ("training.rlhf_epochs=0", "out of range"),
        ("hardware.device=cuda:x", "cuda:N"),
        ("data.output_path=", "data.output_path is empty"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides(get_preset("fast"), [override])


def test_the_examples_load(repository: Path) -> None:
    """Every configuration in examples/ is valid over the default preset."""
    paths = [
        p for p in (repository / "examples").iterdir() if p.suffix in (".yaml", ".yml", ".json")
    ]
    assert paths
    for path in paths:
        assert isinstance(load_config(path, base=get_preset("fast")), ModernRLHFConfig)
