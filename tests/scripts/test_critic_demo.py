"""The demonstration of critic and self-conditioning, in little, on a generator of its own."""

import json

import pytest
import torch
from datasets import Dataset, DatasetDict

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import ONE_PASS, TWO_PASSES, NelboOutput
from scripts import critic_demo
from tests.support.tiny import tiny_model, word_tokenizer
from tests.support.tiny_training import repeated_symbols


@pytest.fixture
def demo_dir(tmp_path):
    """A folder such as `make demo` leaves."""
    folder = tmp_path / "demo"
    model = tiny_model(corruption_prob=0.0)
    model.save_pretrained(folder / "model")
    word_tokenizer().save_pretrained(folder / "model")
    parts = {"train": 300, "validation": 40}
    verses = {k: Dataset.from_dict({"text": repeated_symbols(n, n)}) for k, n in parts.items()}
    DatasetDict(verses).save_to_disk(folder / "verses")
    return folder


@pytest.mark.wide
@pytest.mark.usefixtures("_untouched_libraries")
def test_the_whole_story_in_little(tmp_path, demo_dir, capsys):
    out = tmp_path / "out"
    found = critic_demo.main([f"--demo_dir={demo_dir}", f"--output_dir={out}", "--quick"])
    assert json.loads((out / critic_demo.RESULTS).read_text()) == found
    assert 0 < found["critic"]["auroc_after"] < 1
    bounds = found["bounds"]
    assert [
        bounds[name]["estimator"] for name in ("before", "plain", "one_pass", "two_passes")
    ] == [
        *[ONE_PASS] * 3,
        TWO_PASSES,
    ]
    assert len({bound["nats_per_token"] for bound in bounds.values()}) == 4
    for name, part in (("critic", "critic_head"), ("self_conditioned", "self_conditioning")):
        model = MaskGitForMaskedLM.from_pretrained(out / name / "model")
        assert getattr(model, part) is not None
    told = capsys.readouterr().out
    assert "before training" in told
    assert f"{bounds['two_passes']['nats_per_token']:.4f}" in told
    with pytest.raises(ValueError, match="is not empty; remove it, or name another one with --out"):
        critic_demo.main([f"--demo_dir={demo_dir}", f"--output_dir={out}", "--quick"])


def test_without_the_first_demonstration(tmp_path):
    with pytest.raises(ValueError, match="holds no folder 'model'; run `make demo` first"):
        critic_demo.main([f"--demo_dir={tmp_path}", f"--output_dir={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_the_gain_is_paired():
    tokens = torch.tensor([2, 4])
    first = NelboOutput(torch.tensor([10.0, 8.0]), torch.zeros(2), tokens)
    second = NelboOutput(torch.tensor([7.0, 6.0]), torch.zeros(2), tokens)
    gain, error = critic_demo.gain_of(first, second)
    assert gain == pytest.approx(-5 / 6)
    assert error == pytest.approx(0.5**0.5 * 2**0.5 / 6)
