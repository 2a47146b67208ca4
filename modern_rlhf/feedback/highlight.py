"""Python source as HTML with highlighted syntax, safe for any input.

A regular expression finds comments, strings, numbers and names; what it does not know stays plain. It
works on broken programs too, which answers of models often are. Every character goes through
`html.escape`.
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


def highlight(source: str) -> str:
    """`source` as HTML: escaped text with `<span class="...">` around what was recognised."""
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
