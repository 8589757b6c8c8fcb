"""Counts what the house rules limit. ``python tests/structure.py`` prints the table.

Read from the source text alone: nothing is imported, so a broken module is counted like any other.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "duomod"

MOST_FILE_LINES = 400
MOST_FUNCTION_LINES = 60
MOST_ARGUMENTS = 8

#: What is neither written nor read as lines of code: pictures, and libraries that come as they are.
_SOURCES = ("*.py", "*.js", "*.css")
#: A copy shorter than this (in characters of its parsed body) is a coincidence, not a second owner of a fact.
_COPY_LENGTH = 250

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """A Python file and its parsed text. ``name`` is its path from the repository's root, with ``/``."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module(self) -> str:
        """Dotted name of a module of the package."""
        parts = self.path.relative_to(PACKAGE.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"))

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Functions and methods with the names of the classes and functions around them."""
        yield from _functions(self.tree, "")


def _functions(node: ast.AST, around: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        name = around
        if isinstance(child, Function | ast.ClassDef):
            name = f"{around}.{child.name}".lstrip(".")
        if isinstance(child, Function):
            yield name, child
        yield from _functions(child, name)


@cache
def package() -> tuple[Source, ...]:
    """The package's Python files."""
    return tuple(Source(path) for path in sorted(PACKAGE.rglob("*.py")))


@cache
def tests() -> tuple[Source, ...]:
    """The tests' Python files."""
    return tuple(Source(path) for path in sorted((ROOT / "tests").rglob("*.py")))


def long_files() -> dict[str, int]:
    """Python, JavaScript and style sheets of the package, and tests, with more lines than a file should have."""
    paths = [path for pattern in _SOURCES for path in PACKAGE.rglob(pattern)]
    paths += [source.path for source in tests()]
    counts = {path.relative_to(ROOT).as_posix(): _lines(path) for path in paths}
    return {name: count for name, count in sorted(counts.items()) if count > MOST_FILE_LINES}


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def function_lines(function: Function) -> int:
    """Lines from ``def`` to the end without the docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def long_functions() -> dict[str, int]:
    """Functions of the package with more lines than a function should have: ``path:name`` -> lines."""
    return {
        f"{source.name}:{name}": lines
        for source in package()
        for name, function in source.functions()
        if (lines := function_lines(function)) > MOST_FUNCTION_LINES
    }


def argument_count(function: Function) -> int:
    """Arguments of every kind; ``self`` and ``cls`` are not counted."""
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return sum(one is not None and one.arg not in ("self", "cls") for one in every)


def long_signatures() -> dict[str, int]:
    """Functions of the package with more arguments than a function should have."""
    return {
        f"{source.name}:{name}": count
        for source in package()
        for name, function in source.functions()
        if (count := argument_count(function)) > MOST_ARGUMENTS
    }


def imports(source: Source) -> set[str]:
    """Modules of the package that a file imports, anywhere and for whatever reason: also late, also for types only."""
    known = {other.module for other in package()}
    found: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            # ``from duomod.report import tables`` names a module, ``from duomod.report.tables import x`` does not.
            found.update(
                inner if (inner := f"{node.module}.{alias.name}") in known else node.module for alias in node.names
            )
    return found & known - {source.module}


def module_graph() -> dict[str, set[str]]:
    """Module -> modules that it imports."""
    return {source.module: imports(source) for source in package()}


def folder_graph() -> dict[str, set[str]]:
    """Folder -> folders that its modules import from. Modules beside the stages count as folders of their own."""
    files = {source.module: source.path for source in package()}

    def folder(module: str) -> str:
        parent = files[module].parent
        inner = parent.relative_to(PACKAGE).as_posix()
        return module.removeprefix("duomod.") if parent == PACKAGE else inner

    graph: dict[str, set[str]] = {}
    for module, imported in module_graph().items():
        here = folder(module)
        graph.setdefault(here, set()).update({folder(other) for other in imported} - {here})
    return graph


def cycles(graph: Mapping[str, Iterable[str]]) -> list[tuple[str, ...]]:
    """Groups of nodes that reach each other (Tarjan's strongly connected components of more than one node)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[tuple[str, ...]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in order:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], order[other])
        if lowest[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(tuple(sorted(group)))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return sorted(found)


def _definitions(source: Source) -> Iterator[tuple[str, str]]:
    """(Full name, bare name) of a module's functions, classes and constants, and of its classes' methods."""
    # The class in a method's, a transform's or an executor's file is found by the file's name.
    by_file_name = source.path.parent.relative_to(PACKAGE).as_posix() in (
        "methods",
        "sampling/transforms",
        "experiments/executors",
    )
    for node in source.tree.body:
        if isinstance(node, ast.ClassDef) and by_file_name:
            pass
        elif isinstance(node, Function | ast.ClassDef) and not _registered(node):
            yield f"{source.name}:{node.name}", node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            yield from ((f"{source.name}:{name}", name) for name in names)
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, Function) and not _registered(inner):
                    yield f"{source.name}:{node.name}.{inner.name}", inner.name


def _registered(node: Function | ast.ClassDef) -> bool:
    """Whether a decorator hands the function to a library that calls it: a command, a validator."""
    names = set()
    for decorator in node.decorator_list:
        call = decorator.func if isinstance(decorator, ast.Call) else decorator
        names.add(call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", ""))
    return bool(names & {"command", "callback", "model_validator", "field_validator", "field_serializer"})


@dataclass(frozen=True)
class _Uses:
    """Names that a file refers to.

    Attributes:
        bare: Read as they are; a definition's own body does not count as a use of it.
        imported: (module, name) taken from a module; a whole module comes from nowhere.
        attributes: Everything after a dot.
        texts: Words of texts that look like names: a lazily loaded name, an entry point, a forward reference.
    """

    bare: frozenset[str]
    imported: frozenset[tuple[str, str]]
    attributes: frozenset[str]
    texts: frozenset[str]


def _uses(source: Source) -> _Uses:
    bare: set[str] = set()
    imported: set[tuple[str, str]] = set()
    attributes: set[str] = set()
    texts: set[str] = set()
    for top in source.tree.body:
        for node in ast.walk(top):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Store):
                if node.id != getattr(top, "name", ""):
                    bare.add(node.id)
            elif isinstance(node, ast.Attribute):
                attributes.add(node.attr)
            elif isinstance(node, ast.ImportFrom):
                imported.update((node.module or "", alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                imported.update(("", alias.name) for alias in node.names)
            elif isinstance(node, ast.Constant) and re.fullmatch(r"[\w.:\[\], |]+", str(node.value)):
                texts.update(re.findall(r"\w+", str(node.value)))
    return _Uses(frozenset(bare), frozenset(imported), frozenset(attributes), frozenset(texts))


def unused_definitions() -> list[str]:
    """Definitions of the package that nothing in the package, its templates or its entry points refers to."""
    uses = {source: _uses(source) for source in package()}
    attributes = frozenset().union(*(of.attributes for of in uses.values()))
    texts = set().union(*(of.texts for of in uses.values()), _outside_words())
    imported = frozenset().union(*(of.imported for of in uses.values()))
    found = []
    for source, own in uses.items():
        from_here = {name for module, name in imported if module == source.module}
        # A module's function may be called through its module (``tables.summary_table()``).
        imported_whole = source.module.rpartition(".")[::2] in imported or ("", source.module) in imported
        top = own.bare | from_here | texts | (attributes if imported_whole else frozenset())
        for full, name in _definitions(source):
            is_member = "." in full.rpartition(":")[2]
            used = name in (attributes | texts if is_member else top)
            if not used and not (name.startswith("__") and name.endswith("__")):
                found.append(full)
    return found


def _outside_words() -> set[str]:
    """Words by which the templates and the entry points refer to the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = [project.get("scripts", {}), *project.get("entry-points", {}).values()]
    texts = [target for group in points for target in group.values()]
    texts += [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.j2")]
    return {word for text in texts for word in re.findall(r"\w+", text)}


def copies() -> list[tuple[str, ...]]:
    """Groups of functions of the package whose bodies are the same, whatever their names and docstrings."""
    bodies: dict[str, list[str]] = {}
    for source in package():
        for name, function in source.functions():
            body = function.body[1:] if ast.get_docstring(function) is not None else function.body
            text = " ".join(map(ast.dump, body))
            # Methods of one line are what an interface asks for, not a fact of their own.
            lines = (function.end_lineno or 0) - body[0].lineno + 1 if body else 0
            if len(text) > _COPY_LENGTH and (lines > 1 or "." not in name):
                bodies.setdefault(text, []).append(f"{source.name}:{name}")
    return sorted(tuple(group) for group in bodies.values() if len(group) > 1)


def untyped_at_the_network_seam() -> dict[str, int]:
    """How often ``Any`` stands in the files between networks and methods: file -> count, none left out but zeros."""
    seam = [source for source in package() if source.path.parent.name in ("networks", "methods", "shared")]
    counts = {
        source.name: sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(source.tree))
        for source in seam
    }
    return {name: count for name, count in counts.items() if count}


def table() -> str:
    """All counts as text, with the offenders named below."""
    found: dict[str, list[str]] = {
        f"files over {MOST_FILE_LINES} lines": [f"{name}: {lines}" for name, lines in long_files().items()],
        f"functions over {MOST_FUNCTION_LINES} lines": [f"{name}: {n}" for name, n in long_functions().items()],
        f"signatures over {MOST_ARGUMENTS} arguments": [f"{name}: {n}" for name, n in long_signatures().items()],
        "import circles between modules": [" ".join(group) for group in cycles(module_graph())],
        "import circles between folders": [" ".join(group) for group in cycles(folder_graph())],
        "definitions that nothing refers to": unused_definitions(),
        "copies of a function": [" = ".join(group) for group in copies()],
    }
    untyped = untyped_at_the_network_seam()
    rows = [(title, len(names)) for title, names in found.items()]
    rows.append(("Any at the network seam", sum(untyped.values())))
    found["Any at the network seam"] = [f"{name}: {count}" for name, count in untyped.items()]
    lines = [f"{title:<40} {count:>4}" for title, count in rows]
    for title, names in found.items():
        if names:
            lines += ["", f"{title}:", *(f"  {name}" for name in names)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
