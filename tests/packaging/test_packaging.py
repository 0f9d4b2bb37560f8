"""The wheel and the sdist hold everything, and the command runs from a clean environment."""

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
DATA = ("search_spaces", "hw_models")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build the sdist, and the wheel from the sdist, as a publisher does."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def wanted():
    """Return the files that an installation needs, as (path in the checkout, path in the wheel)."""
    package = ROOT / "autoprune"
    for path in package.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(ROOT).as_posix(), path.relative_to(ROOT).as_posix()
    for folder in DATA:
        for path in (ROOT / folder).glob("*.yaml"):
            yield f"{folder}/{path.name}", f"autoprune/{folder}/{path.name}"


def test_the_wheel_holds_code_data_templates_and_types(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    assert {inside for _, inside in wanted()} <= names
    for name in ("autoprune/py.typed", "autoprune/__init__.pyi", "autoprune/results/templates/report.html.j2"):
        assert name in names
    assert all(name.startswith(("autoprune/", "autoprune-")) for name in names), "nothing else is installed"


def test_the_sdist_holds_the_same_and_the_tests(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {outside for outside, _ in wanted()} <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "tests/packaging/test_packaging.py"} <= names


def test_the_command_runs_from_a_clean_environment_and_any_directory(built, tmp_path):
    """The libraries are lent by this environment; autoprune itself is only in the new one."""
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    libraries = Path(sysconfig.get_path("purelib"))
    lent = tmp_path / "lent"
    lent.mkdir()
    for path in libraries.iterdir():
        if "autoprune" not in path.name:
            (lent / path.name).symlink_to(path)
    (site / "lent.pth").write_text(f"{lent}\n")  # .pth files in a lent folder are not followed: no editable install
    install = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--no-deps", "--quiet"]
    subprocess.run(
        [*install, "--no-index", "--disable-pip-version-check", str(built[0])], check=True, capture_output=True
    )

    def run(*arguments):
        command = [str(home / "bin" / "autoprune"), *arguments]
        environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "200"}
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    place = "import autoprune; print(autoprune.__file__)"
    found = subprocess.run(
        [str(home / "bin" / "python"), "-c", place], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()).is_relative_to(home)
    assert all((ROOT / "hw_models" / f"{line.split()[0]}.yaml").is_file() for line in lines(run("list", "devices")))
    assert {line.split()[0] for line in lines(run("list", "spaces"))} == {
        path.stem for path in (ROOT / "search_spaces").glob("*.yaml")
    }
    assert "search" in run("--help")
    assert run("--version").strip().endswith("0.1.0")


def lines(text):
    """Return the entries of a printed list, without its heading and what wraps."""
    return [line for line in text.splitlines()[1:] if line and not line.startswith(" ")]
