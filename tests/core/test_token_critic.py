"""The token critic: its labels and loss, what learns, its scores, and how it travels."""

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, BertForMaskedLM, BertModel

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM
from hf_maskgit.core import encoder_loading, token_critic
from hf_maskgit.core.token_critic import critic_cross_entropy, fill_in
from hf_maskgit.evaluation import CriticAuroc, critic_auroc
from hf_maskgit.training.freezing import freeze_left_out
from tests.support.support_matrix import tiny_encoder_config, tiny_generator
from tests.support.tiny import bert_config, encoder_config, tiny_config, tiny_model, word_tokenizer
from tests.support.tiny_training import repeated_symbols
from tests.support.two_processes import train_two_processes

PAD, UNK, CLS, SEP, MASK = range(5)
FORBIDDEN = [PAD, CLS, MASK]
TEXTS = ["w1 w2 w3 w4 w5 w6", "w7 w8", "w9 w10 w11 w12", "w13 w14 w15 w16 w17 w18 w19 w20"]
KINDS = ["self", "separate"]
HOT = 3.0


def judged(kind, **options):
    """A generator with a critic whose scores differ by whole units."""
    if kind == "separate":
        options["critic_config"] = options.get("critic_config", bert_config(num_hidden_layers=1))
    return tiny_model(token_critic=kind, initializer_range=0.3, **options)


def batch_of(texts=TEXTS, **options):
    rows = word_tokenizer()(list(texts))["input_ids"]
    collate = DataCollatorForMaskGit(word_tokenizer(), **options)
    return collate([{"input_ids": row, "example_id": i} for i, row in enumerate(rows)])


@pytest.fixture
def batch():
    return batch_of(corruption_prob=1.0, no_replace_prob=0.3, random_token_prob=0.3)


# --- filling -------------------------------------------------------------------------------------


def test_only_the_chosen_are_filled_and_with_nothing_forbidden():
    truth = torch.arange(24).view(2, 12) + 5
    chosen = torch.rand(2, 12) < 0.5
    logits = torch.zeros(int(chosen.sum()), 40)
    logits[:, MASK] = 20.0
    seen = set()
    for _ in range(50):
        filled = fill_in(logits, truth, chosen, torch.tensor(FORBIDDEN))
        assert torch.equal(filled[~chosen], truth[~chosen])
        seen |= set(filled[chosen].tolist())
    assert seen == set(range(40)) - set(FORBIDDEN)


def test_nothing_chosen_leaves_the_text():
    truth, nowhere = torch.arange(6).view(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    filled = fill_in(torch.zeros(0, 40), truth, nowhere, torch.tensor(FORBIDDEN))
    assert torch.equal(filled, truth)


def test_each_text_has_a_temperature_of_its_own(monkeypatch):
    """Uniform in (0, 1]: a false alarm of the mean (5 standard deviations) is 1 in 1.7 million."""
    scores = []
    monkeypatch.setattr(token_critic, "draw", lambda x, u: scores.append(x) or x.argmax(-1))
    truth = torch.full((2000, 3), 9)
    chosen = torch.tensor([True, False, True]).expand(2000, 3)
    fill_in(torch.ones(4000, 12), truth, chosen, torch.tensor([0]))
    temperatures = 1 / scores[0][:, 1].view(2000, 2)
    assert torch.equal(temperatures[:, 0], temperatures[:, 1])
    assert 0 < temperatures.min() < 0.01
    assert 0.99 < temperatures.max() <= 1 + 1e-6
    assert abs(temperatures[:, 0].mean().item() - 0.5) < 5 * math.sqrt(1 / 12 / 2000)
    assert len(temperatures[:, 0].unique()) > 1900
    fill_in(torch.ones(4000, 12), truth, chosen, torch.tensor([0]), temperature=0.25)
    assert bool((scores[1][:, 1] == 4).all())


def test_draws_follow_the_distribution():
    """20,000 draws from three tokens: 5 standard deviations, 1 false alarm in 500,000."""
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(20000, 3)
    everywhere = torch.ones(1, 20000, dtype=torch.bool)
    wanted = (logits[0] / 0.5).softmax(0)
    filled = fill_in(logits, everywhere.long(), everywhere, torch.tensor([]).long(), 0.5)
    shares = torch.bincount(filled[0], minlength=3) / 20000
    assert bool(((shares - wanted).abs() < 5 * (wanted * (1 - wanted) / 20000).sqrt()).all())


# --- the loss ------------------------------------------------------------------------------------


def body_of(model):
    return model.denoiser.base_model if model.critic is None else model.critic


@pytest.mark.grid(2)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [None, 500])
def test_loss_is_the_slow_one(batch, kind, count):
    """The critic sees a text without masks; wrong is what differs from the truth, at any place."""
    model, shown = judged(kind, critic_loss_weight=0.5), []
    hook = body_of(model).register_forward_pre_hook(
        lambda _, args, kwargs: shown.append(args[0] if args else kwargs["input_ids"]),
        with_kwargs=True,
    )
    out = model(**batch, num_items_in_batch=count)
    hook.remove()
    filled, labels, chosen = shown[-1], batch["labels"], batch["masked_positions"]
    assert len(shown) == (2 if kind == "self" else 1)
    assert not bool((filled == MASK).any())
    clean = torch.where(labels == -100, batch["input_ids"], labels)
    assert torch.equal(filled[~chosen], clean[~chosen])
    kept = chosen & (batch["input_ids"] == clean)
    assert bool(kept.any()), "no position that was chosen and kept its token"
    assert not torch.equal(filled[kept], clean[kept]), "such a position is filled like any other"
    total, places = 0.0, (labels != -100).nonzero().tolist()
    for row, column in places:
        real = batch["attention_mask"][row].bool()
        with torch.no_grad():
            states = body_of(model)(input_ids=filled[row][real][None])[0]
            suspicion = model.critic_head(states[0, column]).item()
        is_wrong = filled[row, column] != labels[row, column]
        total += math.log1p(math.exp(-suspicion if is_wrong else suspicion))
    assert out.critic_loss.item() == pytest.approx(total / (count or len(places)), rel=1e-4)
    assert out.loss.item() == pytest.approx(
        out.denoiser_loss.item() + 0.5 * out.critic_loss.item(), rel=1e-6
    )


def test_cross_entropy_of_suspicions():
    loss = critic_cross_entropy(torch.tensor([0.0, 3.0, -200.0]), torch.tensor([True, False, True]))
    assert loss.item() == pytest.approx(math.log(2) + math.log1p(math.exp(3)) + 200)


@pytest.mark.parametrize("kind", KINDS)
def test_the_temperature_that_is_asked_for(batch, kind):
    """So cold that the likeliest token stands at every filled place."""
    model, shown = judged(kind), []
    body_of(model).register_forward_pre_hook(
        lambda _, args, kwargs: shown.append(args[0] if args else kwargs["input_ids"]),
        with_kwargs=True,
    )
    logits = model(**batch, critic_temperature=1e-3).logits
    logits[:, FORBIDDEN] = -torch.inf
    assert torch.equal(shown[-1][batch["masked_positions"]], logits.argmax(-1))


@pytest.mark.parametrize("kind", KINDS)
def test_whose_loss_is_taken(batch, kind):
    model = judged(kind, critic_loss_weight=2.0)
    plain = model(**batch, train="denoiser")
    assert plain.critic_loss is None
    assert torch.equal(plain.loss, plain.denoiser_loss)
    torch.manual_seed(3)
    both = model(**batch)
    torch.manual_seed(3)
    alone = model(**batch, train="critic")
    assert torch.equal(both.denoiser_loss, plain.loss)
    assert torch.equal(alone.critic_loss, both.critic_loss)
    assert alone.loss.item() == pytest.approx(2 * both.critic_loss.item())
    assert not alone.logits.requires_grad


PARTS = ("denoiser.bert", "denoiser.cls", "critic.", "critic_head")
LEARNING = {
    ("self", "both"): {"denoiser.bert", "denoiser.cls", "critic_head"},
    ("self", "denoiser"): {"denoiser.bert", "denoiser.cls"},
    ("self", "critic"): {"denoiser.bert", "critic_head"},
    ("separate", "both"): {"denoiser.bert", "denoiser.cls", "critic.", "critic_head"},
    ("separate", "denoiser"): {"denoiser.bert", "denoiser.cls"},
    ("separate", "critic"): {"critic.", "critic_head"},
}


def learning(model, **inputs):
    """The parts of the model that have a gradient."""
    model.zero_grad()
    model(**inputs).loss.backward()
    moved = [n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()]
    return {part for part in PARTS if any(name.startswith(part) for name in moved)}


@pytest.mark.grid(2)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(("kind", "train"), LEARNING)
def test_where_the_gradient_goes(batch, kind, train, autocast):
    """Under autocast too, where weights cast without gradient would be used again."""
    model = judged(kind).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert learning(model, **batch, train=train) == LEARNING[kind, train]
    freeze_left_out(model, train)
    left = LEARNING[kind, train] - ({"denoiser.bert"} if train == "critic" else set())
    assert learning(model, **batch, train=train) == left
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []


def test_gradient_checkpointing_changes_no_gradient(batch):
    gradients = []
    for enabled in (False, True):
        model = judged("self").train()
        if enabled:
            model.activation_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(4)
        model(**batch).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "train"), LEARNING)
def test_two_processes_miss_no_gradient(tmp_path, kind, train):
    options = {"token_critic": kind, "self_cond": True}
    before, after = train_two_processes(tmp_path, options, train)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    learning = LEARNING[kind, train] - ({"denoiser.bert"} if train == "critic" else set())
    assert {part for part in PARTS if any(n.startswith(part) for n in moved)} == learning


# --- what it learns ------------------------------------------------------------------------------


def learned(kind):
    """A model of texts that repeat one word, after some updates.

    The denoiser soon knows them, so it fills hot: else there would be nothing wrong to learn from.
    """
    torch.manual_seed(0)
    fresh = {"initializer_range": 0.02, "hidden_dropout_prob": 0.0}
    options = {"critic_config": bert_config(**fresh)} if kind == "separate" else {}
    model = MaskGitForMaskedLM(
        tiny_config(text_config=bert_config(**fresh), token_critic=kind, **options)
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    rows = word_tokenizer()(repeated_symbols(4800))["input_ids"]
    collate = DataCollatorForMaskGit(word_tokenizer(), corruption_prob=0.0)
    for step in range(150):
        examples = enumerate(rows[step * 32 : step * 32 + 32], step * 32)
        batch = collate([{"input_ids": row, "example_id": i} for i, row in examples])
        model(**batch, critic_temperature=HOT).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.mark.wide
@pytest.mark.parametrize("kind", ["self", pytest.param("separate", marks=pytest.mark.slow)])
def test_it_learns_to_tell_wrong_from_right(kind):
    model, tokenizer = learned(kind), word_tokenizer()
    text = torch.tensor(tokenizer(["w3 w3 w3 w9 w3 w3 w3"])["input_ids"])
    scores = model.score_tokens(text, torch.ones_like(text), text > MASK)
    assert scores.argmin().item() == 3
    assert scores[3] < 0 < scores[[0, 1, 2, 4, 5, 6]].min()
    held_out = [{"input_ids": row} for row in tokenizer(repeated_symbols(64, seed=1))["input_ids"]]
    found = critic_auroc(model, held_out, tokenizer, temperature=HOT, progress=False)
    assert found.num_pairs > 50
    assert found.auroc > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_log_odds_of_being_right(kind):
    model = judged(kind).double()
    text = torch.tensor([[CLS, 7, 8, 9, SEP], [CLS, 10, 11, SEP, PAD]])
    mask, positions = (text != PAD).long(), text > MASK
    scores = model.score_tokens(text, mask, positions)
    states = body_of(model)(input_ids=text, attention_mask=mask)[0]
    expected = -(states @ model.critic_head.weight[0] + model.critic_head.bias)
    torch.testing.assert_close(scores, expected[positions])
    assert scores.dtype == torch.float64
    half = judged(kind).to(torch.bfloat16).score_tokens(text, mask, positions)
    assert half.dtype == torch.float32


# --- generation ----------------------------------------------------------------------------------


@pytest.mark.grid(2)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "choices",
    [{"order": "critic"}, {"remask": "critic"}, {"remask": "p2", "p2_planner": "critic"}],
)
def test_generation_asks_the_critic_and_keeps_its_laws(kind, choices):
    model = judged(kind).double()
    rows = [[CLS, 7, *[MASK] * 5, SEP], [CLS, MASK, 8, MASK, SEP], [CLS, 9, 10, MASK, SEP]]
    text = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True)
    options = {"steps": 4, "anneal_temperature": False, **choices}
    out = model.generate(
        text, (text != PAD).long(), seed=[1, 2, 3], return_dict_in_generate=True, **options
    )
    assert bool((out.critic_passes > 0).all())
    known = text != MASK
    assert torch.equal(out.sequences[known], text[known])
    assert not set(out.sequences[~known].tolist()) & {PAD, UNK, CLS, SEP, MASK}
    for row, seed, found in zip(rows, (1, 2, 3), out.sequences, strict=True):
        alone = model.generate(torch.tensor([row]), seed=[seed], **options)[0]
        assert torch.equal(found[: len(row)], alone)
    with torch.no_grad():
        model.critic_head.weight.neg_()
    noise = {"noise_level_scale": 0.0}
    changed = [
        model.generate(text, (text != PAD).long(), seed=seed, **options, **noise).tolist()
        for seed in range(3)
    ]
    with torch.no_grad():
        model.critic_head.weight.neg_()
    assert changed != [
        model.generate(text, (text != PAD).long(), seed=seed, **options, **noise).tolist()
        for seed in range(3)
    ]


def test_the_longest_text_is_one_that_both_can_read():
    short = bert_config(num_hidden_layers=1, max_position_embeddings=16)
    model = judged("separate", critic_config=short)
    assert (judged("self").max_positions, model.max_positions) == (64, 16)
    with pytest.raises(ValueError, match="comes to 21 tokens"):
        model.generate(torch.tensor([[CLS, *[MASK] * 19, SEP]]))


# --- where a critic comes from -------------------------------------------------------------------


def encoder(seed=0, **changes):
    torch.manual_seed(seed)
    return BertForMaskedLM(bert_config(**changes)).eval()


def same_weights(first, second):
    second = dict(second.named_parameters())
    return all(torch.equal(p, second[n]) for n, p in first.named_parameters())


def test_a_separate_one_starts_as_a_copy():
    source = encoder()
    model = MaskGitForMaskedLM.from_encoder(
        source, tokenizer=word_tokenizer(), token_critic="separate"
    )
    assert same_weights(model.critic, source.bert)
    with torch.no_grad():
        model.critic.embeddings.word_embeddings.weight.zero_()
    assert bool(source.bert.embeddings.word_embeddings.weight.any()), "a copy, not the same"
    assert not model.training


@pytest.mark.parametrize("given", ["path", "model", "body"])
def test_a_separate_one_may_be_another_encoder(tmp_path, given):
    other = encoder(1, num_hidden_layers=1, hidden_size=16)
    other.save_pretrained(tmp_path)
    critic = {"path": str(tmp_path), "model": other, "body": other.bert}[given]
    model = MaskGitForMaskedLM.from_encoder(encoder(), tokenizer=word_tokenizer(), critic=critic)
    assert model.config.token_critic == "separate"
    assert model.config.critic_config.hidden_size == 16
    assert same_weights(model.critic, other.bert)


@pytest.mark.wide
def test_an_encoder_says_where_and_how_another_critic_is_loaded_only_as_far_as_it_may(
    tmp_path, monkeypatch
):
    """Its attention goes for both; its revision only where both are of one place."""
    seen = []
    for name in ("one", "other"):
        encoder().save_pretrained(tmp_path / name)
        word_tokenizer().save_pretrained(tmp_path / name)
    load = encoder_loading.load_critic
    monkeypatch.setattr(
        encoder_loading, "load_critic", lambda c, source: seen.append(source) or load(c, source)
    )
    options = {"revision": "main", "attn_implementation": "eager"}
    for critic in ("other", "one"):
        model = MaskGitForMaskedLM.from_encoder(
            str(tmp_path / "one"), critic=str(tmp_path / critic), **options
        )
        assert model.critic.config._attn_implementation == "eager"
    assert seen == [{"attn_implementation": "eager"}, options]


def test_a_new_one_from_a_configuration():
    model = MaskGitForMaskedLM.from_encoder(
        encoder(),
        tokenizer=word_tokenizer(),
        token_critic="separate",
        critic_config=encoder_config("electra"),
    )
    assert type(model.critic).__name__ == "ElectraModel"


def test_parts_take_the_number_format_of_the_denoiser(tmp_path, batch):
    encoder(1).save_pretrained(tmp_path)
    for options in ({"token_critic": "self"}, {"critic": str(tmp_path)}):
        model = MaskGitForMaskedLM.from_encoder(
            encoder().to(torch.bfloat16), tokenizer=word_tokenizer(), **options
        )
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        assert model(**batch).critic_loss.dtype == torch.float32


@pytest.mark.wide
def test_a_critic_is_adapted_like_a_denoiser(tmp_path, caplog):
    """ESM's scaling by the share of masks goes, and BigBird's sparse attention."""
    esm = AutoModelForMaskedLM.from_config(tiny_encoder_config("esm"))
    esm.config.token_dropout = True
    esm.save_pretrained(tmp_path)
    for critic in (str(tmp_path), None):
        model = MaskGitForMaskedLM.from_encoder(
            str(tmp_path), tokenizer=word_tokenizer(), critic=critic, token_critic="separate"
        )
        assert not model.config.critic_config.token_dropout
        assert not model.critic.embeddings.token_dropout
        model.save_pretrained(tmp_path / "own")
        MaskGitForMaskedLM.from_pretrained(tmp_path / "own")
    big_bird = AutoModel.from_config(tiny_encoder_config("big_bird"))
    big_bird.config.attention_type = "block_sparse"
    model = wrap(critic=big_bird)
    assert model.config.critic_config.attention_type == "original_full"


def test_what_no_state_depends_on_is_left_out(tmp_path):
    torch.manual_seed(0)
    BertModel(bert_config()).save_pretrained(tmp_path)  # with a pooler
    model = MaskGitForMaskedLM.from_encoder(
        encoder(), tokenizer=word_tokenizer(), critic=str(tmp_path)
    )
    assert not [name for name, _ in model.critic.named_parameters() if "pooler" in name]
    roberta = tiny_generator(
        "roberta", token_critic="separate", critic_config=tiny_encoder_config("longformer")
    )
    frozen = [n for n, p in roberta.critic.named_parameters() if not p.requires_grad]
    assert frozen
    assert all("_global" in name for name in frozen)


@pytest.mark.parametrize("kind", KINDS)
def test_it_travels_with_the_checkpoint(tmp_path, kind):
    model = judged(kind, critic_loss_weight=0.25)
    model.save_pretrained(tmp_path)
    for auto in (MaskGitForMaskedLM, AutoModelForMaskedLM):
        loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert (loaded.config.token_critic, loaded.config.critic_loss_weight) == (kind, 0.25)
        assert same_weights(model, loaded)


def test_a_checkpoint_without_a_critic_gains_one(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    model, info = MaskGitForMaskedLM.from_pretrained(
        tmp_path, token_critic="self", output_loading_info=True
    )
    assert info["missing_keys"] == {"critic_head.weight", "critic_head.bias"}
    assert model.has_token_critic


@pytest.mark.parametrize("source", ["config", "encoder"])
def test_a_grown_vocabulary_grows_the_critics(tmp_path, source):
    if source == "config":
        model = judged("separate")
    else:
        model = MaskGitForMaskedLM.from_encoder(
            encoder(), tokenizer=word_tokenizer(), token_critic="separate"
        )
    model.resize_token_embeddings(48)
    text = torch.tensor([[CLS, 47, 7, SEP]])
    arguments = text, torch.ones_like(text), text > MASK
    scores = model.score_tokens(*arguments)
    model.save_pretrained(tmp_path)
    loaded = MaskGitForMaskedLM.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.score_tokens(*arguments), scores)


def test_the_attention_asked_for_reaches_the_critic(tmp_path):
    judged("separate").save_pretrained(tmp_path)
    model = MaskGitForMaskedLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert model.critic.config._attn_implementation == "eager"
    model.set_attn_implementation("sdpa")
    assert model.critic.config._attn_implementation == "sdpa"


# --- what is refused -----------------------------------------------------------------------------


def wrap(**options):
    return MaskGitForMaskedLM.from_encoder(encoder(), tokenizer=word_tokenizer(), **options)


def test_a_critic_of_other_tokens():
    with pytest.raises(ValueError, match="its vocabulary size, vocab_size=40, got 41. Use an enco"):
        wrap(critic=encoder(vocab_size=41))
    with pytest.raises(ValueError, match="needs its padding id, pad_token_id=0, got 1"):
        judged("separate", critic_config=bert_config(pad_token_id=1))


def test_a_critic_that_cannot_be_one(tmp_path):
    with pytest.raises(ValueError, match="'bart' is an encoder-decoder"):
        judged("separate", critic_config=tiny_encoder_config("bart"))
    bart = AutoModel.from_config(tiny_encoder_config("bart"))
    with pytest.raises(ValueError, match="'bart' is an encoder-decoder"):
        wrap(critic=bart)
    with pytest.raises(ValueError, match="set up as a decoder"):
        judged("separate", critic_config=bert_config(is_decoder=True))
    tiny_model().save_pretrained(tmp_path)
    for generator in (tiny_model(), str(tmp_path)):
        with pytest.raises(ValueError, match="critic is a generator; give the encoder that it was"):
            wrap(critic=generator)
    one = encoder()
    with pytest.raises(ValueError, match="The critic is the encoder itself. Leave `critic` out"):
        MaskGitForMaskedLM.from_encoder(one, tokenizer=word_tokenizer(), critic=one)


def test_options_that_contradict_each_other():
    with pytest.raises(ValueError, match="`critic` is a second model, and token_critic='self' as"):
        wrap(critic=encoder(), token_critic="self")
    with pytest.raises(ValueError, match="`critic` brings its own configuration; leave `critic_c"):
        wrap(critic=encoder(), critic_config=bert_config())
    with pytest.raises(ValueError, match="Unknown token_critic 'other'; choose from None, 'self'"):
        tiny_config(token_critic="other")
    with pytest.raises(ValueError, match="got token_critic='separate' without it"):
        tiny_config(token_critic="separate")
    with pytest.raises(ValueError, match="got token_critic='self' with it"):
        tiny_config(token_critic="self", critic_config=bert_config())
    with pytest.raises(ValueError, match="`critic_loss_weight` must be at least 0, got -1"):
        tiny_config(token_critic="self", critic_loss_weight=-1.0)


@pytest.mark.parametrize(
    ("kind", "arguments", "match"),
    [
        (None, {"train": "critic"}, "need a token critic, and the model has none"),
        (None, {"critic_temperature": 1.0}, "need a token critic, and the model has none"),
        ("self", {"train": "all"}, "`train` must be 'both', 'denoiser' or 'critic', got 'all'"),
        ("self", {"critic_temperature": 0.0}, "`critic_temperature` must be greater than 0, got 0"),
    ],
)
def test_arguments_that_do_not_fit(batch, kind, arguments, match):
    with pytest.raises(ValueError, match=match):
        tiny_model(token_critic=kind)(**batch, **arguments)


def test_a_critic_that_is_not_there():
    text = torch.tensor([[CLS, 7, SEP]])
    model = tiny_model()
    with pytest.raises(ValueError, match="has no token critic; set token_critic='self' or 'separ"):
        model.score_tokens(text, torch.ones_like(text), text > MASK)
    with pytest.raises(ValueError, match="The model has no token critic, which this order or rem"):
        model.generate(torch.tensor([[CLS, MASK, SEP]]), order="critic")
    with pytest.raises(ValueError, match="The model has no token critic to measure; train one wi"):
        critic_auroc(model, [{"input_ids": [CLS, 7, SEP]}], word_tokenizer())
    with pytest.raises(ValueError, match="train='critic' needs a token critic, and the model has"):
        freeze_left_out(model, "critic")


def test_a_critic_reads_tokens():
    model, text = judged("self"), torch.tensor([[CLS, MASK, 8, SEP]])
    embedded = model.get_input_embeddings()(text)
    labels = torch.tensor([[-100, 7, 8, -100]])
    with pytest.raises(ValueError, match="reads tokens: pass `input_ids`, not `inputs_embeds`"):
        model(inputs_embeds=embedded, labels=labels)
    model(inputs_embeds=embedded, labels=labels, train="denoiser")


# --- the AUROC -----------------------------------------------------------------------------------


class Judge:
    """Fills every mask with one token and scores tokens by a table: known to the last digit."""

    def __init__(self, guess, scores):
        self.config = SimpleNamespace(
            mask_token_id=MASK,
            prefix_ids=[CLS],
            suffix_ids=[SEP],
            forbidden_token_ids=FORBIDDEN,
        )
        self.device, self.training, self.has_token_critic = torch.device("cpu"), False, True
        self.guess, self.scores, self.judged = guess, scores, []

    def eval(self):
        return self

    def train(self, mode):
        return self

    def __call__(self, input_ids, attention_mask, masked_positions):
        logits = torch.zeros(int(masked_positions.sum()), 40)
        logits[:, self.guess] = 100.0
        return SimpleNamespace(logits=logits)

    def score_tokens(self, input_ids, attention_mask, positions):
        self.judged.append((input_ids.clone(), positions.clone()))
        place = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        return torch.tensor(self.scores)[place[positions]]


def examples(*bodies):
    return [{"input_ids": [CLS, *body, SEP]} for body in bodies]


def test_auroc_of_known_scores():
    """Right at the places of 7 alone; the places' scores are given."""
    judge = Judge(guess=7, scores=[9.0, 1.0, 2.0, 2.0, 4.0, 9.0])
    options = {"mask_rate": 1.0, "progress": False}
    # Places 2 and 4 are right, with 2 and 4, against 1 and 2: three and a half of four pairs.
    found = critic_auroc(judge, examples([8, 7, 9, 7]), word_tokenizer(), **options)
    assert found == CriticAuroc(wins=3.5, num_pairs=4, num_tokens=4, num_wrong=2)
    assert found.auroc == 3.5 / 4
    # Texts that are all right or all wrong say nothing; pairs of all texts count alike.
    texts = examples([8, 7, 9, 7], [7, 7], [8, 9, 8, 9], [7, 8])
    found = critic_auroc(judge, texts, word_tokenizer(), batch_size=3, **options)
    assert found == CriticAuroc(wins=3.5, num_pairs=5, num_tokens=12, num_wrong=7)
    texts = examples([7, 7], [8, 9])
    with pytest.raises(ValueError, match="No text has both a right and a wrong token"):
        _ = critic_auroc(judge, texts, word_tokenizer(), **options).auroc


def test_auroc_is_the_slow_one():
    torch.manual_seed(2)
    judge = Judge(guess=7, scores=torch.randint(5, (40,)).double().tolist())
    texts = examples(*(torch.randint(7, 9, (n,)).tolist() for n in (3, 20, 11, 30, 1, 8)))
    before = torch.get_rng_state()
    found = critic_auroc(judge, texts, word_tokenizer(), batch_size=4, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    truth = {len(text["input_ids"]): text["input_ids"] for text in texts}
    wins = pairs = 0
    for filled, positions in judge.judged:
        for row, chosen in zip(filled.tolist(), positions, strict=True):
            places = chosen.nonzero()[:, 0].tolist()
            length = row.index(SEP) + 1
            assert len(places) == max(1, round((length - 2) / 2))
            assert all(0 < place < length - 1 for place in places)
            for i in places:
                for j in places:
                    if row[i] == truth[length][i] and row[j] != truth[length][j]:
                        pairs += 1
                        lead = judge.scores[i] - judge.scores[j]
                        wins += 1 if lead > 0 else 0.5 if lead == 0 else 0
    assert pairs > 30
    assert (found.wins, found.num_pairs) == (wins, pairs)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mask_rate": 0.0}, r"Every mask rate must lie in \(0, 1\], got 0"),
        ({"temperature": 0.0}, "`temperature` must be greater than 0, got 0"),
    ],
)
def test_auroc_of_nonsense(options, match):
    with pytest.raises(ValueError, match=match):
        critic_auroc(judged("self"), examples([7, 8]), word_tokenizer(), **options)


# --- padding -------------------------------------------------------------------------------------


@pytest.mark.grid(2)
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("kind", "critic"), [("fnet", "self"), ("fnet", "bert"), ("bert", "fnet")])
def test_padding_changes_no_critic_loss(kind, critic, side):
    """Also where denoiser or critic take no attention mask, and run without padding.

    At the lowest temperature the likeliest token is drawn, so that rows alone get the same text.
    """
    options = {"token_critic": "self"}
    if critic != "self":
        options = {"token_critic": "separate", "critic_config": tiny_encoder_config(critic)}
    model = tiny_generator(kind, **options).double()
    batch = batch_of()
    count = (batch["labels"] != -100).sum()
    cold = {"critic_temperature": 1e-6, "num_items_in_batch": count}
    alone = 0.0
    for row, real in enumerate(batch["attention_mask"].bool()):
        one = {name: value[row : row + 1, real] for name, value in batch.items()}
        alone += model(**one, **cold).critic_loss.item()
    if side == "left":
        order = batch["attention_mask"].argsort(dim=1, stable=True)
        batch = {name: value.gather(1, order) for name, value in batch.items()}
    assert model(**batch, **cold).critic_loss.item() == pytest.approx(alone, rel=1e-6)


def test_a_critic_sees_token_types_that_the_denoiser_does_not_know(monkeypatch):
    """In training as in `score_tokens`."""
    model = tiny_model("distilbert", token_critic="separate", critic_config=bert_config())
    seen = []
    monkeypatch.setattr(
        model.critic.embeddings,
        "forward",
        lambda forward=model.critic.embeddings.forward, **given: (
            seen.append(given["token_type_ids"]) or forward(**given)
        ),
    )
    batch = batch_of()
    types = batch["token_type_ids"] = (batch["input_ids"] == SEP).long()
    model(**batch)
    assert torch.equal(seen[0], types)


@pytest.mark.wide
def test_a_compiler_to_which_the_number_of_texts_is_a_variable_fills_them_alike():
    """As a compiled training run with a critic does, whose last pass may have fewer texts."""
    torch._dynamo.reset()
    compiled = torch.compile(fill_in, backend="eager", dynamic=True)
    for count in (2, 3, 5):
        truth = torch.arange(count * 4).view(count, 4) % 9
        chosen = truth % 2 == 0
        logits = torch.randn(int(chosen.sum()), 9, generator=torch.Generator().manual_seed(0))
        found = []
        for fill in (fill_in, compiled):
            torch.manual_seed(count)
            found.append(fill(logits, truth, chosen, torch.tensor([0])))
        assert torch.equal(*found)
    torch._dynamo.reset()
