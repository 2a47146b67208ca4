'''How a prompt or a conversation becomes the text a language model reads.

Where the tokenizer has a chat template and the style is `auto`, that template is used. Otherwise the
plain template: a user turn is a docstring, the answer follows on the next line, and the end token
closes it:

    """sort a list `x` in descending order"""
    x.sort(reverse=True)<eos>

In a longer conversation the next user turn starts on a new line after the end token; a system text
stands before the first turn, followed by a blank line. A prompt that holds triple double quotes
itself is code already (a signature with its docstring) and is given as it is, with a line break at
its end if it has no white space there. Nothing here makes token ids.
'''

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from modern_rlhf.errors import ConfigError, ModelError
from modern_rlhf.records import Demonstration, Message

Style = Literal["auto", "chat", "plain"]
STYLES = ("auto", "chat", "plain")

_QUOTES = '"""'

# Shadows transformers' own function of this name; the date is what Llama 3's templates fall back on.
_FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"


class Segment(NamedTuple):
    """A stretch of text; `trained` text carries loss, `markup` may spell special tokens."""

    text: str
    trained: bool
    markup: bool


def resolve_style(tokenizer: Any, style: Style) -> Literal["chat", "plain"]:
    """What `auto` means for this tokenizer.

    Raises:
        ConfigError: an unknown style. ModelError: `chat` without a chat template.
    """
    if style not in STYLES:
        raise ConfigError(f"template style {style!r}: expected one of {', '.join(STYLES)}")
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if style == "chat" and not has_template:
        raise ModelError(
            f"the tokenizer of {getattr(tokenizer, 'name_or_path', '') or 'this model'} has no chat "
            "template; use style 'plain' or 'auto', or another model"
        )
    return "chat" if has_template and style != "plain" else "plain"


def render_prompt(
    tokenizer: Any,
    prompt_or_messages: str | Sequence[Message],
    *,
    style: Style = "auto",
    system: str | None = None,
) -> str:
    """The text up to the place where the model's answer starts.

    Args:
        tokenizer: only its chat template and end token are read.
        prompt_or_messages: a user's text, or turns that end with the user's.
        system: a system text to put in front, unless the turns bring their own.
    """
    messages = _with_system(prompt_or_messages, system)
    if resolve_style(tokenizer, style) == "chat":
        return _chat(tokenizer, messages, answer_follows=True)
    return "".join(segment.text for segment in _plain_segments(tokenizer, messages))


def render_segments(
    tokenizer: Any,
    demonstration: Demonstration,
    *,
    style: Style = "auto",
    system: str | None = None,
) -> list[Segment]:
    """A demonstration in segments: loss on the assistant's turns only.

    The final end token is not part of the text: `encoding` appends it as an id.
    """
    messages = _with_system(demonstration.messages or demonstration.prompt, system)
    if not demonstration.messages:
        messages = [*messages, Message("assistant", demonstration.response)]
    if resolve_style(tokenizer, style) == "plain":
        return _plain_segments(tokenizer, messages)
    return _chat_segments(tokenizer, messages)


def _with_system(content: str | Sequence[Message], system: str | None) -> list[Message]:
    turns = [Message("user", content)] if isinstance(content, str) else list(content)
    if system and not (turns and turns[0].role == "system"):
        turns.insert(0, Message("system", system))
    return turns


def _plain_segments(tokenizer: Any, messages: Sequence[Message]) -> list[Segment]:
    segments = []
    for position, turn in enumerate(messages):
        if turn.role == "system":
            segments.append(Segment(f"{turn.content.strip()}\n\n", False, False))
        elif turn.role == "user":
            segments.append(Segment(_as_docstring(turn.content), False, False))
        else:
            segments.append(Segment(turn.content, True, False))
            if position + 1 < len(messages):
                segments.append(Segment(tokenizer.eos_token or "", True, True))
                segments.append(Segment("\n", False, False))
    return [segment for segment in segments if segment.text]


def _as_docstring(prompt: str) -> str:
    if _QUOTES in prompt:
        return prompt if prompt[-1:].isspace() else prompt + "\n"
    return f"{_QUOTES}{prompt.strip()}{_QUOTES}\n"


def _chat_segments(tokenizer: Any, messages: Sequence[Message]) -> list[Segment]:
    """Cut the rendered conversation where each answer starts and where its turn ends.

    The start is where the turns before it end when an answer is asked for, so that training sees the
    very prefix that generation will see. White space after the end mark belongs to the next turn.
    """
    segments: list[Segment] = []
    done = ""
    for position, turn in enumerate(messages):
        if turn.role != "assistant":
            continue
        prefix = _chat(tokenizer, messages[:position], answer_follows=True)
        whole = _chat(tokenizer, messages[: position + 1], answer_follows=False)
        if not prefix.startswith(done) or not whole.startswith(prefix):
            raise ModelError(
                "the chat template rewrites earlier turns when a turn is added, so loss masks cannot "
                "be made; use style 'plain' or single-turn data"
            )
        segments.append(Segment(prefix[len(done) :], False, True))
        content, end = _turn(whole[len(prefix) :], turn.content)
        segments.append(Segment(content, True, False))
        segments.append(Segment(end, True, True))
        done = prefix + content + end
    return [segment for segment in segments if segment.text]


def _turn(rendered: str, content: str) -> tuple[str, str]:
    """The answer as the template shows it (it may have been stripped), and the mark that ends it."""
    for form in (content, content.strip(), content.rstrip(), content.lstrip()):
        if rendered.startswith(form):
            return form, rendered[len(form) :].rstrip()
    raise ModelError(
        "the chat template changes the text of answers, so loss masks cannot be made; "
        "use style 'plain'"
    )


def _chat(tokenizer: Any, messages: Sequence[Message], *, answer_follows: bool) -> str:
    turns = [{"role": turn.role, "content": turn.content} for turn in messages]
    return chat_text(tokenizer, turns, answer_follows=answer_follows)


def chat_text(
    tokenizer: Any, turns: Sequence[Mapping[str, str]], *, answer_follows: bool = False
) -> str:
    """Turns (`role`, `content`) as the tokenizer's chat template writes them.

    A template that writes today's date writes a fixed one: what a model reads, and is scored by, must
    not change from day to day.

    Args:
        answer_follows: end with what opens an assistant's turn.

    Raises:
        ModelError: no jinja2, or turns that the template refuses.
    """
    try:
        from jinja2 import TemplateError
    except ImportError as error:
        raise ModelError("chat templates need the package jinja2 (pip install jinja2)") from error
    try:
        return str(
            tokenizer.apply_chat_template(
                list(turns),
                chat_template=_FIXED_DATE + tokenizer.get_chat_template(),
                tokenize=False,
                add_generation_prompt=answer_follows,
            )
        )
    except TemplateError as error:
        raise ModelError(
            f"the chat template refuses these turns ({error}); use style 'plain'"
        ) from error
