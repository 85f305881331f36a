"""A text is edited token by token, and the model is asked what else might stand in a place."""

import pytest
import torch

from hf_maskgit import InfillingPipeline
from hf_maskgit.visualization.editing import Cell, EditedText, Editor
from tests.support.tiny import tiny_model, word_tokenizer


@pytest.fixture(scope="module")
def editor():
    return Editor(InfillingPipeline(model=tiny_model(), tokenizer=word_tokenizer()))


def words(editor, edited):
    return [place.text for place in editor.frame(edited)]


def test_a_text_is_read_as_the_pipeline_reads_it(editor):
    edited = editor.read("w1 {blank:2} w2 [MASK]", seed=0)
    assert words(editor, edited) == ["w1", None, None, "w2", None]
    assert [cell.blank for cell in edited.cells] == [None, 0, 0, None, 1]
    whole = editor.tokenizer("w1 [MASK] [MASK] w2 [MASK]")["input_ids"]
    assert edited.ids(editor.tokenizer.mask_token_id)[0].tolist() == whole
    lengths = {len(editor.read("w1 {blank:1-3}", seed).cells) for seed in range(20)}
    assert lengths == {
        2,
        3,
        4,
    }  # one is missing in one of 1,100 sets of seeds


def test_filling_changes_masks_alone_and_is_what_generate_writes(editor):
    edited = editor.read("w1 {blank:2} w2 [MASK]", seed=0)
    told = []
    filled, unmasking = editor.fill(edited, seed=3, steps=2, on_frame=told.append)
    ids = edited.ids(editor.tokenizer.mask_token_id).to(editor.model.device)
    expected = editor.model.generate(ids, seed=3, steps=2, return_dict_in_generate=True)
    assert filled.ids(0).tolist() == expected.sequences.tolist()
    assert [c.step for c in filled.cells] == expected.reveal_steps[0, 1:-1].tolist()
    assert tuple(told) == unmasking.frames
    assert editor.frame(filled) == unmasking.frames[-1]
    assert [c.blank for c in filled.cells] == [None, 0, 0, None, 1]
    assert editor.text(filled) == unmasking.text
    again, _ = editor.fill(filled.mask(1), seed=4)
    changed = [a.token != b.token for a, b in zip(again.cells, filled.cells, strict=True)]
    assert not any(changed[:1] + changed[2:])


def test_alternatives_are_the_model_s_own_at_that_place_masked(editor):
    """Against a pass over the whole text with all logits, without what is never written."""
    filled, _ = editor.fill(editor.read("w1 {blank:3} w2", seed=0), seed=0)
    found = editor.alternatives(filled, 2, count=5)
    ids = filled.ids(0)
    ids[0, 3] = editor.tokenizer.mask_token_id
    logits = editor.model(input_ids=ids.to(editor.model.device)).logits[0, 3].detach().cpu()
    logits[editor.tokenizer.all_special_ids] = -torch.inf
    likely = logits.softmax(0)
    order = likely.argsort(descending=True)[:5].tolist()
    assert [token for token, _, _ in found] == order
    assert [text for _, text, _ in found] == editor.tokenizer.convert_ids_to_tokens(order)
    assert [p for _, _, p in found] == pytest.approx(likely[order].tolist(), rel=1e-4)


def test_edits_return_another_text(editor):
    edited = EditedText((2,), (Cell(5), Cell(6, 0, 1, 0.5), Cell(7, 0)), (3,))
    assert edited.choose(0, 9).cells == (Cell(9), *edited.cells[1:])
    assert edited.choose(1, 9).cells[1] == Cell(9, 0)  # who chose was as sure as one can be
    assert edited.mask(1).cells == (Cell(5), Cell(None, 0), Cell(7, 0))
    assert edited.mask(0).cells[0] == Cell(None, 1)  # a blank of its own
    assert edited.lengthen(1).cells == (*edited.cells[:2], Cell(None, 0), Cell(7, 0))
    assert edited.shorten(2).cells == edited.cells[:2]
    assert edited.cells == (Cell(5), Cell(6, 0, 1, 0.5), Cell(7, 0))
    assert edited.mask(1).ids(4).tolist() == [[2, 5, 4, 7, 3]]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.choose(2, 5), "The text has 2 tokens, and number 3 was asked for; choose one"),
        (lambda t: t.mask(-1), "The text has 2 tokens, and number 0 was asked for"),
        (lambda t: t.lengthen(0), "was typed, and only a blank becomes longer; mask it first"),
        (lambda t: t.shorten(0), "was typed, and only a blank becomes shorter; mask it first"),
        (lambda t: t.shorten(1), "A blank has one token at least, and this is its only one"),
    ],
)
def test_edits_that_cannot_be_made_are_refused(edit, message):
    with pytest.raises(ValueError, match=message):
        edit(EditedText((2,), (Cell(5), Cell(6, 0)), (3,)))


def test_texts_that_cannot_be_filled_are_refused(editor):
    with pytest.raises(ValueError, match="There is nothing to fill in 'w1 w2'"):
        editor.read("w1 w2", seed=0)
    with pytest.raises(ValueError, match=r"holds the special token '\[SEP\]', which frames texts"):
        editor.read("w1 [SEP] w2 [MASK]", seed=0)
    for text in ("w1 [MASK] [PAD]", "[CLS] {blank}"):  # at an edge, too
        with pytest.raises(ValueError, match=r"holds the special token '\[(PAD|CLS)\]'"):
            editor.read(text, seed=0)
    unknown = (
        r"does not know 2 of the 3 words of the text \(66.7 %\), such as 'Zarf' and 'qux', so .*"
        "Write other words, or write them as it knows them: upper or lower case"
    )
    with pytest.raises(ValueError, match=unknown):
        editor.read("Zarf qux w1 {blank:2}", seed=0)
    filled, _ = editor.fill(editor.read("w1 [MASK]", seed=0), seed=0)
    with pytest.raises(ValueError, match="Nothing is masked; mask a token again, or write"):
        editor.fill(filled, seed=0)
