"""Laws of the whole project: direction of imports, what a checkpoint carries, what is shipped."""

import ast
import graphlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from transformers.dynamic_module_utils import (
    get_imports,
    get_relative_import_files,
    get_relative_imports,
)

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hf_maskgit"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# A module imports from its own level or from lower ones. A new module gets its line here.
LEVELS = {
    "noise": 0,
    "schedules": 0,
    "sampling": 0,
    "pacing": 0,
    "remasking": 0,
    "samplers": 0,
    "presets": 0,
    "losses": 0,
    "layout": 0,
    "configuration_maskgit": 1,
    "encoders": 1,
    "memory": 0,
    "encoder_pass": 1,
    "self_conditioning": 1,
    "token_critic": 1,
    "masking": 1,
    "decoding": 1,
    "guidance": 1,
    "stopping": 1,
    "streaming": 1,
    "observing": 1,
    "processors": 0,
    "constraints": 1,
    "generation_config_maskgit": 1,
    "generation_maskgit": 2,
    "splicing": 2,
    "pipeline_maskgit": 2,
    "pipeline_infilling": 2,
    "pipeline_text_generation": 2,
    "remote_code": 2,
    "modeling_maskgit": 3,
    "data": 4,
    "updates": 4,
    "building": 4,
    "recipes": 4,
    "sources": 4,
    "checkpoints": 4,
    "arguments": 4,
    "evaluation": 4,
    "model_card": 4,
    "reloading": 4,
    "hub": 4,
    "visualization": 4,
    "callbacks": 4,
    "training": 4,
    "__init__": 5,  # the front door: opens on everything, and nothing inside goes out through it
    "scripts": 6,
    "tests": 6,
}
# Modules that travel inside a checkpoint, and the only packages its user must have for them.
CARRIED = {
    "noise",
    "schedules",
    "sampling",
    "pacing",
    "remasking",
    "samplers",
    "presets",
    "losses",
    "layout",
    "decoding",
    "guidance",
    "stopping",
    "streaming",
    "observing",
    "processors",
    "constraints",
    "generation_config_maskgit",
    "configuration_maskgit",
    "encoders",
    "memory",
    "encoder_pass",
    "self_conditioning",
    "token_critic",
    "generation_maskgit",
    "modeling_maskgit",
    "splicing",
    "pipeline_maskgit",
    "pipeline_infilling",
    "pipeline_text_generation",
    "remote_code",
}
CARRIED_MAY_IMPORT = {"torch", "transformers", "huggingface_hub"} | sys.stdlib_module_names


class Import(NamedTuple):
    """One imported module as written: `from .a.b import c` is (1, "a.b", ("c",), line)."""

    dots: int
    module: str
    names: tuple[str, ...]
    line: int


def imports_of(path: Path) -> list[Import]:
    """Every import in the file, those inside functions, `try` and `if TYPE_CHECKING` included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [Import(0, alias.name, (), node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            found.append(Import(node.level, node.module or "", names, node.lineno))
    return found


def own_targets(imported: Import, package: Path) -> set[str]:
    """The names in LEVELS that an import leads to; empty for other people's packages."""
    first, _, rest = imported.module.partition(".")
    if imported.dots == 0 and first in {"scripts", "tests"}:
        return {first}
    if imported.dots == 0 and first != "hf_maskgit":
        return set()
    module = (rest if imported.dots == 0 else imported.module).split(".")[0]
    if module:
        return {module}
    # from hf_maskgit import x, from . import x: a module x, or a name of the front door
    return {n if (package / f"{n}.py").exists() else "__init__" for n in imported.names} or {
        "__init__"
    }


def direction_faults(package: Path) -> list[str]:
    """What breaks "imports are acyclic and never go up", one sentence per fault."""
    faults = []
    graph: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).with_suffix("").as_posix()
        if name not in LEVELS:
            faults.append(f"hf_maskgit/{name}.py has no level: give it one in LEVELS.")
            continue
        for imported in imports_of(path):
            for target in own_targets(imported, package):
                where = f"hf_maskgit/{name}.py, line {imported.line}"
                if target not in LEVELS:
                    faults.append(f"{where} imports {target}, which has no level.")
                    continue
                graph.setdefault(name, set()).add(target)
                if LEVELS[target] > LEVELS[name]:
                    faults.append(
                        f"{where} goes up: {name} is at level {LEVELS[name]}, "
                        f"{target} at level {LEVELS[target]}."
                    )
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        faults.append(f"Imports run in a circle: {' <- '.join(error.args[1])}.")
    return faults


def carried_faults(package: Path) -> list[str]:
    """What would keep a checkpoint with code from loading elsewhere, one sentence per fault."""
    faults = []
    for path in sorted(p for p in package.glob("*.py") if p.stem in CARRIED):
        siblings = set()
        for imported in imports_of(path):
            where = f"{path.name}, line {imported.line}"
            top = imported.module.split(".")[0]
            if imported.dots == 0 and top not in CARRIED_MAY_IMPORT:
                faults.append(f"{where} imports {top}, which a checkpoint's user may not have.")
            elif imported.dots > 1 or (imported.dots and (not top or top != imported.module)):
                faults.append(f"{where}: transformers follows only `from .name import ...`.")
            elif imported.dots:
                siblings.add(top)
                if top not in CARRIED:
                    faults.append(f"{where} imports {top}, which no checkpoint carries.")
        # transformers looks for imports with regular expressions, in docstrings too
        seen = set(get_relative_imports(path))
        if seen != siblings:
            faults.append(
                f"{path.name}: transformers takes {sorted(seen ^ siblings)} for an import that is "
                "none, or misses it; look for a text line that begins like one."
            )
    return faults


@pytest.fixture
def package_of(tmp_path):
    """Build a package of small files, to see that a check finds what it is there to find."""

    def build(**sources: str) -> Path:
        for name, source in sources.items():
            path = tmp_path / "hf_maskgit" / f"{name.replace('__in__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return tmp_path / "hf_maskgit"

    return build


def test_imports_are_acyclic_and_never_go_up():
    assert direction_faults(PACKAGE) == []


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        ({"losses": "from .masking import x", "masking": ""}, "losses.py, line 1 goes up"),
        ({"losses": "def f():\n    from . import masking", "masking": ""}, "line 2 goes up"),
        ({"losses": "import hf_maskgit.masking", "masking": ""}, "goes up"),
        ({"losses": "from hf_maskgit import x"}, "__init__ at level 5"),
        ({"data": "from . import x"}, "__init__ at level 5"),
        ({"data": "import hf_maskgit"}, "__init__ at level 5"),
        ({"data": "from scripts.train import main"}, "scripts at level 6"),
        ({"data": "from .training import x", "training": "from .data import y"}, "in a circle"),
        ({"novelty": ""}, "novelty.py has no level"),
        ({"sub__in__data": ""}, "sub/data.py has no level"),
        ({"data": "from .novelty import x"}, "imports novelty, which has no level"),
    ],
)
def test_a_wrong_direction_is_found(package_of, sources, fault):
    assert any(fault in found for found in direction_faults(package_of(**sources)))


def test_carried_modules_need_nothing_but_torch_transformers_and_each_other():
    assert carried_faults(PACKAGE) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import accelerate", "imports accelerate"),
        ("def f():\n    import datasets.utils", "line 2 imports datasets"),
        ("try:\n    import numpy\nexcept ImportError:\n    pass", "imports numpy"),
        ("from hf_maskgit.schedules import x", "imports hf_maskgit"),
        ("from . import schedules", "follows only"),
        ("from .schedules.linear import x", "follows only"),
        ("from ..schedules import x", "follows only"),
        ("from .masking import x", "imports masking, which no checkpoint carries"),
        ('"""Example.\n\n    from .nowhere import x\n"""', "takes ['nowhere'] for an import"),
        ("from .schedules\\\n    import x", "or misses it"),
    ],
)
def test_what_a_checkpoint_cannot_carry_is_found(package_of, source, fault):
    found = carried_faults(package_of(losses=source, schedules="", masking=""))
    assert any(fault in sentence for sentence in found)


def test_a_saved_model_carries_exactly_the_modules_it_needs():
    followed = get_relative_import_files(PACKAGE / "modeling_maskgit.py")
    expected = CARRIED - {"modeling_maskgit"}
    assert {Path(path).stem for path in followed} == expected
    demanded = {name for path in followed for name in get_imports(path)}
    assert demanded <= CARRIED_MAY_IMPORT


def test_importing_the_package_imports_neither_datasets_nor_accelerate():
    """transformers itself imports accelerate, so for that one it matters who asked."""
    program = """
import builtins, sys
plain_import, asked = builtins.__import__, []
def spy(name, globals=None, *rest, **options):
    if name.split(".")[0] == "accelerate" and (globals or {}).get("__name__", "").startswith("hf_"):
        asked.append(globals["__name__"])
    return plain_import(name, globals, *rest, **options)
builtins.__import__ = spy
import hf_maskgit
print(sorted({"datasets"} & set(sys.modules)), asked)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] []"
    assert "registered" not in done.stderr  # transformers tells of tasks that change hands


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the sources without the network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("hf_maskgit", "scripts", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = ["wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *build, "--wheel-dir", out, source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    with zipfile.ZipFile(built) as archive:
        yield archive


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel):
    package = {p.relative_to(ROOT).as_posix() for p in PACKAGE.rglob("*") if p.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert "hf_maskgit/py.typed" in shipped
    assert shipped == package


def test_the_wheel_states_version_licence_and_python(wheel):
    import hf_maskgit

    (info,) = {n.split("/")[0] for n in wheel.namelist() if ".dist-info/" in n}
    metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert metadata["Version"] == hf_maskgit.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == PYPROJECT["project"]["requires-python"]
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def requirements(*extras: str) -> dict[str, Requirement]:
    """What pyproject.toml asks for by canonical name, with the extras named."""
    project = PYPROJECT["project"]
    groups = [project["dependencies"], *(project["optional-dependencies"][e] for e in extras)]
    parsed = (Requirement(line) for group in groups for line in group)
    return {canonicalize_name(r.name): r for r in parsed if r.name != project["name"]}


def test_every_package_we_import_is_asked_for():
    """Installed for another's sake is not enough: that one may drop it with its next release."""
    extras = [e for e in PYPROJECT["project"]["optional-dependencies"] if e != "dev"]
    providers = importlib.metadata.packages_distributions()
    asked_for = set(requirements(*extras))
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        for imported in imports_of(path):
            top = imported.module.split(".")[0]
            if imported.dots or top in sys.stdlib_module_names | {"hf_maskgit", "scripts"}:
                continue
            by = {canonicalize_name(name) for name in providers.get(top, [top])}
            assert by & asked_for, f"{path.name} imports {top}: add it to pyproject.toml."


def test_constraints_pin_one_public_release_of_every_direct_dependency():
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            # no paths, no addresses, no builds of one machine such as 2.13.0+cpu
            assert re.fullmatch(r"[\w.-]+==[\w.]+", line), line
            name, _, version = line.partition("==")
            pins[canonicalize_name(name)] = Version(version)
    for name, requirement in requirements(*PYPROJECT["project"]["optional-dependencies"]).items():
        assert name in pins, f"constraints.txt does not pin {name}."
        assert requirement.specifier.contains(pins[name], prereleases=True), requirement


OLD_PYTHON = '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.10.13 && exit\nexit 1\n'
BARE_PYTHON = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n'


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (None, r"was not found, and hf_maskgit needs Python {minimum} or newer\..*PYTHON="),
        (OLD_PYTHON, r"needs Python {minimum} or newer; \S+ is Python 3\.10\.13\..*PYTHON="),
        (BARE_PYTHON, r"its venv module is missing\..*apt install python3-venv"),
    ],
)
@pytest.mark.parametrize("named_by", ["command line", "environment"])
def test_make_setup_says_what_is_wrong_with_a_python(tmp_path, program, sentence, named_by):
    python = tmp_path / "python"
    if program is not None:
        python.write_text(program)
        python.chmod(0o755)
    venv = tmp_path / "venv"
    command, environment = ["make", "setup", f"VENV={venv}"], dict(os.environ)
    environment.pop("MAKEFLAGS", None)  # set where these tests run under make
    if named_by == "environment":
        environment["PYTHON"] = str(python)
    else:
        command.append(f"PYTHON={python}")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    minimum = re.escape(PYPROJECT["project"]["requires-python"].removeprefix(">="))
    assert done.returncode != 0
    assert re.search(sentence.replace("{minimum}", minimum), done.stderr), done.stderr
    assert not venv.exists()
