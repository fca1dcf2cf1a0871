"""Dataclass fields to command-line options: one definition for flags, YAML keys and help."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
import typing
from argparse import ArgumentError, ArgumentTypeError
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from thresher.config_file import lines_of_keys
from thresher.errors import UserError

_BOOLEANS = {
    "true": "true", "yes": "true", "on": "true", "1": "true",
    "false": "false", "no": "false", "off": "false", "0": "false",
}  # fmt: skip
_COMPLAINTS = (ArgumentError, ArgumentTypeError)


class Parser(ArgumentParser):
    """A parser whose complaints are ``UserError`` and name the nearest right option."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, exit_on_error=False, **kwargs)

    def add_fields(self, options: type[Any], prefix: str = "") -> None:
        """Add an option per field: ``--lr-max`` for ``lr_max``, ``--mct.x`` below a prefix."""
        hints = typing.get_type_hints(options)
        for field in dataclasses.fields(options):
            text = field.metadata.get("help", "")
            flag = f"--{prefix}{field.name.replace('_', '-')}"
            self.add_argument(flag, type=hints[field.name], default=field.default, help=text)

    def parse(self, arguments: Sequence[str]) -> Namespace:
        """Parse, or say in a sentence what is wrong.

        Raises:
            UserError: an unknown option, a value of the wrong kind, a bad configuration file.
        """
        for file in _values_after("--config", arguments):
            self._check_file(file)
        try:
            return self.parse_args(_with_values(arguments, self._switches()))
        except _COMPLAINTS as error:
            raise UserError(self._explain(str(error))) from None

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """argparse calls this for some mistakes in place of raising."""
        raise UserError(self._explain(message)) from ex

    def _check_file(self, file: str) -> None:
        """Refuse a configuration file by the line that is wrong, before anything is taken of it."""
        lines = lines_of_keys(file)
        known = {action.dest for action in self._actions}
        groups = {key[:end] for key in known for end, mark in enumerate(key) if mark == "."}
        for key, line in lines.items():
            if key not in known | groups:
                near = difflib.get_close_matches(key.replace("-", "_"), known, n=3, cutoff=0.5)
                hint = f"Did you mean {' or '.join(near)}?" if near else f"See {self.prog} --help."
                raise UserError(f"{file}, line {line}: unknown key '{key}'. {hint}")
            if key in groups and not any(other.startswith(f"{key}.") for other in lines):
                raise UserError(
                    f"{file}, line {line}: '{key}' takes options of its own, indented on the lines "
                    f"below it. See {self.prog} --help."
                )
        try:
            self.parse_path(file, env=False, defaults=False)
        except (*_COMPLAINTS, UserError) as error:
            what = str(error) if isinstance(error, UserError) else self._explain(str(error))
            option = re.match(r"--([\w.-]+)", what)
            key = option.group(1).replace("-", "_") if option else ""
            if key not in lines:
                raise UserError(f"{file} cannot be used: {what}") from None
            rest = what.removeprefix(f"--{option.group(1) if option else ''}")
            raise UserError(f"{file}, line {lines[key]}: {key}{rest}") from None

    def _switches(self) -> set[str]:
        """Boolean options that may stand without a value."""
        return {
            flag
            for action in self._actions
            for flag in action.option_strings
            if getattr(action, "_typehint", None) is bool
        }

    def _explain(self, message: str) -> str:
        flags = [flag for action in self._actions for flag in action.option_strings]
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        if unknown:
            word = unknown.group(1).split("=")[0]
            near = difflib.get_close_matches(word, flags, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else f"See {self.prog} --help."
            return f"Unknown option '{word}'. {hint}"
        kinds = re.findall(r"Expected an? <class '(\w+)'>", message)
        wrong = re.search(r"Given value: (.*)|Got value: (.*)", message)
        key = re.search(r'"([\w.-]+)"', message)
        if kinds and wrong and key:
            words = {"int": "a whole number", "float": "a number", "bool": "true or false"}
            words["str"] = "text"
            allowed = [words.get(kind, kind) for kind in kinds if kind != "NoneType"]
            choices = re.search(r"Literal\[(.*?)\]", message)
            if choices:
                allowed += re.findall(r"'([^']*)'", choices.group(1))
            flag = key.group(1).replace("_", "-")
            got = wrong.group(1) or wrong.group(2)
            return f"--{flag} takes {' or '.join(allowed)}, not '{got.strip()}'."
        value_of = re.search(
            r'(?:Parser key|argument) "?(?:--)?([\w.-]+)"?:\s*(.*)', message, re.DOTALL
        )
        choice = re.search(r"Expected an? (?:typing\.)?Literal\[(.*?)\]\. Got value: (.*)", message)
        if choice and value_of:
            *some, last = re.findall(r"'([^']*)'", choice.group(1))
            flag = value_of.group(1).replace("_", "-")
            return f"--{flag} takes {', '.join(some)} or {last}, not '{choice.group(2).strip()}'."
        if value_of:
            text = " ".join(value_of.group(2).split()).replace("typing.", "")
            return f"--{value_of.group(1).replace('_', '-')}: {text}"
        return " ".join(message.split())


def values_of(options: type[Any], namespace: Mapping[str, Any] | Namespace) -> Any:
    """Build the dataclass from parsed values."""
    return options(**{f.name: namespace[f.name] for f in dataclasses.fields(options)})


def _values_after(flag: str, arguments: Sequence[str]) -> list[str]:
    apart = [value for word, value in itertools.pairwise(arguments) if word == flag]
    return apart + [w.removeprefix(f"{flag}=") for w in arguments if w.startswith(f"{flag}=")]


def _with_values(arguments: Sequence[str], switches: set[str]) -> list[str]:
    """Let ``--flip`` alone mean ``--flip true``."""
    out: list[str] = []
    for index, word in enumerate(arguments):
        out.append(word)
        following = arguments[index + 1] if index + 1 < len(arguments) else "--"
        if word in switches and following.lower() not in _BOOLEANS:
            out.append("true")
        if word in _BOOLEANS and index and arguments[index - 1] in switches:
            out[-1] = _BOOLEANS[word]
    return out
