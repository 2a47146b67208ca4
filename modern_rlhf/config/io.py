"""Configurations to and from JSON and YAML, and `section.field=value` overrides.

Knows files and the sections, not what any field does. PyYAML is imported only when a YAML file is
read or written.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modern_rlhf.config.fields import nearest, section_from_mapping
from modern_rlhf.config.sections import LISTS, SECTIONS, ModernRLHFConfig
from modern_rlhf.errors import ConfigError


def config_from_dict(values: Any, *, base: ModernRLHFConfig | None = None) -> ModernRLHFConfig:
    """Build a configuration from nested mappings, over `base` (default: the field defaults).

    Raises:
        ConfigError: not a mapping, an unknown section or key (naming the nearest), a wrong type.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"a configuration must be a mapping of sections, not {type(values).__name__}"
        )
    known = [*SECTIONS, *LISTS]
    start = (base or ModernRLHFConfig()).to_dict()
    for name, content in values.items():
        if name not in known:
            raise ConfigError(f"unknown section {name!r}{_whereabouts(str(name), known)}")
        if name in LISTS:
            start[name] = content
            continue
        section_from_mapping(name, SECTIONS[name], content if content is not None else {})
        start[name].update(content or {})
    sections = {
        name: section_from_mapping(name, section, start[name]) for name, section in SECTIONS.items()
    }
    lists = {name: start[name] for name in LISTS}
    return ModernRLHFConfig(**sections, **lists).validate()


def _whereabouts(name: str, known: Sequence[str]) -> str:
    """The nearest section, or the section that holds a field of this name."""
    holders = [
        f"{title}.{name}"
        for title, section in SECTIONS.items()
        if any(field.name == name for field in dataclasses.fields(section))
    ]
    return f"; did you mean {holders[0]!r}?" if holders else nearest(name, known)


def load_config(path: str | Path, *, base: ModernRLHFConfig | None = None) -> ModernRLHFConfig:
    """Read a `.json`, `.yaml` or `.yml` configuration.

    Raises:
        ConfigError: the file is missing, unreadable, malformed, or holds unknown keys or wrong values;
            the message names the file.
    """
    path = Path(path)
    if path.suffix not in (".json", ".yaml", ".yml"):
        what = "a folder" if path.is_dir() else f"of type {path.suffix or '(no suffix)'!r}"
        raise ConfigError(f"{path} is {what}; a configuration file ends in .json, .yaml or .yml")
    text = _read(path)
    try:
        values = _parse_json(text) if path.suffix == ".json" else _parse_yaml(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        kind = "JSON" if path.suffix == ".json" else "YAML"
        raise ConfigError(f"{path} is not valid {kind}: {' '.join(reason.split())}") from None
    if isinstance(values, Mapping) and "config" in values and "versions" in values:
        values = values["config"]  # the config.json a run leaves wraps it with versions
    try:
        return config_from_dict({} if values is None else values, base=base)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.glob("*") if p.name != path.name], n=1
        )
        hint = f"; did you mean {path.with_name(near[0])}?" if near else ""
        raise ConfigError(f"configuration file {path} does not exist{hint}") from None
    except OSError as error:
        raise ConfigError(
            f"configuration file {path} cannot be read: {error.strerror or error}"
        ) from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"configuration file {path} is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"configuration file {path} cannot be read as UTF-8: byte 0x{data[error.start]:02x} on "
            f"line {line}; save it as UTF-8"
        ) from None


def _parse_json(text: str) -> Any:
    """JSON in which a key stands once.

    Raises:
        ValueError: in words, with line and column where there are any.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise ValueError(f"key {key!r} stands twice")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None


def _parse_yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=_yaml_loader())
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _yaml_loader() -> Any:
    """The safe loader, reading `1e-4` as the number everyone means (YAML 1.1 wants `1.0e-4`), and
    refusing a key that stands twice.
    """
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        """A copy: resolvers added to it touch no other user of PyYAML."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                line = node.start_mark.line + 1
                raise ValueError(f"key {twice!r} stands twice in the mapping from line {line} on")
            return super().construct_mapping(node, deep=deep)

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )
    return Loader


def dump_config(config: ModernRLHFConfig, path: str | Path) -> None:
    """Write a configuration as JSON or YAML, by suffix; atomic."""
    from modern_rlhf.utils.atomic import write_text

    path = Path(path)
    if path.suffix in (".yaml", ".yml"):
        import yaml

        values = config.to_dict()
        # YAML reads these as line ends and would not give them back: such a file is all escapes.
        breaks = any(mark in json.dumps(values, ensure_ascii=False) for mark in "\x85\u2028\u2029")
        write_text(path, yaml.safe_dump(values, sort_keys=False, allow_unicode=not breaks))
    else:
        write_text(path, json.dumps(config.to_dict(), indent=2, ensure_ascii=False) + "\n")


def apply_overrides(config: ModernRLHFConfig, overrides: Sequence[str]) -> ModernRLHFConfig:
    """A new configuration with `section.field=value` assignments applied, left to right.

    A value is read by the type of its field: text as it is, numbers, `true`, `false`, `null` and `none`
    in any case, a list as JSON or as words with commas between them, a mapping as JSON.

    Raises:
        ConfigError: no `=`, an unknown section or field (naming the nearest), a wrong type or range.
    """
    values: dict[str, Any] = {}
    for override in overrides:
        name, separator, text = override.partition("=")
        if not separator:
            raise ConfigError(f"--set {override!r}: expected section.field=value")
        section, dot, key = name.strip().partition(".")
        if section in LISTS and not dot:
            values[section] = _value(text, "list[str]", override)
            continue
        if section not in SECTIONS or not dot:
            raise ConfigError(
                f"--set {override!r}: unknown section {section!r}"
                f"{_whereabouts(section, [*SECTIONS, *LISTS])}"
            )
        types = {field.name: str(field.type) for field in dataclasses.fields(SECTIONS[section])}
        values.setdefault(section, {})[key] = _value(text, types.get(key, ""), override)
    return config_from_dict(values, base=config)


_WORDS = {"true": True, "false": False, "null": None, "none": None}


def _value(text: str, kind: str, override: str) -> Any:
    """The value that `text` stands for in a field annotated as `kind`."""
    optional = "None" in kind
    if kind == "str":
        return text
    bare = text.strip()
    if optional and bare.lower() in ("null", "none"):
        return None
    if kind.startswith("str") and not bare.startswith('"'):
        return text
    if kind.startswith("list") and not bare.startswith("["):
        return [word.strip() for word in text.split(",") if word.strip()]
    try:
        return json.loads(bare)
    except (ValueError, RecursionError):
        if bare.startswith(("[", "{", '"')):
            raise ConfigError(f"--set {override[:200]!r}: the value is not valid JSON") from None
    try:
        return float(bare)  # forms that JSON does not have: .5, 5., +1e-4
    except ValueError:
        return _WORDS.get(bare.lower(), text)
