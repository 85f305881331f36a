"""Padding on any side: `forward` and `score_tokens` see each text as it stands alone."""

import pytest
import torch
import torch.nn.functional as F
from transformers import pipeline

from hf_maskgit.core.left_edge import LeftEdge
from tests.support.tiny import ENCODERS, encoder_config, tiny_model, word_tokenizer

PAD, UNK, CLS, SEP, MASK = range(5)
ROWS = ([CLS, 7, MASK, 9, MASK, 11, SEP], [CLS, MASK, 8, SEP], [CLS, 10, SEP])
KINDS = [kind for kind in ENCODERS if kind not in ("roberta", "esm")]  # these have other ids


def padded(rows, side, width=7):
    """Rows as a tokenizer of that side pads them; "hole" pads behind the first token."""
    out = []
    for row in rows:
        fill = [PAD] * (width - len(row))
        out.append(
            {"right": row + fill, "left": fill + row, "hole": row[:1] + fill + row[1:]}[side]
        )
    ids = torch.tensor(out)
    return {"input_ids": ids, "attention_mask": (ids != PAD).long()}


def real(tensor, batch):
    return tensor[batch["attention_mask"].bool()]


@pytest.mark.grid(2)
@pytest.mark.parametrize("side", ["left", "hole"])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_on_any_side_gives_the_logits_and_the_loss_of_padding_on_the_right(kind, side):
    model = tiny_model(kind).double()
    right, other = padded(ROWS, "right"), padded(ROWS, side)
    expected, found = model(**right), model(**other)
    assert torch.equal(real(found.logits, other), real(expected.logits, right))
    for batch in (right, other):
        ids = batch["input_ids"]
        batch["labels"] = torch.where(ids == MASK, 20 + batch["attention_mask"].cumsum(1), -100)
    expected, found = model(**right), model(**other)
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.logits, expected.logits), "in the order of the caller's columns"


def test_all_that_a_pass_returns_stands_in_the_callers_columns():
    model = tiny_model("bert", self_cond=True)
    model.set_attn_implementation("eager")
    right, left = padded(ROWS, "right"), padded(ROWS, "left")
    wanted = {"output_hidden_states": True, "output_attentions": True}
    expected = model(**right, **wanted, output_last_hidden_state=True)
    found = model(**left, **wanted, output_last_hidden_state=True)
    pairs = [(found.last_hidden_state, expected.last_hidden_state)]
    pairs += zip(found.hidden_states, expected.hidden_states, strict=True)
    for one, other in pairs:
        assert one.shape == other.shape
        assert torch.equal(real(one, left), real(other, right))
    for one, other in zip(found.attentions, expected.attentions, strict=True):
        assert torch.equal(one[1, :, 3:, 3:], other[1, :, :4, :4])
    # and what is given back to it is found there
    looking = {"masked_positions": left["input_ids"] == MASK, "return_dict": False}
    (logits,) = model(**left, previous_hidden_states=found.last_hidden_state, **looking)
    again = {"previous_hidden_states": expected.last_hidden_state}
    alone = model(**right, **again, masked_positions=right["input_ids"] == MASK)
    assert torch.equal(logits, alone.logits)


def test_positional_arguments_and_token_types_are_moved_too():
    model = tiny_model()
    right, left = padded(ROWS, "right"), padded(ROWS, "left")
    types = (right["input_ids"] == 9).long()
    expected = model(right["input_ids"], right["attention_mask"], types).logits
    types = (left["input_ids"] == 9).long()
    found = model(left["input_ids"], left["attention_mask"], types).logits
    assert torch.equal(real(found, left), real(expected, right))
    with pytest.raises(TypeError, match="multiple values"):
        model(left["input_ids"], left["attention_mask"], input_ids=left["input_ids"])


def test_a_position_at_padding_keeps_its_place_among_the_logits():
    model, left = tiny_model(), padded(ROWS, "left")
    everywhere = model(**left).logits
    chosen = torch.ones_like(left["input_ids"], dtype=torch.bool)
    assert torch.equal(model(**left, masked_positions=chosen).logits, everywhere.flatten(0, 1))


@pytest.mark.parametrize("critic", ["self", "separate"])
def test_a_critic_judges_a_text_behind_padding_as_the_text_alone(critic):
    options = {"critic_config": tiny_model().config.text_config} if critic == "separate" else {}
    model = tiny_model(token_critic=critic, **options).double()
    texts = [[7 if token == MASK else token for token in row] for row in ROWS]
    right, left = padded(texts, "right"), padded(texts, "left")
    expected = model.score_tokens(**right, positions=right["input_ids"] > 6)
    assert torch.equal(model.score_tokens(**left, positions=left["input_ids"] > 6), expected)


def test_fill_mask_gives_the_same_scores_alone_and_beside_a_longer_text():
    tokenizer = word_tokenizer()
    tokenizer.padding_side = "left"
    fill = pipeline("fill-mask", model=tiny_model().double(), tokenizer=tokenizer)
    texts = ["w1 [MASK]", "w2 w3 w4 w5 [MASK] w6"]
    together, alone = fill(texts, batch_size=2), fill(texts, batch_size=1)
    for one, other in zip(together, alone, strict=True):
        assert [x["token"] for x in one] == [x["token"] for x in other]
        assert [x["score"] for x in one] == pytest.approx([x["score"] for x in other], rel=1e-9)


def test_a_batch_may_be_wider_than_the_encoder_where_no_text_is():
    """A length rounded up to a multiple: 64 columns for 60 positions."""
    model = tiny_model(
        "bert", text_config=encoder_config("bert", max_position_embeddings=60)
    ).double()
    text = [CLS, *[8, MASK] * 28, SEP]
    narrow = padded([text, ROWS[1]], "right", 58)
    for side in ("right", "left"):
        wide = padded([text, ROWS[1]], side, 64)
        logits = model(**wide).logits
        assert logits.shape[:2] == (2, 64)
        assert torch.equal(real(logits, wide), real(model(**narrow).logits, narrow))


@pytest.mark.parametrize("masked", [True, False])
def test_a_text_longer_than_the_positions_is_refused_before_the_encoder_works(masked):
    model = tiny_model()
    text = torch.full((2, 65), 9)
    mask = {"attention_mask": torch.ones_like(text)} if masked else {}
    with pytest.raises(ValueError, match=r"longest text has 65 tokens, the encoder takes 64; sh"):
        model(input_ids=text, **mask)


@pytest.mark.parametrize("side", [None, "left", "right"])
def test_a_text_that_takes_all_positions_is_taken(side):
    """Alone, or with one more column of padding."""
    text = torch.full((1, 64), 9)
    mask, given = torch.ones_like(text), {}
    if side is not None:
        text, mask = (F.pad(row, (1, 0) if side == "left" else (0, 1)) for row in (text, mask))
        given = {"attention_mask": mask}
    assert tiny_model()(input_ids=text, **given).logits.isfinite().all()


def test_what_cannot_be_put_back_is_refused():
    edge = LeftEdge.of(tiny_model(), padded(ROWS, "left"))
    with pytest.raises(ValueError, match=r"shape \(3, 2, 7, 3\).*Pad on the right"):
        edge.back(torch.zeros(3, 2, 7, 3), 3)


@pytest.mark.grid(2)
@pytest.mark.parametrize(
    "how", ["exported", "traced", pytest.param("compiled", marks=pytest.mark.slow)]
)
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("at", ["everywhere", "masks"])
@torch.no_grad()
def test_a_recorded_pass_moves_texts_as_well(how, at):
    """What is recorded from a batch padded on one side holds for the other side, too."""
    model = tiny_model()
    batches = [padded(ROWS, side) for side in ("right", "left")]
    for batch in batches if at == "masks" else ():
        batch["masked_positions"] = batch["input_ids"] == MASK
    if how == "exported":
        recorded = torch.export.export(model, (), batches[0], strict=False).module()
    elif how == "traced":
        model.config.return_dict = False
        recorded = torch.jit.trace(model, example_kwarg_inputs=batches[0], check_trace=False)
    else:
        torch._dynamo.reset()
        recorded = torch.compile(model, backend="eager", fullgraph=True)
    expected = model(**batches[0])[0]
    for batch in batches:
        found = recorded(**batch)[0]
        if at == "masks":
            torch.testing.assert_close(found, expected)
        else:
            torch.testing.assert_close(real(found, batch), real(expected, batches[0]))
