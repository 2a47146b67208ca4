"""Saved, loaded in a fresh process: the same scores to 1e-6, or a refusal that names the file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from modern_rlhf.errors import ModelError, OutputError
from modern_rlhf.models.loading import Backbone
from modern_rlhf.reward_model import persistence
from modern_rlhf.reward_model.model import CustomRewardModel
from modern_rlhf.reward_model.persistence import _sha256

REPOSITORY = Path(__file__).resolve().parents[2]
PROMPTS = ["sort a list", "reverse a string", "open a file"]
RESPONSES = ["sorted(x)", "s[::-1]", "open(p).read()"]

FRESH = """
import json, sys
from modern_rlhf.reward_model.model import CustomRewardModel
folder, prompts, responses = json.loads(sys.stdin.read())
model = CustomRewardModel.from_pretrained(folder)
print(json.dumps([model.score(prompts, responses), model.score_heads(prompts, responses)]))
"""


def trained(model: CustomRewardModel) -> CustomRewardModel:
    """A few steps on everything that takes a gradient, then feature statistics and calibration."""
    torch.manual_seed(5)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(3):
        output = model(model.encode_pairs(PROMPTS, RESPONSES))
        loss = (output.totals - torch.tensor([1.0, -1.0, 0.5])).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        model.heads.set_feature_statistics(model.features(model.encode_pairs(PROMPTS, RESPONSES)))
    model.calibrate(PROMPTS, RESPONSES)
    model.heads.temperature.fill_(1.7)
    return model


def in_fresh_process(folder: Path) -> tuple[list[float], dict[str, list[float]]]:
    done = subprocess.run(
        [sys.executable, "-c", FRESH],
        input=json.dumps([str(folder), PROMPTS, RESPONSES]),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    scores, heads = json.loads(done.stdout.splitlines()[-1])
    return scores, heads


def build(kind: str, make_backbone: Callable[..., Backbone]) -> CustomRewardModel:
    if kind == "frozen":
        return CustomRewardModel(
            make_backbone("encoder"),
            human_logits=True,
            human_logits_layer="second_last",
            ensemble=2,
        )
    model = CustomRewardModel(
        make_backbone("decoder"),
        ("preference",),
        freeze_backbone=kind == "lora",
        head_kind="linear",
    )
    if kind == "lora":
        model.add_lora(rank=2)
        assert not model.frozen
    return model


@pytest.mark.parametrize("kind", ["frozen", "trained", "lora"])
def test_a_fresh_process_gives_the_same_scores(
    kind: str, tmp_path: Path, make_backbone: Callable[..., Backbone]
) -> None:
    model = trained(build(kind, make_backbone))
    untouched = build(kind, make_backbone).score(PROMPTS, RESPONSES)
    model.save_pretrained(tmp_path / "saved")
    scores, heads = in_fresh_process(tmp_path / "saved")
    assert scores == pytest.approx(model.score(PROMPTS, RESPONSES), abs=1e-6)
    assert scores != pytest.approx(untouched, abs=1e-2)  # the training is what was saved
    for name, values in model.score_heads(PROMPTS, RESPONSES).items():
        assert heads[name] == pytest.approx(values, abs=1e-6)


def test_loaded_model_keeps_settings_statistics_and_temperature(
    tmp_path: Path, encoder: Backbone
) -> None:
    model = trained(CustomRewardModel(encoder, ("a", "b"), head_weights={"a": 0.9, "b": 0.1}))
    model.save_pretrained(tmp_path / "saved")
    loaded = CustomRewardModel.from_pretrained(tmp_path / "saved")
    assert loaded.settings == model.settings
    for name, value in model.heads.state_dict().items():
        torch.testing.assert_close(loaded.heads.state_dict()[name], value, atol=0, rtol=0)
    assert float(loaded.heads.temperature) == pytest.approx(1.7)
    assert not loaded.training and loaded.frozen


def test_folder_holds_no_pickle(tmp_path: Path, make_backbone: Callable[..., Backbone]) -> None:
    model = build("lora", make_backbone)
    model.save_pretrained(tmp_path / "saved")
    suffixes = {path.suffix for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".jinja", ".txt"}


def test_saving_twice_replaces_and_never_touches_other_files(
    tmp_path: Path, decoder: Backbone
) -> None:
    model = CustomRewardModel(decoder)
    model.save_pretrained(tmp_path / "saved")
    model = trained(model)
    model.save_pretrained(tmp_path / "saved")
    loaded = CustomRewardModel.from_pretrained(tmp_path / "saved")
    assert loaded.score(PROMPTS, RESPONSES) == pytest.approx(
        model.score(PROMPTS, RESPONSES), abs=1e-6
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("do not delete")
    with pytest.raises(OutputError, match="other files"):
        model.save_pretrained(other)
    assert (other / "thesis.txt").read_text() == "do not delete"


def test_backbone_by_name_is_found_again_and_checked(
    tmp_path: Path, make_backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "backbone"
    source = make_backbone("decoder")
    source.model.save_pretrained(home)
    source.tokenizer.save_pretrained(home)
    model = trained(CustomRewardModel(str(home)))
    model.save_pretrained(tmp_path / "saved", copy_backbone=False)
    assert not (tmp_path / "saved" / "backbone").exists()
    loaded = CustomRewardModel.from_pretrained(tmp_path / "saved")
    assert loaded.score(PROMPTS, RESPONSES) == pytest.approx(
        model.score(PROMPTS, RESPONSES), abs=1e-6
    )
    shutil.rmtree(home)
    other = make_backbone("decoder", seed=9)
    other.model.save_pretrained(home)
    other.tokenizer.save_pretrained(home)
    with pytest.raises(ModelError, match="other weights"):
        CustomRewardModel.from_pretrained(tmp_path / "saved")


def test_a_trained_backbone_cannot_be_saved_by_name(tmp_path: Path, decoder: Backbone) -> None:
    model = CustomRewardModel(decoder, freeze_backbone=False)
    with pytest.raises(ModelError, match="must be copied"):
        model.save_pretrained(tmp_path / "saved", copy_backbone=False)


@pytest.fixture
def saved(tmp_path: Path, decoder: Backbone) -> Path:
    CustomRewardModel(decoder).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def forge(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the heads' weights and the manifest with them, so that only the shapes give it away."""
    state = load_file(folder / "heads.safetensors")
    change(state)
    save_file(state, folder / "heads.safetensors")
    manifest = json.loads((folder / "reward_model.json").read_text())
    manifest["files"]["heads.safetensors"] = _sha256(folder / "heads.safetensors")
    (folder / "reward_model.json").write_text(json.dumps(manifest))


NAME = "members.head_useful.0.6.bias"


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop(NAME),
        lambda state: state.update({NAME: torch.zeros(2)}),
        lambda state: state.update(extra=torch.zeros(1)),
    ],
    ids=["missing", "other shape", "one too many"],
)
def test_head_weights_that_do_not_fit_are_refused(
    saved: Path, change: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    forge(saved, change)
    with pytest.raises(ModelError, match="useful|extra"):
        CustomRewardModel.from_pretrained(saved)


@pytest.mark.parametrize("name", ["heads.safetensors", "backbone/model.safetensors"])
def test_damage_is_refused_and_named(saved: Path, name: str) -> None:
    path = saved / name
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=path.name):
        CustomRewardModel.from_pretrained(saved)
    path.unlink()
    with pytest.raises(ModelError, match="missing"):
        CustomRewardModel.from_pretrained(saved)


def test_what_is_no_reward_model_is_refused(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(ModelError, match="no reward model"):
        CustomRewardModel.from_pretrained(tmp_path / "nowhere")
    (saved / "reward_model.json").write_text('{"schema": 99}')
    with pytest.raises(ModelError, match="schema"):
        CustomRewardModel.from_pretrained(saved)
    (saved / "reward_model.json").write_text("{broken")
    with pytest.raises(ModelError, match="cannot read"):
        CustomRewardModel.from_pretrained(saved)


def test_a_backbone_trained_and_then_frozen_cannot_be_saved_by_name(
    tmp_path: Path, make_backbone: Callable[..., Backbone]
) -> None:
    model = trained(CustomRewardModel(make_backbone("decoder"), freeze_backbone=False))
    model.backbone.requires_grad_(False)
    with pytest.raises(ModelError, match="must be copied"):
        model.save_pretrained(tmp_path / "saved", copy_backbone=False)


def test_adapters_alone_can_be_saved_and_a_lost_backbone_is_named(
    tmp_path: Path, make_backbone: Callable[..., Backbone]
) -> None:
    home, saved = tmp_path / "backbone", tmp_path / "saved"
    source = make_backbone("decoder")
    source.model.save_pretrained(home)
    source.tokenizer.save_pretrained(home)
    model = CustomRewardModel(str(home), ("preference",), head_kind="linear")
    model.add_lora(rank=2)
    model = trained(model)
    model.save_pretrained(saved, copy_backbone=False)
    assert not list(saved.rglob("backbone")) and list(saved.glob("adapter/*.safetensors"))
    loaded = CustomRewardModel.from_pretrained(saved)
    assert loaded.score(PROMPTS, RESPONSES) == pytest.approx(
        model.score(PROMPTS, RESPONSES), abs=1e-6
    )
    shutil.rmtree(home)
    with pytest.raises(ModelError, match="saved without its backbone"):
        CustomRewardModel.from_pretrained(saved)


def test_other_tokens_of_the_same_texts_are_refused(saved: Path) -> None:
    """As another version of a library may make them, while every file is what was saved."""
    change_tokenizer(saved / "backbone" / "tokenizer.json")
    with pytest.raises(ModelError, match="another score than when it was saved"):
        CustomRewardModel.from_pretrained(saved)


def change_tokenizer(path: Path) -> None:
    """Swap two letters' ids, and say in the manifest that the file is right."""
    text = json.loads(path.read_text())
    vocabulary = text["model"]["vocab"]
    vocabulary["e"], vocabulary["t"] = vocabulary["t"], vocabulary["e"]
    path.write_text(json.dumps(text))
    manifest = path.parents[1] / "reward_model.json"
    content = json.loads(manifest.read_text())
    content["files"]["backbone/tokenizer.json"] = _sha256(path)
    manifest.write_text(json.dumps(content))


def test_a_model_of_no_numbers_is_not_saved(tmp_path: Path, decoder: Backbone) -> None:
    model = CustomRewardModel(decoder)
    with torch.no_grad():
        model.heads.members["head_useful"][0][0].weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_the_scoring_dtype_is_no_part_of_what_is_saved(tmp_path: Path, decoder: Backbone) -> None:
    model = CustomRewardModel(decoder)
    expected = model.score(PROMPTS, RESPONSES)
    model.scoring_dtype = torch.bfloat16
    model.save_pretrained(tmp_path / "saved")
    assert model.scoring_dtype == torch.bfloat16
    assert CustomRewardModel.from_pretrained(tmp_path / "saved").score(
        PROMPTS, RESPONSES
    ) == pytest.approx(expected, abs=1e-6)


def test_a_file_in_the_way_stays_and_a_full_disk_is_one_line(
    tmp_path: Path, decoder: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = CustomRewardModel(decoder)
    (tmp_path / "thesis").write_text("do not delete")
    with pytest.raises(OutputError, match="is a file"):
        model.save_pretrained(tmp_path / "thesis")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis"]

    def full(*given: object, **others: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(persistence, "save_file", full)
    with pytest.raises(OutputError, match="No space left"):
        model.save_pretrained(tmp_path / "saved")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop("probe"), "probe"),
        (lambda found: found.update(settings=[]), "settings"),
        (lambda found: found["settings"].pop("pooling"), "pooling"),
        (lambda found: found["settings"].update(colour=1), "settings.colour"),
        (lambda found: found["settings"].update(ensemble="two"), "another type"),
        (lambda found: found["settings"].update(head_kind="cubic"), "head_kind"),
        (lambda found: found["backbone"].pop("dtype"), "dtype"),
        (lambda found: found["backbone"].update(dtype="float31"), "backbone.dtype"),
        (lambda found: found["backbone"].update(kind="both"), "backbone.kind"),
        (lambda found: found.update(files={}), "heads.safetensors"),
        (lambda found: found.update(probe=["a", 1, 2]), "probe"),
    ],
)
def test_a_garbled_manifest_is_one_line(
    saved: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = saved / "reward_model.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=message) as caught:
        CustomRewardModel.from_pretrained(saved)
    assert "\n" not in str(caught.value)


def test_moved_and_made_read_only_it_loads_the_same(saved: Path, tmp_path: Path) -> None:
    expected = CustomRewardModel.from_pretrained(saved).score(PROMPTS, RESPONSES)
    moved = tmp_path / "else where" / "ü"
    moved.parent.mkdir()
    saved.rename(moved)
    for path in (*moved.rglob("*"), moved):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(moved.rglob("*"))
    loaded = CustomRewardModel.from_pretrained(moved)
    assert loaded.score(PROMPTS, RESPONSES) == pytest.approx(expected, abs=1e-6)
    assert sorted(moved.rglob("*")) == before
