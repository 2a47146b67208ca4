"""Configurations to and from JSON and YAML, and `section.field=value` overrides.

Knows files and the sections, not what any field does. PyYAML is imported only when a YAML file is
read or written.
"""

from __future__ import annotations

import dataclasses
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
            raise ConfigError(f"unknown section {name!r}{nearest(str(name), known)}")
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


def load_config(path: str | Path, *, base: ModernRLHFConfig | None = None) -> ModernRLHFConfig:
    """Read a `.json`, `.yaml` or `.yml` configuration.

    Raises:
        ConfigError: the file is missing, unreadable, malformed, or holds unknown keys.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration file {path} cannot be read as UTF-8: {error}") from None
    try:
        if path.suffix in (".yaml", ".yml"):
            import yaml

            try:
                values = yaml.load(text, Loader=_yaml_loader())
            except yaml.YAMLError as error:
                raise ConfigError(
                    f"{path} is not valid YAML: {' '.join(str(error).split())}"
                ) from None
        elif path.suffix == ".json":
            values = json.loads(text)
        else:
            raise ConfigError(f"{path}: a configuration file ends in .json, .yaml or .yml")
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    if isinstance(values, Mapping) and "config" in values and "versions" in values:
        values = values["config"]  # the config.json a run leaves wraps it with versions
    return config_from_dict({} if values is None else values, base=base)


def _yaml_loader() -> Any:
    """The safe loader, reading `1e-4` as the number everyone means (YAML 1.1 wants `1.0e-4`)."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        """A copy: resolvers added to it touch no other user of PyYAML."""

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

    Values are read as JSON where they parse (numbers, booleans, null, lists) and as text otherwise.

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
            values[section] = [word for word in text.split(",") if word]
            continue
        if section not in SECTIONS or not dot:
            raise ConfigError(
                f"--set {override!r}: unknown section {section!r}"
                f"{nearest(section, [*SECTIONS, *LISTS])}"
            )
        values.setdefault(section, {})[key] = _parse(text, section, key)
    return config_from_dict(values, base=config)


def _parse(text: str, section: str, key: str) -> Any:
    fields = {field.name: str(field.type) for field in dataclasses.fields(SECTIONS[section])}
    if fields.get(key) == "str":
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        lowered = text.strip().lower()
        return {"true": True, "false": False, "none": None}.get(lowered, text)
