"""The code in a completion: one extractor for rewards, metrics and evaluation.

`answer_code` is for answers to a task, whose beginning of a program (`metadata["prefix"]`, `["suffix"]`:
HumanEval, ODEX) they may continue; `extract_code` for text alone.

It strips what chat models put around code (Markdown fences, prose before and after), completes a
bare body with the signature it was asked to continue, and keeps the imports and helpers of the
prompt that a rewritten function still needs. It repairs nothing: code that does not parse comes
back as it was found. It never executes or compiles anything and is linear in the text, with a
bounded number of parses of at most `MAX_PARSED` characters, so a megabyte of brackets costs
milliseconds.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from dataclasses import dataclass

from modern_rlhf.records import Task

MAX_PARSED = 64 << 10
"""Characters that are parsed at most; longer text is only searched for fences and prose."""
_MAX_CUTS = 12
_MAX_STARTS = 12

_FENCE = re.compile(r"^[ \t]{0,3}(```+|~~~+)[ \t]*([\w+#.-]*)[^\n`]*$", re.MULTILINE)
_PYTHON = {"", "py", "python", "python3", "python2", "py3", "pycon", "code", "ipython"}
_CODE_LINE = re.compile(
    r"(?:async\s+def|def|class|import|from|@|if|for|while|with|try|return|print\s*\(|[A-Za-z_]\w*"
    r"(?:\[[^\]]*\]|\.\w+)*\s*(?:=|\+=|\())"
)
_STRONG_LINE = re.compile(
    r"(?:async\s+def\s+\w|def\s+\w|class\s+\w|import\s+\w|from\s+\S+\s+import|@\w)"
)
_MARKS = (("[PYTHON]", "[/PYTHON]"), ("[BEGIN]", "[DONE]"))
_AROUND = ("prefix", "suffix")
_INLINE = re.compile(r"```(?:python\b|py\b)?[ \t]*([^`]+)```")
_PROMPT_MARK = re.compile(r"^(?:>>>|\.\.\.)(?: |$)", re.MULTILINE)


@dataclass(frozen=True)
class Extracted:
    """The code, whether it differs from the completion, and what was done.

    `how` joins steps with `+`: `as-is`, `tags`, `fence`, `open-fence`, `doctest`, `dedent`,
    `prose`, `body`, `preamble`; of `answer_code` also `continued`.
    """

    code: str
    changed: bool
    how: str


def parses(code: str) -> bool:
    """Whether the text is syntactically Python; never raises, False above `MAX_PARSED`."""
    return _error_line(code) is None


def _error_line(code: str) -> int | None:
    """None when it parses, else the 1-based line of the error (0 when unknown)."""
    if len(code) > MAX_PARSED:
        return 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except SyntaxError as error:
        return error.lineno or 0
    except (ValueError, RecursionError, MemoryError, OverflowError):
        return 0
    return None


def extract_code(
    text: str, *, prompt_code: str | None = None, entry_point: str | None = None
) -> Extracted:
    """The program in a completion.

    Args:
        text: the decoded completion.
        prompt_code: the code the completion continues or was shown (HumanEval's signature with its
            docstring and imports); None when the prompt was words.
        entry_point: the function or class asked for; decides between several fenced blocks.

    Returns:
        The code, which may be empty and need not parse.
    """
    steps: list[str] = []
    code = text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    unmarked = _unmarked(code)
    if unmarked != code:
        code = unmarked
        steps.append("tags")
    fenced = _fenced(code, entry_point)
    if fenced is not None:
        code, step = fenced
        steps.append(step)
    if ">>> " in code and not parses(code):
        lines = [line for line in code.split("\n") if _PROMPT_MARK.match(line.lstrip())]
        stripped = "\n".join(_PROMPT_MARK.sub("", line.lstrip(), count=1) for line in lines)
        if stripped.strip() and parses(stripped):
            code = stripped
            steps.append("doctest")
    code, made = _complete(code, prompt_code, entry_point)
    steps += made
    changed = code.strip("\n") != text.strip("\n")
    return Extracted(code, changed, "+".join(steps) or "as-is")


def _unmarked(text: str) -> str:
    """What follows a model's thoughts, and what stands between marks around the code.

    A program that speaks of a mark is left alone: in text that parses, thoughts don't count and bracket
    marks only on lines of their own (`[BEGIN]` alone would parse).
    """
    code = text
    if "</think>" in code and not parses(code):
        code = code.partition("</think>")[2]
        while "<think>" in code and "</think>" in code and not parses(code):
            code = code.partition("</think>")[2]
    for begin, end in _MARKS:
        if begin in code:
            line = r"^[ \t]*{}[ \t]*$" if parses(code) else "{}"
            opened = list(re.finditer(line.format(re.escape(begin)), code, re.MULTILINE))
            if opened:
                rest = code[opened[-1].end() :]
                code = re.split(line.format(re.escape(end)), rest, maxsplit=1, flags=re.MULTILINE)[
                    0
                ]
    return code


def answer_code(text: str, task: Task | None) -> Extracted:
    """The whole program of an answer to `task`; as `extract_code` where there is none.

    A task may give the beginning of the program (`metadata["prefix"]`) and its end (`["suffix"]`); an
    answer that writes the entry point anew stands alone. `how` may be `continued` too.
    """
    prefix, suffix = (str((task.metadata if task else {}).get(key) or "") for key in _AROUND)
    entry_point = task.entry_point if task else None
    continues_line = prefix.rstrip(" \t")[-1:] not in ("", "\n")
    shown = prefix if prefix and not continues_line else None
    found = extract_code(text, prompt_code=shown, entry_point=entry_point)
    whole = re.search(
        rf"^(?:async\s+)?def\s+{re.escape(entry_point or '')}\b", found.code, re.MULTILINE
    )
    if continues_line and found.code.strip() and not whole:
        # ODEX ends its prompt in the middle of a line: `return `, `x = `.
        return Extracted(prefix + found.code.lstrip() + suffix, True, "continued")
    if suffix and "body" in found.how.split("+"):
        return Extracted(found.code + suffix, True, found.how)
    return found


def _fenced(text: str, entry_point: str | None) -> tuple[str, str] | None:
    """The best fenced block: the first that defines the entry point, else the first with a
    definition, else the first that is not marked as another language."""
    if ("```" not in text and "~~~" not in text) or parses(text):
        return None  # fences inside a string of a whole program are its own
    blocks: list[tuple[str, str, bool]] = []
    opened: re.Match[str] | None = None
    for match in _FENCE.finditer(text):
        if opened is None:
            opened = match
        elif match[1].startswith(opened[1]) and not match[2]:
            blocks.append((opened[2].lower(), text[opened.end() + 1 : match.start()], True))
            opened = None
    if opened is not None:
        rest = text[opened.end() + 1 :]
        before = text[: opened.start()]
        closing = not opened[2] and bool(before.strip()) and parses(before) and not parses(rest)
        if not blocks and rest.strip() and not closing:
            blocks.append((opened[2].lower(), rest, False))
        elif not blocks:  # a lone closing fence: the code came before it
            blocks.append(("", before, True))
    if not blocks:
        inline = _INLINE.search(text)
        if inline is not None:
            blocks.append(("", inline[1].strip(), True))
    usable = [block for block in blocks if block[0] in _PYTHON] or blocks
    if not usable:
        return None
    wanted = re.compile(rf"^\s*(?:async\s+def|def|class)\s+{re.escape(entry_point or '')}\b", re.M)
    defines = re.compile(r"^\s*(?:async\s+def|def|class)\s+\w+", re.M)
    ranked = [b for b in usable if entry_point and wanted.search(b[1])]
    ranked += [b for b in usable if defines.search(b[1])] + usable
    _, code, closed = ranked[0]
    return code, "fence" if closed else "open-fence"


def _complete(code: str, prompt_code: str | None, entry_point: str | None) -> tuple[str, list[str]]:
    """Code that parses where that is possible: prose cut off, body joined to its signature."""
    defined = _defines(code, entry_point)
    if prompt_code and not defined:
        body = _as_body(code, prompt_code)
        if body is not None:
            return body, ["body"]
    steps: list[str] = []
    if not parses(code):
        found = _without_prose(code)
        if found is not None and found != code:
            kind = "dedent" if found.strip() == textwrap.dedent(code).strip() else "prose"
            code = found
            steps.append(kind)
    if prompt_code and entry_point and _defines(code, entry_point):
        preamble = _preamble(prompt_code, entry_point)
        if preamble and preamble.strip() not in code:
            return preamble + "\n\n" + code, [*steps, "preamble"]
    return code, steps


def _defines(code: str, entry_point: str | None) -> bool:
    name = re.escape(entry_point) if entry_point else r"\w+"
    return re.search(rf"^[ \t]*(?:async[ \t]+def|def|class)[ \t]+{name}\b", code, re.M) is not None


def _as_body(code: str, prompt_code: str) -> str | None:
    """`prompt_code` continued by the completion, cut where it stops being its body."""
    head = prompt_code if prompt_code.endswith("\n") else prompt_code + "\n"
    lines = code.split("\n")
    first = next((line for line in lines if line.strip()), "")
    if not first:
        return None
    shapes = [code]
    if not first.startswith((" ", "\t")):
        rest = [line for line in lines if line.strip()][1:]
        if rest and all(line.startswith((" ", "\t")) for line in rest):
            shapes = ["    " + code.lstrip(" \t"), textwrap.indent(code, "    ")]
        else:
            shapes = [textwrap.indent(code, "    ")]
    for shape in shapes:
        joined = _cut_to_parse(head + shape, keep=head.count("\n") + 1)
        if joined is not None:
            return joined
    return None


def _cut_to_parse(code: str, keep: int) -> str | None:
    """The longest prefix found that parses, of more than `keep` lines; None when there is none."""
    lines = code.split("\n")
    for _ in range(_MAX_CUTS):
        bad = _error_line("\n".join(lines))
        if bad is None:
            return "\n".join(lines)
        cut = min(bad, len(lines)) - 1
        while cut > 0 and not lines[cut - 1].strip():
            cut -= 1
        if cut <= 0 or cut >= len(lines) or cut < keep:
            return None
        lines = lines[:cut]
    return None


def _without_prose(code: str) -> str | None:
    """The code between a chat answer's opening and closing words; None when nothing is found."""
    plain = textwrap.dedent(code)
    if parses(plain):
        return plain
    lines = plain.split("\n")
    strong = [i for i, line in enumerate(lines) if _STRONG_LINE.match(line.lstrip())]
    weak = [i for i, line in enumerate(lines) if _CODE_LINE.match(line.lstrip())]
    for start in [*strong[:_MAX_STARTS], *weak[:_MAX_STARTS]]:
        block = textwrap.dedent("\n".join(lines[start:]))
        found = _cut_to_parse(block, keep=1)
        if found is not None and found.strip():
            return found
    return None


def _preamble(prompt_code: str, entry_point: str) -> str:
    """What stands before the entry point in the prompt: imports and helpers it may need."""
    pattern = rf"^(?:async[ \t]+def|def|class)[ \t]+{re.escape(entry_point)}\b"
    match = re.search(pattern, prompt_code, re.M)
    if match is None:
        return ""
    before = prompt_code[: match.start()].rstrip()
    while before.split("\n")[-1].startswith("@"):
        before = before[: before.rfind("\n")].rstrip() if "\n" in before else ""
    return before if before and parses(before) else ""
