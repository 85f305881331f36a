"""SMILES that are well formed, against a parser by the grammar."""

import itertools

import pytest
import torch

from hf_maskgit import Pattern
from hf_maskgit.core.token_pattern import TokenPattern
from hf_maskgit.patterns.smiles import smiles_automaton
from tests.support.tiny import word_tokenizer
from tests.support.tiny_tokenizers import molecule_tokenizer

ALPHABET = ["C", "[nH]", "=", "(", ")", "1", "2"]


class _Parser:
    """Read SMILES by the rules of the grammar, one function per rule."""

    def __init__(self, tokens, depth):
        self.tokens, self.depth = [*tokens, ""], depth
        self.place, self.open = 0, set()

    def takes(self, *tokens):
        if self.tokens[self.place] not in tokens:
            return False
        self.place += 1
        return True

    def atom(self):
        if not self.takes("C", "[nH]"):
            return False
        while True:
            before = self.place
            self.takes("=")
            number = self.tokens[self.place]
            if number not in ("1", "2"):
                self.place = before
                return True
            if number not in self.open and number != min({"1", "2"} - self.open):
                return False
            self.open ^= {number}
            self.place += 1

    def chain(self, depth):
        if not self.atom():
            return False
        while True:
            while self.takes("("):
                self.takes("=")
                if depth == self.depth or not self.chain(depth + 1) or not self.takes(")"):
                    return False
            if self.tokens[self.place] in ("", ")"):
                return True
            self.takes("=")
            if not self.atom():
                return False

    def accepts(self, attached):
        if attached:
            self.takes("=")
        return self.chain(0) and not self.tokens[self.place] and not self.open


@pytest.mark.wide
@pytest.mark.parametrize("attached", [False, True])
def test_a_text_belongs_to_the_pattern_as_the_grammar_says(attached):
    pattern = TokenPattern(smiles_automaton(ALPHABET, 1, (1, 2), attached))
    accepted = 0
    for length in range(6):
        for ids in itertools.product(range(len(ALPHABET)), repeat=length):
            tokens = [ALPHABET[i] for i in ids]
            expected = length > 0 and _Parser(tokens, 1).accepts(attached)
            assert pattern.matches(ids) == expected, "".join(tokens)
            accepted += expected
    assert accepted > 100  # both answers are given


@pytest.mark.wide
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depth": -1}, "`depth` must be a whole number from 0"),
        ({"depth": True}, "`depth` must be a whole number from 0"),
        ({"rings": (0, 1)}, r"`rings` must be numbers from 1 to 9, got \(0, 1\)"),
        ({"depth": 12, "rings": range(1, 10)}, "make more than 16,384 states; ask for fewer"),
        ({"depth": 9, "rings": range(1, 8)}, "2,048 states"),
    ],
)
def test_what_no_automaton_is_made_of_is_refused(arguments, words):
    tokenizer = molecule_tokenizer()
    with pytest.raises(ValueError, match=words):
        Pattern.from_smiles(tokenizer, **arguments)


def test_a_vocabulary_without_atoms_is_refused():
    with pytest.raises(ValueError, match="no token that is one atom, such as C or"):
        Pattern.from_smiles(word_tokenizer())


def test_it_is_saved_and_written_like_any_other(tmp_path):
    tokenizer = molecule_tokenizer()
    pattern = Pattern.from_smiles(tokenizer, depth=1, rings=[1])
    pattern.save(tmp_path / "smiles.json")
    again = Pattern.load(tmp_path / "smiles.json")
    assert torch.equal(again.automaton.step, pattern.automaton.step)
    ids = tokenizer("C1=CC(O)C1", add_special_tokens=False)["input_ids"]
    assert again.matches(ids)
    assert not again.matches(ids[:-1])  # a ring stays open
