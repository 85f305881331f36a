"""Laws of packing: every token goes to its place in the packed row and comes back to its column.

The oracle is a row as a plain list of tokens, put together the obvious way.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_maskgit.core.decoding_layout import (
    append,
    behind_first,
    ends_with,
    nothing_behind,
    pack_rows,
    plan_layout,
)

MASK, CLOSING, END, PAD, ENCODER_PAD = 4, 3, 9, 0, 77


@st.composite
def paddings(draw, max_rows=4, max_width=7):
    """An attention mask with at least one real token per row, holes included."""
    width = draw(st.integers(1, max_width))
    row = st.lists(st.integers(0, 1), min_size=width, max_size=width).filter(any)
    return torch.tensor(draw(st.lists(row, min_size=1, max_size=max_rows)))


def obvious_layout(real, num_new, num_closing, closing_last):
    """One row's two orders of its columns, and its length, by building lists."""
    width = len(real)
    tokens = [i for i in range(width) if real[i]]
    padding = [i for i in range(width) if not real[i]]
    new = list(range(width, width + num_new))
    body, closing = tokens[: len(tokens) - num_closing], tokens[len(tokens) - num_closing :]
    packed = body + new + closing + padding
    last = tokens[-1] + 1
    arranged = packed if closing_last else [*range(last), *new, *range(last, width)]
    return packed, arranged, len(tokens) + num_new


@pytest.mark.wide
@given(
    mask=paddings(),
    num_new=st.integers(0, 4),
    closing=st.integers(0, 2),
    closing_last=st.booleans(),
)
def test_layout_is_the_obvious_one(mask, num_new, closing, closing_last):
    num_closing = torch.minimum(mask.sum(1), torch.tensor(closing))
    layout = plan_layout(mask, num_new, num_closing, closing_last=closing_last)
    for row in range(len(mask)):
        packed, arranged, length = obvious_layout(
            mask[row].tolist(), num_new, int(num_closing[row]), closing_last
        )
        real = length  # the order of the padding behind it is nobody's business
        assert layout.packed[row, :real].tolist() == packed[:real]
        assert sorted(layout.packed[row, real:].tolist()) == packed[real:]
        assert layout.lengths[row] == length
        if closing_last:
            assert torch.equal(layout.arranged[row], layout.packed[row])
        else:
            assert layout.arranged[row].tolist() == arranged


@pytest.mark.wide
@given(mask=paddings(), num_new=st.integers(0, 4), closing=st.integers(0, 1))
def test_restore_undoes_pack(mask, num_new, closing):
    layout = plan_layout(mask, num_new, closing * torch.ones(len(mask), dtype=torch.long))
    columns = torch.arange(len(mask) * (mask.shape[1] + num_new)).view(len(mask), -1)
    restored = layout.restore(columns, layout.pack(columns))
    assert torch.equal(restored, columns.gather(1, layout.arranged))
    changed = layout.restore(torch.zeros_like(columns), layout.pack(columns))
    real = torch.cat([mask, torch.ones(len(mask), num_new)], 1).bool().gather(1, layout.arranged)
    assert torch.equal(changed[real], restored[real])


def test_packed_rows_are_as_wide_as_the_longest():
    mask = torch.tensor([[0, 1, 1, 0, 0], [1, 1, 1, 0, 0]])
    layout = plan_layout(mask, 2, torch.zeros(2, dtype=torch.long))
    assert layout.pack(torch.zeros(2, 7)).shape == (2, 5)


@pytest.mark.wide
@given(mask=paddings(), suffix=st.lists(st.integers(1, 2), max_size=3), data=st.data())
def test_ends_with_looks_at_the_last_real_tokens(mask, suffix, data):
    ids = torch.tensor(
        data.draw(
            st.lists(
                st.lists(st.integers(1, 2), min_size=mask.shape[1], max_size=mask.shape[1]),
                min_size=len(mask),
                max_size=len(mask),
            )
        )
    )
    found = ends_with(ids, mask, suffix)
    for row in range(len(mask)):
        tokens = ids[row][mask[row].bool()].tolist()
        assert bool(found[row]) == (
            bool(suffix) and len(tokens) >= len(suffix) and tokens[-len(suffix) :] == suffix
        )


@pytest.mark.wide
@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_nothing_behind_means_no_known_token_at_or_behind_the_place(known):
    marked = nothing_behind(torch.tensor([known]))[0].tolist()
    assert marked == [not any(known[i:]) for i in range(len(known))]


@pytest.mark.wide
@given(st.data())
def test_only_the_tail_behind_its_first_end_is_padded(data):
    width = data.draw(st.integers(1, 8))
    flags = st.lists(st.booleans(), min_size=width, max_size=width)
    ends, tail = data.draw(flags), data.draw(flags)
    text = torch.arange(10, 10 + width)[None]
    padded = text.masked_fill(behind_first(torch.tensor([ends]), torch.tensor([tail])), PAD)
    expected, ended = [], False
    for i in range(width):
        expected.append(PAD if ended and tail[i] else 10 + i)
        ended = ended or (ends[i] and tail[i])
    assert padded[0].tolist() == expected
    assert text[0].tolist() == list(range(10, 10 + width)), "the argument was changed"


def test_append_adds_columns():
    rows = torch.tensor([[1, 2], [5, 6]])
    two_and_one = append(rows, torch.tensor([2, 1]), MASK, PAD)
    assert two_and_one.tolist() == [[1, 2, MASK, MASK], [5, 6, MASK, PAD]]
    assert append(rows, torch.tensor([0, 0]), MASK, PAD).tolist() == rows.tolist()


# --- whole batches -------------------------------------------------------------------------------


def packed(rows, mask, num_new=2, from_nothing=False, suffix=(CLOSING,)):
    return pack_rows(
        torch.tensor(rows),
        torch.tensor(mask),
        num_new=num_new,
        mask_token_id=MASK,
        pad_token_id=ENCODER_PAD,
        suffix_ids=list(suffix),
        from_nothing=from_nothing,
    )


def test_new_masks_stand_before_the_closing_token_while_decoding():
    rows = packed([[2, 7, 3, 0, 0], [0, 0, 2, 3, 8]], [[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
    assert rows.text.tolist() == [[2, 7, 4, 4, 3], [2, 3, 8, 4, 4]]
    assert rows.masked.tolist() == [[False, False, True, True, False], [False] * 3 + [True] * 2]
    assert rows.can_end.tolist() == rows.masked.tolist()


def test_without_new_masks_the_closing_token_is_a_known_one():
    rows = packed([[2, 4, 3]], [[1, 1, 1]], num_new=0)
    assert rows.text.tolist() == [[2, 4, 3]]
    assert rows.masked.tolist() == [[False, True, False]]
    assert not bool(rows.can_end.any())


def test_the_encoder_sees_its_own_padding_and_a_mask_token_there_is_none():
    rows = packed([[MASK, 7, MASK]], [[0, 1, 0]], num_new=1)
    assert rows.text.tolist() == [[7, MASK]]
    wide = packed([[MASK, 7, MASK], [7, 7, 7]], [[0, 1, 0], [1, 1, 1]], num_new=0)
    assert wide.text.tolist() == [[7, ENCODER_PAD, ENCODER_PAD], [7, 7, 7]]
    assert not bool(wide.masked.any())


def test_a_text_may_end_only_where_nothing_known_stands_behind():
    rows = packed([[2, MASK, 7, MASK, MASK]], [[1] * 5], num_new=1)
    assert rows.masked.tolist() == [[False, True, False, True, True, True]]
    assert rows.can_end.tolist() == [[False, False, False, True, True, True]]


def test_finish_puts_every_token_back_and_pads_once():
    rows = packed([[5, 2, 7, 3, 6], [2, 7, 8, 9, 3]], [[0, 1, 1, 1, 0], [1] * 5])
    filled = rows.text.clone()
    filled[rows.masked] = torch.tensor([END, 11, 12, 13])
    finished = rows.finish(filled, (filled == END) & rows.can_end, PAD)
    assert finished.tolist() == [[5, 2, 7, 3, END, PAD, 6], [2, 7, 8, 9, 3, 12, 13]]


@pytest.mark.parametrize(
    ("new_tokens", "expected"),
    [
        ([11, 12, 13], [2, 11, 12, 13, 3]),
        ([11, END, 13], [2, 11, END, PAD, PAD]),  # the closing token is behind the end too
        ([11, 12, END], [2, 11, 12, END, PAD]),
    ],
)
def test_a_text_from_nothing_keeps_its_closing_token_at_the_end(new_tokens, expected):
    rows = packed([[2, 3]], [[1, 1]], num_new=3, from_nothing=True)
    filled = rows.text.clone()
    filled[rows.masked] = torch.tensor(new_tokens)
    assert rows.finish(filled, (filled == END) & rows.can_end, PAD).tolist() == [expected]


def test_a_known_end_of_text_pads_nothing():
    rows = packed([[2, END, 7]], [[1, 1, 1]])
    filled = rows.text.clone()
    filled[rows.masked] = torch.tensor([11, 12])
    assert rows.finish(filled, (filled == END) & rows.can_end, PAD).tolist() == [
        [2, END, 7, 11, 12]
    ]


def test_new_token_types_are_those_of_the_last_real_token():
    rows = packed([[5, 2, 7, 3], [2, 7, 3, 6]], [[0, 1, 1, 1], [1, 1, 1, 0]], num_new=2)
    types = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]])
    assert rows.pack_types(types, mask).tolist() == [[0, 1, 1, 1, 1], [0, 0, 0, 0, 0]]


def test_the_worked_row_is_right():
    """The example of `plan_layout`, and the other order, of a text from nothing."""
    mask, closing = torch.tensor([[1, 1, 1, 1, 0]]), torch.tensor([1])
    layout = plan_layout(mask, 2, closing)
    assert layout.packed.tolist() == [[0, 1, 2, 5, 6, 3, 4]]
    assert layout.arranged.tolist() == [[0, 1, 2, 3, 5, 6, 4]]
    last = plan_layout(mask, 2, closing, closing_last=True)
    assert last.arranged.tolist() == last.packed.tolist() == layout.packed.tolist()
