"""Many programs, busy processors, another user, a platform without fork: slow, Linux only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from sandbox_hostile_files import MORE
from sandbox_hostile_set import BENIGN, HOSTILE
from test_sandbox_executor import ADD, TESTS, born, descendants, role, survivors
from test_sandbox_hostile import reference, wrong

from modern_rlhf.sandbox.executor import SandboxExecutor
from modern_rlhf.sandbox.types import Program

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),  # of a machine that may be very busy
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def test_ten_thousand_programs_leave_nothing() -> None:
    coded = "total = add(2, 3)\nassert abs(total - 5) < 1e-9"
    mixed = [Program(ADD, TESTS)] * 17 + [
        Program(ADD, coded), Program("def add(", TESTS),
        Program("open('x', 'w').write('y' * 9999)\nprint('z' * 5000)\n" + ADD, TESTS),
    ]  # fmt: skip
    with SandboxExecutor(workers=2) as executor:
        executor.run(mixed * 10)
        mine = descendants(os.getpid())
        coordinator = next(pid for pid in mine if role(pid) == "coordinator")
        memory, files = resident_kib(coordinator), len(os.listdir(f"/proc/{coordinator}/fd"))
        ours = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            verdicts = [result.verdict for result in executor.run(mixed * 25)]
            assert verdicts.count("pass") == 475 and verdicts.count("syntax") == 25
        assert resident_kib(coordinator) - memory < 5 * 1024
        assert len(os.listdir(f"/proc/{coordinator}/fd")) == files
        assert len(os.listdir("/proc/self/fd")) == ours
        family = [(pid, born(pid)) for pid in descendants(os.getpid())]
        assert len(family) <= 14  # coordinator, 2 x (worker, 2 zygotes, 2 waiting), some dying
    assert survivors(family) == []


def test_verdicts_are_the_same_under_load_and_with_any_number_of_workers() -> None:
    """Three times in a row, beside 4 busy loops on the one processor there is for all of it."""
    cases = [*HOSTILE, *BENIGN, *MORE, *reference()]
    programs = [Program(c.code, c.tests, c.entry_point, c.mode) for c in cases]  # type: ignore[arg-type]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        core = min(os.sched_getaffinity(0))
        for process in busy:
            os.sched_setaffinity(process.pid, {core})
        found = []
        for workers, order in ((1, 1), (2, -1), (3, 1)):
            with SandboxExecutor(workers=workers, timeout=1.0) as executor:
                for child in descendants(os.getpid()):
                    if child not in [process.pid for process in busy]:
                        os.sched_setaffinity(child, {core})
                found.append(executor.run(programs[::order])[::order])
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert [wrong(cases, results) for results in found] == [[], [], []]
    # which limit ends a flood may differ; whether it was a pass never does
    strict = [i for i, case in enumerate(cases) if len(case.accept) == 1]
    verdicts = [[results[i].verdict for i in strict] for results in found]
    assert verdicts[0] == verdicts[1] == verdicts[2]
    passed = [[result.passed for result in results] for results in found]
    assert passed[0] == passed[1] == passed[2]


SCRIPT = """
import json, os, sys
sys.path[:0] = [{root!r}]
from modern_rlhf.sandbox.executor import SandboxExecutor, Program
cases = json.load(sys.stdin)
os.environ["RLHF_SECRET"] = "planted"
with SandboxExecutor(workers=2, max_layer={layer}, timeout=1.0) as executor:
    found = executor.run([Program(c["code"], c["tests"], c["entry_point"], c["mode"]) for c in cases])
    bad = [(c["name"], r.verdict, r.message) for c, r in zip(cases, found)
           if r.verdict not in c["accept"]]
    print(json.dumps({{"uid": os.getuid(), "layer": executor.layer, "bad": bad}}))
"""


@pytest.mark.parametrize("layer", [2, 1, 0])
def test_another_user_has_the_same_verdicts(layer: int, tmp_path_factory: object) -> None:
    python = next(
        (p for p in ("/usr/bin/python3", "/usr/local/bin/python3") if os.path.exists(p)), None
    )
    if os.getuid() != 0 or python is None or shutil.which("setpriv") is None:
        pytest.skip("needs root, setpriv and a system interpreter")
    version = subprocess.run([python, "-c", "import sys; print(sys.version_info >= (3, 10))"],
                             capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    if version != "True":
        pytest.skip("the system interpreter is older than 3.10")
    script = SCRIPT.format(root=str(ROOT), layer=layer)
    cases = json.dumps([asdict(case) for case in [*HOSTILE, *BENIGN, *MORE, *reference()]])
    run = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-c", script],
        input=cases, capture_output=True, text=True, cwd="/", env={"PATH": os.defpath, "HOME": "/nonexistent"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    told = json.loads(run.stdout)
    if told["layer"] != layer:
        pytest.skip(f"this machine offers layer {told['layer']} to that user, not {layer}")
    assert told["uid"] == 65534 and told["bad"] == []


BARE = """
import os, select, selectors, signal, socket, subprocess, sys
# the library's own POSIX code keeps what it took at import; ours must do without
sys.modules["resource"] = None
for module, names in ((os, ("fork", "memfd_create", "setsid", "killpg", "pidfd_open",
                            "sched_getaffinity", "O_DIRECTORY", "O_NOFOLLOW", "statvfs", "wait4")),
                      (select, ("poll", "epoll")), (signal, ("SIGHUP",)),
                      (socket, ("send_fds", "recv_fds", "AF_UNIX"))):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sys.platform = "elsewhere"
"""


MACOS = """
import os, selectors, signal, socket, subprocess, sys
for name in ("waitid", "pidfd_open", "memfd_create", "sched_getaffinity", "sched_setaffinity"):
    if hasattr(os, name):
        delattr(os, name)
sys.platform = "darwin"
"""


def strip(how: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every helper's interpreter first loses what a platform does not have."""
    from modern_rlhf.sandbox import executor as module

    real = Path(module._BOOT)
    boot = folder / "boot.py"
    boot.write_text(
        how + f"__file__ = {str(real)!r}\nexec(compile(open(__file__).read(), __file__, 'exec'))\n"
    )
    monkeypatch.setattr(module, "_BOOT", str(boot))


def test_a_platform_that_forks_without_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS before Python 3.13 has neither `waitid` nor clocks of other processes."""
    strip(MACOS, tmp_path, monkeypatch)
    coded = "total = add(2, 3)\nassert abs(total - 5) < 1e-9"
    programs = [
        Program(ADD, TESTS), Program(ADD, coded), Program("def add(a, b): return 0", coded),
        Program("def add(", TESTS), Program("import os\nos._exit(0)", coded),
        Program("while True: pass", TESTS, timeout=0.3),
        Program("import signal\nsignal.raise_signal(9)", TESTS),
        Program("print(input())", ('{"input": "a", "output": "a"}',), mode="stdio"),
    ]  # fmt: skip
    with SandboxExecutor(workers=2) as executor:
        assert executor.layer == 0 and any("darwin" in gap for gap in executor.report.gaps)
        verdicts = [result.verdict for result in executor.run(programs)]
    assert verdicts == ["pass", "pass", "fail", "syntax", "crash", "timeout", "crash", "pass"]


def test_without_fork_or_clocks_the_kernels_limit_is_a_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strip(MACOS, tmp_path, monkeypatch)
    with SandboxExecutor(workers=1, fork=False) as executor:
        (result,) = executor.run([Program("while True: pass", TESTS, timeout=0.3)])
    # SIGXCPU after 2 whole seconds of CPU time, or on a busy machine the fence of 3 x 0.3 + 5 s
    assert result.verdict == "timeout"


def test_a_platform_without_fork_poll_resource_and_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter of every helper is stripped of what Windows does not have."""
    strip(BARE, tmp_path, monkeypatch)
    programs = [
        Program(ADD, TESTS), Program("def add(a, b): return 0", TESTS), Program("def add(", TESTS),
        Program(ADD, "total = add(2, 3)\nassert abs(total - 5) < 1e-9"),
        Program("while True: pass", TESTS, timeout=0.3), Program("import os\nos._exit(0)", TESTS),
        Program("print(input())", ('{"input": "a", "output": "a"}',), mode="stdio"),
    ]  # fmt: skip
    with SandboxExecutor(workers=2, fork=False) as executor:
        assert executor.layer == 0
        assert any("cannot fork" in gap for gap in executor.report.gaps)
        verdicts = [result.verdict for result in executor.run(programs)]
    assert verdicts == ["pass", "fail", "syntax", "pass", "timeout", "crash", "pass"]
