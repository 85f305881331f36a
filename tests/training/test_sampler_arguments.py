"""Samplers on a command line: what is wrong with any of them is said before anything is done."""

import importlib
import re

import pytest

from hf_maskgit.training.sampler_arguments import (
    OF_LENGTHS,
    check_samplers,
    decoding_of,
    samplers_of,
)
from tests.support.project import ROOT
from tests.support.tiny import tiny_model

SCRIPTS = {path.stem: path.read_text("utf-8") for path in (ROOT / "scripts").glob("*.py")}
# Names that lead nowhere: a program that opened one would say so.
NOWHERE = ["--model", "--models", "--dataset", "--output_dir", "--text"]


def test_samplers_are_read_or_those_by_default():
    assert samplers_of('[{"preset": "fast", "steps": 3}, {}]', [], {}) == [
        {"preset": "fast", "steps": 3},
        {},
    ]
    default = [{"steps": 2}]
    found = samplers_of(None, default, {})
    found[0]["steps"] = 3
    assert default == [{"steps": 2}]
    assert decoding_of("--decoding", '{"order": "random"}') == {"order": "random"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ('{"order": "best"}', "Unknown order 'best'; choose from"),
        ('{"seed": 1}', "has no option 'seed'"),
        ('{"preset": "best"}', "Unknown preset 'best'"),
        ('{"preset": "fast", "steps": 0}', "`steps` must be an integer of at least 1"),
        ('{"order": "random", "do_sample": false}', "do_sample=False draws nothing at random"),
        ('{"num_return_sequences": 2}', "`num_return_sequences` is what this program decides itse"),
        ('{"return_dict_in_generate": true}', "itself; leave it out of --"),
        ('{"output_history": true}', "`output_history` is what this program decides itself"),
    ],
)
def test_what_are_no_options_is_refused_wherever_it_stands(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        samplers_of(f"[{{}}, {options}]", [], {})
    with pytest.raises(ValueError, match=sentence):
        decoding_of("--decoding", options)


def test_what_a_program_decides_is_no_option_of_a_sampler():
    asked = '[{"num_tokens": "sampled"}]'
    assert samplers_of(asked, [], {}) == [{"num_tokens": "sampled"}]
    with pytest.raises(ValueError, match="`num_tokens` is what this program decides itself; leave"):
        samplers_of(asked, [], {}, decided=OF_LENGTHS)


def test_what_a_model_cannot_do_is_refused_whichever_sampler_asks_for_it():
    check_samplers(tiny_model(), [{}, {"preset": "fast"}])
    for asked in ({"order": "critic"}, {"remask": "p2", "p2_planner": "critic"}):
        with pytest.raises(ValueError, match="The model has no token critic"):
            check_samplers(tiny_model(), [{}, asked])


def test_every_program_with_samplers_reads_them_so():
    declaring = {
        name for name, text in SCRIPTS.items() if re.search(r"^    samplers: ", text, re.M)
    }
    assert declaring
    assert not [
        name
        for name in declaring
        if not re.search(r"samplers_of\(\s*options.samplers,", SCRIPTS[name])
    ]


@pytest.mark.parametrize("name", [name for name, text in SCRIPTS.items() if "samplers_of(" in text])
def test_a_program_refuses_the_second_sampler_before_it_does_anything(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    option = "--caches" if "--caches" in SCRIPTS[name] else "--samplers"
    declared = set(
        re.findall(r"^    (\w+): .+ = (?:required|option)\(", SCRIPTS[name], re.MULTILINE)
    )
    given = [word for one in NOWHERE if one[2:] in declared for word in (one, "no")]
    main = importlib.import_module(f"scripts.{name}").main
    with pytest.raises(ValueError, match="Unknown order 'best'"):
        main([*given, option, '[{}, {"order": "best"}]'])
    assert not list(tmp_path.iterdir())
