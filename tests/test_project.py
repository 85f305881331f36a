"""Laws of the whole project: direction of imports, what a checkpoint carries, what is shipped."""

import graphlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from transformers.dynamic_module_utils import (
    get_imports,
    get_relative_import_files,
    get_relative_imports,
)

from tests.support import durations, measures
from tests.support.grids import TABLES, Table, lost
from tests.support.house import FOLDERS
from tests.support.project import CARRIED, PACKAGE, ROOT, Import, imports_of
from tests.support.tiny_training import write_inputs

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# Who may import whom stands in `FOLDERS`. The modules of the package's own folder are for its
# users; nothing inside goes through them.

# transformers needs safetensors, as it needs huggingface_hub, so that both are where it is.
_BROUGHT_ALONG = {"huggingface_hub", "safetensors"}
CORE_MAY_IMPORT = {"torch", "transformers"} | _BROUGHT_ALONG | sys.stdlib_module_names


def target_of(imported: Import, folder: tuple[str, ...]) -> tuple[str, ...] | None:
    """Where an import inside `hf_maskgit/<folder>` leads, as parts; None for others' packages."""
    parts = tuple(imported.module.split(".")) if imported.module else ()
    if imported.dots == 0:
        return parts if parts[0] in ("hf_maskgit", "scripts", "tests") else None
    return ("hf_maskgit", *folder)[: len(folder) + 2 - imported.dots] + parts


def direction_faults(package: Path) -> list[str]:
    """What breaks the order of `FOLDERS`, before `scripts`: a line each."""
    faults, graph = [], {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if len(parts) == 1:
            continue
        if parts[0] not in FOLDERS or len(parts) > 2:
            faults.append(f"{'/'.join(parts)}.py lies in a folder that is no law yet.")
            continue
        allowed = FOLDERS[: FOLDERS.index(parts[0]) + 1]
        for imported in imports_of(path):
            target = target_of(imported, parts[:-1])
            if target is None:
                continue
            if target[0] != "hf_maskgit" or target[1:2] == () or target[1] not in allowed:
                where = f"{'/'.join(parts)}.py, line {imported.line}"
                faults.append(f"{where} goes up: it imports {'.'.join(target)}.")
            graph.setdefault(parts, set()).add(target[1:])
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle = " <- ".join("/".join(parts) for parts in error.args[1])
        faults.append(f"Imports run in a circle: {circle}.")
    return faults


def carried_faults(core: Path) -> list[str]:
    """What would keep a checkpoint with code from loading elsewhere, one sentence per fault."""
    faults = []
    for path in sorted(core.glob("*.py")):
        siblings = set()
        for imported in imports_of(path):
            where, top = f"{path.name}, line {imported.line}", imported.module.split(".")[0]
            if imported.dots == 0 and top not in CORE_MAY_IMPORT:
                faults.append(f"{where} imports {top}, which a checkpoint's user may not have.")
            elif imported.dots > 1 or (imported.dots and (not top or top != imported.module)):
                faults.append(f"{where}: transformers follows only `from .name import ...`.")
            elif imported.dots:
                siblings.add(top)
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

    def build(sources: dict[str, str]) -> Path:
        for name, source in sources.items():
            path = tmp_path / "hf_maskgit" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return tmp_path / "hf_maskgit"

    return build


def test_a_folder_imports_from_itself_and_from_those_before_it():
    assert direction_faults(PACKAGE) == []


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        ({"core/losses": "from ..training.x import y"}, "core/losses.py, line 1 goes up"),
        ({"core/losses": "def f():\n    import hf_maskgit.hub.push"}, "line 2 goes up"),
        ({"evaluation/bound": "from hf_maskgit import x"}, "imports hf_maskgit."),
        ({"evaluation/bound": "from .. import x"}, "imports hf_maskgit."),
        ({"training/loop": "from ..callbacks import x"}, "imports hf_maskgit.callbacks"),
        ({"training/loop": "from scripts.train import main"}, "imports scripts.train"),
        ({"training/loop": "from .a import x", "training/a": "from .loop import y"}, "in a circle"),
        ({"painting/app": ""}, "painting/app.py lies in a folder"),
        ({"core/sub/data": ""}, "core/sub/data.py lies in a folder"),
    ],
)
def test_a_wrong_direction_is_found(package_of, sources, fault):
    assert any(fault in found for found in direction_faults(package_of(sources)))


def test_core_imports_core_torch_transformers_and_what_that_needs_alone():
    assert carried_faults(PACKAGE / "core") == []


def test_transformers_needs_what_core_imports_beside_it():
    """As its own metadata say, without an extra."""
    needed = [Requirement(text) for text in importlib.metadata.requires("transformers") or []]
    names = {canonicalize_name(one.name) for one in needed if "extra" not in str(one.marker)}
    assert {canonicalize_name(name) for name in _BROUGHT_ALONG} <= names


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import accelerate", "imports accelerate"),
        ("def f():\n    import datasets.utils", "line 2 imports datasets"),
        ("try:\n    import numpy\nexcept ImportError:\n    pass", "imports numpy"),
        ("from hf_maskgit.core.schedules import x", "imports hf_maskgit"),
        ("from . import schedules", "follows only"),
        ("from .schedules.linear import x", "follows only"),
        ("from ..schedules import x", "follows only"),
        ('"""Example.\n\n    from .nowhere import x\n"""', "takes ['nowhere'] for an import"),
        ("from .schedules\\\n    import x", "or misses it"),
    ],
)
def test_what_a_checkpoint_cannot_carry_is_found(package_of, source, fault):
    found = carried_faults(package_of({"core/losses": source, "core/schedules": ""}) / "core")
    assert any(fault in sentence for sentence in found)


def test_a_checkpoint_with_code_carries_exactly_the_folder_core():
    followed = get_relative_import_files(PACKAGE / "core" / "modeling_maskgit.py")
    assert {Path(path).stem for path in followed} | {"modeling_maskgit"} == CARRIED
    assert {name for path in followed for name in get_imports(path)} <= CORE_MAY_IMPORT


def test_the_package_shows_few_modules_and_its_folders():
    """One for users, what makes the import light, and a name from before there were folders."""
    shown = {path.name for path in PACKAGE.iterdir() if not path.name.startswith("__pycache__")}
    own = {"__init__", "callbacks", "import_hooks", "modeling_maskgit", "registration"}
    assert shown == {f"{name}.py" for name in own} | {"py.typed", *FOLDERS}


# --- the shape: what `python -m tests.support.measures` counts ------------------------------------

MOST_LINES_OF_CODE = 60  # of a function
MOST_LINES = 400  # of a file
LONGER_FILES: dict[str, str] = {}  # by path, and why they are not cut
MOST_TESTS_ON_NAMES = 3  # of the sampler's choices: what they do stands in their rows
LEAST_COMMENTS = 0.06  # by lines of code, in core

OURS = measures.sources(PACKAGE, ROOT / "scripts")


def test_functions_are_short():
    functions = [f for path in OURS for f in measures.functions_of(path)]
    long = {f"{f.path}: {f.name}": f.code_lines for f in functions}
    assert not {name: n for name, n in long.items() if n > MOST_LINES_OF_CODE}


def test_files_are_short():
    totals = {path.relative_to(ROOT).as_posix(): measures.lines_of(path).total for path in OURS}
    assert {name for name, total in totals.items() if total > MOST_LINES} == set(LONGER_FILES)


def test_choices_are_rows_and_not_names():
    found = {path.name: lines for path in OURS if (lines := measures.tests_on_names(path))}
    assert sum(map(len, found.values())) <= MOST_TESTS_ON_NAMES, found


def test_comments_say_why_in_core():
    assert measures.comment_share(measures.sources(PACKAGE / "core")) >= LEAST_COMMENTS


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('sampler.order == "critic"', 1),
        ('"critic" != order', 1),
        ("options['pace'] in (None, 'schedule')", 1),
        ("remask in COMPETING", 1),
        ("self.remask not in rules.REMDM", 1),
        ('remask.startswith("remdm")', 1),
        ('{"p2": 1}.get(remask)', 1),
        ('{"p2": 1}[sampler.remask]', 1),
        ('order == "a" and pace == "b"', 2),
        ("order is None", 0),
        ("order in orders", 0),
        ('train == "critic"', 0),
        ("ORDERS[sampler.order].draws", 0),
        ("rules.order.look == look", 0),
    ],
)
def test_a_test_on_a_name_is_counted(tmp_path, source, count):
    path = tmp_path / "a.py"
    path.write_text(source)
    assert len(measures.tests_on_names(path)) == count


def test_lines_are_told_apart(tmp_path):
    path = tmp_path / "a.py"
    path.write_text(
        '"""Doc.\n\nMore.\n"""\n\n# why\ndef f():  # one\n    """Doc."""\n    x = """a\n\nb"""\n\n'
        "    def g():\n        pass\n    return x\n"
    )
    lines = measures.lines_of(path)
    assert lines.code == {7, 9, 10, 11, 13, 14, 15}
    assert lines.comments == {6, 7}
    assert lines.docstrings == {1, 2, 3, 4, 8}
    assert [(f.name, f.code_lines) for f in measures.functions_of(path)] == [("f", 7), ("f.g", 2)]


@pytest.mark.parametrize(
    ("sources", "circle"),
    [
        ({"a": "from .b import x", "b": "from . import a"}, {"hf_maskgit.a", "hf_maskgit.b"}),
        ({"c/a": "from ..b import x", "b": "import hf_maskgit.c.a"}, {"hf_maskgit.b"}),
        ({"c/__init__": "from .a import x", "c/a": "from . import y"}, {"hf_maskgit.c"}),
        ({"a": "from .b import x", "b": "import torch"}, set()),
    ],
)
def test_a_circle_of_imports_is_found(package_of, sources, circle):
    found = set(measures.circle_of(package_of(sources)))
    assert circle <= found
    assert bool(found) == bool(circle)


@pytest.mark.wide
def test_the_measures_are_printed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["measures"])
    measures.main()
    printed = capsys.readouterr().out
    assert "modules in the package's own folder: 5 of " in printed
    assert "circle of imports: none" in printed


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


def test_the_wheel_holds_the_package_with_its_programs_and_nothing_else(wheel):
    """The programs, which lie at the top of a checkout, lie inside the package there."""
    programs = {f"hf_maskgit/{name}" for name in files_below(ROOT / "scripts")}
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {"hf_maskgit/py.typed", "hf_maskgit/scripts/train.py"} <= shipped
    assert shipped == files_below(PACKAGE) | programs


def files_below(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(ROOT).as_posix() for path in paths}
    return {name for name in names if "__pycache__" not in name}


def test_the_wheel_brings_the_command(wheel):
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt"))
    command = "[console_scripts]\nhf-maskgit = hf_maskgit.scripts.cli:main"
    assert wheel.read(name).decode().strip() == command


def test_programs_find_each_other_wherever_they_are_installed():
    """As `scripts` in a checkout, as `hf_maskgit.scripts` elsewhere: never by either name."""
    for path in (ROOT / "scripts").glob("*.py"):
        absolute = [i.module for i in imports_of(path) if not i.dots]
        assert not [name for name in absolute if name.split(".")[0] == "scripts"], path.name


@pytest.fixture(params=["wheel", "editable"])
def installed(request, wheel, tmp_path):
    """A fresh environment outside the checkout, with the package as users install it: its folder.

    What the package needs is lent by this environment; its own copy of the package comes first.
    """
    home = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    paths = {"base": str(home), "platbase": str(home)}
    lent = Path(sysconfig.get_path("purelib", "venv", paths), "lent.pth")
    lent.write_text(f"{sysconfig.get_path('purelib')}\n")
    if request.param == "wheel":
        what = [wheel.filename]
    else:
        shutil.copytree(ROOT / "hf_maskgit", tmp_path / "checkout/hf_maskgit")
        shutil.copytree(ROOT / "scripts", tmp_path / "checkout/scripts")
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, tmp_path / "checkout")
        what = ["--no-build-isolation", "--editable", tmp_path / "checkout"]
    offline = ["--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    pip = [sys.executable, "-m", "pip", "--python", home / "bin/python"]
    subprocess.run([*pip, "install", *offline, *what], check=True)
    return home


@pytest.mark.slow
def test_an_installed_package_trains_evaluates_writes_and_pushes(installed, tmp_path):
    """From a folder that knows nothing of the checkout; the launcher finds the script as well."""
    inputs = write_inputs(tmp_path)
    texts = inputs[inputs.index("--dataset") + 1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    (tmp_path / "elsewhere").mkdir()

    def run(*words):
        done = subprocess.run(
            [installed / "bin" / words[0], *words[1:]],
            cwd=tmp_path / "elsewhere",
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = (
        "import hf_maskgit, hf_maskgit.scripts.train as t; print(hf_maskgit.__file__, t.__file__)"
    )
    assert str(ROOT) not in run("python", "-c", where).replace(str(tmp_path), "")
    options = ["--max_steps", "2", "--per_device_batch_size", "4", "--use_cpu", "--output_dir"]
    run("hf-maskgit", "train", *inputs, *options, "one")
    launch = ["-m", "accelerate.commands.launch", "--cpu", "-m", "hf_maskgit.scripts.train"]
    run("python", *launch, *inputs, *options, "two")
    read = run("hf-maskgit", "evaluate", "--model", "two", "--dataset", texts)
    assert '"nats_per_token"' in read
    assert run("hf-maskgit", "generate", "--model", "one", "--text", "w1 [MASK]").startswith("w1 ")
    told = run("hf-maskgit", "push", "one", "--repo_id", "me/one", "--dry_run")
    assert "Nothing was sent." in told


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


def test_grids_that_are_thinned_keep_every_row_of_every_table(request):
    """Of the grids that this run has collected; all of them, where it is a run of all."""
    tables = request.config.stash[TABLES]
    texts = {file: (ROOT / file).read_text() for file in durations.test_files()}
    thinned = {file for file, text in texts.items() if "@pytest.mark.grid(" in text}
    if thinned <= request.config.stash[durations.TESTS].keys():
        assert lost(tables) == []
    some = {"kinds": Table("a", ["x", "y"], {1}), 3: Table("b", [1], {0})}
    assert lost(some) == ["a: 'x'"]
