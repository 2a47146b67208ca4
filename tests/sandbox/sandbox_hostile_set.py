"""The project's own hostile programs: each tries one way to fool the judge or to get out.

`accept` lists the verdicts that are right. A program marked `probe(...)` reports on itself: it solves
the task only if its attack got through, so `pass` means that something is broken. The programs run
in the sandbox only.
"""

from __future__ import annotations

from dataclasses import dataclass

ADD = ("assert add(2, 3) == 5", "assert add(-4, 4) == 0", "assert add(10**9, 1) == 1000000001")
CODED = "total = add(2, 3)\nassert abs(total - 5) < 1e-9\nassert isinstance(total, int)"
DEAD = ("fail", "crash", "timeout", "memory", "output")


@dataclass(frozen=True)
class Hostile:
    name: str
    kind: str
    code: str
    tests: str | tuple[str, ...] = ADD
    entry_point: str | None = "add"
    accept: tuple[str, ...] = ("fail",)
    mode: str = "assert"


def probe(name: str, kind: str, attack: str, accept: tuple[str, ...] = ("fail",)) -> Hostile:
    body = "\n".join("    " + line for line in attack.strip("\n").split("\n"))
    code = f"won = False\ntry:\n{body}\nexcept BaseException:\n    pass\n"
    code += "def add(a, b):\n    return a + b if won else None\n"
    return Hostile(name, kind, code, accept=accept)


WRONG = "def add(a, b):\n    return 0\n"
ALWAYS = "    def __eq__(s, o): return True\n    def __ne__(s, o): return False\n"
ALWAYS += "    def __hash__(s): return 5\n"

FORGED_VALUES = [
    Hostile("equal_object", "value", f"class E:\n{ALWAYS}def add(a, b): return E()"),
    Hostile("equal_class", "value", f"class add:\n    def __init__(s, *a): pass\n{ALWAYS}"),
    Hostile("equal_int", "value", f"class E(int):\n{ALWAYS}def add(a, b): return E(0)"),
    Hostile("equal_float", "value", f"class E(float):\n{ALWAYS}def add(a, b): return E(0)"),
    Hostile(
        "equal_str", "value", f"class E(str):\n{ALWAYS}def add(a, b): return E('')",
        ("assert add('a', 'b') == 'ab'",),
    ),
    Hostile(
        "equal_tuple", "value", f"class E(tuple):\n{ALWAYS}def add(a, b): return E()",
        ("assert add(1, 2) == (1, 2)",),
    ),
    Hostile(
        "equal_inside", "value", f"class E:\n{ALWAYS}def add(a, b): return [E(), E()]",
        ("assert add(1, 2) == [1, 2]",),
    ),
    Hostile(
        "equal_key", "value", f"class E:\n{ALWAYS}def add(a, b): return {{E(): 1}}",
        ("assert add(1, 2) == {5: 1}", "assert 5 in add(1, 2)"),
    ),
    Hostile(
        "sortable_object", "value",
        f"class add:\n    def __init__(s, *a): pass\n    def sort(s): pass\n{ALWAYS}",
        "out = add(2, 1)\nout.sort()\nassert out == [1, 2]",
    ),
    Hostile(
        "contains_all", "value", "class E:\n    def __contains__(s, o): return True\n"
        "def add(a, b): return E()", "assert 5 in add(2, 3)",
    ),
    Hostile(
        "contains_class", "value", "class add:\n    def __init__(s, *a): pass\n"
        "    def __contains__(s, o): return True\n    def append(s, x): pass",
        "out = add(2, 3)\nout.append(1)\nassert 5 in out",
    ),
    Hostile(
        "subtracts_to_zero", "value", "class E:\n    def __sub__(s, o): return 0\n"
        "    __rsub__ = __sub__\n    __abs__ = lambda s: 0\n    __lt__ = lambda s, o: True\n"
        "def add(a, b): return E()", CODED,
    ),
    Hostile(
        "pretends_class", "value", "class E:\n    __class__ = int\n    def __sub__(s, o): return 0\n"
        "def add(a, b): return E()", CODED,
    ),
    Hostile("reflected_equal", "value", f"class E(list):\n{ALWAYS}def add(a, b): return E([1])",
            ("assert add(1, 2) == [1, 2]",)),
    Hostile("namedtuple_equal", "value", "import collections\n"
            f"class E(collections.namedtuple('E', 'x y')):\n{ALWAYS}def add(a, b): return E(9, 9)",
            ("assert add(1, 2) == (1, 2)",)),
    Hostile("decimal_equal", "value", f"import decimal\nclass E(decimal.Decimal):\n{ALWAYS}"
            "def add(a, b): return E(0)"),
    Hostile("nan", "value", "def add(a, b): return float('nan')", CODED),
    Hostile("bool_iterator", "value", "def add(a, b): return iter(())",
            "assert all(x == 1 for x in add(1, 2)) and len(list(add(1, 2))) == 2"),
]  # fmt: skip

STEERING = [
    Hostile(f"raise_{name}", "exception", f"def add(a, b): raise {name}",
            "assert all(map(lambda p: add(*p) == sum(p), [(1, 2), (3, 4)]))")
    for name in ("StopIteration", "GeneratorExit", "SystemExit(0)", "KeyboardInterrupt",
                 "StopAsyncIteration", "BaseException")
] + [
    Hostile("raise_group", "exception",
            "class G(Exception): pass\ndef add(a, b): raise G from SystemExit(0)"),
    Hostile("exit_in_str", "exception", "import os\nclass E(Exception):\n"
            "    def __str__(s): os._exit(0)\ndef add(a, b): raise E", accept=("fail", "crash")),
    Hostile("skip_test", "exception", "import unittest\n"
            "def add(a, b): raise unittest.SkipTest('done')",
            "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
            "        self.assertEqual(add(1, 2), 3)", mode="unittest"),
    Hostile("exception_class", "exception", "class add(Exception):\n"
            "    def __eq__(s, o): return True"),
    Hostile("swallowed_death", "exception", "import os\ndef add(a, b): os._exit(0)",
            "try:\n    add(1, 2)\nexcept:\n    pass\nassert True", accept=("fail", "crash")),
]  # fmt: skip

TAMPERING = [
    Hostile("patch_builtins", "tamper", "import builtins\nbuiltins.abs = lambda x: 0\n"
            "builtins.isinstance = lambda *a: True\n" + WRONG, CODED, accept=("fail", "crash")),
    Hostile("own_abs", "tamper", "def abs(x): return 0\ndef isinstance(*a): return True\n" + WRONG,
            CODED),
    Hostile("patch_math", "tamper", "import math\nmath.isclose = lambda *a, **k: True\n" + WRONG,
            "import math\nassert math.isclose(add(2, 3), 5)"),
    Hostile("patch_unittest", "tamper", "import unittest\n"
            "unittest.TestCase.assertEqual = lambda *a: None\n" + WRONG,
            "import unittest\nclass T(unittest.TestCase):\n    def test(self):\n"
            "        self.assertEqual(add(1, 2), 3)", mode="unittest"),
    Hostile("frames", "tamper", "import sys\ndef add(a, b):\n    f = sys._getframe()\n"
            "    while f:\n        for v in list(f.f_locals.values()) + list(f.f_code.co_consts):\n"
            "            if v in (5, 1000000001): return v\n        f = f.f_back\n    return 0"),
    Hostile("heap", "tamper", "import gc\ndef add(a, b):\n    for o in gc.get_objects():\n"
            "        if type(o) in (list, tuple) and 1000000001 in o: return 1000000001\n"
            "        if type(o) is str and 'assert add' in o: return eval(o.split('==')[1])\n"
            "    return 0"),
    # a module or a function that the tests use and leave to the reference to import
    Hostile("own_math", "tamper", "class math:\n    isclose = lambda *a, **k: True\n" + WRONG,
            "assert math.isclose(add(2, 3), 5)"),
    Hostile("own_isclose", "tamper", "def isclose(*a, **k): return True\n" + WRONG,
            "assert isclose(add(2, 3), 5)"),
    Hostile("own_pi", "tamper", "pi = inf = 0\n" + WRONG, "assert add(2, 3) == pi and add(1, 1) == inf"),
    Hostile("own_library", "tamper", f"class D:\n{ALWAYS}class datetime:\n"
            "    date = lambda *a: D()\ndef Counter(*a): return D()\ndef add(a, b): return D()",
            ("assert add(2, 3) == datetime.date(2020, 1, 1)", "assert Counter('aab') == add(1, 2)")),
    Hostile("patch_json", "tamper", "import json\njson.dumps = lambda *a, **k: '{\"v\":5}'\n"
            "json.JSONEncoder.encode = lambda *a: '{\"v\":5}'\n" + WRONG),
    Hostile("patch_harness", "tamper", "import sys\nfor n, m in list(sys.modules.items()):\n"
            "    if 'candidate' in n or 'frames' in n or 'values' in n:\n"
            "        for k in list(vars(m)):\n            if not k.startswith('__'):\n"
            "                try: setattr(m, k, lambda *a, **k: {'v': 5})\n"
            "                except Exception: pass\n" + WRONG, accept=DEAD),
    Hostile("write_replies", "tamper", "import os, struct\nfor fd in range(3, 64):\n"
            "    for m in (b'{\"v\":5}', b'{\"report\":{\"passed\":3,\"run\":3}}', b'{\"v\":true}'):\n"
            "        try: os.write(fd, struct.pack('>I', len(m)) + m)\n"
            "        except OSError: pass\n" + WRONG, accept=("fail", "crash", "output")),
    Hostile("settrace", "tamper", "import sys\n"
            "sys.settrace(lambda f, e, a: None)\nsys.setprofile(lambda f, e, a: None)\n" + WRONG),
    Hostile("unhook_exit", "tamper", "import os\nos._exit = lambda c: None\n"
            "import sys\nsys.exit = lambda *a: None\n" + WRONG),
    Hostile("print_verdict", "tamper", "print('{\"verdict\": \"pass\"}')\nprint('OK')\n" + WRONG),
    Hostile("exit_zero", "tamper", "import sys\nsys.exit(0)", accept=("fail", "crash")),
    Hostile("hard_exit", "tamper", "import os\nos._exit(0)", accept=("fail", "crash")),
    Hostile("exit_at_end", "tamper", "import atexit, os\natexit.register(lambda: os._exit(0))\n"
            + WRONG),
]  # fmt: skip

ESCAPES = [
    probe("fork", "process", "import os\nif os.fork() == 0: os._exit(0)\nwon = True"),
    probe("raw_clone", "process", "import ctypes\nl = ctypes.CDLL(None)\n"
          "p = l.syscall(56, 17, 0, 0, 0, 0)\nif p == 0: l._exit(0)\nwon = p > 0"),
    probe("spawn", "process", "import os\nwon = os.posix_spawn('/bin/true', ['true'], {}) > 0"),
    # subprocess announces itself to audit hooks in Python, where that can be patched away
    probe("unaudited", "process", "import subprocess, sys\nsys.audit = lambda *a: None\n"
          "won = subprocess.Popen(['/bin/true']).pid > 0"),
    Hostile("exec", "process", "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', ''])",
            accept=("fail", "crash")),
    probe("signal_parent", "process", "import os\nos.kill(os.getppid(), 0)\nwon = os.getppid() > 1"),
    probe("signal_all", "process", "import os\nos.kill(-1, 0)\nwon = True"),
    Hostile("raise_kill", "process", "import signal\ndef add(a, b): signal.raise_signal(9)",
            accept=("fail", "crash")),
    Hostile("cpu_limit", "process", "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (0, 0))\n"
            "while True: pass", accept=("fail", "crash", "timeout")),
    probe("own_kill", "process", "import os\nos.kill(os.getpid(), 9)", accept=("fail", "crash")),
    probe("inet", "network", "import socket\nsocket.socket().bind(('127.0.0.1', 0))\nwon = True"),
    probe("udp", "network", "import socket\ns = socket.socket(2, 2)\n"
          "s.sendto(b'x', ('127.0.0.1', 9))\nwon = True"),
    probe("pair_sendto", "network", "import socket\na, b = socket.socketpair(1, 2)\n"
          "a.sendto(b'x', '\\0nobody')\nwon = True"),
    probe("abstract", "network", "import socket\ns = socket.socket(1)\ns.bind('\\0probe')\nwon = True"),
    probe("passwd", "files", "won = bool(open('/etc/passwd').read())"),
    probe("list_root", "files", "import os\nwon = bool(os.listdir('/'))"),
    probe("environ", "files", "won = bool(open('/proc/self/environ', 'rb').read())"),
    probe("write_tmp", "files", "import os\nfor d in ('/tmp', '/var/tmp', '/dev/shm', '..'):\n"
          "    try:\n        open(d + '/sandbox-escape', 'w').close()\n        won = True\n"
          "        os.unlink(d + '/sandbox-escape')\n    except OSError: pass"),
    probe("link_out", "files", "import os\nos.symlink('/etc/passwd', 'l')\n"
          "won = bool(open('l').read())"),
    probe("hard_link", "files", "import os\nos.link('/etc/passwd', 'h')\nwon = True"),
    # relative to a folder's descriptor, a name means another file than relative to the working folder
    probe("folder_descriptor", "files", "import os\nd = os.open(os.path.dirname(os.__file__), 0)\n"
          "os.close(os.open('os.py', os.O_RDWR, dir_fd=d))\nwon = True"),
    probe("folder_upwards", "files", "import os\nd = os.open('.', 0)\nos.makedirs('a/b/c')\n"
          "os.chdir('a/b/c')\nos.close(os.open('../../..', 0, dir_fd=d))\nwon = True"),
    probe("link_in_folder", "files", "import os\nos.mkdir('d')\nos.symlink('/etc/passwd', 'd/x')\n"
          "d = os.open('d', 0)\nos.close(os.open('x', 0, dir_fd=d))\nwon = True"),
    probe("fifo_outside", "files", "import os\nos.mkfifo('../sandbox-escape')\n"
          "os.unlink('../sandbox-escape')\nwon = True"),
    probe("package", "files", "import modern_rlhf.errors\nwon = True"),
    probe("secret", "files", "import os\nwon = any('SECRET' in k or 'TOKEN' in k for k in os.environ)"),
    probe("nice", "kernel", "import os\nos.nice(-5)\nwon = True"),
    probe("chroot", "kernel", "import os\nos.chroot('.')\nwon = True"),
    probe("setuid", "kernel", "import os\nos.setuid(os.getuid() + 1)\nwon = True"),
    probe("raise_limit", "kernel", "import resource as r\n"
          "r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY, r.RLIM_INFINITY))\nwon = True"),
]  # fmt: skip


def raw(*messages: str, head: str = "") -> str:
    """A program that writes its own frames to the descriptor of replies, then nothing more."""
    return (
        f"import os, struct\n{head}for m in {[m.encode() for m in messages]!r}:\n"
        "    os.write(4, struct.pack('>I', len(m)) + m)\nos.close(4)\n"
    )


# None of them may end as `infra_error`, which would take the sample out of the rewards, and none may
# keep the judge busy.
_VALUES = {
    "handle_number": '{"handle":5}', "handle_short": '{"handle":[0,"exception"]}',
    "handle_types": '{"handle":["x",[],{},5]}', "list": "[[[]]]", "two_tags": '{"set":[],"list":[]}',
    "power_of_ten": '{"Fraction":["1e300000000",1]}', "decimal": '{"Decimal":"1e999999999"}',
    "not_a_date": '{"date":5}', "not_a_tag": '{"os.system":"true"}', "complex": '{"complex":[[],{}]}',
    "minus": '{"Fraction":[1,0]}', "deque": '{"deque":[[],-1]}', "shape": '{"namedtuple":[[],["x"],[1]]}',
}  # fmt: skip
PROTOCOL = [
    Hostile(f"frame_{name}_{kind}", "protocol",
            raw('{"v":true}', f'{{"v":{{"add":{value}}}}}') if kind == "coded"
            else raw(*[f'{{"v":{value}}}'] * 3),
            CODED if kind == "coded" else ADD, accept=("fail", "crash"))
    for name, value in _VALUES.items() for kind in ("coded", "data")
] + [
    Hostile(f"message_{index}", "protocol", raw('{"v":true}', message), CODED,
            accept=("fail", "crash", "syntax"))
    for index, message in enumerate(
        ["5", "[]", "{}", '{"v":5}', '{"e":5}', '{"e":{}}', '{"cb":0}', '{"cb":"x","args":[],"kwargs":[]}',
         '{"trace":1}', '{"load":5}', '{"syntax":[]}', '{"report":{"passed":3,"run":3}}',
         '{"v":{"add":{"handle":[0,"function","add",""]}}}', '{"v":{"add":' + "[" * 500 + "]" * 500 + "}}"]
    )
] + [
    Hostile("long_fraction", "protocol",
            raw(head="p = '{\"v\":{\"Fraction\":[{\"int\":\"0x' + 'f1' * 900000 + '\"},'\n"
                "p += '{\"int\":\"0x' + 'e3' * 900000 + '\"}]}}'\n").replace("for m in []",
                "for m in [p.encode()]"), accept=("fail", "crash")),
    Hostile("lone_surrogate", "protocol", "def add(a, b): raise ValueError('\\ud800' * 9)"),
    Hostile("long_name", "protocol", "E = type('E' * 10**6, (ValueError,), {})\n"
            "def add(a, b): raise E"),
]  # fmt: skip

FLOODS = [
    Hostile("loop", "resource", "while True: pass", accept=("timeout",)),
    Hostile("sleep", "resource", "import time\ntime.sleep(999)", accept=("timeout",)),
    Hostile("deaf_loop", "resource", "import signal\nfor n in range(1, 65):\n"
            "    try: signal.signal(n, signal.SIG_IGN)\n    except Exception: pass\n"
            "while True: pass", accept=("timeout",)),
    Hostile("memory", "resource", "x = []\nwhile True: x.append(bytearray(1 << 28))",
            accept=("memory", "fail", "crash")),
    Hostile("output", "resource", "while True: print('x' * 4096)",
            accept=("output", "crash", "fail", "timeout")),
    Hostile("huge_value", "resource", "def add(a, b): return 'x' * (64 << 20)", accept=DEAD),
    Hostile("deep_value", "resource", "def add(a, b):\n    x = []\n    for _ in range(5000): x = [x]\n"
            "    return x", accept=DEAD),
    Hostile("shared_value", "resource", "def add(a, b):\n    x = [1]\n"
            "    for _ in range(50): x = [x, x]\n    return x", accept=DEAD),
    Hostile("cycle", "resource", "def add(a, b):\n    x = {}\n    x[1] = x\n    return x", accept=DEAD),
    Hostile("colliding_keys", "resource",
            "def add(a, b): return {k * (2**61 - 1) for k in range(1, 90000)}", accept=DEAD),
    Hostile("endless", "resource", "def add(a, b):\n    while True: yield 1",
            "assert list(add(1, 2)) == [1]", accept=("timeout", "memory", "fail")),
    Hostile("big_int", "resource", "def add(a, b): return 1 << (1 << 23)", accept=DEAD),
    Hostile("threads", "resource", "import threading, time\nthreading.stack_size(32768)\nn = 0\n"
            "try:\n    while n < 4000:\n        threading.Thread(target=time.sleep, args=(9,),"
            " daemon=True).start()\n        n += 1\nexcept BaseException: pass\n"
            "def add(a, b): return a + b if n >= 4000 else None", accept=DEAD),
    probe("many_files", "resource", "for i in range(9000): open(f'f{i}', 'w').close()\nwon = True",
          accept=("fail", "timeout")),
    probe("big_file", "resource", "f = open('b', 'wb')\nfor _ in range(64): f.write(bytes(1 << 20))\n"
          "f.flush()\nwon = True", accept=("fail", "crash")),
    probe("descriptors", "resource", "import os\nx = [os.open('/dev/null', 0) for _ in range(999)]\n"
          "won = True"),
    Hostile("nested_folders", "resource", "import os\nfor _ in range(900):\n    os.mkdir('d')\n"
            "    os.chdir('d')\ndef add(a, b): return a + b", accept=("pass", "fail")),
]  # fmt: skip

TEXTS = [
    Hostile("nul", "source", "x = 1\0\n" + WRONG, accept=("syntax", "fail")),
    Hostile("surrogate", "source", "x = '\ud800'\n" + WRONG, accept=("syntax", "fail")),
    Hostile(
        "brackets", "source", "x = " + "(" * 10000, accept=("syntax", "fail", "memory", "crash")
    ),
    Hostile(
        "minus", "source", "x = " + "-" * 100000 + "1", accept=("syntax", "fail", "memory", "crash")
    ),
    Hostile("empty", "source", ""),
    Hostile("words", "source", "Here is the function you wanted.", accept=("syntax", "fail")),
]

CASE = ('{"input": "2 3\\n", "output": "5\\n6\\n"}', '{"input": "1 1\\n", "output": "2\\n1\\n"}')
SCRIPTS = [
    Hostile("script_exit", "stdio", "import sys\nsys.exit(0)", CASE, None, mode="stdio"),
    Hostile("script_prefix", "stdio", "a, b = map(int, input().split())\nprint(a + b)", CASE, None,
            mode="stdio"),
    Hostile("script_fixed", "stdio", "print('5\\n6')", CASE, None, mode="stdio"),
    Hostile("script_dies", "stdio", "a, b = map(int, input().split())\n"
            "print(a + b)\nprint(a * b, flush=True)\nimport os\nos._exit(3)", CASE, None,
            ("crash", "fail"), mode="stdio"),
]  # fmt: skip

HOSTILE = [*FORGED_VALUES, *STEERING, *TAMPERING, *ESCAPES, *PROTOCOL, *FLOODS, *TEXTS, *SCRIPTS]

BENIGN = [
    Hostile("plain", "benign", "def add(a, b): return a + b", accept=("pass",)),
    Hostile("main_block", "benign", "def add(a, b): return a + b\nif __name__ == '__main__':\n"
            "    print(add(*map(int, input().split())))", accept=("pass",)),
    Hostile("dataclass", "benign", "from dataclasses import dataclass\n@dataclass\nclass P:\n"
            "    x: int\n    y: int\n    def moved(self, d): return P(self.x + d, self.y)",
            "p = P(1, 2)\nassert p.moved(2) == P(3, 2)\nassert p.x == 1", "P", ("pass",)),
    Hostile("decimal", "benign", "from decimal import Decimal\ndef f(x): return Decimal(x) * 2",
            "from decimal import Decimal\nassert f('1.5') == Decimal('3.0')", "f", ("pass",)),
    Hostile("dates", "benign", "import datetime\ndef f(d): return d + datetime.timedelta(days=1)",
            "import datetime\nassert f(datetime.date(2020, 2, 28)) == datetime.date(2020, 2, 29)",
            "f", ("pass",)),
    Hostile("counter", "benign", "from collections import Counter\ndef f(x): return Counter(x)",
            ("assert f('aab') == {'a': 2, 'b': 1}",), "f", ("pass",)),
    Hostile("closure", "benign", "def f(n): return lambda x: x + n", "assert f(2)(3) == 5", "f",
            ("pass",)),
    Hostile("own_error", "benign", "class Bad(ValueError): pass\ndef f(x):\n    raise Bad('no ' + x)",
            "try:\n    f('x')\nexcept Bad as e:\n    assert str(e) == 'no x'\nelse:\n    assert False",
            "f", ("pass",)),
    Hostile("nested_in_place", "benign", "def f(m):\n    for row in m: row.reverse()",
            "m = [[1, 2], [3, 4]]\nr = m[0]\nf(m)\nassert m == [[2, 1], [4, 3]]\nassert r == [2, 1]",
            "f", ("pass",)),
    Hostile("human_eval", "benign", "def f(x): return x[::-1]",
            "def check(candidate):\n    assert candidate('ab') == 'ba'\n    assert candidate('') == ''",
            "f", ("pass",)),
    Hostile("human_eval_code", "benign", "def f(x): return x[::-1]",
            "METADATA = {}\ndef check(candidate):\n    for s in ('ab', ''):\n"
            "        assert candidate(s) == s[::-1]", "f", ("pass",)),
    Hostile("set_up_class", "benign", "def f(x): return x + 1",
            "import unittest\nclass T(unittest.TestCase):\n    @classmethod\n    def setUpClass(cls):\n"
            "        cls.n = 3\n    def test(self): self.assertEqual(f(self.n), 4)", "f", ("pass",),
            mode="unittest"),
    Hostile("unimported_math", "benign", "import math\ndef f(x): return math.sqrt(x)",
            "assert math.isclose(f(2.0) ** 2, 2.0) and f(4) == sqrt(4)", "f", ("pass",)),
    Hostile("temporary_folder", "benign", "import os, tempfile\ndef f(s):\n"
            "    with tempfile.TemporaryDirectory() as d:\n        os.makedirs(d + '/a/b')\n"
            "        open(d + '/a/b/c', 'w').write(s)\n        os.symlink('c', d + '/a/b/l')\n"
            "        return open(d + '/a/b/l').read()", ("assert f('hi') == 'hi'",), "f", ("pass",)),
    Hostile("qsort_callback", "benign", "import ctypes\ndef f():\n"
            "    return ctypes.sizeof(ctypes.c_int)", ("assert f() == 4",), "f", ("pass", "fail")),
    Hostile("thread_lock", "benign", "import threading\ndef f(n):\n    lock, out = threading.Lock(), []\n"
            "    def work(i):\n        with lock: out.append(i)\n"
            "    ts = [threading.Thread(target=work, args=(i,)) for i in range(n)]\n"
            "    [t.start() for t in ts]; [t.join() for t in ts]\n    return sorted(out)",
            ("assert f(8) == list(range(8))", "assert f(0) == []"), "f", ("pass",)),
    Hostile("copy_file", "benign", "import shutil\ndef f(s):\n    open('a', 'w').write(s)\n"
            "    shutil.copy2('a', 'b')\n    return open('b').read()", ("assert f('hi') == 'hi'",),
            "f", ("pass",)),
    Hostile("recursion", "benign", "import sys\nsys.setrecursionlimit(5000)\n"
            "def f(n): return 0 if n == 0 else 1 + f(n - 1)", ("assert f(3000) == 3000",), "f",
            ("pass",)),
    Hostile("script_sum", "benign", "a, b = map(int, input().split())\nprint(a + b)\nprint(a * b)",
            CASE, None, ("pass",), mode="stdio"),
    Hostile("json_call", "benign", "def f(a, *, b=1): return [a, b]",
            ('{"args": [1], "kwargs": {"b": 2}, "expected": [1, 2]}',), "f", ("pass",), mode="call"),
]  # fmt: skip
