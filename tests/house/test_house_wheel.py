"""The wheel works outside the checkout: code, command, shipped model and data are all in it.

The quick tests build with `--no-build-isolation` and borrow the dependencies of this environment, so
they need no package index. The slow one is what a newcomer does: an empty environment, `pip install .`,
and a run from another folder.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from modern_rlhf.config.presets import get_cpu_test_config
from modern_rlhf.version import __version__

ROOT = Path(__file__).resolve().parents[2]


def clean_environment() -> dict[str, str]:
    """The environment without the checkout on Python's path."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def run(*command: object, cwd: Path, timeout: float = 600) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed (requirements-dev.txt has it)")
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    run(*pip, "--wheel-dir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment that holds the wheel and borrows its dependencies."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    pip = [sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run(scripts / "python", "-I", "-c", code, cwd=folder).strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


def test_the_wheel_holds_what_the_package_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "modern_rlhf"
    ours = {str(path.relative_to(ROOT)) for path in package.rglob("*.py")}
    assert ours <= names
    assert {"modern_rlhf/feedback/page.css", "modern_rlhf/feedback/page.js"} <= names
    assert "modern_rlhf/models/assets/tiny-code-lm/model.safetensors" in names
    assert f"modern_rlhf-{__version__}.dist-info/licenses/LICENSE" in names
    strangers = {name.split("/")[0] for name in names}
    assert strangers == {"modern_rlhf", f"modern_rlhf-{__version__}.dist-info"}
    assert not [name for name in names if "__pycache__" in name or ".tmp-" in name]


def test_it_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    text = run(installed / "modern-rlhf", "--help", cwd=tmp_path)
    assert text.startswith("usage: modern-rlhf")
    code = "import modern_rlhf; print(modern_rlhf.__version__, modern_rlhf.__file__)"
    version, file = run(installed / "python", "-c", code, cwd=tmp_path).split(maxsplit=1)
    assert version == __version__
    assert Path(file.strip()).is_relative_to(installed.parent)
    assert list(tmp_path.iterdir()) == []


def test_the_shipped_data_is_found(installed: Path, tmp_path: Path) -> None:
    """All paths of the `cpu-test` preset resolve inside the installation."""
    data = get_cpu_test_config().data
    names = [
        data.train_data_path,
        data.prompts_path,
        data.eval_data_path,
        data.human_feedback_path,
    ]
    code = (
        "import sys; from modern_rlhf.utils.paths import resolve_path\n"
        "for name in sys.argv[1:]: print(resolve_path(name))"
    )
    found = run(installed / "python", "-c", code, *names, cwd=tmp_path).splitlines()
    assert len(found) == len(names)
    for name, path in zip(names, found, strict=True):
        assert Path(path).is_relative_to(installed.parent)
        original = ROOT / str(name).removeprefix("builtin:")
        if original.is_file():
            assert Path(path).read_bytes() == original.read_bytes()
        else:
            assert {p.name for p in Path(path).iterdir()} == {p.name for p in original.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_clean_installation_runs_the_job(tmp_path: Path) -> None:
    """`pip install .` into an empty environment; then `--dry-run` from another folder."""
    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    venv.create(environment, with_pip=True)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    probe = subprocess.run(
        [*map(str, pip), "--dry-run", "--no-deps", "PyYAML"], capture_output=True, text=True
    )
    if probe.returncode:
        pytest.skip(f"pip reaches no package index here: {probe.stderr.splitlines()[-1]}")
    run(*pip, "torch==2.13.0", cwd=elsewhere, timeout=1500)
    run(*pip, ROOT, cwd=elsewhere, timeout=1500)
    command = python.with_name("modern-rlhf")
    plan = run(command, "--config", "cpu-test", "--dry-run", cwd=elsewhere)
    assert "builtin:tiny-code-lm" in plan
    assert list(elsewhere.iterdir()) == []
