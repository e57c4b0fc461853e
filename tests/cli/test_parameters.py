"""Errors name parameters of the Python API; the command line prints its own words for them."""

import ast
import inspect
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import dmlray
from dmlray import api
from dmlray.cli import main
from dmlray.cli.parameters import as_command, typed, with_options
from dmlray.errors import Call, ConfigError

PACKAGE = Path(dmlray.__file__).parent
NAMES = [
    "runs/a",
    "lr=1?a",
    "a b",
    "it's",
    'a"b',
    "$HOME",
    "a;b",
    "[x]*",
    "-x",
    "--resume",
    "a\nb",
    "é",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_to_type_is_one_word_of_a_shell_and_no_option(name: str) -> None:
    word = typed(name)
    assert shlex.split(word)[0].removeprefix("./") == name
    assert not word.startswith("-")
    printed = subprocess.run(["sh", "-c", f"printf %s {word}"], capture_output=True, text=True)
    assert printed.stdout.removeprefix("./") == name


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def flags() -> set[str]:
    parameters = [parameter for _, command in commands(main) for parameter in command.params]
    return {word for p in parameters for word in p.opts if word.startswith("--")}


_OTHERS = "`ray start[^`]*|--format=csv,noheader"  # the second is an option of nvidia-smi


def literals(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, re.sub(_OTHERS, "", node.value)


def test_no_text_below_the_command_line_names_one_of_its_options() -> None:
    known = flags()
    assert {"--out", "--resume", "--ensemble-size", "--from"} <= known
    found = [
        f"{file.relative_to(PACKAGE)}:{line} {text!r}"
        for file in PACKAGE.rglob("*.py")
        if not file.is_relative_to(PACKAGE / "cli")
        for line, text in literals(file)
        if known & set(re.findall(r"--[a-z][a-z-]*", text))
    ]
    assert not found


def test_each_parameter_that_an_error_names_has_a_word_on_the_command_line() -> None:
    """All that stands between backticks in a message, and is a parameter of the Python API."""
    parameters = {
        name
        for function in map(api.__dict__.__getitem__, api.__all__)
        if inspect.isfunction(function)
        for name in inspect.signature(function).parameters
    }
    named = {
        name
        for file in PACKAGE.rglob("*.py")
        if not file.is_relative_to(PACKAGE / "cli")
        for line in file.read_text().splitlines()
        if re.search(r"Error\(|allowed|problem|mend|Allowed", line) and '"""' not in line
        for name in re.findall("`([a-z_]+)`", line)
    }
    assert {"out", "resume", "size", "vary", "weights"} <= named & parameters
    for name in named & parameters:
        assert with_options(f"`{name}`", main) != f"`{name}`", name


def test_the_option_of_the_typed_command_goes_first() -> None:
    assert with_options("`size`: no", main, "repeat") == "--repeats: no"
    assert with_options("`size`: no", main, "ensemble") == "--ensemble-size: no"
    assert with_options("`runs` `when` `x y`", main, "merge") == "RUN `when` `x y`"


@pytest.mark.parametrize(
    ("call", "python", "command"),
    [
        (
            Call("cross_validate", {"resume": "my run"}),
            "dmlray.cross_validate(resume='my run')",
            "dmlray cv --resume 'my run'",
        ),
        (Call("evaluate", {"run": "-x"}), "dmlray.evaluate(run='-x')", "dmlray evaluate ./-x"),
        (
            Call("prepare_data", {"name": "cars", "sources": ["a.tgz", "b.mat"]}),
            "dmlray.prepare_data(name='cars', sources=['a.tgz', 'b.mat'])",
            "dmlray data prepare cars --from a.tgz --from b.mat",
        ),
    ],
)
def test_a_call_is_python_or_a_command(call: Call, python: str, command: str) -> None:
    assert str(call) == python
    assert as_command(main)(call) == command
    getattr(api, call.function)  # there is such a function, and it takes these
    inspect.signature(getattr(api, call.function)).bind(**call.arguments)


def test_a_refusal_names_the_parameter_in_python_and_the_option_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^`size`: 0 is not allowed"):
        api.repeat("experiments/proxy_anchor_demo.yaml", size=0, display=None)
    words = ["repeat", "experiments/proxy_anchor_demo.yaml", "--repeats", "0"]
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, result.output.split(":")[0]) == (2, "--repeats")
