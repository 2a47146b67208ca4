"""The floor test: our tree keeps the ladder of floors, and each kind of fault is noticed.

The second half builds small trees with one fault each, so that no rule can pass by seeing nothing.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import house_rules
import pytest

ROOT = Path(__file__).resolve().parents[2]

RULES = {
    "ladder": house_rules.ladder_faults,
    "facade": house_rules.facade_faults,
    "cycle": house_rules.cycle_faults,
    "ground floor": house_rules.ground_floor_faults,
    "docstring": house_rules.docstring_faults,
    "lazy names": house_rules.lazy_name_faults,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_tree_keeps_the_rule(rule: str) -> None:
    faults = RULES[rule](ROOT)
    assert not faults, "\n".join(faults)


def test_every_listed_room_exists() -> None:
    rooms = {house_rules.room(name) for name in house_rules.modules(ROOT)}
    assert set(house_rules.LADDER) - rooms == set(), "rooms on the ladder that are not there"


@pytest.mark.parametrize("module", ["modern_rlhf", "modern_rlhf.config", "modern_rlhf.main"])
def test_importing_loads_no_torch(module: str) -> None:
    code = (
        f"import sys, {module}; "
        "print(sorted({'torch', 'transformers', 'numpy', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


SOUND = {
    "__init__": "",
    "errors": "",
    "config/__init__": "from modern_rlhf.config.sections import Section",
    "config/sections": "import json\nfrom modern_rlhf import errors",
    "ops/__init__": "",
    "ops/kl": "import torch\nfrom modern_rlhf.errors import E",
    "trainer/__init__": "",
    "trainer/loop": "from modern_rlhf.ops import kl\nfrom modern_rlhf.config.sections import S",
    "trainer/ppo": "from modern_rlhf.trainer.loop import train",
    "report/__init__": "",
    "report/build": "from ..errors import E",
}
"""A small tree without faults: module -> its code."""


def build(folder: Path, files: dict[str, str]) -> Path:
    for name, code in files.items():
        path = folder / "modern_rlhf" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""Docstring."""\n{code}\n')
    return folder


def test_a_sound_tree_has_no_faults(tmp_path: Path) -> None:
    root = build(tmp_path, SOUND)
    assert {rule: check(root) for rule, check in RULES.items()} == {rule: [] for rule in RULES}


LAZY = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from modern_rlhf.trainer.loop import {typed}
_HOMES = {{"train": "modern_rlhf.trainer.loop"}}
__all__ = ["{public}"]
"""

MUTANTS = {
    "upward edge": ("ladder", {"ops/kl": "from modern_rlhf.trainer.loop import train"}, "upward"),
    "upward edge inside a function": (
        "ladder",
        {"ops/kl": "def f():\n    from modern_rlhf.trainer import loop\n    return loop"},
        "upward",
    ),
    "upward edge for types only": (
        "ladder",
        {"ops/kl": "if TYPE_CHECKING:\n    import modern_rlhf.trainer.loop"},
        "upward",
    ),
    "relative upward edge": ("ladder", {"ops/kl": "from ..trainer.loop import train"}, "upward"),
    "unlisted module": ("ladder", {"helpers": ""}, "not on the ladder"),
    "unlisted room": ("ladder", {"misc/__init__": "", "misc/x": ""}, "not on the ladder"),
    "absent module": ("ladder", {"trainer/ppo": "import modern_rlhf.ops.gone"}, "no such module"),
    "report with a trainer": (
        "ladder",
        {"report/build": "from modern_rlhf.trainer.loop import train"},
        "kept apart",
    ),
    "cycle in a room": (
        "cycle",
        {"trainer/loop": "from modern_rlhf.trainer.ppo import train"},
        "trainer.loop -> modern_rlhf.trainer.ppo -> modern_rlhf.trainer.loop",
    ),
    "facade": ("facade", {"trainer/ppo": "from modern_rlhf.config import Section"}, "facade"),
    "facade of the root": ("facade", {"trainer/ppo": "from modern_rlhf import Name"}, "facade"),
    "facade by plain import": ("facade", {"trainer/ppo": "import modern_rlhf.config"}, "facade"),
    "relative facade": ("facade", {"trainer/ppo": "from ..config import Section"}, "facade"),
    "torch on floor 0": ("ground floor", {"config/sections": "import torch"}, "torch"),
    "yaml on floor 0": ("ground floor", {"errors": "from yaml import load"}, "yaml"),
    "no docstring": ("docstring", {}, "no module docstring"),
    "long file": ("docstring", {"ops/kl": "x = 1\n" * 360}, "362 lines"),
    "name only in __all__": (
        "lazy names",
        {"trainer/__init__": LAZY.format(typed="train", public="other")},
        "__all__",
    ),
    "name not typed": (
        "lazy names",
        {"trainer/__init__": LAZY.format(typed="other", public="train")},
        "TYPE_CHECKING",
    ),
}


@pytest.mark.parametrize("fault", MUTANTS)
def test_a_fault_is_noticed(fault: str, tmp_path: Path) -> None:
    rule, change, message = MUTANTS[fault]
    root = build(tmp_path, {**SOUND, **change})
    if fault == "no docstring":
        (root / "modern_rlhf/errors.py").write_text("x = 1\n")
    faults = RULES[rule](root)
    assert len(faults) >= 1
    assert message in "\n".join(faults)


def test_a_late_import_breaks_no_cycle_rule(tmp_path: Path) -> None:
    late = "def f():\n    from modern_rlhf.trainer.ppo import train\n    return train"
    assert house_rules.cycle_faults(build(tmp_path, {**SOUND, "trainer/loop": late})) == []


def test_a_long_file_may_say_why(tmp_path: Path) -> None:
    root = build(tmp_path, SOUND)
    text = '"""A table; longer than 350 lines because it is one table."""\n' + "x = 1\n" * 360
    (root / "modern_rlhf/ops/kl.py").write_text(text)
    assert house_rules.docstring_faults(root) == []
