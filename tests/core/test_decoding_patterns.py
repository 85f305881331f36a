"""`generate` with patterns: what is refused before the first pass, and what always holds."""

import re
import sys

import pytest
import torch
from hypothesis import example, given, settings
from transformers import TopKLogitsWarper

from hf_maskgit import MaskGitForMaskedLM, Pattern
from hf_maskgit.core.token_pattern import TokenPattern
from tests.support.combinations import LEGAL, choices
from tests.support.pattern_sweep import Case, cases, check, main
from tests.support.prompts import MASK, PAD, SEP
from tests.support.tiny import (
    TableModel,
    protein_tokenizer,
    tiny_config,
    tiny_encoder,
    word_tokenizer,
)

WIDE = list(range(5, 40))


@pytest.fixture
def model():
    return TableModel(tiny_config(), critic=True)


def of_classes(*elements):
    return TokenPattern.from_token_classes(list(elements), 40)


# Filters at the warmth of a draft kept nothing that its pattern left.
WARMER_DRAFT = Case("byte-level", r"(\{)*(\{)*([A-Z])", 2076265106)


@pytest.mark.wide
@settings(max_examples=25, deadline=None)
@given(cases())
@example(WARMER_DRAFT)
def test_what_is_written_always_matches(case):
    """Over regular expressions, six kinds of tokenizers, and every legal sampler.

    `python -m tests.support.pattern_sweep` does so as often as it is told to, and counts.
    """
    check(case)


@pytest.mark.grid(4, first=3)
@pytest.mark.parametrize("combination", LEGAL, ids=lambda c: "-".join(c))
def test_a_pattern_that_takes_anything_changes_nothing(model, combination):
    """To the bit, in float64: the same uniforms draw the same tokens."""
    text = torch.tensor([[2, MASK, MASK, 7, MASK, MASK, 9], [2, MASK, 8, MASK, MASK, MASK, 9]])
    words = [i for i in range(40) if i != MASK]
    anything = of_classes((words, 0, None))
    options = {**choices(combination), "steps": 3, "seed": 5, "return_dict_in_generate": True}
    plain, bound = (model.generate(text, pattern=p, **options) for p in (None, anything))
    assert bound.sequences.equal(plain.sequences)
    assert bound.reveal_steps.equal(plain.reveal_steps)
    assert bound.denoiser_passes.equal(plain.denoiser_passes)


def test_rows_may_have_patterns_of_their_own_or_none(model):
    text = torch.tensor([[2, MASK, MASK, 7, MASK]] * 3)
    first = of_classes([10], [11, 12], [7], WIDE)
    second = of_classes(([7, 20], 0, None))
    both = model.generate(text, pattern=[first, None, second], seed=[1, 2, 3])
    assert first.matches(both[0, 1:])
    assert second.matches(both[2, 1:])
    for row, pattern in enumerate([first, None, second]):
        alone = model.generate(text[:1], pattern=pattern, seed=[row + 1])
        assert alone[0].equal(both[row])
    twice = model.generate(text[:2], pattern=[first, second], num_return_sequences=2, seed=1)
    assert all(first.matches(row[1:]) for row in twice[:2])
    assert all(second.matches(row[1:]) for row in twice[2:])


@pytest.mark.parametrize("warm", [{}, {"anneal_temperature": False}], ids=["cools", "stays"])
def test_a_row_free_of_patterns_is_the_same_alone_and_beside_others(model, warm):
    """Also where its list names none: such is the last batch of many rows, now and then."""
    text = torch.tensor([[2, MASK, MASK, 7, MASK]] * 2)
    options = {**warm, "return_dict_in_generate": True, "steps": 3}
    patterns = [None, of_classes(([7, 20], 0, None))]
    both = model.generate(text, pattern=patterns, seed=[1, 2], **options)
    alone = model.generate(text[:1], pattern=[None], seed=[1], **options)
    assert alone.sequences[0].equal(both.sequences[0])
    torch.testing.assert_close(alone.log_weights, both.log_weights[:1], equal_nan=True)
    # Of what is drawn from the denoiser's own law nothing need be made up for.
    assert alone.log_weights.isnan().all() if not warm else alone.log_weights.tolist() == [0]


def test_the_end_of_a_text_stands_where_the_pattern_may_be_over(model):
    text = torch.tensor([[2, 9, MASK, MASK, MASK, MASK, MASK, MASK]] * 40)
    pattern = of_classes([10, 11], (list(range(12, 32)), 0, 2), [34])
    written = model.generate(
        text, pattern=pattern, seed=0, steps=3, temperature=50.0, anneal_temperature=False
    )
    lengths = set()
    for row in written.tolist():
        body = row[2:]
        length = body.index(SEP)  # six tokens are more than it takes, so that it must end
        assert pattern.matches(body[:length])
        assert body[length + 1 :] == [PAD] * (5 - length)
        lengths.add(length)
    assert lengths == {2, 3, 4}
    continued = model.generate(
        torch.tensor([[2, 9]]), pattern=pattern, max_new_tokens=9, seed=1, do_sample=False
    )
    body = continued[0, 2:].tolist()
    assert pattern.matches(body[: body.index(SEP)])


def test_filters_that_leave_nothing_leave_the_likeliest_text(model):
    """The likeliest token of each place alone may make no text of the pattern."""
    text = torch.tensor([[2, *[MASK] * 6, 9]])
    pattern = of_classes(([10, 11], 3, 3), ([12, 13], 3, 3))
    other = TokenPattern.from_token_classes([(WIDE, 0, None)], 40)
    assert not pattern.matches(
        model.generate(text, pattern=other, top_k=1, seed=0, steps=1)[0, 1:7]
    )
    options = {"steps": 1, "anneal_temperature": False}
    likeliest = model.generate(text, pattern=pattern, do_sample=False, steps=1)
    for seed in range(5):
        written = model.generate(text, pattern=pattern, top_k=1, seed=seed, **options)
        assert written.equal(likeliest)
    processor = [TopKLogitsWarper(1)]
    with pytest.raises(ValueError, match="denoiser gives -inf to every text of the pattern"):
        model.generate(text, pattern=pattern, logits_processor=processor, **options)


ROW = [2, MASK, MASK, 7, MASK, 9]


@pytest.mark.parametrize(
    ("elements", "sentence"),
    [
        (
            [WIDE, WIDE, [8], WIDE],
            "row 1 cannot match .* the known token 7 in column 4 contradicts",
        ),
        ([[10], [11], [7], [11], [12]], "row 1 has 4 tokens .* takes from 5 to 5; give it another"),
        ([([10], 1, 3)], "row 1 has 4 tokens .* takes from 1 to 3; give it another"),
        ([([7, 10], 3, 3), ([7], 0, None), [11], [12]], "takes from 5 to any number; give"),
        ([([7, 10], 4, 4), ([12], 3, 3)], "row 1 has 4 tokens .* takes from 7 to 7"),
        ([WIDE, WIDE, [7], [MASK]], "the mask in column 5 may hold nothing that the pattern takes"),
    ],
)
def test_what_cannot_be_met_is_refused_before_the_first_pass(model, elements, sentence):
    text = torch.tensor([[PAD, *ROW]] * 2)
    real = (text != PAD).long()
    with pytest.raises(ValueError, match=sentence):
        model.generate(text, real, pattern=[None, of_classes(*elements)])
    assert model.calls == []


def test_a_number_of_tokens_between_the_possible_ones_is_refused(model):
    even = TokenPattern.from_token_classes([[10], [11]], 40)
    step = even.automaton.step.clone()
    step[even.automaton.final.nonzero()[0]] = step[even.automaton.start].clone()
    pattern = TokenPattern(even.automaton._replace(step=step))
    with pytest.raises(ValueError, match="takes from 2 to any number, but not this number"):
        model.generate(torch.tensor([[2, MASK, MASK, MASK, 9]]), pattern=pattern)


def test_known_tokens_may_fit_and_leave_no_room_for_the_rest(model):
    pattern = of_classes(([7, 10], 0, None), [11], ([12], 0, 2), [11])
    text = torch.tensor([[2, MASK, 11, 12, 12, MASK, MASK, MASK, 9]])
    with pytest.raises(
        ValueError, match="no text of the pattern comes to its end|may hold nothing"
    ):
        model.generate(text, pattern=pattern)
    odd = of_classes([10], ([11], 0, None), [12], ([11], 1, None))
    with pytest.raises(ValueError, match="fits in itself, but no text of the pattern comes to its"):
        model.generate(torch.tensor([[2, MASK, 11, MASK, 9]]), pattern=odd)


def test_what_no_row_may_hold_is_refused(model):
    allowed = {2: [20, 21]}
    text, pattern = torch.tensor([[2, MASK, MASK, 9]]), of_classes([10], [11])
    with pytest.raises(ValueError, match="column 2 may hold nothing .* `allowed_token_ids`"):
        model.generate(text, pattern=pattern, allowed_token_ids=allowed)
    with pytest.raises(ValueError, match="column 1 may hold nothing .* what is suppressed"):
        model.generate(text, pattern=pattern, suppress_tokens=[10])


def test_patterns_must_fit_the_rows(model):
    text, pattern = torch.tensor([[2, MASK, 9]] * 2), of_classes([10])
    with pytest.raises(ValueError, match="`pattern` has 3 entries for 2 returned rows; give one"):
        model.generate(text, pattern=[pattern] * 3)
    with pytest.raises(TypeError, match=r"must be a Pattern.*from_regex\(regex, tokenizer\)"):
        model.generate(text, pattern="[a-z]+")
    with pytest.raises(
        ValueError, match="row 0 has a `pattern` and no mask that it could speak of"
    ):
        model.generate(torch.tensor([[2, 8, 9]]), pattern=pattern, max_new_tokens=0)


def test_a_pattern_of_another_tokenizer_is_refused(model, monkeypatch):
    """By its mask, the call's tokenizer, or its size, where the model does not know its own."""
    monkeypatch.setattr(model.config, "tokenizer_fingerprint", None)
    text = torch.tensor([[2, MASK, 9]])
    other = Pattern.from_choices(["M"], protein_tokenizer())
    with pytest.raises(ValueError, match=r"whose mask is \d+; the model's is 4\. Compile it"):
        model.generate(text, pattern=other)
    other = Pattern.from_choices(["a"], word_tokenizer(words=["a", "b"]))
    with pytest.raises(ValueError, match="compiled for another tokenizer than this one"):
        model.generate(text, pattern=other, tokenizer=word_tokenizer())
    larger = TokenPattern.from_token_classes([[10]], 50)
    with pytest.raises(ValueError, match="a vocabulary of 50 tokens, the model's has 40"):
        model.generate(text, pattern=larger)


def test_a_model_knows_the_tokenizer_it_was_made_with(tmp_path):
    """And keeps it when it is saved; one that has grown is taken as it is named in the call."""
    tokenizer, text = word_tokenizer(), torch.tensor([[2, MASK, 3]])
    made = MaskGitForMaskedLM.from_encoder(tiny_encoder(), tokenizer=tokenizer)
    made.save_pretrained(tmp_path)
    model = MaskGitForMaskedLM.from_pretrained(tmp_path)
    own = Pattern.from_choices(["w1", "w2"], word_tokenizer())
    assert own.matches(model.generate(text, pattern=own, seed=0)[0, 1:2])
    renamed = word_tokenizer(words=[f"v{i}" for i in range(35)])
    other = Pattern.from_choices(["v1"], renamed)
    with pytest.raises(ValueError, match="for another tokenizer than the model was made with"):
        model.generate(text, pattern=other)
    model.generate(text, pattern=other, tokenizer=renamed)
    model.config.tokenizer_fingerprint = None
    model.generate(text, pattern=other)


def test_a_callback_that_breaks_the_pattern_is_told(model):
    def spoil(step, state):
        return state.reveal(state.masked & (state.masked.cumsum(1) == 1), torch.tensor([30]))

    pattern = of_classes([10, 11], [12, 13], [14, 15])
    text = torch.tensor([[2, MASK, MASK, MASK, 9]])
    with pytest.raises(ValueError, match="can match its pattern no more: a callback has changed"):
        model.generate(text, pattern=pattern, steps=3, callback_on_step_end=spoil, seed=0)


@pytest.mark.slow
def test_the_sweep_counts_what_matches(monkeypatch, capsys):
    """A share of `python -m tests.support.pattern_sweep`, which a release runs to 100,000."""
    monkeypatch.setattr(sys, "argv", ["pattern_sweep", "--count", "3000", "--seed", "1"])
    main()
    printed = re.search(
        r"([\d,]+) of ([\d,]+) texts match, of [\d,]+ calls", capsys.readouterr().out
    )
    assert printed is not None
    assert printed[1] == printed[2]
    assert int(printed[1].replace(",", "")) >= 3000
