"""Python source as HTML with highlighted syntax, safe for any input.

A regular expression finds comments, strings, numbers and names; what it does not know stays plain. It
works on broken programs too, which answers of models often are. An answer with Markdown fences is prose
outside them, which is set as such: an "is" or a "for" of a sentence is no keyword. Every character goes
through `html.escape`.
"""

from __future__ import annotations

import builtins
import html
import keyword
import re

_TOKEN = re.compile(
    r"""
    (?P<comment>\#[^\n]*)
    | (?P<string>(?:\b[rRbBuUfF]{1,2})?
        (?:\"\"\".*?(?:\"\"\"|\Z) | '''.*?(?:'''|\Z) | "(?:\\.|[^"\\\n])*"? | '(?:\\.|[^'\\\n])*'?))
    | (?P<number>\b(?:0[xXoObB][\da-fA-F_]+|\d[\d_]*\.?[\d_]*(?:[eE][+-]?\d+)?j?)\b)
    | (?P<decorator>^[ \t]*@[\w.]+)
    | (?P<name>[^\W\d]\w*)
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_KEYWORDS = {*keyword.kwlist, "match", "case"}
_BUILTINS = {name for name in dir(builtins) if not name.startswith("_")} - _KEYWORDS


# Nothing after the mark can fail to match, so hostile text costs no backtracking.
_FENCE = re.compile(r"^ {0,3}(?P<mark>`{3,}|~{3,})(?P<info>[^\n]*)", re.MULTILINE)
_PYTHON = {"", "py", "python", "python2", "python3", "pycon", "ipython"}


def highlight(source: str) -> str:
    """`source` as HTML: escaped text with `<span class="...">` around what was recognised."""
    parts: list[str] = []
    position = 0
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(source):
        if "`" in fence["info"]:
            continue  # code within a line of prose
        closes = opened is None or fence["mark"].startswith(opened["mark"])
        if not closes or (opened is not None and fence["info"].strip()):
            continue  # a fence of another kind inside a block is part of it
        parts.append(_block(source[position : fence.start()], opened))
        parts.append(f'<span class="fence">{html.escape(fence.group())}</span>')
        position, opened = fence.end(), fence if opened is None else None
    if not parts:
        return _python(source)
    return "".join([*parts, _block(source[position:], opened)])


def _block(text: str, opened: re.Match[str] | None) -> str:
    """What lies before a fence: prose, or a block of the language that its first fence named."""
    if opened is None:
        return f'<span class="prose">{html.escape(text)}</span>' if text else ""
    language = (opened["info"].split() or [""])[0].lower()
    return _python(text) if language in _PYTHON else html.escape(text)


def _python(source: str) -> str:
    parts = []
    position = 0
    for match in _TOKEN.finditer(source):
        kind = match.lastgroup or ""
        text = match.group()
        if kind == "name":
            kind = "keyword" if text in _KEYWORDS else "builtin" if text in _BUILTINS else ""
        parts.append(html.escape(source[position : match.start()]))
        escaped = html.escape(text)
        parts.append(f'<span class="{kind}">{escaped}</span>' if kind else escaped)
        position = match.end()
    parts.append(html.escape(source[position:]))
    return "".join(parts)
