"""One door: complete, typed, lazy, and nothing heavy behind it before it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import autoprune


def imported_by(statement):
    """Return the top-level modules that a fresh interpreter has after ``statement``."""
    code = f"import sys; {statement}; print('\\n'.join({{name.partition('.')[0] for name in sys.modules}}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_every_name_loads_and_is_documented():
    for name in autoprune.__all__:
        item = getattr(autoprune, name)
        assert name == "__version__" or item.__doc__, name
    assert dir(autoprune) == sorted(autoprune.__all__)


def test_the_stub_names_the_same_from_the_same_places():
    tree = ast.parse((Path(autoprune.__file__).parent / "__init__.pyi").read_text())
    stub = {alias.asname: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    names = [name for name in autoprune.__all__ if name != "__version__"]
    assert stub == {name: autoprune._HOME[name] for name in names}
    assert "__version__: str" in ast.unparse(tree)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'sparsify'"):
        autoprune.sparsify  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import autoprune", {"torch", "optuna", "numpy", "pydantic", "pandas"}),
        ("import autoprune; autoprune.load_config; autoprune.read_records", {"torch", "optuna", "fvcore", "ray"}),
        ("import autoprune.results.report", {"torch", "optuna", "fvcore", "ray"}),
        ("import autoprune.deploy.apply, autoprune.deploy.save", {"optuna", "fvcore", "ray", "sqlalchemy"}),
        ("import autoprune.cli", {"torch", "optuna", "fvcore", "ray"}),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(statement, absent):
    assert not imported_by(statement) & absent
