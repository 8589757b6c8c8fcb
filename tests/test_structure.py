"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection

import pytest
import structure

PACKAGE = structure.PACKAGE
STAGES = (
    "datasets",
    "preprocessing",
    "sampling",
    "networks",
    "losses",
    "methods",
    "training",
    "inference",
    "evaluation",
    "report",
    "experiments",
)
#: Stated in the module's own docstring.
EXCEPTIONS = {("training/validate.py", "inference"), ("training/validate.py", "evaluation")}

#: What is too long, in a circle, unused or written twice, and not mended yet. The lists may only get shorter: an entry
#: that is no longer true fails, so that nothing comes back unseen. ``python tests/structure.py`` prints all counts.
LONG_FILES: set[str] = set()
LONG_FUNCTIONS: set[str] = set()
LONG_SIGNATURES: set[str] = set()
MODULE_CIRCLES: set[tuple[str, ...]] = set()
FOLDER_CIRCLES: set[tuple[str, ...]] = {
    # Stays: the exception above.
    ("inference", "training"),
}
UNUSED: set[str] = {
    # Stay: http.server and socketserver call them.
    "src/duomod/report/viewer/server.py:ViewServer.handle_error",
    "src/duomod/report/viewer/server.py:Handler.list_directory",
    "src/duomod/report/viewer/server.py:Handler.log_message",
    # Stays: importlib calls it.
    "src/duomod/plugins.py:_OfBytes.get_code",
    # Stays: notebooks look for it.
    "src/duomod/api.py:Result._repr_html_",
    # Stays: for methods of the user's, whose strong views may be moved.
    "src/duomod/sampling/batch.py:View.carry_label",
}
#: The first of each group of functions with one body.
COPIES: set[str] = set()


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_imports_a_later_one(stage: str) -> None:
    later = set(STAGES[STAGES.index(stage) + 1 :])
    for source in structure.package():
        if source.module.split(".")[1:2] == [stage]:
            name = source.path.relative_to(PACKAGE).as_posix()
            wrong = {module.removeprefix("duomod.").partition(".")[0] for module in structure.imports(source)} & later
            wrong -= {folder for module, folder in EXCEPTIONS if module == name}
            assert not wrong, f"{name} imports the later stage(s) {sorted(wrong)}"


def assert_only(found: Collection[object], known: Collection[object], rule: str) -> None:
    new, mended = set(found) - set(known), set(known) - set(found)
    assert not new, f"{rule}: {sorted(map(str, new))}"
    assert not mended, f"mended; remove from the list in this file: {sorted(map(str, mended))}"


def test_no_file_is_too_long() -> None:
    assert_only(structure.long_files(), LONG_FILES, f"over {structure.MOST_FILE_LINES} lines")


def test_no_function_is_too_long() -> None:
    assert_only(structure.long_functions(), LONG_FUNCTIONS, f"over {structure.MOST_FUNCTION_LINES} lines of code")


def test_no_signature_is_too_long() -> None:
    assert_only(structure.long_signatures(), LONG_SIGNATURES, f"over {structure.MOST_ARGUMENTS} arguments")


def test_no_import_goes_in_a_circle() -> None:
    assert_only(structure.cycles(structure.module_graph()), MODULE_CIRCLES, "modules import each other")
    assert_only(structure.cycles(structure.folder_graph()), FOLDER_CIRCLES, "folders import from each other")


def test_nothing_is_there_for_the_tests_alone() -> None:
    assert_only(structure.unused_definitions(), UNUSED, "nothing in the package refers to it")


def test_no_function_is_written_twice() -> None:
    assert_only({group[0] for group in structure.copies()}, COPIES, "the same body as another function's")


class TestCounting:
    """The counts that the rules above rest on."""

    def function(self, text: str) -> structure.Function:
        (node,) = ast.parse(text).body
        assert isinstance(node, structure.Function)
        return node

    def test_a_docstring_is_no_code(self) -> None:
        assert structure.function_lines(self.function('def f():\n    """One.\n\n    Two.\n    """\n    return 1')) == 2
        assert structure.function_lines(self.function("def f():\n    # why\n    return 1")) == 3

    def test_arguments_of_every_kind_count_but_self(self) -> None:
        assert structure.argument_count(self.function("def f(self, a, /, b, *c, d=1, **e): ...")) == 5

    def test_circles_are_found_whatever_their_length(self) -> None:
        graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set[str]()}
        assert structure.cycles(graph) == [("a", "b", "c")]
        assert structure.cycles({"a": {"b"}, "b": set()}) == []

    def test_the_graph_has_late_and_type_only_imports(self) -> None:
        graph = structure.module_graph()
        assert "duomod.methods.base" in graph["duomod.methods.registry"]  # for types, and inside functions


def test_there_is_no_drawer_for_leftovers() -> None:
    names = {path.stem for path in PACKAGE.rglob("*")}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc"}


def test_help_loads_nothing_heavy_and_shows_an_example() -> None:
    code = (
        "import sys\nfrom duomod.cli import app\nfrom duomod.commands import COMMANDS\n"
        "for arguments in [[], *([command.name] for command in COMMANDS)]:\n"
        "    try:\n        app([*arguments, '--help'])\n    except SystemExit:\n        pass\n"
        "heavy = {'torch', 'monai', 'SimpleITK', 'numpy', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy), len(COMMANDS))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, commands = done.stdout.splitlines()[-1].rsplit(" ", 1)
    assert heavy == "HEAVY []"
    assert done.stdout.count("Example: duomod") == int(commands) + 1


def test_every_command_has_help_with_an_example() -> None:
    from duomod.cli import app

    assert app.registered_commands
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__, command.name
        assert (command.epilog or "").startswith(f"Example: duomod {command.name}"), command.name
