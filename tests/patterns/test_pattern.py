"""Patterns of text over five kinds of tokenizers, against Python's `re` and what they decode."""

import builtins
import re

import pytest
import torch

from hf_maskgit import Pattern
from hf_maskgit.patterns.compiling import bytes_of_choices, over_tokens
from hf_maskgit.patterns.token_texts import token_texts
from tests.support.pattern_texts import text_of
from tests.support.tiny import WORDS, protein_tokenizer, word_tokenizer
from tests.support.tiny_tokenizers import TOKENIZERS, byte_level_tokenizer, wordpiece_tokenizer

KINDS = {**TOKENIZERS, "words": word_tokenizer}
# What each kind of tokenizer can write of it is another question; some texts of each it can.
REGEXES = [
    r"[A-Za-z]+",
    r"([A-Z]{2}|[a-z])+",
    r"(the|cat|C|w1)( (sat|on|w2|w3))*",
    r"[^aeiouAEIOU]{3,5}",
    r"[0-9A-Za-z]+((-| )?[0-9A-Za-z])*",
    r"[A-Za-z](=|-|é)?.{1,3}",
]
CANNOT = [("words", REGEXES[0]), ("words", REGEXES[1])]


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: make() for kind, make in KINDS.items()}


@pytest.mark.grid(3)
@pytest.mark.parametrize("regex", REGEXES)
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_match_where_their_text_does(tokenizers, kind, regex):
    """In random rows, most of which come near: they are walked, and the last tokens exchanged."""
    tokenizer = tokenizers[kind]
    special = set(tokenizer.all_special_ids)
    ids = [i for i in range(len(tokenizer)) if i not in special]
    first = token_texts(tokenizer).first
    if (kind, regex) in CANNOT:
        with pytest.raises(ValueError, match="met by no text that this vocabulary can write"):
            Pattern.from_regex(regex, tokenizer)
        return
    pattern = Pattern.from_regex(regex, tokenizer)
    generator = torch.Generator().manual_seed(1)
    verdicts = set()
    for _ in range(60):
        row = walk(pattern, 5, generator)
        if row and torch.rand((), generator=generator) < 0.5:
            place = int(torch.randint(len(row), (), generator=generator))
            row[place] = ids[int(torch.randint(len(ids), (), generator=generator))]
        if not row or first[row[0]] is None:
            continue
        text = text_of(tokenizer, row)
        if "\N{REPLACEMENT CHARACTER}" in text:  # bytes that make no character match nothing
            assert not pattern.matches(row)
            continue
        expected = re.fullmatch(regex, text) is not None
        assert pattern.matches(row) == expected, (row, text)
        verdicts.add(expected)
    assert True in verdicts


def walk(pattern, most, generator):
    """A row of tokens that leads somewhere."""
    step, final, class_of, state = pattern.automaton
    row = []
    for _ in range(most):
        open_ids = (step[state][class_of] < len(final)).nonzero().squeeze(1)
        if len(open_ids) == 0 or (final[state] and torch.rand((), generator=generator) < 0.3):
            break
        row.append(int(open_ids[int(torch.randint(len(open_ids), (), generator=generator))]))
        state = int(step[state, class_of[row[-1]]])
    return row


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_tokenizer_reads_matches_what_it_read(tokenizers, kind):
    tokenizer = tokenizers[kind]
    text = {"protein": "MKTAYI", "molecule": "CC(=O)N", "words": "w1 w22 w3"}.get(kind, "the cat")
    pattern = Pattern.from_choices([text, "X"] if kind == "byte-level" else [text], tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert pattern.matches(ids)
    assert pattern.lengths(len(ids))[len(ids)]


def test_pieces_of_words_begin_no_text_and_special_tokens_stand_in_none(tokenizers):
    tokenizer = tokenizers["wordpiece"]
    anything = Pattern.from_regex("(.|\n)*", tokenizer)
    piece, word = (tokenizer.convert_tokens_to_ids(t) for t in ("##ers", "play"))
    assert anything.matches([word, piece])
    assert not anything.matches([piece])
    for special in tokenizer.all_special_ids:
        assert not anything.matches([word, special])


def test_characters_may_be_cut_into_bytes(tokenizers):
    tokenizer = byte_level_tokenizer()
    pattern = Pattern.from_regex("ü+|€", tokenizer)
    assert (pattern.shortest, pattern.longest) == (2, None)
    assert pattern.matches(tokenizer("€", add_special_tokens=False)["input_ids"])
    euro = [tokenizer.convert_tokens_to_ids(t) for t in "âĤ¬"]
    assert pattern.matches(euro)
    assert not pattern.matches(euro[:2])


def test_a_json_schema_is_a_pattern(tokenizers):
    tokenizer = tokenizers["byte-level"]
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 4}, "age": {"type": "integer"}},
        "required": ["name", "age"],
    }
    pattern = Pattern.from_json_schema(schema, tokenizer)
    for text, fits in [
        ('{"name": "Ada", "age": 36}', True),
        ('{"name": "Ada"}', False),
        ('{"name": "Augusta", "age": 36}', False),
    ]:
        assert pattern.matches(tokenizer(text, add_special_tokens=False)["input_ids"]) == fits


@pytest.mark.parametrize(
    ("motif", "regex"),
    [
        ("C-x(2,4)-C-x(3)-[LIVMFYWC]", "C.{2,4}C.{3}[LIVMFYWC]"),
        ("<{P}-x*-[ST](2)>.", "[^P].*[ST]{2}"),
        ("A-x(0,1)-{ACDE}(1,2)", "A.{0,1}[^ACDE]{1,2}"),
        ("F-[GSTV]-P-x(0)-R-[GA>]", "F[GSTV]PR[GA]?"),  # as PS00539 ends
    ],
)
def test_motifs_of_prosite_mean_what_they_say(motif, regex):
    tokenizer = protein_tokenizer()
    pattern = Pattern.from_prosite(motif, tokenizer)
    generator = torch.Generator().manual_seed(0)
    letters = "ACDEFGHIKLMNPQRSTVWY"
    verdicts = set()
    for _ in range(300):
        row = walk(pattern, 12, generator)
        text = list(text_of(tokenizer, row))
        place = int(torch.randint(len(text), (), generator=generator)) if text else 0
        text[place:] = [
            letters[int(torch.randint(20, (), generator=generator))],
            *text[place + 1 :],
        ]
        expected = re.fullmatch(regex, "".join(text)) is not None
        assert pattern.matches(tokenizer.convert_tokens_to_ids(text)) == expected, text
        verdicts.add(expected)
    assert verdicts == {True, False}


@pytest.mark.parametrize(
    ("motif", "sentence"),
    [
        ("C-y", "'y' in the motif 'C-y' is no element of PROSITE's notation"),
        ("C--C", "'' in the motif 'C--C' is no element"),
        ("C-J", "names the residue J, for which this tokenizer has no token; it has ABC"),
        ("{ACDEFGHIKLMNPQRSTVWY}", "is met by no residues"),
        ("[G>]-C", "'.G>.' in the motif '.G>.-C' is no element"),
        ("C-x(2,999999999)", r"'x\(2,999999999\)' .* stands for more than 16,383 residues"),
        ("x(99999)-C", r"'x\(99999\)' in the motif .* stands for more than 16,383 residues"),
        ("C(4,2)", r"'C\(4,2\)' in the motif 'C\(4,2\)' is met by no residues"),
    ],
)
def test_a_motif_that_is_none_is_refused(motif, sentence):
    with pytest.raises(ValueError, match=sentence):
        Pattern.from_prosite(motif, protein_tokenizer())


@pytest.mark.parametrize(
    ("regex", "sentence"),
    [
        ("(a", r"The regular expression '\(a' cannot be compiled"),
        ("(?=a)b", "cannot be compiled: .* looking around"),
        (r"(a)\1", "cannot be compiled"),
        (r"\bword\b", "cannot be compiled"),
        ("^the$", "cannot be compiled: .* anchors .* are left out"),
        ("the[a&&b]", r"'the\[a&&b\]' is met by no text, or a part of it is: .* Leave that out"),
        (r"[^\s\S]", "is met by no text, or a part of it is"),
        ("[0-9]{4}", "met by no text that this vocabulary can write; .* no token holds"),
        ("[a-z]{60}", "automaton of 61 states .*; 50 states and"),
        ("(a|b)*a(a|b){9}", "states of bytes or more; 400 are the limit"),
    ],
)
def test_an_expression_that_cannot_be_met_is_refused(monkeypatch, regex, sentence):
    monkeypatch.setattr("hf_maskgit.core.pattern_automaton.MOST_STATES", 50)
    monkeypatch.setattr("hf_maskgit.patterns.compiling._MOST_STATES", 400)
    tokenizer = wordpiece_tokenizer() if "0-9" not in regex else protein_tokenizer()
    with pytest.raises(ValueError, match=sentence):
        Pattern.from_regex(regex, tokenizer)


@pytest.mark.wide
@pytest.mark.parametrize(
    ("limit", "value", "sentence"),
    [
        ("_MOST_SECONDS", 0.2, "not compiled within 0.2 seconds, .* limit of 16,384 states"),
        ("_MOST_GIB", 0.25, "not compiled within 0.25 GiB of memory"),
    ],
)
def test_an_expression_that_would_keep_the_compiler_busy_is_given_up(
    monkeypatch, limit, value, sentence
):
    """Of two to the power of 40 states, which no machine would ever have compiled."""
    monkeypatch.setattr(f"hf_maskgit.patterns.compiling.{limit}", value)
    with pytest.raises(ValueError, match=sentence):
        Pattern.from_regex("(a|b)*a(a|b){40}", word_tokenizer())


def test_what_else_may_befall_the_compiler_is_told(monkeypatch):
    monkeypatch.setattr("hf_maskgit.patterns.compiling._LAST", "")
    with pytest.raises(RuntimeError, match=r"(?s)ended with 1: .*ord\(\) expected a character"):
        Pattern.from_regex("a", word_tokenizer())


def test_an_automaton_too_large_for_the_vocabulary_is_refused(monkeypatch):
    monkeypatch.setattr("hf_maskgit.patterns.compiling._MOST_WALKS", 500)
    language, texts = bytes_of_choices(["the cat"]), token_texts(wordpiece_tokenizer())
    with pytest.raises(
        ValueError, match="9 states of bytes, .* 120 tokens; 4 states are the limit"
    ):
        over_tokens(language, texts)


@pytest.mark.parametrize("schema", ['{"title": "nonsense"', "no json"])
def test_a_schema_that_is_none_is_refused(schema):
    with pytest.raises(ValueError, match="The JSON schema cannot be compiled: "):
        Pattern.from_json_schema(schema, word_tokenizer())


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda t: Pattern.from_regex(5, t), TypeError, "`regex` must be a text, got int"),
        (lambda t: Pattern.from_prosite(None, t), TypeError, "`motif` must be a text, got None"),
        (lambda t: Pattern.from_regex("a", "bert"), TypeError, "`tokenizer` must be a tokenizer"),
        (lambda t: Pattern.from_json_schema([1], t), TypeError, "must be a dict or JSON text, got"),
        (
            lambda t: Pattern.from_choices("a", t),
            ValueError,
            "a list of one or more texts, got 'a'",
        ),
        (lambda t: Pattern.from_choices([], t), ValueError, "a list of one or more texts, got"),
        (lambda t: Pattern.from_choices([1], t), ValueError, "a list of one or more texts, got"),
    ],
)
def test_what_is_no_text_is_refused(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make(word_tokenizer())


def test_without_the_compiler_a_sentence_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("outlines_core"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"from_regex compiles .*'hf_maskgit\[patterns\]'"):
        Pattern.from_regex("a", word_tokenizer())
    with pytest.raises(ImportError, match=r"from_json_schema compiles .*'hf_maskgit\[patterns\]'"):
        Pattern.from_json_schema({}, word_tokenizer())
    assert Pattern.from_choices([WORDS[0]], word_tokenizer()).shortest == 1


class Strange(type(word_tokenizer())):
    """What a token adds depends on how many there are."""

    def decode(self, ids, **options):
        return super().decode(ids, **options) + "!" * (len(ids) > 2)


class Wordless(type(word_tokenizer())):
    def decode(self, ids, **options):
        return "..." * len(ids)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [(Strange, "does not grow token by token"), (Wordless, "No token .* a letter or a digit")],
)
def test_a_tokenizer_whose_text_cannot_be_told_is_refused(kind, sentence):
    tokenizer = word_tokenizer()
    tokenizer.__class__ = kind
    with pytest.raises(ValueError, match=sentence):
        token_texts(tokenizer)
