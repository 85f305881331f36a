"""Laws that hold whatever the encoder: seven real architectures, tiny, each with a tokenizer."""

import copy

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    logging,
)

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM
from hf_maskgit.core.encoder_kinds import head_bias
from tests.support import support_matrix
from tests.support.kind_texts import masked_text, rows_of, texts_of
from tests.support.tiny import (
    ENCODERS,
    tiny_model,
    tokenizer_for,
)

KINDS = list(ENCODERS)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    """Shared by the tests of one kind: never changed."""
    return tiny_model(kind)


@pytest.fixture(scope="module")
def tokenizer(kind):
    return tokenizer_for(kind)


@pytest.fixture(autouse=True)
def _no_progress_bars():
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def training_batch(kind, tokenizer, side="right", **options):
    collator = DataCollatorForMaskGit(tokenizer, **options)
    collator.tokenizer = copy.deepcopy(tokenizer)
    collator.tokenizer.padding_side = side
    rows = rows_of(kind, tokenizer)
    return collator([{"input_ids": row, "example_id": i} for i, row in enumerate(rows)])


# --- forward -------------------------------------------------------------------------------------


def test_the_head_at_some_positions_equals_the_whole_head(kind, model, tokenizer):
    text = masked_text(kind, tokenizer).repeat(2, 1)
    text[1, 1] = tokenizer.mask_token_id
    masked = text == tokenizer.mask_token_id
    full = model(input_ids=text).logits
    assert full.shape == (*text.shape, model.config.text_config.vocab_size)
    some = model(input_ids=text, masked_positions=masked).logits
    assert some.shape == (7, full.shape[-1])
    assert torch.allclose(some, full[masked], atol=1e-5)
    assert not torch.allclose(some, full[masked].roll(1, 0), atol=0.1), "any order would pass"


def test_every_weight_learns(kind, tokenizer):
    model = tiny_model(kind).train()
    model(**training_batch(kind, tokenizer)).loss.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None and p.requires_grad] == []
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert sum(float(p.grad.abs().sum()) for p in model.parameters() if p.grad is not None) > 0


def test_one_step_down_the_gradient_lowers_the_loss(kind, tokenizer):
    model, batch = tiny_model(kind), training_batch(kind, tokenizer)
    before = model(**batch).loss
    before.backward()
    size = sum(float((p.grad**2).sum()) for p in model.parameters() if p.grad is not None)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 / size * parameter.grad
    fall = (before - model(**batch).loss).item()
    assert fall == pytest.approx(1e-3, rel=0.2)


@pytest.mark.grid(3)
def test_gradient_checkpointing_changes_nothing(kind, tokenizer):
    model, batch = tiny_model(kind).train(), training_batch(kind, tokenizer)
    if not model.denoiser.supports_gradient_checkpointing:
        with pytest.raises(ValueError, match="does not support activation checkpointing"):
            model.activation_checkpointing_enable()
        return
    gradients = []
    for enabled in (False, True):
        if enabled:
            model.activation_checkpointing_enable({"use_reentrant": False})
            assert model.is_activation_checkpointing
        model.zero_grad()
        model(**batch).loss.backward()
        gradients.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert (plain is None) == (checkpointed is None)
        assert plain is None or torch.allclose(plain, checkpointed, atol=1e-6)


def test_changing_a_hidden_token_changes_no_logit(kind, model, tokenizer):
    collator = DataCollatorForMaskGit(tokenizer, corruption_prob=0.0)
    features = [
        {"input_ids": row, "example_id": i} for i, row in enumerate(rows_of(kind, tokenizer))
    ]
    batch = collator(features)
    row, column = (batch["input_ids"] == tokenizer.mask_token_id).nonzero()[0].tolist()
    features[row]["input_ids"][column] = 25
    other = collator(features)
    assert other["labels"][row, column] == 25 != batch["labels"][row, column]
    assert torch.equal(model(**other).logits, model(**batch).logits)
    assert not torch.equal(model(**other).loss, model(**batch).loss)


# --- padding -------------------------------------------------------------------------------------


@pytest.mark.grid(3, first=1)
def test_padding_changes_no_loss(kind, model, tokenizer):
    for side in ("right", "left"):
        batch = training_batch(kind, tokenizer, side)
        wide = training_batch(kind, tokenizer, side, pad_to_multiple_of=32)
        assert wide["input_ids"].shape[1] == 32 > batch["input_ids"].shape[1]
        alone = sum(
            model(
                **{k: v[i : i + 1, batch["attention_mask"][i].bool()] for k, v in batch.items()},
                num_items_in_batch=(batch["labels"] != -100).sum(),
            ).loss.item()
            for i in range(3)
        )
        assert model(**batch).loss.item() == pytest.approx(alone, rel=1e-5)
        assert model(**wide).loss.item() == pytest.approx(alone, rel=1e-5)


@pytest.mark.grid(4)
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_no_generated_text(kind, tokenizer, side):
    """In float64, so that the last bits of a padded matrix product turn no draw."""
    model, mask = tiny_model(kind).double(), tokenizer.mask_token_id
    pad = tokenizer.pad_token_id
    rows = rows_of(kind, tokenizer)
    for row in rows:
        row[1] = mask
    batch = pad_sequence(rows, True, pad, padding_side=side)
    options = {"max_new_tokens": 4, "steps": 4}
    together = model.generate(batch, (batch != pad).long(), seed=[1, 2, 3], **options)
    for i, row in enumerate(rows):
        alone = model.generate(row[None], seed=[i + 1], **options)[0].tolist()
        filler = [pad] * (batch.shape[1] - len(row))
        assert together[i].tolist() == (filler + alone if side == "left" else alone + filler)


# --- generation ----------------------------------------------------------------------------------


@pytest.mark.grid(3)
@pytest.mark.parametrize("order", ["top_probability", "confidence", "random"])
def test_generation_fills_every_mask_and_changes_nothing_else(kind, model, tokenizer, order):
    text, config = masked_text(kind, tokenizer), model.config
    masked = text == config.mask_token_id
    out = model.generate(text, order=order, anneal_temperature=False, num_return_sequences=4)
    filled = out[:, masked[0]]
    emittable = set(range(config.num_token_ids)) - set(tokenizer.all_special_ids)
    assert set(filled.flatten().tolist()) <= emittable
    assert torch.equal(out[:, ~masked[0]], text[:, ~masked[0]].expand(4, -1))
    assert len(filled.unique(dim=0)) > 1, "four draws of three tokens were all equal"


@pytest.mark.grid(3, first=2)
def test_generation_takes_what_the_tokenizer_gives(kind, model, tokenizer):
    encoded = tokenizer(texts_of(kind), padding=True, return_tensors="pt")
    out = model.generate(**encoded, max_new_tokens=5)
    assert out.shape == (3, encoded["input_ids"].shape[1] + 5)
    assert len(tokenizer.batch_decode(out, skip_special_tokens=True)) == 3


@pytest.mark.grid(3)
def test_generation_from_nothing(kind, model, tokenizer):
    out = model.generate(max_new_tokens=6, suppress_tokens=[model.config.eos_token_id])
    frame = tokenizer("")["input_ids"]
    assert out[0, [0, -1]].tolist() == frame
    assert out.shape == (1, 8)


def test_greedy_infilling_is_that_of_the_plain_encoder(kind, model, tokenizer):
    """One mask, no drawing: the argmax of the encoder's own logits over what may be emitted."""
    text = rows_of(kind, tokenizer)[2][None]
    text[0, 4] = tokenizer.mask_token_id
    with torch.no_grad():
        logits = model.denoiser(input_ids=text).logits[0, 4]
    logits[tokenizer.all_special_ids] = -torch.inf
    assert int(model.generate(text, do_sample=False)[0, 4]) == int(logits.argmax())


def test_the_longest_text_the_encoder_takes(kind, model, tokenizer):
    limit = model.max_positions
    assert limit == 64
    first, last = tokenizer("")["input_ids"]
    longest = torch.tensor([[first, *[20] * (limit - 3), tokenizer.mask_token_id, last]])
    assert model.generate(longest).shape == (1, limit)
    with pytest.raises(ValueError, match="comes to 65 tokens"):
        model.generate(longest, max_new_tokens=1)


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.grid(3, first=1)
def test_a_saved_model_loads_bit_for_bit(kind, model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    text = masked_text(kind, tokenizer)
    expected = model(input_ids=text).logits
    for auto in (MaskGitForMaskedLM, AutoModelForMaskedLM, AutoModelForCausalLM):
        loaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is MaskGitForMaskedLM
        assert not loaded.training
        assert not info["missing_keys"]
        assert not info["unexpected_keys"]
        assert torch.equal(loaded(input_ids=text).logits, expected)
        assert torch.equal(loaded.generate(text, seed=3), model.generate(text, seed=3))


@pytest.mark.grid(3, first=2)
def test_tied_weights_stay_tied(kind, model, tmp_path):
    model.save_pretrained(tmp_path)
    for tied in (model, MaskGitForMaskedLM.from_pretrained(tmp_path)):
        assert tied.config.tie_word_embeddings
        assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight


@pytest.mark.grid(3)
def test_a_resized_model_reloads(kind, tmp_path, tokenizer):
    model, text = tiny_model(kind), masked_text(kind, tokenizer)
    before = model(input_ids=text).logits
    model.resize_token_embeddings(48, mean_resizing=False)
    assert model.config.get_text_config().vocab_size == 48
    after = model(input_ids=text).logits
    assert after.shape[-1] == 48
    assert torch.allclose(after[..., : before.shape[-1]], before, atol=1e-5)
    model.save_pretrained(tmp_path)
    loaded = MaskGitForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(input_ids=text).logits, after)
    assert loaded.generate(text, seed=0).shape == text.shape


# --- sizes ---------------------------------------------------------------------------------------


def noisy(model):
    """Weights as after training: no two alike, none at its start."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


HEADS = {
    **{
        f"{kind} {tied}": (kind, {"tie_word_embeddings": tied})
        for kind in ("bert", "albert", "esm")
        for tied in (True, False)
    },
    "deberta-v2 untied": ("deberta-v2", {"tie_word_embeddings": False}),
    "deberta-v2 on embeddings": ("deberta-v2", {"legacy": False}),
    "deberta on embeddings": ("deberta", {"legacy": False}),
    "mpnet untied": ("mpnet", {"tie_word_embeddings": False}),
    "mobilebert untied": ("mobilebert", {"tie_word_embeddings": False}),
}


def generator_with(kind, settings):
    config = support_matrix._config(kind)
    for name, value in settings.items():
        setattr(config.text_config, name, value)
    torch.manual_seed(0)
    model = MaskGitForMaskedLM(config)
    noisy(model)
    return model.eval()


@pytest.mark.grid(2)
@pytest.mark.parametrize("size", [48, 38])
@pytest.mark.parametrize(("kind", "settings"), HEADS.values(), ids=list(HEADS))
def test_a_resized_model_keeps_what_it_knows_and_is_saved_whole(kind, settings, size, tmp_path):
    model, text = generator_with(kind, settings), support_matrix._with_masks(kind)
    before = model(input_ids=text).logits.detach()
    model.resize_token_embeddings(size)
    after = model(input_ids=text).logits.detach()
    kept = min(size, 40)
    assert after.shape[-1] == size == model.config.vocab_size
    torch.testing.assert_close(after[..., :kept], before[..., :kept], atol=1e-4, rtol=1e-4)
    noisy(model)
    trained = model(input_ids=text).logits
    trained.sum().backward()  # and every weight that is trained has a gradient
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    model.save_pretrained(tmp_path)
    loaded = MaskGitForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(input_ids=text).logits, trained)


@pytest.mark.parametrize("kind", ["bert", "esm", "deberta-v2 on embeddings"])
def test_the_bias_of_the_head_is_the_one_that_is_added_to_the_logits(kind):
    model = generator_with(*HEADS.get(kind, (kind, {})))
    text = support_matrix._with_masks(kind.split(" ")[0])
    before = model(input_ids=text).logits
    with torch.no_grad():
        head_bias(model.denoiser)[7] += 3
    expected = before.clone()
    expected[..., 7] += 3
    torch.testing.assert_close(model(input_ids=text).logits, expected)


def test_a_head_on_the_embeddings_has_no_last_layer():
    model = generator_with("deberta-v2", {"legacy": False})
    assert model.get_output_embeddings() is None
    assert model.denoiser.get_output_embeddings() is not None, "transformers says another one"


def test_rounding_is_done_where_an_encoder_has_no_option_for_it():
    model = generator_with("mobilebert", {})
    model.resize_token_embeddings(43, pad_to_multiple_of=8)
    assert model.config.vocab_size == 48
    with pytest.raises(ValueError, match="no option `mean_resizing`; leave it out"):
        model.resize_token_embeddings(50, mean_resizing=False)


def test_a_bias_beside_the_embeddings_learns_though_another_layer_looks_like_the_last():
    model = generator_with("deberta-v2", {"legacy": False, "tie_word_embeddings": False})
    assert head_bias(model.denoiser).requires_grad


def test_one_token_is_text_enough():
    model, text = generator_with("bert", {}), torch.tensor([[7]])
    assert model(input_ids=text).logits.shape == (1, 1, 40)
