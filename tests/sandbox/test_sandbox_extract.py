"""The extractor: what it takes off, what it joins, and that no text is dangerous to it."""

from __future__ import annotations

import time

import pytest

from modern_rlhf.records import Task
from modern_rlhf.sandbox.extract import answer_code, extract_code, parses

HEAD = 'from typing import List\n\n\ndef f(a: List[int], b):\n    """Add."""\n'


@pytest.mark.parametrize(
    ("text", "code", "how"),
    [
        ("def f(a):\n    return a", "def f(a):\n    return a", "as-is"),
        ("", "", "as-is"),
        ("sorted(x)", "sorted(x)", "as-is"),
        ("Sure!\n```python\ndef f(a):\n    return a\n```\nHope it helps", "def f(a):\n    return a\n", "fence"),
        ("```\nx = 1\n", "x = 1\n", "open-fence"),
        ("x = 1\n```\nThat's it", "x = 1\n", "fence"),
        ("use ```python x.sort()``` here", "x.sort()", "fence"),
        ("```bash\npip install x\n```\n```py\nimport x\n```", "import x\n", "fence"),
        ("Here it is:\n\ndef f(a):\n    return a\n\nThis works by magic, you see.", "def f(a):\n    return a", "prose"),
        ("  def f(a):\n    return a\n", "def f(a):\n  return a\n", "dedent"),
        (">>> x = 1\n>>> y = 2\n1", "x = 1\ny = 2", "doctest"),
        ("<think>```python\nbad\n```</think>x = 1", "x = 1", "tags"),
        ("<think>a</think>b<think>c</think>x = 1", "x = 1", "tags"),
        ("<think>hm</think>\n```\ns.split('</think>')\n```", "s.split('</think>')\n", "tags+fence"),
        ("s.split('</think>')[0]", "s.split('</think>')[0]", "as-is"),
        ("[BEGIN]\nx = 1\n[DONE]", "\nx = 1\n", "tags"),
        ("Well: [PYTHON]x = 1[/PYTHON] it is", "x = 1", "tags"),
        ('def f():\n    return "[BEGIN]"\n', 'def f():\n    return "[BEGIN]"\n', "as-is"),
        ('p = "a ```x``` b".split()', 'p = "a ```x``` b".split()', "as-is"),
        ('"""Say:\n```\nf()\n```\n"""\nx = 1', '"""Say:\n```\nf()\n```\n"""\nx = 1', "as-is"),
        ("I would use x.sort() for that.", "I would use x.sort() for that.", "as-is"),
    ],
)  # fmt: skip
def test_shapes(text: str, code: str, how: str) -> None:
    found = extract_code(text)
    assert (found.code, found.how) == (code, how)
    assert found.changed == (code.strip("\n") != text.strip("\n"))


def test_the_block_that_defines_the_entry_point_wins() -> None:
    text = (
        "```python\nx = 1\n```\nthen\n```python\ndef g(): pass\n```\n```python\ndef f(): pass\n```"
    )
    assert extract_code(text, entry_point="f").code == "def f(): pass\n"
    assert extract_code(text).code == "def g(): pass\n"


@pytest.mark.parametrize(
    "body", ["    return a + b\n", "return a + b", "    return a + b\n\nHope this helps you!"]
)
def test_a_bare_body_is_joined_to_its_signature(body: str) -> None:
    found = extract_code(body, prompt_code=HEAD, entry_point="f")
    assert found.how == "body" and parses(found.code)
    space: dict[str, object] = {}
    exec(found.code, space)
    assert space["f"](2, 3) == 5  # type: ignore[operator]


def test_a_rewritten_function_keeps_the_imports_it_was_shown() -> None:
    found = extract_code("def f(a: List[int], b):\n    return a", prompt_code=HEAD, entry_point="f")
    assert found.how == "preamble" and found.code.startswith("from typing import List")


@pytest.mark.parametrize(
    ("answer", "prefix", "suffix", "how"),
    [
        ("    return a + b\n", "def f(a, b):\n", "", "body"),
        ("def f(a, b):\n    return a + b\n", "def f(a, b):\n", "", "as-is"),
        ("a + b", "def f(a, b):\n    return ", "", "continued"),
        ("```\na + b\n```", "def f(a, b):\n    return ", "\n", "continued"),
        ("    c = a + b\n", "def f(a, b):\n", "    return c\n", "body"),
        ("def f(a, b):\n    return a + b\n", None, None, "as-is"),
    ],
)
def test_an_answer_that_continues_its_task_becomes_a_program(
    answer: str, prefix: str | None, suffix: str | None, how: str
) -> None:
    around = {"prefix": prefix, "suffix": suffix} if prefix is not None else {}
    found = answer_code(answer, Task("1", "add", "", (), entry_point="f", metadata=around))
    assert found.how == how
    space: dict[str, object] = {}
    exec(found.code, space)
    assert space["f"](2, 3) == 5  # type: ignore[operator]


@pytest.mark.parametrize(
    "text",
    [
        "(" * (1 << 20), "[" * 10000 + "]" * 10000, "\n" * (1 << 20), "```\n" * (1 << 18),
        "def f(\n" * 9000, "\0" * (1 << 20), "\ud800" * (1 << 20), "`" * (1 << 20), "~" * (1 << 20),
        " " * (1 << 20), ">>> (\n" * 100000, "a." * (1 << 19), "-" * 60000 + "1", "x = \n" * 12000,
        "not " * 15000 + "1", "lambda:" * 9000 + "1", "if a:\n " * 9000,
    ],
    ids=range(17),
)  # fmt: skip
def test_hostile_text_costs_little_and_raises_nothing(text: str) -> None:
    started = time.process_time()
    extract_code(text, prompt_code=HEAD, entry_point="f")
    assert time.process_time() - started < 3
