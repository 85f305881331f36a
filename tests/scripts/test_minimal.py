"""The idea in one file is the library's: its loss, its greedy texts; and it runs to its end."""

import re
from types import SimpleNamespace

import pytest
import torch

from hf_maskgit import DataCollatorForMaskGit
from scripts import minimal
from tests.support.grids import wide
from tests.support.project import ROOT
from tests.support.tiny import tiny_encoder, tiny_model, word_tokenizer

MAX_LINES = 100


def test_it_is_short():
    assert len((ROOT / "scripts/minimal.py").read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("seed", range(5))
def test_its_loss_is_that_of_forward_on_the_same_masked_batch(seed):
    model, tokenizer = tiny_model().double(), word_tokenizer()
    draws = torch.Generator().manual_seed(seed)
    examples = [
        {"input_ids": [2, *torch.randint(7, 30, (n,), generator=draws).tolist(), 3]}
        | {"example_id": number}
        for number, n in enumerate([3, 9, 5, 7])
    ]
    batch = DataCollatorForMaskGit(tokenizer, corruption_prob=0.0, seed=seed)(examples)
    maskable, hidden = batch["labels"] >= 0, batch["masked_positions"].bool()
    ids = torch.where(maskable, batch["labels"], batch["input_ids"])
    weight = hidden * maskable.sum(1, keepdim=True) / hidden.sum(1, keepdim=True)
    forbidden = torch.tensor(model.config.forbidden_token_ids)
    logits = minimal.predict(model.denoiser, batch["input_ids"], batch["attention_mask"], forbidden)
    loss = minimal.bound(logits, ids, hidden, weight, maskable)
    torch.testing.assert_close(loss, model(**batch).loss.float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("steps", [wide(1), wide(2), 3, wide(5), wide(18)])
def test_its_greedy_texts_are_those_of_generate(steps):
    """Both let fall what the sampler never writes: special tokens, an end inside known text too."""
    model = tiny_model()
    forbidden, mask_id = torch.arange(5), model.config.mask_token_id
    assert forbidden.tolist() == sorted(model.config.special_token_ids)
    draws = torch.Generator().manual_seed(steps)
    for _ in range(10):
        length = int(torch.randint(5, 15, (), generator=draws))
        text = torch.randint(7, 40, (1, length), generator=draws)
        text[torch.rand(text.shape, generator=draws) < 0.8] = mask_id
        text[0, 0], text[0, 1], text[0, -1] = 2, mask_id, 3
        written = minimal.write(model.denoiser, text, mask_id, forbidden, steps, temperature=0.0)
        assert torch.equal(written, model.generate(text, do_sample=False, steps=steps))


@pytest.mark.wide
def test_it_draws_from_softmax_of_the_logits_over_the_scale():
    """The first of two steps has half the temperature. An id fails by chance once in 10 ** 7 seeds.

    (Bernstein, for 4,000 draws; the surer place, 0, is drawn first.)
    """
    logits = torch.tensor([[[0.0, 1.0, 3.0, 0.0], [0.0, 0.5, 1.0, 0.0]]])
    text, forbidden = torch.tensor([[3, 3]]), torch.tensor([3])

    def model(input_ids, attention_mask):
        return SimpleNamespace(logits=logits)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [minimal.write(model, text, 3, forbidden, 2, 4.0)[0].tolist() for _ in range(4000)]
    assert {second for _, second in drawn} == {2}, "the last step is greedy"
    shares = torch.tensor([first for first, _ in drawn]).bincount(minlength=4) / len(drawn)
    expected = (logits[0, 0, :3] / 2).softmax(-1)
    torch.testing.assert_close(shares[:3], expected, rtol=0, atol=0.05)


@pytest.mark.wide
def test_every_maskable_token_counts_once_on_average():
    """E[weight] = 1, and nothing else is hidden: once in 10 ** 6 seeds a place fails by chance.

    (Bernstein, for 10,000 draws of weights up to 9 with variance below 1 + 1/2 + ... + 1/9 - 1.)
    """
    maskable = torch.arange(9) < torch.tensor([[3], [9], [5], [7], [0]])
    ids, total = torch.full((5, 9), 8), torch.zeros(5, 9)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(10_000):
            shown, hidden, weight = minimal.hide(ids, maskable, mask_id=4)
            total += weight
            assert torch.equal(shown == 4, hidden)
    torch.testing.assert_close(total[maskable] / 10_000, torch.ones(24), rtol=0, atol=0.09)
    assert not total[~maskable].any()


@pytest.mark.wide
def test_it_learns_and_writes(tmp_path, capsys):
    """Fifty updates on texts of one word: its bound falls, below ln 35 / 30, and it is written."""
    tiny_encoder().save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "texts.txt").write_text("w7 w7 w7 w7\n\nw7 w7\n", encoding="utf-8")
    options = "--updates 50 --batch_size 4 --learning_rate 0.01 --new_tokens 3 --steps 2"
    minimal.main([str(tmp_path / "texts.txt"), str(tmp_path), *options.split()])
    *losses, text = capsys.readouterr().out.splitlines()
    nats = [float(re.search(r"at most ([\d.]+) nats per token", line)[1]) for line in losses]
    assert len(nats) == 5
    assert nats[-1] < 0.1
    assert text == "w7 w7 w7"


@pytest.mark.parametrize("content", [None, "", "\n \n"])
def test_a_file_without_a_text_is_refused_in_a_sentence(tmp_path, capsys, content):
    file = tmp_path / "texts.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SystemExit):
        minimal.main([str(file), "encoder"])
    assert "is no file with a text on each line." in capsys.readouterr().err
