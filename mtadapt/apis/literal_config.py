"""Read the config that a checkpoint carries without executing it."""

from __future__ import annotations

import ast
from typing import Any

from mmengine.config import Config

from mtadapt.errors import MTAdaptError


def literal_config(text: str, source: str) -> Config:
    """Turn the text of a dumped config into a config.

    MMEngine would run the text as a Python program, and whoever made the checkpoint could have put anything there.
    A dumped config has nothing but names, literals and ``dict(...)``, which is all that is understood here.

    Args:
        text: what ``Config.pretty_text`` gave.
        source: where it comes from, for messages.

    Raises:
        MTAdaptError: when there is something else in it.
    """
    try:
        settings: dict[str, Any] = {}
        for statement in ast.parse(text).body:
            if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
                raise ValueError(f"line {statement.lineno} is no setting")
            settings[statement.targets[0].id] = _value(statement.value)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise MTAdaptError(
            f"{source}: its config cannot be read safely ({str(error).splitlines()[0]}); give the config file"
        ) from error
    return Config(settings)


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name == "dict" and not node.args and all(keyword.arg for keyword in node.keywords):
            return {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
        if name == "float" and len(node.args) == 1 and not node.keywords:
            return float(_value(node.args[0]))
        raise ValueError(f"line {node.lineno} calls {ast.unparse(node.func)}")
    if isinstance(node, ast.Dict):
        keys = [_value(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Set):
        return {_value(item) for item in node.elts}
    return ast.literal_eval(node)
