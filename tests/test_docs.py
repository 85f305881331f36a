"""What the pages under docs show works: their examples print what they say, their names exist."""

import ast
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import CONFIG_MAPPING, AutoTokenizer, Trainer, pipeline

import hf_maskgit
from hf_maskgit import (
    DataCollatorForMaskGit,
    MaskGitConfig,
    MaskGitForMaskedLM,
    MaskGitGenerationConfig,
)
from hf_maskgit.callbacks import SetEpochCallback
from hf_maskgit.core.configuration_maskgit import own_fields
from hf_maskgit.core.generation_config_maskgit import DEFAULTS
from hf_maskgit.core.modeling_maskgit import MaskGitOutput
from hf_maskgit.core.sampler_orders import ORDERS
from hf_maskgit.core.sampler_presets import PRESETS
from hf_maskgit.core.sampler_rules import PACES, REMASKS
from scripts.cli import COMMANDS
from tests.support import hub_server
from tests.support.grids import wide
from tests.support.house import FOLDERS, PAGE, draw, first_line, map_of_page
from tests.support.project import PACKAGE, ROOT
from tests.support.shown_commands import OPTIONS as SHOWN
from tests.support.shown_commands import check_understood, commands_of, run_by
from tests.support.tiny import word_tokenizer

PAGES = (
    "ecosystem.md",
    "coming_from.md",
    "lengths.md",
    "patterns.md",
    "fields.md",
    "likelihood.md",
    "quality.md",
    "many_rows.md",
    "animations.md",
)
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

# What takes long or needs a Hub, by the heading above it; the rest runs in the default tier.
SLOW = {"`peft`", "`accelerate launch`", "`push_to_hub` and `revision`", "`torch.compile`"}
PRETRAINED = "A CDR loop, by a pretrained encoder"  # needs a package with its weights
STRANGER = "Loading without this package"  # runs where an import of it fails

# What an import of the package must not bring with it, and what nobody of ours may ask for.
UNWANTED = (
    *("datasets", "matplotlib", "peft", "pandas", "pyarrow", "sklearn", "rich", "tensorboard"),
    *("x_transformers", "torch._decomp.decompositions_for_jvp"),
)
UNASKED = ("accelerate", "scipy", "outlines_core", *UNWANTED)

# A process of its own for the pages, as a reader has one, and for each a folder and names of its
# own. Told by JSON: the blocks, and where.
# The first thing such a process does is to import all that the package shows, which is looked at on
# that occasion: a process for that alone takes five seconds.
READER = """
import builtins, contextlib, io, json, os, subprocess, sys

told = json.load(sys.stdin)
plain_import, asked, brought = builtins.__import__, [], []

def spy(name, globals=None, *rest, **options):
    ours = (globals or {}).get("__name__", "").startswith("hf_")
    if name.split(".")[0] in told["unasked"] and ours:
        asked.append((name, globals["__name__"]))
    return plain_import(name, globals, *rest, **options)

if told["stranger"]:
    sys.modules["hf_maskgit"] = None  # an import of it fails
else:
    builtins.__import__ = spy
    import hf_maskgit
    for name in hf_maskgit.__all__:
        getattr(hf_maskgit, name)
    builtins.__import__ = plain_import
    brought = sorted(set(told["unwanted"]) & set(sys.modules))
print("the pages begin", file=sys.stderr)
import torch

torch.manual_seed(0)  # models that pages make from scratch, whichever pages come before
printed, names = [], {}
for block in told["blocks"]:
    os.chdir(os.path.join(told["folder"], block["page"]))
    out = io.StringIO()
    if block["language"] == "bash":
        command = ["bash", "-euo", "pipefail", "-c", block["code"]]
        subprocess.run(command, check=True, stdout=sys.stderr)
    else:
        code = "\\n" * block["line"] + block["code"]  # so that a traceback names the page's lines
        own_names = names.setdefault(block["page"], {"__name__": "__main__"})
        with contextlib.redirect_stdout(out):
            exec(compile(code, block["page"], "exec"), own_names)
    printed.append(out.getvalue())
print(json.dumps({"printed": printed, "asked": asked, "brought": brought}))
"""


class Reading(NamedTuple):
    """What each block printed, and what importing the package did before."""

    printed: list[str]
    asked: list[list[str]]  # what nobody may import yet, and the module of ours that did
    brought: list[str]  # the packages that nobody asked for
    said: str  # on stderr


class Block(NamedTuple):
    """A fenced block of a page: what runs, and what it is said to print (None: anything)."""

    page: str
    heading: str
    line: int
    language: str
    code: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> list[Block]:
    """The blocks of a page that run, in their order."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    heading, found = "", []
    for match in re.finditer(r"^## ([^\n]*)$|^```(\w+)\n(.*?)^```$", text, flags=re.M | re.S):
        heading, language, code = match[1] or heading, match[2], match[3]
        line = text[: match.start()].count("\n") + 1
        if language in ("python", "bash"):
            found.append(Block(page, heading, line, language, code, None))
        elif language == "text":  # what the block right above it prints
            found[-1] = found[-1]._replace(output=code)
    return found


def read(blocks: list[Block], folder: Path, stranger: bool = False, **environment: str) -> Reading:
    """Run blocks in a new process."""
    for page in {block.page for block in blocks}:
        (folder / page).mkdir(exist_ok=True)
        if not (folder / page / "scripts").exists():
            (folder / page / "scripts").symlink_to(ROOT / "scripts")
    told = {
        "folder": str(folder),
        "stranger": stranger,
        "unwanted": UNWANTED,
        "unasked": UNASKED,
        "blocks": [block._asdict() for block in blocks],
    }
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    result = subprocess.run(
        [sys.executable, "-c", READER],
        input=json.dumps(told),
        env={
            **os.environ,
            "PATH": path,
            "CUDA_VISIBLE_DEVICES": "",
            "DS_ACCELERATOR": "cpu",  # where it is installed, it would say what it finds
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    said = result.stderr.partition("the pages begin")[0]
    return Reading(**json.loads(result.stdout.splitlines()[-1]), said=said)


def assert_printed(blocks, printed):
    wrong = [
        f"{block} prints\n{found}and not\n{block.output}"
        for block, found in zip(blocks, printed, strict=True)
        if block.output is not None and found != block.output
    ]
    assert not wrong, "\n".join(wrong)


# Either half is a process of seconds.
LONG = ("ecosystem.md", "coming_from.md", "many_rows.md", "fields.md")
READ_TOGETHER = [wide(tuple(page for page in PAGES if page not in LONG)), wide(LONG)]


def quick_blocks(pages: tuple[str, ...]) -> list[Block]:
    """What runs of these pages, but for what is slow."""
    left_out = {*SLOW, PRETRAINED, STRANGER}
    return [b for page in pages for b in blocks_of(page) if b.heading not in left_out]


@pytest.fixture(scope="module", params=READ_TOGETHER, ids=["most pages", "the others"])
def pages(request):
    return request.param


@pytest.fixture(scope="module")
def reading(tmp_path_factory, pages):
    """All but the slow examples, each page from the first to the last, in a fresh process."""
    return read(quick_blocks(pages), tmp_path_factory.mktemp("pages"))


def test_importing_the_package_imports_what_it_needs_and_no_more(reading):
    """transformers itself imports accelerate and SciPy; for these it matters who asked.

    The last of the unwanted is what torch compiles before it differentiates in forward mode for the
    first time: half of what the import took.
    """
    assert (reading.brought, reading.asked) == ([], [])
    assert "registered" not in reading.said  # transformers tells of tasks that change hands


def test_the_examples_print_what_the_pages_say(pages, reading):
    """Texts that are shown are greedy, and their models are trained until each token of them has a
    probability above 0.8: rounding that differs between machines does not change them.
    """
    blocks = quick_blocks(pages)
    assert all(sum(b.output is not None for b in blocks if b.page == page) > 1 for page in pages)
    assert_printed(blocks, reading.printed)


@pytest.mark.slow
def test_the_slow_examples_too(tmp_path, monkeypatch):
    """With a Hub on loopback, real launches of the scripts, and a real compiler."""
    monkeypatch.setattr(hub_server, "USER", "me")
    blocks = blocks_of("ecosystem.md")
    assert {*SLOW, STRANGER} < {block.heading for block in blocks}
    own = [block for block in blocks if block.heading != STRANGER]
    with hub_server.HubServer() as hub:
        found = read(own, tmp_path, **hub.environment(tmp_path / "home"))
        assert_printed(own, found.printed)
        assert "modeling_maskgit.py" in hub.files("me/counting", "v2")
        assert "modeling_maskgit.py" not in hub.files("me/counting")
    others = [block for block in blocks if block.heading == STRANGER]
    modules = str(tmp_path / "modules")
    found = read(others, tmp_path, stranger=True, HF_MODULES_CACHE=modules)
    assert_printed(others, found.printed)


@pytest.mark.slow
def test_the_example_of_a_pretrained_encoder_too(tmp_path):
    if importlib.util.find_spec("antiberty") is None:
        pytest.skip("the package antiberty, with the encoder's weights, is not installed")
    blocks = [block for block in blocks_of("patterns.md") if block.heading == PRETRAINED]
    assert len(blocks) == 3
    assert_printed(blocks, read(blocks, tmp_path).printed)


def commands() -> list[list[str]]:
    """Every command that a page shows and that runs one of our scripts, split into words."""
    codes = [block.code for page in PAGES for block in blocks_of(page) if block.language == "bash"]
    for page in (
        *PAGES,
        "app.md",
        "other_runtimes.md",
    ):  # "sh" is shown: it speaks of models and texts that are the reader's own
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        codes += re.findall(r"^```sh\n(.*?)^```$", text, flags=re.M | re.S)
    return [words for code in codes for words in commands_of(code) if run_by(words)]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_is_understood(command, tmp_path):
    check_understood(command, tmp_path)


def test_the_pages_show_every_command_of_an_installed_package():
    """Training by the launcher, as a run of any size is started."""
    shown = {tuple(words[:2]) for words in commands() if words[0] == "hf-maskgit"}
    assert {name for _, name in shown} == set(COMMANDS) - {"train"}
    assert ["accelerate", "launch", "-m", "hf_maskgit.scripts.train"] in [w[:4] for w in commands()]


@pytest.mark.parametrize("page", [ROOT / "README.md", *map((ROOT / "docs").joinpath, PAGES)])
def test_whoever_copies_a_block_that_loads_a_generator_has_imported_the_package(page):
    """transformers knows the type only then; the page says what it says otherwise."""
    text = page.read_text(encoding="utf-8")
    for code in re.findall(r"^```python\n(.*?)^```$", text, flags=re.M | re.S):
        if re.search(
            r"^\S.*pipeline\(|^from transformers import .*\bAuto(Model|Config)", code, re.M
        ):
            assert "hf_maskgit" in code or "trust_remote_code" in code, code


def test_the_trap_has_the_words_of_the_error(tmp_path):
    """Of a process that has not imported the package; transformers' sentences, in its release."""
    page = (ROOT / "docs/ecosystem.md").read_text(encoding="utf-8")
    trap = page.split("\n## Traps\n")[1]
    (tmp_path / "config.json").write_text('{"model_type": "maskgit"}')
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as context:
        context.delitem(CONFIG_MAPPING._extra_content, "maskgit")
        with pytest.raises(ValueError, match="does not recognize this architecture") as raised:
            pipeline("infilling", model=str(tmp_path))
    assert "`KeyError: 'maskgit'`" in trap
    assert repr(raised.value.__context__) == "KeyError('maskgit')"
    said = "model type `maskgit` but Transformers does not recognize this architecture"
    assert said in str(raised.value)
    assert said.replace("`", "") in " ".join(trap.split()).replace("`", "")


def slugs(page: Path) -> set[str]:
    """What a heading of a page is called in a link: lower case, words joined by dashes."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_into_a_page_meets_a_heading(page):
    for target, heading in re.findall(
        r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")
    ):
        assert heading in slugs(page.parent / target if target else page), (target, heading)


def test_the_readme_counts_what_the_table_of_encoders_and_the_samplers_hold():
    table = (ROOT / "docs/encoders.md").read_text(encoding="utf-8")
    kinds = re.findall(
        r"^\| `[\w-]+` \| (yes|without padding|refused) \|", table, flags=re.MULTILINE
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"(\d+) of the (\d+) types .* (\w+) of them without padding", readme)
    assert found is not None
    supported = len(kinds) - kinds.count("refused")
    assert (int(found[1]), int(found[2])) == (supported, len(kinds))
    numbers = "zero one two three four five six seven eight nine ten".split()
    assert found[3] == numbers[kinds.count("without padding")]
    sizes = {"orders": len(ORDERS), "paces": len(PACES), "ways of remasking": len(REMASKS) - 1}
    for what, size in sizes.items():
        assert f"{numbers[size]} {what}" in readme
    others = [name for name, preset in PRESETS.items() if preset.source != "own"]
    assert f"samplers of {numbers[len(others)]} papers" in readme


def test_the_page_lists_every_option_of_the_configuration_with_its_default():
    """Read off the page row by row; the other side is the class itself."""
    page = (ROOT / "docs/ecosystem.md").read_text(encoding="utf-8")
    table = page.split("\n## `MaskGitConfig`\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \| `([^|]+)` \| [^|]+ \|$", table, flags=re.MULTILINE)
    shown = [(name, ast.literal_eval(value)) for names, value in rows for name in names_in(names)]
    assert len(rows) == table.count("\n|") - 2  # no row escapes the pattern
    assert shown == [(name, getattr(MaskGitConfig, name)) for name in own_fields()]


# The files of core that own a formula or a table; the others carry them out or say what they mean.
OWNERS = (
    *("schedules", "masking", "losses", "noise", "sampler_scores", "sampler_paces"),
    *("sampler_remasks", "sampler_rules", "decoding", "decoding_layout", "decoding_constraints"),
    *("decoding_guidance", "decoding_stops", "encoder_pass", "self_conditioning", "token_critic"),
)


def test_how_it_works_names_the_file_of_every_formula():
    page = (ROOT / "docs/how_it_works.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:core|training|evaluation|hub)/\w+\.py)`", page)
    assert [name for name in named if not (PACKAGE / name).exists()] == []
    assert [name for name in OWNERS if f"core/{name}.py" not in named] == []


def dotted_paths(page: Path) -> list[str]:
    """What a page names inside the package by its import path."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"\bhf_maskgit(?:\.[A-Za-z_]\w*)+", text)


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_every_import_path_on_a_page_leads_somewhere(page):
    """To a module, or to a name in one; the changelog also names those that are gone."""
    for path in dotted_paths(page):
        # the programs, which an installation has inside the package
        path = path.replace("hf_maskgit.scripts", "scripts")
        pkgutil.resolve_name(path.removesuffix(".py"))


def test_the_map_in_contributing_has_the_first_line_of_every_file():
    assert map_of_page() == draw(), "write it anew: python -m tests.support.house"


def test_contributing_has_the_folders_in_the_direction_of_imports():
    (line,) = re.findall(
        r"^    (core <- .*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert line.split(" <- ") == [*FOLDERS, "scripts"]


def test_the_map_wants_a_sentence(tmp_path):
    """A file without one, or whose first line runs on, is named."""
    for source in ("", '"""A line that goes\n\non."""', "x = 1"):
        (tmp_path / "loss.py").write_text(source)
        with pytest.raises(ValueError, match="docstring of loss.py .* one short sentence"):
            first_line(tmp_path / "loss.py")


def names_in(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


# The names in the tables of coming_from.md

GENERATE = set(inspect.signature(MaskGitForMaskedLM.generate).parameters)
DECODING = {*DEFAULTS, *GENERATE} - {"self", "kwargs"}
COLLATING = set(inspect.signature(DataCollatorForMaskGit.__init__).parameters) - {"self"}
EXAMPLE = {"input_ids", "attention_mask", "labels", "maskable"}  # columns the collator reads
FORWARD = set(inspect.signature(MaskGitForMaskedLM.forward).parameters) - {"self", "kwargs"}
WRAPPING = {"critic", "tokenizer"}  # of from_encoder
OPTIONS = {*DECODING, *COLLATING, *EXAMPLE, *FORWARD, *WRAPPING, *own_fields()}
SCRIPT_OPTIONS = {f.name for kinds in SHOWN.values() for kind in kinds for f in fields(kind)}
OBJECTS = {"model": MaskGitForMaskedLM, "MaskGitOutput": MaskGitOutput}
OBJECTS |= {
    "Trainer": Trainer,
    "AutoTokenizer": AutoTokenizer,
    "SetEpochCallback": SetEpochCallback,
}
NOT_HERE = {"always", "none"}


def rows_here() -> list[tuple[str, str]]:
    """Of each row of the tables: its first and its second column."""
    text = (ROOT / "docs/coming_from.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [(row[0].strip(), row[1].strip()) for row in rows if row[0].strip() != "there"]


def find_fault(written: str) -> str | None:
    """Say what is wrong with something the second column tells to write; None where all is well."""
    if written.startswith("--"):
        return None if written[2:] in SCRIPT_OPTIONS else "no script has this option"
    if written.startswith("scripts/"):
        return None if (ROOT / written).exists() else "there is no such script"
    if written in OPTIONS:
        return None
    call = ast.parse(f"f({written})", mode="eval").body
    if not call.keywords:
        # The names are loaded when asked for: those that nobody asked for yet are not in `vars`.
        names = {name: getattr(hf_maskgit, name) for name in hf_maskgit.__all__} | OBJECTS
        try:
            eval(written, {"__builtins__": {}}, names)
        except (NameError, AttributeError, ValueError, TypeError) as error:
            return str(error)
        return None
    for keyword in call.keywords:
        options = {keyword.arg: ast.literal_eval(keyword.value)}
        try:
            if keyword.arg in own_fields():
                critic = {"critic_config": {"model_type": "bert"}}
                MaskGitConfig(**options, **(critic if "separate" in options.values() else {}))
            elif keyword.arg in DEFAULTS:
                MaskGitGenerationConfig(**options)
            elif keyword.arg in COLLATING:
                DataCollatorForMaskGit(word_tokenizer(), **options)
            elif keyword.arg not in OPTIONS:
                return f"there is no option {keyword.arg!r}"
        except (ValueError, TypeError) as error:
            return str(error)
    return None


def test_every_name_in_the_tables_is_ours():
    """Options by name and value, scripts, classes, presets: what the second column says exists."""
    assert len(rows_here()) > 50
    faults = []
    for there, here in rows_here():
        written = re.findall(r"`([^`]+)`", here)
        assert written or here in NOT_HERE, f"{there}: {here}"
        faults += [f"{there}: `{w}`: {fault}" for w in written if (fault := find_fault(w))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "wrong",
    [
        *("num_beams", "num_beams=2", 'order="best"', 'schedule="square"', "top_p=2.0"),
        *("--num_beams", "scripts/chat.py", "model.beam_search", "nelbos", 'choice="poisson"'),
        *('token_critic="other"', 'MaskGitGenerationConfig.preset("gpt")'),
    ],
)
def test_a_name_that_is_not_ours_is_found(wrong):
    assert find_fault(wrong)


def test_options_that_go_together_are_a_legal_sampler():
    """Rows that name several choices of a sampler name a combination that `generate` takes."""
    for _, here in rows_here():
        written = [w for w in re.findall(r"`([^`]+)`", here) if "=" in w]
        calls = [ast.parse(f"f({w})", mode="eval").body.keywords for w in written]
        options = {k.arg: ast.literal_eval(k.value) for kind in calls for k in kind}
        names = [k.arg for kind in calls for k in kind]
        if len(set(names)) == len(names) and set(names) <= set(DEFAULTS):
            config = MaskGitGenerationConfig(**options)
            config.resolve_choices()


def test_every_recipe_has_its_short_tier_told():
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    (tiers,) = re.findall(r"^## Short tiers\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    recipes = {path.name for path in (ROOT / "scripts" / "recipes").glob("*.yaml")}
    assert recipes == set(re.findall(r"`(\w+\.yaml)`", tiers))
