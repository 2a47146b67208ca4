"""What no file of the repository may hold, and the facts that stand in two places and must agree.

Patterns are put together from parts here, so that this file doesn't hold what it forbids.
"""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from modern_rlhf.cli.doctor import OPTIONAL
from modern_rlhf.utils.hardware import PACKAGES
from modern_rlhf.version import __version__

ROOT = Path(__file__).resolve().parents[2]

INDEX_HOSTS = re.compile(
    r"py" + r"pi\.(org|io)|python" + r"hosted|--ex" + r"tra-index|--in" + r"dex-url", re.I
)
MACHINE_PATHS = re.compile(r"(?<![\w.])/(wo" + r"rk|ro" + r"ot/\.\w+|farm)/")
HOMES = re.compile(r"(?<![\w.])/(ho" + r"me|Users)/[a-z]\w+/")
DATA = ("datasets_for_training/", "datasets_for_eval/", "evaluation_results_server/")
BINARY = (".png", ".safetensors", ".gz", ".ico", ".parquet")


def tracked() -> list[Path]:
    """The files git tracks; without git (an unpacked archive) there is nothing to judge."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout here; the rule is about tracked files")
    names = [name.decode() for name in done.stdout.split(b"\0") if name]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def faults(texts: dict[str, str]) -> list[str]:
    """`file:line: what` for every package-index host and every path of somebody's machine."""
    found = []
    for name, text in texts.items():
        rules = [INDEX_HOSTS, MACHINE_PATHS]
        if not name.startswith(DATA):  # programs in the data may speak of home folders
            rules.append(HOMES)
        for number, line in enumerate(text.splitlines(), 1):
            found += [
                f"{name}:{number}: {m[0]}" for m in (rule.search(line) for rule in rules) if m
            ]
    return found


def test_no_index_host_and_no_machine_path() -> None:
    texts = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in tracked()
        if path.suffix not in BINARY
    }
    assert faults(texts) == []


@pytest.mark.parametrize(
    "line",
    [
        "see py" + "pi.org/project/x",
        "https://files.python" + "hosted.org",
        "pip install --extra-" + "index-url http://x",
        "open('/wo" + "rk/main/x')",
        "cd /ro" + "ot/.cache/x",
        "/ho" + "me/anna/data",
    ],
)
def test_the_rule_sees_a_fault(line: str) -> None:
    assert faults({"docs/x.md": f"fine\n{line}\n"}) != []


def test_the_rule_lets_ordinary_text_pass() -> None:
    folder = "work"
    text = (
        f"the package index; ~/.cache; ./{folder}/x; /tmp/x; home{folder}/x; net{folder}/{folder}/"
    )
    assert faults({"docs/x.md": text}) == []


def test_test_files_have_unique_names() -> None:
    """Without `__init__.py` files pytest tells test modules apart by name alone."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_every_package_folder_has_an_init() -> None:
    """A folder without one is a namespace package: found here, lost in some installations."""
    folders = {path.parent for path in (ROOT / "modern_rlhf").rglob("*.py")}
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").is_file()] == []


def pins(name: str) -> dict[str, str]:
    """Distribution -> pinned version of a requirements file (the one for the newer Pythons)."""
    found = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        match = re.fullmatch(r"([\w.-]+)==([\w.]+)(; python_version (>=|<) \"3\.11\")?", line)
        if match and match[4] != "<":
            found[match[1].lower()] = match[2]
    return found


def ranges() -> dict[str, str]:
    """Distribution -> range, of everything pyproject.toml asks for, extras included."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text = text.partition("\ndependencies = [")[2].partition("[project.scripts]")[0]
    wanted = re.findall(r'"([\w-]+)((?:[<>=]=?[\d.]+,?)*)"', text)
    return {name.lower(): bounds for name, bounds in wanted}


def as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def test_the_pinned_versions_lie_in_the_ranges() -> None:
    pinned = {**pins("requirements.txt"), **pins("requirements-dev.txt")}
    wanted = ranges()
    assert len(wanted) > 20
    assert set(wanted) == set(pinned), "a package stands in only one of the two"
    compare = {
        ">=": lambda a, b: a >= b,
        "==": lambda a, b: a == b,
        "<": lambda a, b: a < b,
    }
    for name, bounds in wanted.items():
        for operator, bound in re.findall(r"(>=|==|<)([\d.]+)", bounds):
            version = as_numbers(pinned[name])
            assert compare[operator](version, as_numbers(bound)), f"{name} {version} {bounds}"


def test_what_the_issue_pins() -> None:
    pinned = pins("requirements.txt")
    expected = {
        "torch": "2.13.0",
        "codebleu": "0.7.0",
        "tree-sitter": "0.22.3",
        "tree-sitter-python": "0.21.0",
    }
    assert {name: pinned[name] for name in expected} == expected


def test_runs_record_versions_of_packages_that_are_pinned() -> None:
    assert set(PACKAGES) <= set(pins("requirements.txt"))
    assert set(PACKAGES).isdisjoint(OPTIONAL)


def test_the_changelog_knows_the_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
