"""Checkpoints of the last release load, sample and are saved again as they were."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from hf_maskgit import MaskGitForMaskedLM
from tests.support.project import ROOT

RELEASE = ROOT / "tests" / "fixtures" / "release_0_1_0_dev0"
OWN_VERSION = "transformers_version"  # of whoever saved it
# Written down once more, as they were set when the checkpoints were made.
STORED: dict[str, dict[str, Any]] = {
    "bert_self": {"order": "margin", "choice_temperature": 1.5, "steps": 5, "temperature": 0.8},
    "roberta_separate": {
        "pace": "ancestral",
        "remask": "remdm_cap",
        "remdm_eta": 0.3,
        "steps": 6,
        "anneal_temperature": False,
    },
}
EVERY_CHECKPOINT = pytest.mark.parametrize("name", STORED)


def stored(folder: Path, name: str) -> dict[str, Any]:
    values = json.loads((folder / name).read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if key != OWN_VERSION}


@EVERY_CHECKPOINT
@pytest.mark.parametrize("load", [MaskGitForMaskedLM, AutoModelForMaskedLM])
def test_it_loads_whole(name, load):
    model, info = load.from_pretrained(RELEASE / name, output_loading_info=True)
    assert type(model) is MaskGitForMaskedLM
    assert not any(info.values()), info


@EVERY_CHECKPOINT
def test_generate_gives_what_it_gave(name):
    """Tokens, and the pass in which each was revealed; float64, so no rounding can turn a draw."""
    model = MaskGitForMaskedLM.from_pretrained(RELEASE / name, dtype=torch.float64)
    samples = json.loads((RELEASE / name / "samples.json").read_text(encoding="utf-8"))
    assert len(samples) == 4
    for sample in samples:
        options = dict(sample["options"])
        for tensor in options.keys() & {"input_ids", "attention_mask"}:
            options[tensor] = torch.tensor(options[tensor])
        out = model.generate(**options, return_dict_in_generate=True)
        assert out.sequences.tolist() == sample["sequences"], sample["options"]
        assert out.reveal_steps.tolist() == sample["reveal_steps"], sample["options"]


@EVERY_CHECKPOINT
def test_its_options_of_decoding_are_those_that_were_stored(name):
    options = MaskGitForMaskedLM.from_pretrained(RELEASE / name).generation_config
    assert {key: getattr(options, key) for key in STORED[name]} == STORED[name]


@EVERY_CHECKPOINT
def test_it_is_saved_again_as_it_was(name, tmp_path):
    MaskGitForMaskedLM.from_pretrained(RELEASE / name).save_pretrained(tmp_path)
    for file in ("config.json", "generation_config.json"):
        assert stored(tmp_path, file) == stored(RELEASE / name, file)
    before, after = (load_file(p / "model.safetensors") for p in (RELEASE / name, tmp_path))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
