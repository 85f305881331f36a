"""What `forward` refuses of rows of tokens, as `generate` and `nelbo` do."""

import numpy as np
import pytest
import torch

from hf_maskgit.core.row_checks import whole_numbers
from tests.support.tiny import tiny_model

PAD, UNK, CLS, SEP, MASK = range(5)
TEXT = torch.tensor([[CLS, MASK, SEP, PAD]])
WHOLE = TEXT[:, :3]
REAL = (TEXT != PAD).long()

REFUSED = {
    "padding unmarked": ({"input_ids": TEXT}, r"hold the padding id 0 and no `attention_mask`"),
    "another vocabulary": ({"input_ids": WHOLE + 50}, r"run from 52 to 54; the vocabulary has 0"),
    "a negative id": ({"input_ids": WHOLE - 4}, r"run from -2 to 0; the vocabulary has 0 to 39"),
    "one row": ({"input_ids": WHOLE[0]}, r"must be integers of shape \(batch, length\)"),
    "no row": ({"input_ids": WHOLE[:0]}, "hold no token: 0 rows of length 3"),
    "16 bits without a sign": (
        {"input_ids": WHOLE.to(torch.uint16)},
        r"must be integers .* torch.uint16 and shape \(1, 3\)\. Torch .* pass \.long\(\)",
    ),
    "fractions": ({"input_ids": WHOLE.float()}, r"must be integers.*float32"),
    "a mask of another shape": (
        {"input_ids": TEXT, "attention_mask": REAL[:, 1:]},
        r"`attention_mask` must have the shape of `input_ids`, \(1, 4\), got \(1, 3\)",
    ),
    "a mask of pairs that no encoder reads": (
        {"input_ids": WHOLE, "attention_mask": torch.ones(1, 3, 3)},
        r"`attention_mask` must have the shape of `input_ids`, \(1, 3\), got \(1, 3, 3\)",
    ),
    "a mask of other values": (
        {"input_ids": TEXT, "attention_mask": REAL * 2},
        r"`attention_mask` must hold 0 \(padding\) and 1",
    ),
    "unknown types": (
        {"input_ids": WHOLE, "token_type_ids": WHOLE},
        r"`token_type_ids` run from 2 to 4; the encoder has types 0 to 1",
    ),
    "the first type there is not": (
        {"input_ids": WHOLE, "token_type_ids": WHOLE - 2},
        r"`token_type_ids` run from 0 to 2; the encoder has types 0 to 1",
    ),
    "no text": ({}, r"either `input_ids` or `inputs_embeds`, got neither"),
    "two texts": (
        {"input_ids": WHOLE, "inputs_embeds": torch.zeros(1, 3, 32)},
        r"either `input_ids` or `inputs_embeds`, got both",
    ),
}


@pytest.mark.grid(2)
@pytest.mark.parametrize(("inputs", "sentence"), REFUSED.values(), ids=list(REFUSED))
@pytest.mark.parametrize("labels", [False, True])
def test_rows_that_cannot_be_read_are_refused_before_the_encoder_works(
    monkeypatch, inputs, sentence, labels
):
    model = tiny_model()
    monkeypatch.setattr(model.denoiser, "forward", lambda **_: pytest.fail("the encoder works"))
    if labels and "input_ids" in inputs:
        inputs = {**inputs, "labels": torch.full(inputs["input_ids"].shape, -100)}
    with pytest.raises(ValueError, match=sentence):
        model(**inputs)


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "labels", "masked_positions"])
def test_lists_are_refused(name):
    inputs = {"input_ids": WHOLE, name: WHOLE.tolist()}
    if name == "masked_positions":
        inputs["labels"] = torch.tensor([[-100, 7, -100]])
    with pytest.raises(TypeError, match=f"`{name}` must be a tensor, got list"):
        tiny_model()(**inputs)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_every_integer_dtype_is_read_alike(dtype):
    model, labels = tiny_model(), torch.tensor([[-100, 7, -100, -100]])
    expected = model(input_ids=TEXT, attention_mask=REAL, labels=labels).loss
    mask = REAL.to(dtype)
    signed = torch.int16 if dtype == torch.uint8 else dtype
    for given in (mask, REAL.bool(), REAL.float()):
        found = model(input_ids=TEXT.to(dtype), attention_mask=given, labels=labels.to(signed))
        assert torch.equal(found.loss, expected)


@pytest.mark.parametrize("kind", "int8 int16 int32 int64 uint8 uint16 uint32 float64".split())
def test_every_kind_of_number_of_numpy_is_read_alike(kind):
    """Files of tokens hold 16 bits without a sign."""
    assert whole_numbers("input_ids", np.array([2, 5, 3], kind)).tolist() == [2, 5, 3]


def test_masks_of_pairs_are_left_to_the_encoder():
    model, pairs = tiny_model(), REAL[:, None, :, None] * REAL[:, None, None]
    found = model(input_ids=TEXT, attention_mask=pairs.bool()).logits
    expected = model(input_ids=TEXT, attention_mask=REAL).logits
    torch.testing.assert_close(found[REAL.bool()], expected[REAL.bool()])
