"""A run by length: batches of texts of about one length, and a model at the end."""

import pytest

import hf_maskgit.training.loop as training
from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.training.arguments import TrainArguments
from hf_maskgit.training.by_length import train_by_length
from tests.support.tiny import word_tokenizer
from tests.support.tiny_training import SMALL, examples, fresh_model, log_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


@pytest.mark.wide
def test_a_run_by_length_learns_and_is_saved(tmp_path, monkeypatch):
    widths = []
    take_update = training.take_update

    def measured(accelerator, model, optimizer, batch, *rest):
        lengths = batch["attention_mask"].sum(1)
        widths.append(int(lengths.max() - lengths.min()))
        return take_update(accelerator, model, optimizer, batch, *rest)

    monkeypatch.setattr(training, "take_update", measured)
    changes = {"gradient_accumulation_steps": 1, "max_steps": 16}
    options = TrainArguments(output_dir=str(tmp_path / "run"), **{**SMALL, **changes})
    train_by_length(fresh_model(), word_tokenizer(), examples(), options, tmp_path / "model")
    assert len(widths) == 16
    assert max(widths) <= 1  # 64 texts of 8 lengths, in batches of 4
    assert log_of(tmp_path / "run")[16] < log_of(tmp_path / "run")[1]
    assert MaskGitForMaskedLM.from_pretrained(tmp_path / "model").config.mask_token_id == 4
