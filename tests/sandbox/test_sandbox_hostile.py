"""Every hostile program gets a right verdict and every benign one passes, at each layer offered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_hostile_files import MORE, MORE_BENIGN, MORE_HOSTILE
from sandbox_hostile_set import BENIGN, HOSTILE, Hostile
from test_sandbox_executor import need_layer

from modern_rlhf.sandbox.executor import SandboxExecutor
from modern_rlhf.sandbox.types import ExecutionResult, Program

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "hostile_programs.jsonl"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Something worth stealing in the environment."""
    monkeypatch.setenv("RLHF_CANARY_SECRET", "planted")
    yield


def judge(cases: list[Hostile], layer: int) -> list[ExecutionResult]:
    programs = [Program(c.code, c.tests, c.entry_point, c.mode) for c in cases]  # type: ignore[arg-type]
    with SandboxExecutor(workers=2, max_layer=layer, timeout=1.0) as executor:
        need_layer(executor, layer)
        return executor.run(programs)


def wrong(cases: list[Hostile], results: list[ExecutionResult]) -> list[str]:
    return [
        f"{case.name}: {result.verdict} ({result.message}), accepted {case.accept}"
        for case, result in zip(cases, results, strict=True)
        if result.verdict not in case.accept
    ]


def reference() -> list[Hostile]:
    """The reference programs, where they lie beside this checkout."""
    if not REFERENCE.exists():
        return []
    rows = [json.loads(line) for line in REFERENCE.read_text(encoding="utf-8").splitlines()]
    return [
        Hostile(f"reference_{r['id']}", r["category"], r["program"], r["tests"], r["entry_point"],
                tuple(r["accept"]), r.get("mode", "assert"))
        for r in rows
    ]  # fmt: skip


def test_the_set_is_large_and_no_hostile_program_may_pass_by_its_own_list() -> None:
    hostile, benign = [*HOSTILE, *MORE_HOSTILE], [*BENIGN, *MORE_BENIGN]
    assert len(HOSTILE) >= 60 and len(MORE_HOSTILE) >= 150 and len(MORE_BENIGN) >= 60
    allowed = {case.name for case in hostile if "pass" in case.accept}
    assert allowed == {"nested_folders"}  # right answer, unpleasant habits
    assert not any("infra_error" in case.accept for case in hostile)  # nor withdraw itself
    assert len({case.name for case in [*hostile, *benign]}) == len(hostile) + len(benign)


def test_own_set_at_the_strongest_layer() -> None:
    cases = [*HOSTILE, *BENIGN]
    with SandboxExecutor(workers=2, timeout=0.5) as executor:
        programs = [Program(c.code, c.tests, c.entry_point, c.mode) for c in cases]  # type: ignore[arg-type]
        assert wrong(cases, executor.run(programs)) == []


QUICK = [case for case in MORE if "timeout" not in case.accept and case.kind != "resource"]


def test_more_programs_at_the_strongest_layer() -> None:
    with SandboxExecutor(workers=2) as executor:
        programs = [Program(c.code, c.tests, c.entry_point, c.mode) for c in QUICK]  # type: ignore[arg-type]
        assert wrong(QUICK, executor.run(programs)) == []


def test_more_programs_against_the_guard_alone() -> None:
    kinds = ("process", "files", "kernel", "network", "spy")
    cases = [case for case in QUICK if case.kind in kinds]
    assert wrong(cases, judge(cases, 0)) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)  # of a machine that may be very busy
@pytest.mark.parametrize("layer", [2, 1, 0])
def test_own_set_at_each_layer_three_times_the_same(layer: int) -> None:
    cases = [*HOSTILE, *BENIGN, *MORE]
    rounds = [judge(cases, layer) for _ in range(3)]
    assert wrong(cases, rounds[0]) == []
    verdicts = [[result.verdict for result in results] for results in rounds]
    # which limit ends a flood may differ; whether it was a pass never does
    strict = [i for i, case in enumerate(cases) if len(case.accept) == 1]
    assert [[v[i] for i in strict] for v in verdicts].count([verdicts[0][i] for i in strict]) == 3
    passed = [[v == "pass" for v in each] for each in verdicts]
    assert passed[0] == passed[1] == passed[2]


@pytest.mark.slow
@pytest.mark.timeout(3600)  # of a machine that may be very busy
@pytest.mark.parametrize("layer", [2, 1, 0])
def test_reference_set(layer: int) -> None:
    cases = reference()
    if not cases:
        pytest.skip("the reference hostile set is not beside this checkout")
    assert wrong(cases, judge(cases, layer)) == []


def test_nothing_was_written_outside(tmp_path: Path) -> None:
    target = tmp_path / "there"
    ways = (
        f"open({str(target)!r}, 'w')",
        f"os.mkdir({str(target)!r})",
        f"os.symlink('/', {str(target)!r})",
    )
    programs = [
        Program(
            f"import os\ntry: {way}\nexcept OSError: pass\ndef f(): return 1",
            ("assert f() == 1",),
            "f",
        )
        for way in ways
    ]
    with SandboxExecutor(workers=1, timeout=1.0) as executor:
        if executor.layer < 1:
            pytest.skip("layer 0 confines no file system")
        assert [r.verdict for r in executor.run(programs)] == ["pass"] * len(ways)
    assert list(tmp_path.iterdir()) == []
