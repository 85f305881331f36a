"""Which tokens may be emitted: everywhere, at single columns, and what makes some less likely."""

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from tests.support.combinations import LEGAL, choices
from tests.support.prompts import CLS, MASK, PAD, SEP, WORDS
from tests.support.tiny import TableModel, tiny_config


@pytest.fixture
def table():
    return TableModel(tiny_config(), critic=True)


def ids(*rows):
    return torch.tensor(rows)


TEXT = ids([CLS, 5, *[MASK] * 8, 6, SEP])


# --- allowed ids ---------------------------------------------------------------------------------


@pytest.mark.grid(4)
@pytest.mark.parametrize("combination", LEGAL, ids="-".join)
def test_every_combination_keeps_to_the_allowed_ids(table, combination):
    options = {"steps": 4, "seed": 0, "anneal_temperature": False, "remdm_eta": 0.5}
    options |= choices(combination)
    out = table.generate(TEXT, allowed_token_ids=[7, 8, 9], **options)
    assert set(out[0, 2:10].tolist()) <= {7, 8, 9}
    by_column = {2: [11], 4: [12, 13], 9: [14, SEP]}
    out = table.generate(TEXT, allowed_token_ids=by_column, **options)[0].tolist()
    assert out[2] == 11
    assert out[4] in (12, 13)
    assert out[9] == 14, "no text ends before a known token"
    assert set(out) > {11, 14}
    for column in (3, 5, 6, 7, 8):
        assert out[column] in WORDS


@pytest.mark.parametrize("side", ["left", "right"])
def test_columns_are_those_of_the_returned_rows(table, side):
    """New tokens stand right behind the last real token, whatever side the padding is on."""
    prompts = [[CLS, 5, SEP], [CLS, 5, 6, 7, SEP]]
    if side == "left":
        rows = ids([PAD, PAD, *prompts[0]], prompts[1])
    else:
        rows = ids([*prompts[0], PAD, PAD], prompts[1])
    new = [slice(5, 8) if side == "left" else slice(3, 6), slice(5, 8)]
    columns = [{place.start + i: [20 + i] for i in range(3)} for place in new]
    out = table.generate(
        rows, (rows != PAD).long(), max_new_tokens=3, allowed_token_ids=columns, seed=0
    )
    for row, place in zip(out, new, strict=True):
        assert row[place].tolist() == [20, 21, 22]


def test_a_text_from_nothing_counts_its_frame(table):
    out = table.generate(max_new_tokens=3, allowed_token_ids={1: [20], 2: [21], 3: [22]})
    assert out.tolist() == [[CLS, 20, 21, 22, SEP]]


def test_each_returned_row_may_have_columns_of_its_own(table):
    rows = ids([MASK, MASK], [MASK, MASK])
    out = table.generate(
        rows, num_return_sequences=2, allowed_token_ids=[{0: [7]}, None, {1: [8]}, {}], seed=0
    )
    assert int(out[0, 0]) == 7
    assert int(out[2, 1]) == 8
    free = table.generate(rows, num_return_sequences=2, seed=0)
    assert torch.equal(out[[1, 3]], free[[1, 3]])


def test_a_row_keeps_its_columns_alone_and_in_a_batch(table):
    rows = ids([MASK] * 6, [MASK] * 6)
    columns = [{0: [7, 8], 3: [9, 10]}, {2: [11, 12, 13]}]
    together = table.generate(rows, allowed_token_ids=columns, seed=[1, 2])
    for i in range(2):
        alone = table.generate(rows[:1], allowed_token_ids=columns[i], seed=[i + 1])
        assert torch.equal(together[i], alone[0])


def test_no_processor_brings_back_what_is_not_allowed(table):
    def favourite(input_ids, scores):
        scores = torch.zeros_like(scores)
        scores[:, 30] = 50
        return scores

    out = table.generate(TEXT, allowed_token_ids=[7, 8], logits_processor=[favourite], seed=0)
    assert set(out[0, 2:10].tolist()) <= {7, 8}


def test_what_is_suppressed_is_not_allowed_back(table):
    out = table.generate(TEXT, allowed_token_ids=[7, 8, MASK, PAD], suppress_tokens=[7])
    assert set(out[0, 2:10].tolist()) == {8}


def test_an_end_that_is_the_only_id_allowed_ends_the_text(table):
    out = table.generate(ids([CLS, 5]), max_new_tokens=4, allowed_token_ids={3: [SEP]}, seed=0)
    assert out[0, 3:].tolist() == [SEP, PAD, PAD]


def test_log_probabilities_are_of_the_constrained_law(table):
    out = table.generate(
        ids([MASK]),
        steps=1,
        allowed_token_ids={0: [7, 8]},
        anneal_temperature=False,
        return_dict_in_generate=True,
    )
    everywhere = torch.ones(1, 1, dtype=torch.bool)
    law = table(ids([MASK]), torch.ones(1, 1), everywhere).logits[0, [7, 8]].log_softmax(-1)
    expected = law[int(out.sequences[0, 0]) - 7]
    assert float(out.reveal_log_probabilities[0, 0]) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("allowed", "message"),
    [
        ([], r"must be a list of ids, a dict from column to such a list, or one dict .*, got \[\]"),
        ("w1", "must be a list of ids, a dict from column to such a list, .*, got 'w1'"),
        (7, "must be a list of ids, a dict from column to such a list, .*, got 7"),
        ([7, {2: [8]}], "must be a list of ids, a dict from column to such a list, or one dict"),
        ([{2: [7]}, None], "`allowed_token_ids` has 2 entries for 1 returned rows"),
        ({12: [7]}, "names column 12; the returned rows have 0 to 11"),
        ({-1: [7]}, "names column -1; the returned rows have 0 to 11"),
        ({"2": [7]}, "names column '2'; the returned rows have 0 to 11"),
        ({2: 7}, "must give column 2 a list of token ids, got 7"),
        ({2: ["w1"]}, r"must give column 2 a list of token ids, got \['w1'\]"),
        ({2: [40]}, "`allowed_token_ids` names the id 40; the vocabulary has 0 to 39"),
        ([-1], "`allowed_token_ids` names the id -1; the vocabulary has 0 to 39"),
        ({2: [MASK, PAD]}, "leaves nothing to emit in column 2: every id it names there is supp"),
        ({2: []}, "leaves nothing to emit in column 2: every id it names there is suppressed"),
        ([CLS], "leaves nothing to emit anywhere: every id it names there is suppressed"),
        ({2: [SEP]}, "allows nothing but an end of text at a mask .*, in returned row 0; allow an"),
    ],
)
def test_constraints_that_cannot_be_kept_are_refused(table, allowed, message):
    with pytest.raises(ValueError, match=message):
        table.generate(TEXT, allowed_token_ids=allowed)
    assert table.calls == []


# --- ids kept out, or made less likely -----------------------------------------------------------


@pytest.mark.grid(4, first=1)
@pytest.mark.parametrize("combination", LEGAL, ids="-".join)
def test_every_combination_keeps_out_suppressed_and_bad_words(table, combination):
    options = {"steps": 4, "anneal_temperature": False, "remdm_eta": 0.5, "seed": 1}
    left = [7, 8, 9]
    out = table.generate(
        TEXT,
        suppress_tokens=list(range(10, 40)),
        bad_words_ids=[[5], [6]],
        **options,
        **choices(combination),
    )
    assert set(out[0, 2:10].tolist()) <= set(left)


def test_bad_words_are_suppressed_tokens(table):
    words = list(range(5, 20))
    as_words = table.generate(TEXT, bad_words_ids=[[word] for word in words], seed=0)
    assert torch.equal(as_words, table.generate(TEXT, suppress_tokens=words, seed=0))


def test_a_repetition_penalty_is_the_processor_of_that_name(table):
    by_option = table.generate(TEXT, repetition_penalty=3.0, seed=0)
    processor = [RepetitionPenaltyLogitsProcessor(3.0)]
    by_hand = table.generate(TEXT, logits_processor=processor, seed=0)
    assert torch.equal(by_option, by_hand)
    assert not torch.equal(by_option, table.generate(TEXT, seed=0))
    assert len(processor) == 1
    table.generate(TEXT, logits_processor=processor, repetition_penalty=3.0, seed=0)
    assert len(processor) == 1, "the caller's list was changed"


def test_a_repetition_penalty_lets_fewer_tokens_repeat(table):
    def distinct(penalty):
        out = table.generate(
            TEXT,
            repetition_penalty=penalty,
            seed=0,
            num_return_sequences=20,
            steps=8,
            suppress_tokens=list(range(15, 40)),
        )
        return sum(len(set(row[2:10].tolist())) for row in out)

    assert distinct(5.0) > distinct(1.0) == distinct(None)


@pytest.mark.parametrize("order", ["top_probability", "margin", "entropy"])
def test_scores_of_positions_do_not_feel_the_penalty(table, order):
    """The first pass picks the same place, whatever is drawn there."""
    first = {
        tuple(
            table.generate(
                TEXT,
                order=order,
                steps=8,
                seed=0,
                repetition_penalty=penalty,
                return_dict_in_generate=True,
            )
            .reveal_steps.eq(0)[0]
            .tolist()
        )
        for penalty in (None, 10.0, 0.1)
    }
    assert len(first) == 1
