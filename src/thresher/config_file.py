"""Which keys a YAML file of options holds and on which line, to tell mistakes with their place."""

from __future__ import annotations

from pathlib import Path

import yaml

from thresher.errors import UserError


def lines_of_keys(file: str) -> dict[str, int]:
    """The line of each key, counted from 1; ``mct.views`` is a key below another.

    Raises:
        UserError: there is no such file, it is no YAML mapping, or a key stands in it twice.
    """
    path = Path(file)
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), yaml.SafeLoader)
    except FileNotFoundError:
        raise UserError(f"--config: there is no file {file}.") from None
    except IsADirectoryError:
        raise UserError(f"--config: {file} is a folder; name a YAML file of options.") from None
    except PermissionError:
        raise UserError(f"--config: no right to read {file}. Change its rights.") from None
    except UnicodeDecodeError:
        raise UserError(f"--config: {file} is not UTF-8 text. Save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"--config: cannot read {file}: {error.strerror or error}.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"--config: {file}{where}: not valid YAML, {error.problem}.") from None
    except (yaml.YAMLError, RecursionError) as error:
        detail = " ".join(str(error).split())[:200]
        raise UserError(f"--config: {file} is not valid YAML: {detail}.") from None
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"--config: {file} is no YAML file of options (lines of 'key: value').")
    lines: dict[str, int] = {}
    _collect(file, root, "", lines)
    return lines


def _collect(file: str, node: yaml.MappingNode, prefix: str, lines: dict[str, int]) -> None:
    for key_node, value in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue  # '<<: *other': what it brings stands where the other is
        key, line = f"{prefix}{key_node.value}", key_node.start_mark.line + 1
        if key in lines:
            raise UserError(
                f"--config: {file} names the key '{key}' twice, on lines {lines[key]} and {line}. "
                "Remove one."
            )
        lines[key] = line
        if isinstance(value, yaml.MappingNode):
            _collect(file, value, f"{key}.", lines)
