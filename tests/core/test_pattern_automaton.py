"""Automata: the same language with the fewest states and classes, and how long its texts are."""

import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_maskgit.core.pattern_automaton import (
    MOST_STATES,
    Automaton,
    Element,
    checked_size,
    of_elements,
    possible_lengths,
    shortest_and_longest,
    smallest,
)
from tests.support.oracles_sampling import all_rows

SYMBOLS = "abc"


def language(automaton: Automaton, longest: int) -> set[str]:
    """All texts of at most so many symbols, by walking each of them."""
    nowhere = len(automaton.final)
    step = torch.cat([automaton.step, torch.full((1, automaton.step.shape[1]), nowhere)])
    final = torch.cat([automaton.final, torch.zeros(1).bool()])
    found = set()
    for size in range(longest + 1):
        texts = all_rows(len(SYMBOLS), size).reshape(len(SYMBOLS) ** size, size).long()
        state = torch.full((len(texts),), automaton.start)
        for place in range(size):
            state = step[state, automaton.class_of[texts[:, place]]]
        found |= {"".join(SYMBOLS[s] for s in text) for text in texts[final[state]].tolist()}
    return found


@st.composite
def automata(draw):
    states = draw(st.integers(1, 5))
    row = st.lists(st.integers(0, states), min_size=3, max_size=3)
    step = torch.tensor(draw(st.lists(row, min_size=states, max_size=states)))
    final = torch.tensor(draw(st.lists(st.booleans(), min_size=states, max_size=states)))
    return Automaton(step, final, torch.arange(3), draw(st.integers(0, states - 1)))


@pytest.mark.wide
@settings(max_examples=25, deadline=None)
@given(automata())
def test_the_smallest_automaton_has_the_same_language_and_no_state_twice(automaton):
    # Two states of 5 are told apart by a text of at most 4 symbols.
    texts = language(automaton, 5)
    if not texts:
        with pytest.raises(ValueError, match="met by no text that this vocabulary can write"):
            smallest(automaton)
        return
    small = smallest(automaton)
    assert language(small, 5) == texts
    rights = [frozenset(language(small._replace(start=q), 4)) for q in range(len(small.final))]
    assert len(set(rights)) == len(rights) <= len(automaton.final)
    assert all(rights), "a state from which no text comes to an end"
    columns = small.step.T.tolist()
    assert len({tuple(column) for column in columns}) == len(columns)
    assert columns[0] == [len(small.final)] * len(small.final)


@pytest.mark.wide
@settings(max_examples=25, deadline=None)
@given(automata())
def test_lengths_are_those_of_the_texts(automaton):
    texts = language(automaton, 9)
    if not texts:
        return
    small = smallest(automaton)
    assert possible_lengths(small, 9).nonzero().squeeze(1).tolist() == sorted(set(map(len, texts)))
    shortest, longest = shortest_and_longest(small)
    assert shortest == min(map(len, texts))
    # Of 5 states, a circle makes a text of 5 to 9 symbols, and nothing else does.
    assert longest == (None if max(map(len, texts)) > 4 else max(map(len, texts)))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sets(st.integers(0, 2), min_size=1),
            st.integers(0, 2),
            st.one_of(st.none(), st.integers(0, 2)),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_elements_mean_what_re_says(drawn):
    elements, written = [], ""
    for ids, least, more in drawn:
        most = None if more is None else least + more
        elements.append(Element(frozenset(ids), least, most))
        letters = "".join(SYMBOLS[i] for i in sorted(ids))
        written += f"[{letters}]{{{least},{'' if most is None else most}}}"
    texts = {
        "".join(text)
        for size in range(6)
        for text in itertools.product(SYMBOLS, repeat=size)
        if re.fullmatch(written, "".join(text))
    }
    if texts:
        assert language(of_elements(elements, 3), 5) == texts


def test_an_automaton_too_large_is_refused_with_its_size_and_the_limit(monkeypatch):
    step = torch.full((MOST_STATES + 1, 2), MOST_STATES + 1)
    final = torch.ones(MOST_STATES + 1).bool()
    with pytest.raises(
        ValueError, match="16,385 states and 2 classes .* 16,384 states and 262,144"
    ):
        checked_size(Automaton(step, final, torch.zeros(3).long(), 0))
    monkeypatch.setattr("hf_maskgit.core.pattern_automaton.MOST_STATES", 100)
    apart = [Element(frozenset({0, 1}), 0, None), Element(frozenset({0}), 1, 1)]
    with pytest.raises(ValueError, match="more than 100 states, which is the limit; bound"):
        of_elements([*apart, Element(frozenset({0, 1}), 8, 8)], 2)


@pytest.mark.wide
def test_many_optional_tokens_are_one_state_each_and_more_than_there_may_be_are_refused_at_once():
    """Sets of places are bits of a number: a thousand would take half a minute as sets."""
    made = of_elements([Element(frozenset({0}), 0, 1000), Element(frozenset({1}), 1, 1)], 2)
    assert made.nowhere == 1002
    assert shortest_and_longest(made) == (1, 1001)
    with pytest.raises(ValueError, match="more than 16,384 states, which is the limit"):
        of_elements([Element(frozenset({0}), 0, 10**9)], 2)
