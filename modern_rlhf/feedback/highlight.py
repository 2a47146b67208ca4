"""Python source as HTML with highlighted syntax, safe for any input.

A regular expression finds comments, strings, numbers and names; what it does not know stays plain. It
works on broken programs too, which answers of models often are. An answer with Markdown fences is prose
outside them, which is set as such: an "is" or a "for" of a sentence is no keyword. Every character goes
through `plain`, which escapes it, and spells out those that a page would drop, hide or reorder.
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
    | (?P<number>\b\d\w*(?:\.\d\w*)?(?:(?<=[eE])[+-]\d\w*)?)
    | (?P<decorator>^[ \t]*@[\w.]+)
    | (?P<name>[^\W\d]\w*)
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_KEYWORDS = {*keyword.kwlist, "match", "case"}
_BUILTINS = {name for name in dir(builtins) if not name.startswith("_")} - _KEYWORDS


# What a browser drops (NUL), hides (zero width) or uses to reorder what follows (Trojan source,
# CVE-2021-42574). The joiners U+200C and U+200D stay: scripts and emoji are written with them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]"
)

# Nothing after the mark can fail to match, so hostile text costs no backtracking.
_FENCE = re.compile(r"^ {0,3}(?P<mark>`{3,}|~{3,})(?P<info>[^\n]*)", re.MULTILINE)
_PYTHON = {"", "py", "python", "python2", "python3", "pycon", "ipython"}


def plain(text: str) -> str:
    """`text` as HTML without colours; characters that could not be seen as their numbers."""
    return _UNSEEN.sub(
        lambda found: f'<span class="unseen">U+{ord(found.group()):04X}</span>', html.escape(text)
    )


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
        parts.append(f'<span class="fence">{plain(fence.group())}</span>')
        position, opened = fence.end(), fence if opened is None else None
    if not parts:
        return _python(source)
    return "".join([*parts, _block(source[position:], opened)])


def _block(text: str, opened: re.Match[str] | None) -> str:
    """What lies before a fence: prose, or a block of the language that its first fence named."""
    if opened is None:
        return f'<span class="prose">{plain(text)}</span>' if text else ""
    language = (opened["info"].split() or [""])[0].lower()
    return _python(text) if language in _PYTHON else plain(text)


def _python(source: str) -> str:
    parts = []
    position = 0
    for match in _TOKEN.finditer(source):
        kind = match.lastgroup or ""
        text = match.group()
        if kind == "name":
            kind = "keyword" if text in _KEYWORDS else "builtin" if text in _BUILTINS else ""
        parts.append(plain(source[position : match.start()]))
        escaped = plain(text)
        parts.append(f'<span class="{kind}">{escaped}</span>' if kind else escaped)
        position = match.end()
    parts.append(plain(source[position:]))
    return "".join(parts)
