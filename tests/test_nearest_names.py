import ast
from pathlib import Path

import dmlray
from dmlray.nearest_names import did_you_mean, nearest_or_all


def test_near_names_are_offered_the_nearest_first() -> None:
    known = ["drml", "dreml", "dcml", "margin"]
    assert did_you_mean("dremel", known) == " Did you mean dreml?"
    assert did_you_mean("dremel", known, most=2) == " Did you mean dreml or drml?"
    assert did_you_mean("xyz", known) == ""
    assert nearest_or_all("xyz", iter(known)) == " Allowed: dcml, dreml, drml, margin."


def test_no_other_module_looks_for_near_names() -> None:
    package = Path(dmlray.__file__).parent
    importing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and any(name.name == "difflib" for name in node.names)
    }
    assert importing == {"nearest_names.py"}
