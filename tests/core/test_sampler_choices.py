"""What follows from the rows of the sampler: nothing that a row says is said a second time."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from hf_maskgit import MaskGitGenerationConfig
from hf_maskgit.core.decoding_cache import REFRESHES
from hf_maskgit.core.generation_config_maskgit import DEFAULTS, OPTIONS
from hf_maskgit.core.options import options_of
from hf_maskgit.core.sampler import Sampler
from hf_maskgit.core.sampler_choices import TABLES, readers_of, what_draws
from tests.support import options_table
from tests.support.pages import between
from tests.support.project import PACKAGE, ROOT

READ_BY = {
    "steps": ("pace", ["schedule", "ancestral"]),
    "schedule": ("pace", ["schedule", "ancestral"]),
    "confidence_threshold": ("pace", ["threshold"]),
    "threshold_factor": ("pace", ["threshold"]),
    "entropy_budget": ("pace", ["entropy_bound"]),
    "draft_length": ("pace", ["speculative"]),
    "remdm_eta": ("remask", ["remdm_cap", "remdm_rescale", "remdm_loop"]),
    "remdm_t_on": ("remask", ["remdm_loop"]),
    "remdm_t_off": ("remask", ["remdm_loop"]),
    "remdm_alpha_on": ("remask", ["remdm_loop"]),
    "p2_eta": ("remask", ["p2"]),
    "p2_planner": ("remask", ["p2"]),
    "noise_level_scale": ("order", ["critic"]),
    "cache_refresh_interval": ("cache_refresh", ["interval"]),
    "cache_drift": ("cache_refresh", ["adaptive"]),
}
REMDM = ["remdm_cap", "remdm_rescale", "remdm_conf", "remdm_loop"]
DRAWING = {"order": ["random"], "pace": ["ancestral", "first_hitting"], "remask": REMDM}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_belongs_to_the_choices_whose_rows_read_it(name):
    assert readers_of(name) == READ_BY.get(name)


@pytest.mark.parametrize("choice", TABLES)
def test_a_choice_draws_if_its_row_says_so(choice):
    drawing = [value for value in TABLES[choice] if what_draws({choice: value}) == [choice]]
    assert drawing == DRAWING[choice]


def test_rows_speak_of_options_that_there_are():
    for table in (*TABLES.values(), REFRESHES):
        for row in table.values():
            assert set(row.reads) <= set(OPTIONS)
            assert getattr(row, "noise", None) in {None, *OPTIONS}


def test_a_sampler_has_the_defaults_of_generate():
    declared = options_of(Sampler)
    assert {name: DEFAULTS[name] for name in declared if name not in TABLES} == {
        name: option.default for name, option in declared.items() if name not in TABLES
    }
    resolved = MaskGitGenerationConfig()
    resolved.complete(DEFAULTS)
    resolved.resolve_choices()
    assert {name: getattr(resolved, name) for name in TABLES} == {
        name: declared[name].default for name in TABLES
    }


def test_the_class_documents_every_option_as_it_is_declared():
    text = " ".join(str(MaskGitGenerationConfig.__doc__).split())
    for name, option in OPTIONS.items():
        assert f"{name}: {' '.join(option.description.split())}" in text


def test_the_page_of_options_says_what_is_declared():
    """Where this fails, `python -m tests.support.options_table` writes the page anew."""
    page = options_table.PAGE.read_text(encoding="utf-8")
    for name, content in options_table.tables().items():
        assert between(page, name) == content


NEW_ROW = """
    "quarter": replace(
        _COIN,
        help="a quarter of them",
        rate=lambda sampler, before, after, *_: 0.25 * (after > 0), makes_up=False,
    ),
"""
PROGRAM = """
import json, logging
import hf_maskgit
from hf_maskgit.core.decoding_cache import REFRESHES
from hf_maskgit.core.generation_config_maskgit import OPTIONS
from tests.support.tiny import tiny_model

logging.disable()
model = tiny_model()

def refused(**options):
    try:
        model.generate(remask="quarter", max_new_tokens=8, seed=0, **options)
    except ValueError as error:
        return str(error)

told = {"from": hf_maskgit.__file__, "choices": OPTIONS["remask"].choices}
told["greedy"] = refused(do_sample=False)
told["order"] = refused(order="margin")
out = model.generate(
    remask="quarter", max_new_tokens=24, steps=8, seed=0,
    return_dict_in_generate=True, output_history=True,
)
mask = model.config.mask_token_id
masked = (out.history == mask)[:, 0]
told["gone_back"] = int((masked[1:] & ~masked[:-1]).sum())
told["left"] = int((out.sequences == mask).sum())
print(json.dumps(told))
"""


@pytest.mark.slow
def test_a_remasking_is_one_row(tmp_path):
    """A copy of the package with one more row: `generate` knows it, with all that follows.

    Of 24 tokens, each goes back with odds of a quarter in each pass but the last: that none does
    has odds below 1e-9.
    """
    copy = shutil.copytree(PACKAGE, tmp_path / "hf_maskgit")
    rules = copy / "core" / "sampler_rules.py"
    head, table, rest = rules.read_text().partition("REMASKS: dict[str, Remask] = {")
    rules.write_text(head + table + NEW_ROW.rstrip() + rest)
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["from"].startswith(str(tmp_path))
    assert told["choices"][0] == "quarter"
    assert "do_sample=False draws nothing at random, which remask='quarter' needs" in told["greedy"]
    assert "goes with order 'random', got order='margin'" in told["order"]
    assert told["gone_back"] > 0
    assert told["left"] == 0
