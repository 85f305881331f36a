"""The model: its loss against a slow recomputation, its head, errors, place in transformers."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BartConfig

from hf_maskgit import (
    DataCollatorForMaskGit,
    MaskGitConfig,
    MaskGitForMaskedLM,
    MaskGitGenerationConfig,
)
from tests.support.tiny import bert_config, encoder_config, tiny_config, tiny_model, word_tokenizer

PAD, UNK, CLS, SEP, MASK = range(5)
FORBIDDEN = [PAD, CLS, MASK]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


def ids(*rows):
    return torch.tensor(rows)


TEXTS = ["w1 w2 w3 w4 w5 w6", "w7", "w8 unheard w9 w10", "w11 w12 w13 w14 w15 w16 w17 w18"]


def batch_of(tokenizer, **options):
    collator = DataCollatorForMaskGit(tokenizer, **options)
    rows = tokenizer(TEXTS)["input_ids"]
    return collator([{"input_ids": r, "example_id": i} for i, r in enumerate(rows)])


@torch.no_grad()
def slow_loss(model, batch, count=None):
    """The loss, one position after the other, from the logits of the whole batch."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    total, labelled = 0.0, 0
    for row, column in (batch["labels"] != -100).nonzero().tolist():
        labelled += 1
        if not batch["masked_positions"][row, column]:
            continue
        scores = logits[row, column].double()
        allowed = [i for i in range(len(scores)) if i not in FORBIDDEN]
        log_total = scores[allowed].exp().sum().log()
        nll = log_total - scores[batch["labels"][row, column]]
        total = total + batch["loss_weights"][row, column].double() * nll
    return total / (labelled if count is None else count)


# --- the loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["exact_count", "bernoulli"])
@pytest.mark.parametrize("corruption_prob", [0.0, 1.0])
@pytest.mark.parametrize("weighted", [True, False])
def test_loss_is_the_slow_one(model, tokenizer, choice, corruption_prob, weighted):
    batch = batch_of(
        tokenizer,
        choice=choice,
        corruption_prob=corruption_prob,
        use_simple_mdlm_loss_weight=weighted,
    )
    out = model(**batch)
    assert out.loss.dtype == torch.float32
    assert out.loss.item() == pytest.approx(slow_loss(model, batch).item(), rel=1e-5)
    assert torch.equal(out.denoiser_loss, out.loss)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_count_of_the_whole_update_replaces_this_batchs(model, tokenizer, as_tensor):
    batch = batch_of(tokenizer)
    count = torch.tensor(1000) if as_tensor else 1000
    loss = model(**batch, num_items_in_batch=count).loss.item()
    assert loss == pytest.approx(slow_loss(model, batch, 1000).item(), rel=1e-5)


def test_micro_batches_add_up_to_the_whole(model, tokenizer):
    batch = batch_of(tokenizer)
    count = int((batch["labels"] != -100).sum())
    parts = [
        model(**{k: v[i : i + 1] for k, v in batch.items()}, num_items_in_batch=count).loss
        for i in range(len(TEXTS))
    ]
    assert sum(parts).item() == pytest.approx(model(**batch).loss.item(), rel=1e-5)


def test_plain_labels_are_a_plain_masked_language_models(model):
    """As transformers' own collator makes them: labels at the chosen positions alone."""
    text, labels = ids([CLS, 7, MASK, 9, MASK, SEP]), ids([-100, -100, 8, -100, 10, -100])
    out = model(input_ids=text, labels=labels)
    logits = model(input_ids=text).logits.detach().double()
    logits[..., FORBIDDEN] = -torch.inf
    log_probability = logits.log_softmax(-1)
    expected = -(log_probability[0, 2, 8] + log_probability[0, 4, 10]) / 2
    assert out.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert out.logits.shape == (2, 40)


def test_chosen_positions_without_weights_weigh_one(model, tokenizer):
    batch = batch_of(tokenizer, use_simple_mdlm_loss_weight=False)
    with_ones = model(**batch).loss
    del batch["loss_weights"]
    assert torch.equal(model(**batch).loss, with_ones)


@pytest.mark.parametrize("counted", [False, True])
def test_nothing_chosen_is_a_loss_of_zero_with_a_gradient(counted):
    """A micro-batch may hold no chosen position, and must still take part in backward."""
    model = tiny_model()
    text = ids([CLS, 7, 8, SEP])
    out = model(
        input_ids=text,
        labels=ids([-100, 7, 8, -100]),
        masked_positions=torch.zeros_like(text, dtype=torch.bool),
        loss_weights=torch.zeros(1, 4),
        num_items_in_batch=50 if counted else None,
    )
    assert out.loss.item() == 0
    assert out.logits.shape == (0, 40)
    out.loss.backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and float(g.abs().max()) == 0 for g in gradients)


def test_what_can_never_be_emitted_costs_no_probability(tokenizer):
    """However sure the head is of a forbidden id, the loss speaks of the others alone."""
    model, batch = tiny_model(), batch_of(tokenizer)
    before = model(**batch).loss
    with torch.no_grad():
        model.get_output_embeddings().bias[FORBIDDEN] += 5
    assert torch.equal(model(**batch).loss, before)
    with torch.no_grad():
        model.get_output_embeddings().bias[UNK] += 5
    assert not torch.equal(model(**batch).loss, before)


def test_loss_is_float32_from_a_model_of_half_precision(tokenizer):
    batch = batch_of(tokenizer)
    out = tiny_model().to(torch.bfloat16)(**batch)
    assert out.loss.dtype == torch.float32
    assert out.logits.dtype == torch.bfloat16
    assert out.loss.item() == pytest.approx(tiny_model()(**batch).loss.item(), rel=0.05)


def test_a_chosen_position_without_a_label_costs_nothing(model):
    """A fixed prompt may be asked for its logits; it is in neither the sum nor the count."""
    text, labels = ids([CLS, 7, MASK, 9, SEP]), ids([-100, -100, 8, -100, -100])
    chosen = torch.tensor([[False, True, True, False, False]])
    out = model(input_ids=text, labels=labels, masked_positions=chosen)
    assert out.logits.shape == (2, 40)
    alone = model(input_ids=text, labels=labels).loss
    assert out.loss.item() == pytest.approx(alone.item(), rel=1e-5)


def test_a_token_that_was_added_can_be_learned_and_emitted():
    """The way of transformers: the tokenizer grows, then the model."""
    model, tokenizer = tiny_model(), word_tokenizer()
    tokenizer.add_tokens(["new"])
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    new = tokenizer.convert_tokens_to_ids("new")
    loss = model(input_ids=ids([CLS, MASK, SEP]), labels=ids([-100, new, -100])).loss
    assert bool(loss.isfinite())
    everything_else = [i for i in range(new) if i not in (PAD, CLS, MASK)]
    out = model.generate(ids([CLS, MASK, SEP]), suppress_tokens=everything_else)
    assert out.tolist() == [[CLS, new, SEP]]


@pytest.mark.parametrize("name", ["input_ids", "masked_positions", "loss_weights"])
def test_labels_of_another_shape(model, tokenizer, name):
    batch = batch_of(tokenizer)
    batch[name] = batch[name][:, 1:]
    with pytest.raises(
        ValueError, match=rf"`labels` have shape \(4, 10\) and `{name}` \(4, 9\); b"
    ):
        model(**batch)


@pytest.mark.parametrize("label", [40, 1000, -1, -99])
def test_labels_beyond_the_vocabulary(model, label):
    """Where the text is masked, its own ids do not show them."""
    ids = torch.tensor([[2, 4, 6, 3]])
    labels = torch.tensor([[-100, label, 6, -100]])
    said = rf"The labels hold the id {label}; the vocabulary has 0 to 39, .*read_tokenizer"
    with pytest.raises(ValueError, match=said):
        model(ids, labels=labels, masked_positions=ids == 4)


def test_labels_that_can_never_be_emitted(model):
    """Their loss would be infinite."""
    with pytest.raises(ValueError, match="can never be emitted"):
        model(input_ids=ids([CLS, 7, SEP]), labels=ids([CLS, 7, SEP]))


REFUSED = {
    "weights without labels": {"loss_weights": torch.ones(1, 4)},
    "a label never emitted": {"labels": ids([-100, CLS, -100, -100])},
    "another shape": {"labels": ids([7])},
    "states without the part": {"previous_hidden_states": torch.zeros(1, 4, 32)},
    "a part that is missing": {"train": "critic"},
    "no such part": {"train": "generator"},
}


@pytest.mark.parametrize("options", REFUSED.values(), ids=list(REFUSED))
def test_what_is_refused_is_refused_before_the_encoder_works(monkeypatch, options):
    model = tiny_model()
    monkeypatch.setattr(model.denoiser, "forward", lambda **_: pytest.fail("the encoder works"))
    with pytest.raises(ValueError, match="labels|`train`|self_cond=True|train=.critic"):
        model(input_ids=ids([CLS, MASK, 7, SEP]), **options)


# --- the head ------------------------------------------------------------------------------------


def test_logits_are_those_of_the_positions_asked_for(model, tokenizer):
    batch = batch_of(tokenizer)
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
    full = model(**inputs).logits
    assert full.shape == (4, 10, 40)
    chosen = batch["masked_positions"]
    for out in (model(**batch), model(**inputs, masked_positions=chosen)):
        assert torch.allclose(out.logits, full[chosen], atol=1e-5)
    assert model(**inputs, masked_positions=chosen).loss is None


def test_the_head_forgets_its_positions_after_every_pass(model):
    text = ids([CLS, MASK, SEP])
    full = model(input_ids=text).logits
    position_ids = ids([0, 64_000, 2])
    with pytest.raises((IndexError, RuntimeError), match=r"index|expand|size"):
        model(input_ids=text, position_ids=position_ids, masked_positions=text == MASK)
    assert torch.equal(model.denoiser(input_ids=text).logits, full)
    model(input_ids=text, masked_positions=text == MASK)
    assert torch.equal(model.denoiser(input_ids=text).logits, full), "the encoder's own forward"


def test_a_copy_has_a_head_of_its_own():
    model, text = tiny_model(), ids([CLS, MASK, SEP])
    expected = model(input_ids=text, masked_positions=text == MASK).logits
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    del model
    assert torch.equal(twin(input_ids=text, masked_positions=text == MASK).logits, expected)
    assert twin(input_ids=text).logits.shape == (1, 3, 40)


def test_two_generators_around_one_encoder_do_not_disturb_each_other(tokenizer):
    first = tiny_model()
    second = MaskGitForMaskedLM.from_encoder(first.denoiser, tokenizer=tokenizer)
    text = ids([CLS, MASK, 7, SEP])
    full = first(input_ids=text).logits
    for model in (first, second, first):
        assert torch.allclose(
            model(input_ids=text, masked_positions=text == MASK).logits, full[0, 1:2], atol=1e-5
        )
        assert torch.equal(model(input_ids=text).logits, full)


@pytest.mark.wide
def test_changing_a_hidden_token_changes_no_logit(model, tokenizer):
    """Through collator and model: what stands under a displayed mask is nowhere to be seen."""
    collator = DataCollatorForMaskGit(tokenizer, corruption_prob=0.0)
    rows = [list(range(5, 17)), list(range(20, 26))]
    features = [{"input_ids": [CLS, *row, SEP], "example_id": i} for i, row in enumerate(rows)]
    batch = collator(features)
    shown, hidden = [], (batch["input_ids"] == MASK).nonzero().tolist()
    assert len(hidden) >= 3
    for row, column in hidden:
        changed = copy.deepcopy(features)
        changed[row]["input_ids"][column] = 39
        other = collator(changed)
        assert other["labels"][row, column] == 39 != batch["labels"][row, column]
        assert torch.equal(model(**other).logits, model(**batch).logits)
        shown.append((model(**other).loss - model(**batch).loss).item())
    assert any(shown), "the loss does see the true token"
    row, column = (
        (batch["attention_mask"].bool() & ~batch["masked_positions"]).nonzero()[1].tolist()
    )
    changed = copy.deepcopy(features)
    changed[row]["input_ids"][column] = 39
    assert not torch.equal(model(**collator(changed)).logits, model(**batch).logits)


# --- what transformers expects -------------------------------------------------------------------


def test_a_tuple_on_request(model):
    text, labels = ids([CLS, MASK, SEP]), ids([-100, 7, -100])
    whole = model(input_ids=text, labels=labels)
    loss, *_, logits = model(input_ids=text, labels=labels, return_dict=False)
    assert torch.equal(loss, whole.loss)
    assert torch.equal(logits, whole.logits)
    (logits,) = model(input_ids=text, return_dict=False)
    assert logits.shape == (1, 3, 40)


def test_hidden_states_and_attentions_on_request():
    model, text = tiny_model(), ids([CLS, MASK, SEP])
    out = model(input_ids=text, output_hidden_states=True)
    assert [tuple(h.shape) for h in out.hidden_states] == [(1, 3, 32)] * 3
    assert out.attentions is None
    model.set_attn_implementation("eager")
    out = model(input_ids=text, output_attentions=True)
    assert [tuple(a.shape) for a in out.attentions] == [(1, 2, 3, 3)] * 2
    model.config.output_hidden_states = True
    assert model(input_ids=text).hidden_states is not None
    assert model(input_ids=text, output_hidden_states=False).hidden_states is None


def test_embeddings_instead_of_ids(model):
    text = ids([CLS, MASK, 7, SEP])
    embedded = model.get_input_embeddings()(text)
    assert torch.allclose(
        model(inputs_embeds=embedded).logits, model(input_ids=text).logits, atol=1e-5
    )


def test_embeddings_can_be_replaced():
    model, text = tiny_model(), ids([CLS, MASK, 7, SEP])
    before = model(input_ids=text).logits
    old_in, old_out = model.get_input_embeddings(), model.get_output_embeddings()
    model.set_input_embeddings(torch.nn.Embedding(40, 32))
    model.set_output_embeddings(torch.nn.Linear(32, 40))
    assert not torch.allclose(model(input_ids=text).logits, before, atol=0.1)
    model.set_input_embeddings(old_in)
    model.set_output_embeddings(old_out)
    assert torch.equal(model(input_ids=text).logits, before)


def test_the_attention_asked_for_reaches_the_encoder():
    config = tiny_config()
    model = MaskGitForMaskedLM._from_config(config, attn_implementation="eager")
    assert model.denoiser.config._attn_implementation == "eager"
    text = ids([CLS, MASK, 7, SEP])
    eager = model.eval()(input_ids=text).logits
    model.set_attn_implementation("sdpa")
    assert model.denoiser.config._attn_implementation == "sdpa"
    assert torch.allclose(model(input_ids=text).logits, eager, atol=1e-5)


def test_a_nested_number_format_does_not_win():
    config = tiny_config(text_config=bert_config(dtype=torch.bfloat16))
    assert MaskGitForMaskedLM(config).dtype == torch.float32


def test_generation_options_travel_with_the_checkpoint(tmp_path, model):
    model = tiny_model()
    model.generation_config.steps = 7
    model.generation_config.order = "random"
    model.save_pretrained(tmp_path)
    for auto in (MaskGitForMaskedLM, AutoModelForMaskedLM, AutoModelForCausalLM):
        options = auto.from_pretrained(tmp_path).generation_config
        assert type(options) is MaskGitGenerationConfig
        assert options.to_diff_dict() == model.generation_config.to_diff_dict()
        assert options.steps == 7
        assert options.order == "random"
    given = MaskGitGenerationConfig(steps=3)
    loaded = MaskGitForMaskedLM.from_pretrained(tmp_path, generation_config=given)
    assert loaded.generation_config.steps == 3


def test_a_checkpoint_without_generation_options_gets_fresh_ones(tmp_path):
    tiny_model(schedule="cosine").save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    options = MaskGitForMaskedLM.from_pretrained(tmp_path).generation_config
    assert type(options) is MaskGitGenerationConfig
    assert options.schedule == "cosine"
    assert options.eos_token_id == SEP


def test_stored_generation_options_with_a_typo_are_refused(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    file = tmp_path / "generation_config.json"
    file.write_text(file.read_text().replace('"steps"', '"stebs"'))
    with pytest.raises(ValueError, match="Masked decoding has no option 'stebs'"):
        MaskGitForMaskedLM.from_pretrained(tmp_path)


def test_options_of_the_config_can_be_overridden_on_loading(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    loaded = MaskGitForMaskedLM.from_pretrained(tmp_path, schedule="cosine", no_replace_prob=0.0)
    assert (loaded.config.schedule, loaded.config.no_replace_prob) == ("cosine", 0.0)
    with pytest.raises(TypeError, match="foo"):
        MaskGitForMaskedLM.from_pretrained(tmp_path, foo=1)


def test_an_encoder_decoder_is_refused():
    with pytest.raises(ValueError, match="'bart' is an encoder-decoder; masks can only be filled"):
        MaskGitForMaskedLM(MaskGitConfig(text_config=BartConfig(vocab_size=40)))


def test_scaling_by_the_share_of_masks_is_refused():
    config = MaskGitConfig(text_config=encoder_config("esm", token_dropout=True))
    with pytest.raises(ValueError, match=r"token_dropout=True\), which is undefined for a fully m"):
        MaskGitForMaskedLM(config)


def test_an_argument_that_nobody_takes(model):
    with pytest.raises(
        TypeError, match=r"got 'maskedpositions', which the encoder BertForMaskedLM d"
    ):
        model(input_ids=ids([CLS, MASK, SEP]), maskedpositions=ids([0, 1, 0]))


def test_an_encoders_own_configuration_is_no_configuration_of_a_generator():
    with pytest.raises(TypeError, match="takes a MaskGitConfig, got BertConfig. Wrap an encoder"):
        MaskGitForMaskedLM(bert_config())
