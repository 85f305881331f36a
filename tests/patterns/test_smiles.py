"""SMILES that are well formed, against a parser by the grammar."""

import itertools
import re
from collections import Counter

import pytest
import torch

from hf_maskgit import Pattern
from hf_maskgit.core.token_pattern import TokenPattern
from hf_maskgit.patterns.smiles import smiles_automaton
from tests.support.tiny import word_tokenizer
from tests.support.tiny_tokenizers import model_for, molecule_tokenizer

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


MOST_BONDS = {"C": 4, "N": 3, "O": 2, "F": 1, "S": 1_000, "[NH3+]": 1_000}
COUNTED = [*MOST_BONDS, "n", "=", "#", "(", ")", "1", ":"]


def bonds_are_right(tokens, attached):
    """Whether no atom of a well-formed text has too many bonds, and all are told as they may be."""
    bonds, open_at, at, order = Counter(), [], None, 1
    for place, token in enumerate(tokens):
        if token in ("n", ":"):
            return False
        if token in ("=", "#"):
            order = "-=#".index(token) + 1
        elif token == "(":
            open_at.append(at)
        elif token == ")":
            at = open_at.pop()
            if bonds[at] >= MOST_BONDS[tokens[at]]:
                return False  # with nothing left for what would come behind
        elif token == "1":
            if order > 1:
                return False
            bonds[at] += 1
        else:
            if at is not None:
                bonds[at] += order
            bonds[place] += order if at is not None or attached else 0
            at, order = place, 1
    return all(count <= MOST_BONDS[tokens[at]] for at, count in bonds.items())


def texts_of(automaton, most):
    """All texts of up to `most` tokens, found by walking."""
    found, ways = set(), [((), automaton.start)]
    for _ in range(most + 1):
        found |= {ids for ids, state in ways if automaton.final[state]}
        steps = [(ids, automaton.step[state, automaton.class_of].tolist()) for ids, state in ways]
        ways = [
            ((*ids, token), behind)
            for ids, step in steps
            for token, behind in enumerate(step)
            if behind != automaton.nowhere
        ]
    return found


@pytest.mark.parametrize(
    ("text", "belongs"),
    [
        ("CC(=O)O", True),
        ("C=C=O", True),
        ("N(C)(C)C", True),
        ("C1=CC=CN1C", True),
        ("CS(=O)(=O)N", True),
        ("c1ccccc1", False),
        ("CFC", False),
        ("CC(=C)=C", False),
        ("C(C)(C)(C)(C)C", False),
        ("C1=CC=CC=C=1", False),
        ("N(=O)=O", False),
        ("O1CO1C", False),
    ],
)
def test_bonds_of_molecules_are_counted(text, belongs):
    tokenizer = molecule_tokenizer()
    pattern = Pattern.from_smiles(tokenizer, depth=1, rings=[1], valences=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert pattern.matches(ids) is belongs


@pytest.mark.wide
@pytest.mark.parametrize("attached", [False, True])
def test_valences_are_counted_as_bonds_are(attached):
    well_formed = texts_of(smiles_automaton(COUNTED, 1, (1,), attached), 5)
    counted = texts_of(smiles_automaton(COUNTED, 1, (1,), attached, valences=True), 5)
    right = {t for t in well_formed if bonds_are_right([COUNTED[i] for i in t], attached)}
    assert counted == right
    assert min(len(right), len(well_formed) - len(right)) > 1_000


def ring_is_small(text):
    """Whether a ring closes at the atom where it was opened, or at a neighbour of it."""
    at, open_at, rings, bonds = None, [], {}, set()
    for place, token in enumerate(re.findall("Cl|Br|.", text)):
        if token == "(":
            open_at.append(at)
        elif token == ")":
            at = open_at.pop()
        elif token.isdecimal():
            begun = rings.pop(token, None)
            if begun is None:
                rings[token] = at
            elif begun == at or {begun, at} in bonds:
                return True
            else:
                bonds.add(frozenset({begun, at}))
        elif token.isalpha():
            bonds.add(frozenset({at, place}))
            at = place
    return False


@pytest.mark.wide
def test_texts_whose_bonds_are_counted_are_molecules():
    """Of 99 drawn evenly, token by token, of 9 to 16 tokens: RDKit reads all but small rings."""
    chemistry = pytest.importorskip("rdkit.Chem")
    tokenizer = molecule_tokenizer()
    pattern = Pattern.from_smiles(tokenizer, depth=2, rings=(1, 2), valences=True)
    model = model_for(tokenizer)
    head = model.denoiser.get_output_embeddings()
    head.weight.data.zero_()
    # All are as long as they may be, and of atoms whose bonds are counted.
    for token in (tokenizer.sep_token, "S", "P"):
        head.bias.data[tokenizer.convert_tokens_to_ids(token)] = -50
    rows = model.generate(
        num_return_sequences=99,
        num_tokens="fixed",
        max_new_tokens=[9, 12, 16] * 33,
        pattern=pattern,
        tokenizer=tokenizer,
        steps=4,
        order="random",
        seed=0,
        return_dict_in_generate=False,
    )
    texts = ["".join(t.split()) for t in tokenizer.batch_decode(rows, skip_special_tokens=True)]
    refused = [text for text in texts if chemistry.MolFromSmiles(text) is None]
    assert len(set(texts)) == 99
    assert [text for text in refused if not ring_is_small(text)] == []


@pytest.mark.wide
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"depth": -1}, "`depth` must be a whole number from 0"),
        ({"depth": True}, "`depth` must be a whole number from 0"),
        ({"rings": (0, 1)}, r"`rings` must be numbers from 1 to 9, got \(0, 1\)"),
        ({"depth": 16, "rings": range(1, 10)}, "make more than 32,768 states; ask for fewer"),
        ({"depth": 9, "rings": range(1, 10)}, "16,384 states"),
        ({"depth": 4, "valences": True}, "16,384 states"),
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
