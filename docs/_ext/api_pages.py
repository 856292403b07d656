"""Pages of the API reference, one for each package, written before Sphinx reads its sources.

A package's public names are those of its ``__all__``. A name that a package takes from a subpackage is documented there
and linked here, so that every object has one place. The lists are read from the sources, so a new package or a new name
has its documentation without a change of the pages.
"""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "mtadapt"
# The ground floor: modules that every package may import, and that belong to none.
MODULES = ("structures", "registry", "errors")


def public_names(init: Path) -> dict[str, str]:
    """Names of a package's ``__all__`` and the modules that they are imported from.

    Args:
        init: The package's ``__init__.py``.

    Returns:
        Name to module; the package itself for what is not imported. Empty without an ``__all__`` of plain strings.
    """
    origin: dict[str, str] = {}
    names: list[str] = []
    package = ".".join(init.parent.relative_to(ROOT).parts)
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            origin |= {alias.asname or alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            names = [item.value for item in getattr(node.value, "elts", ()) if isinstance(item, ast.Constant)]
    return {name: origin.get(name, package) for name in names}


def packages() -> dict[str, dict[str, str]]:
    """All packages below ``mtadapt`` that export something, with their public names."""
    found = {}
    for init in sorted((ROOT / PACKAGE).rglob("__init__.py")):
        names = public_names(init)
        package = ".".join(init.parent.relative_to(ROOT).parts)
        if package != PACKAGE and names:
            found[package] = names
    return found


def kind_of(package: str, name: str) -> str:
    """How autodoc calls the kind of a public name: its directive without the ``auto``."""
    value = getattr(import_module(package), name)
    if inspect.isclass(value):
        return "exception" if issubclass(value, Exception) else "class"
    return "function" if inspect.isroutine(value) else "data"


def page_of(package: str, names: dict[str, str], exported: dict[str, dict[str, str]]) -> str:
    """The reStructuredText of one package's page."""
    own, elsewhere = [], []
    for name, module in sorted(names.items(), key=lambda item: item[0].lower()):
        if f"{package}.{name}" in exported:
            elsewhere.append(f"- :mod:`{package}.{name}`")
        elif module != package and name in exported.get(module, {}):
            elsewhere.append(f"- :obj:`~{module}.{name}` of :mod:`{module}`")
        else:
            own.append(name)
    lines = [package, "=" * len(package), "", f".. automodule:: {package}", "   :no-members:", ""]
    if own:
        lines += [f".. currentmodule:: {package}", "", ".. autosummary::", "", *(f"   {name}" for name in own), ""]
    if elsewhere:
        lines += ["From its subpackages:", "", *elsewhere, ""]
    for name in own:
        lines += [f".. auto{kind_of(package, name)}:: {package}.{name}", ""]
    return "\n".join(lines)


def page_of_module(module: str) -> str:
    """The page of a module of the ground floor, with all that it defines."""
    return "\n".join([module, "=" * len(module), "", f".. automodule:: {module}", "   :members:", ""])


def write_pages(app: Sphinx) -> None:
    """Write all pages into ``api`` and remove those of packages that are gone."""
    exported = packages()
    pages = {name: page_of(name, names, exported) for name, names in exported.items()}
    pages |= {name: page_of_module(name) for name in (f"{PACKAGE}.{module}" for module in MODULES)}
    entries = "\n".join(f"   {name}" for name in sorted(pages))
    intro = "The public names of every package: what ``__all__`` lists. All else may change without notice."
    pages["index"] = f"API\n===\n\n{intro}\n\n.. toctree::\n   :maxdepth: 1\n\n{entries}\n"
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.rst"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        file = folder / f"{name}.rst"
        if not file.exists() or file.read_text(encoding="utf-8") != text:  # an unchanged page is not read again
            file.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    return dict(version="1", parallel_read_safe=True)
