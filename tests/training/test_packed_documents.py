"""Documents of one row: each has the logits that it has alone, for every kind that claims it."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy import stats

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM
from hf_maskgit.core.encoder_kinds import SEPARATES_DOCUMENTS, SEPARATES_IN_WINDOWS
from hf_maskgit.training import loop
from hf_maskgit.training.data import load_data
from hf_maskgit.training.data_arguments import DataArguments
from hf_maskgit.training.document_rows import DocumentRows
from hf_maskgit.training.examples import prepare_examples
from hf_maskgit.training.packed_documents import check_separates, document_arguments
from hf_maskgit.training.time_samplers import spread_by_masked_share
from scripts.train import main
from tests.support.support_matrix import tiny_generator, tokenizer_of
from tests.support.tiny import WORDS, tiny_model, word_tokenizer
from tests.support.tiny_training import SMALL, log_of, words, write_inputs

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
KINDS = sorted(SEPARATES_DOCUMENTS | SEPARATES_IN_WINDOWS)


def documents(kind, lengths=(7, 12, 5)):
    random = torch.Generator().manual_seed(0)
    low = max(tokenizer_of(kind).all_special_ids) + 1
    high = max(tokenizer_of(kind).get_vocab().values())
    return [torch.randint(low, high, (n,), generator=random) for n in lengths]


def packed(rows, padding=3, pad_token_id=0):
    ids = torch.cat([*rows, torch.full((padding,), pad_token_id)])[None]
    numbers = [torch.full((len(row),), n) for n, row in enumerate(rows, 1)]
    return ids, torch.cat([*numbers, torch.zeros(padding, dtype=torch.long)])[None]


@pytest.mark.grid(2)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_document_has_the_same_logits_packed_and_alone(kind, attention):
    torch.manual_seed(0)
    model = tiny_generator(kind).eval()
    if attention == "sdpa" and not model.denoiser._supports_sdpa:
        pytest.skip("it has eager attention alone")
    model.denoiser.set_attn_implementation(attention)
    check_separates(model)
    rows = documents(kind)
    ids, numbers = packed(rows, pad_token_id=tokenizer_of(kind).pad_token_id)
    with torch.no_grad():
        alone = torch.cat([model(row[None]).logits[0] for row in rows])
        together = model(ids, **document_arguments(model.denoiser, numbers)).logits[0]
    together = together[: len(alone)]
    known = alone.isfinite()
    scale = float(alone[known].abs().max())
    torch.testing.assert_close(together[known], alone[known], rtol=0, atol=2e-5 * scale)
    # and it does look at its own document
    changed = ids.clone()
    changed[0, 0] = ids[0, 8]
    with torch.no_grad():
        other = model(changed, **document_arguments(model.denoiser, numbers)).logits[0]
    difference = (other[: len(alone)][known] - together[known]).abs().max()
    assert float(difference) > 1e-4 * scale


def test_an_encoder_that_cannot_keep_documents_apart_is_refused():
    with pytest.raises(ValueError, match="'fnet' is not known to; these are: albert, bert.*joined"):
        check_separates(tiny_generator("fnet"))
    with pytest.raises(ValueError, match="without self-conditioning and token critic"):
        check_separates(tiny_model(self_cond=True))
    with pytest.raises(ValueError, match="without self-conditioning and token critic"):
        check_separates(tiny_model(token_critic="self"))
    model: MaskGitForMaskedLM = tiny_model()
    model.denoiser.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="'sdpa' or 'eager', and the encoder has 'flash_attention"):
        check_separates(model)


def test_whole_texts_are_put_side_by_side_and_nothing_is_lost():
    tokenizer = word_tokenizer()
    random = np.random.default_rng(0)
    rows = [" ".join(random.choice(WORDS, size=random.integers(1, 9))) for _ in range(60)]
    texts = Dataset.from_dict({"text": rows})
    examples, report = prepare_examples(texts, tokenizer, max_length=24, pack="separate")
    found = []
    for example in examples:
        ids = torch.tensor(example["input_ids"])
        numbers, free = torch.tensor(example["document_ids"]), torch.tensor(example["maskable"])
        assert len(ids) <= 24
        assert numbers[0] == 1
        for number in range(1, int(numbers.max()) + 1):
            own = numbers == number
            found.append(ids[own].tolist())
            # its framing is never masked, and the rest may be
            assert free[own].tolist() == [0, *[1] * (int(own.sum()) - 2), 0]
    assert sorted(found) == sorted(tokenizer(rows)["input_ids"])
    assert report.filled > 0.9
    assert report.filled == sum(map(len, found)) / (24 * len(examples))
    assert "The blocks are filled to 9" in str(report)
    assert examples["example_id"][:] == list(range(len(examples)))


def test_a_text_longer_than_a_block_is_cut_or_split():
    texts = Dataset.from_dict({"text": ["w1 w2 w3 w4 w5", "w6"]})
    for too_long, bodies in (("cut", ["w1 w2 w3", "w6"]), ("split", ["w1 w2 w3", "w4 w5", "w6"])):
        examples, _ = prepare_examples(
            texts, word_tokenizer(), max_length=5, pack="separate", too_long=too_long
        )
        rows = [i for ids in examples["input_ids"] for i in ids]
        assert rows == [i for ids in word_tokenizer()(bodies)["input_ids"] for i in ids]


@pytest.mark.wide
@pytest.mark.usefixtures("_fresh_accelerate")
def test_a_run_on_separate_documents_has_the_loss_of_the_documents_alone(tmp_path):
    """The first update's loss, from a model without dropout, by the plain formula on each text."""
    inputs = write_inputs(tmp_path, num_texts=60, **STILL)
    options = {
        **SMALL,
        "pack": "separate",
        "validation_fraction": 0.2,
        "output_dir": tmp_path / "r",
    }
    options |= {"max_length": 32, "max_steps": 2, "no_replace_prob": 0, "random_token_prob": 0}
    steps = []
    plain = loop.take_update

    def spied(accelerator, model, optimizer, batch, *rest):
        if not steps:
            steps.append(loss_of_documents(accelerator.unwrap_model(model), batch))
        return plain(accelerator, model, optimizer, batch, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "take_update", spied)
        main([*inputs[:-2], *words(options)])
    assert log_of(tmp_path / "r")[1] == pytest.approx(steps[0], rel=1e-5)
    assert log_of(tmp_path / "r", "eval_nats_per_token")


def block(sizes, number=0):
    """An example of framed texts of ordinary words, which number them as `--pack separate` does."""
    frame, word = word_tokenizer()("").input_ids, word_tokenizer()("w0").input_ids[1]
    texts = [[frame[0], *range(word, word + size), frame[1]] for size in sizes]
    return {
        "input_ids": [i for text in texts for i in text],
        "maskable": [int(i not in frame) for text in texts for i in text],
        "document_ids": [n for n, text in enumerate(texts, 1) for _ in text],
        "example_id": number,
    }


@pytest.mark.parametrize("choice", ["exact_count", "bernoulli"])
def test_a_document_is_masked_as_the_text_alone_with_its_draws(choice):
    sizes = [[3, 9, 5], [12], [2, 1]]
    collator = DataCollatorForMaskGit(word_tokenizer(), "cosine", choice=choice)
    drawn = collator.draw([block(row, number) for number, row in enumerate(sizes)])
    packed = collator.mask(drawn)
    for row, of_row in enumerate(sizes):
        for number in range(1, len(of_row) + 1):
            own = drawn["document_ids"][row] == number
            names = ("input_ids", "attention_mask", "maskable", "times", "coins", "uniforms")
            alone = collator.mask({name: drawn[name][row, own][None] for name in names})
            for name, expected in alone.items():
                assert torch.equal(packed[name][row, own], expected[0]), name
            assert drawn["times"][row, own].unique().numel() == 1
    assert not packed["masked_positions"][packed["document_ids"] == 0].any()


def test_the_documents_of_an_update_have_one_time_in_each_stratum():
    """8 examples of 4 documents: 32 strata, whichever process has which of the examples."""
    collator = DataCollatorForMaskGit(word_tokenizer())
    features = [block([3, 2, 4, 5], number) for number in range(8)]
    for feature, stratum in zip(features, collator.strata(range(8)), strict=True):
        feature["time_stratum"] = stratum, 8
    whole = collator.draw(features)
    times = DocumentRows(whole["document_ids"]).gather(whole["times"])
    assert sorted((32 * times).ceil().int().tolist()) == list(range(1, 33))
    share = collator.draw(features[::2])
    assert torch.equal(share["times"], whole["times"][::2])


@pytest.mark.wide
def test_the_time_of_a_document_is_uniform_wherever_it_stands():
    """1,000 examples without common strata; a false alarm at 1e-6 for each of three places."""
    collator = DataCollatorForMaskGit(word_tokenizer())
    drawn = [collator.draw([block([1, 2, 1], number)]) for number in range(1000)]
    for number in (1, 2, 3):
        times = [float(one["times"][one["document_ids"] == number][0]) for one in drawn]
        assert stats.kstest(times, "uniform").pvalue > 1e-6
        coins = torch.stack([one["coins"][one["document_ids"] == number][0] for one in drawn])
        assert min(stats.kstest(coins[:, i].numpy(), "uniform").pvalue for i in (0, 1)) > 1e-6


def test_a_text_that_is_the_only_document_has_the_draws_of_the_text_alone():
    collator = DataCollatorForMaskGit(word_tokenizer())
    packed = [block([size], number) for number, size in enumerate((3, 9, 5))]
    alone = [{name: row[name] for name in ("input_ids", "example_id")} for row in packed]
    one, other = collator(packed), collator(alone)
    assert one.pop("document_ids").shape == one["input_ids"].shape
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_document_without_anything_to_learn_is_refused_as_a_text_alone_is():
    bad = block([3, 2], 7)
    bad["maskable"] = [
        free and number == 1
        for free, number in zip(bad["maskable"], bad["document_ids"], strict=True)
    ]
    with pytest.raises(ValueError, match="Example 7 has no maskable position"):
        DataCollatorForMaskGit(word_tokenizer())([block([4]), bad])


def test_the_losses_of_documents_are_told_apart_where_times_follow_them():
    collator = DataCollatorForMaskGit(word_tokenizer())
    packed = collator([block([3, 9, 5]), block([12], 1)])
    nll = torch.rand(int(packed["masked_positions"].sum()))
    rows = DocumentRows(packed["document_ids"])
    alone = {
        "masked_positions": rows.split(packed["masked_positions"]),
        "labels": rows.split(packed["labels"] + 100) - 100,
    }
    found = spread_by_masked_share(packed, nll)
    assert torch.equal(found, spread_by_masked_share(alone, nll))
    assert found[0].sum() == 4


@pytest.mark.wide
def test_held_out_texts_are_measured_one_by_one_however_they_are_named(tmp_path):
    texts = [f"w{i} w{i + 1}" for i in range(20)]
    for name, lines in (("train.txt", texts), ("held.txt", texts[:4])):
        (tmp_path / name).write_text("\n".join(lines))
    common = {"dataset": [str(tmp_path / "train.txt")], "max_length": 32, "pack": "separate"}
    for named in ({"validation_fraction": 0.2}, {"eval_dataset": str(tmp_path / "held.txt")}):
        data = load_data(DataArguments(**common, **named), word_tokenizer(), 64, 0)
        assert [len(ids) for ids in data.held_out["input_ids"]] == [4] * 4
        assert max(len(ids) for ids in data.train["input_ids"]) > 4


def loss_of_documents(model, batch):
    names = ("input_ids", "labels", "masked_positions", "loss_weights")
    count, total = (batch["labels"] != -100).sum(), 0.0
    with torch.no_grad():
        for row, numbers in enumerate(batch["document_ids"]):
            for number in range(1, int(numbers.max()) + 1):
                own = {name: batch[name][row, numbers == number][None] for name in names}
                if own["masked_positions"].any():
                    total += float(model(**own, num_items_in_batch=count).loss)
    return total
