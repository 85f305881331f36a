"""The samplers of the literature by name."""

import re

import pytest
import torch

from hf_maskgit import MaskGitGenerationConfig
from hf_maskgit.core.sampler_presets import PLAIN, PRESETS
from tests.support.project import ROOT
from tests.support.tiny import TableModel, tiny_config

DOCS = ROOT / "docs" / "samplers.md"
TEXT = torch.tensor([[2, *[4] * 40, 3]])


@pytest.fixture
def table():
    return TableModel(tiny_config())


def test_the_names_are_those_that_are_promised():
    assert set(PRESETS) == set(
        "maskgit mdlm llada dream remdm p2 eb fast_dllm x_transformers fast".split()
    )


@pytest.mark.grid(2)
@pytest.mark.parametrize("name", PRESETS)
def test_each_is_legal_and_fills_every_mask(table, name):
    config = MaskGitGenerationConfig.preset(name)
    out = table.generate(TEXT, generation_config=config, seed=0, return_dict_in_generate=True)
    assert not bool((out.sequences == 4).any())
    assert torch.equal(out.sequences[:, [0, -1]], TEXT[:, [0, -1]])
    if config.pace == "schedule":
        assert int(out.denoiser_passes) <= (config.steps or 18)


def test_fast_takes_a_third_of_the_passes_where_a_text_is_easy(table):
    """Nearly sure of most places, none of which depends much on others; 40 masks."""
    table.of_place *= 4

    def passes(**options):
        out = table.generate(TEXT, seed=0, return_dict_in_generate=True, **options)
        assert not bool((out.sequences == 4).any())
        return int(out.denoiser_passes)

    fast = PRESETS["fast"].options
    slow = {**fast, "pace": "schedule", "steps": 64}
    assert passes(**slow) == 40
    assert 3 * passes(preset="fast") <= 40


@pytest.mark.parametrize("name", PRESETS)
def test_each_comes_back_from_a_checkpoint(tmp_path, name):
    config = MaskGitGenerationConfig.preset(name)
    config.save_pretrained(tmp_path)
    loaded = MaskGitGenerationConfig.from_pretrained(tmp_path)
    for option, value in PRESETS[name].options.items():
        assert getattr(loaded, option) == value


def test_overrides_replace_and_complete_it():
    config = MaskGitGenerationConfig.preset("llada", steps=7, top_k=3)
    assert (config.steps, config.top_k, config.block_length) == (7, 3, 32)


def test_an_override_that_does_not_go_with_it():
    with pytest.raises(ValueError, match="pace='ancestral' with remask='never' goes with order"):
        MaskGitGenerationConfig.preset("mdlm", order="entropy")


def test_an_unknown_name():
    with pytest.raises(ValueError, match="Unknown preset 'gpt'; choose from 'maskgit', 'mdlm'"):
        MaskGitGenerationConfig.preset("gpt")


def test_the_docs_show_each_with_its_options():
    """One row per preset: name, source, options that differ from the defaults, use."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", DOCS.read_text(), re.MULTILINE)
    shown = {name: (source.strip(), options) for name, source, options in rows if name in PRESETS}
    assert set(shown) == set(PRESETS)
    for name, (source, options) in shown.items():
        assert PRESETS[name].source in source
        for option, value in PRESETS[name].options.items():
            if PLAIN.get(option) != value:
                assert f"{option}={value!r}" in options, (name, option)


@pytest.mark.grid(2, first=1)
@pytest.mark.parametrize("name", PRESETS)
def test_the_docs_say_which_write_several_texts_of_a_prompt(table, name):
    cells = re.search(rf"^\| `{name}` \|.*$", DOCS.read_text(), re.MULTILINE)[0].split(" | ")

    def two_texts(**options):
        return table.generate(TEXT, preset=name, steps=4, num_return_sequences=2, **options)

    if cells[3] == "any number":
        assert len(two_texts()) == 2
    else:
        assert cells[3] == "one: it draws nothing"
        with pytest.raises(ValueError, match="which num_return_sequences=2 needs; set do_sample=T"):
            two_texts()
        assert len(two_texts(do_sample=True)) == 2
