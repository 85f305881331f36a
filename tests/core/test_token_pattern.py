"""The pattern as users hold it: made of ids, kept as a file, asked for lengths and matches."""

import itertools
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from hf_maskgit import Pattern
from hf_maskgit.core.pattern_automaton import Automaton
from hf_maskgit.core.token_pattern import TokenPattern, as_pattern
from tests.support.tiny import roberta_tokenizer, word_tokenizer

ELEMENTS = [[5], ([6, 7], 2, 4), ([8], 0, None), [5, 9]]


@pytest.fixture(scope="module")
def pattern():
    return TokenPattern.from_token_classes(ELEMENTS, 12)


def test_token_classes_need_no_text(pattern):
    assert (pattern.shortest, pattern.longest) == (4, None)
    assert pattern.lengths(5).tolist() == [False] * 4 + [True] * 2
    assert pattern.matches([5, 6, 7, 8, 8, 9])
    assert pattern.matches(torch.tensor([5, 7, 7, 5]))
    for ids in ([5, 6, 5], [5, 6, 7], [5, 6, 7, 5, 8], [5, 6, 7, 12], [-1], []):
        assert not pattern.matches(ids)
    assert repr(pattern) == "<TokenPattern '4 token classes': 7 states, 5 classes of tokens>"


@pytest.mark.parametrize(
    ("elements", "sentence"),
    [
        ([], "must be a list of lists of token ids, or of tuples"),
        ("CxC", "must be a list of lists of token ids, or of tuples"),
        ([5], "must be a list of token ids, got 5"),
        ([[]], "must be a list of token ids"),
        ([["a"]], "must be a list of token ids"),
        ([[12]], "names the id 12; the vocabulary has 0 to 11"),
        ([([5], 2, 1)], "the fewest not above the most, .* got 2 and 1"),
        ([([5], -1, None)], "whole numbers from 0 to 100,000, .* got -1 and None"),
    ],
)
def test_token_classes_that_are_none_are_refused(elements, sentence):
    with pytest.raises(ValueError, match=sentence):
        TokenPattern.from_token_classes(elements, 12)


@pytest.mark.parametrize(
    "ids",
    ["5 6", [5.0, 6.0], torch.tensor([[5, 6]]), [[5, 6]], torch.tensor(5), 5, {5: 6}],
    ids=str,
)
def test_what_is_no_row_of_ids_is_refused(pattern, ids):
    with pytest.raises(ValueError, match="`ids` must be one row of token ids, such as"):
        pattern.matches(ids)


@pytest.mark.parametrize("most", [-1, 2.5, "2", None])
def test_a_number_of_tokens_must_be_one(pattern, most):
    with pytest.raises(ValueError, match="`most` must be an integer of at least 0, got"):
        pattern.lengths(most)


def test_a_vocabulary_must_have_a_size():
    with pytest.raises(ValueError, match="`vocab_size` must be an integer of at least 1, got 0"):
        TokenPattern.from_token_classes([[5]], 0)


SUFFIXES = [".json", ".safetensors", ".SafeTensors", ".pattern", ""]


@pytest.mark.parametrize("marks", [("source \ud800", "print", 4, False), ("", "", None, None)])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_saved_pattern_is_the_same_pattern(pattern, tmp_path, suffix, marks):
    path = tmp_path / f"pattern{suffix}"
    Pattern(pattern.automaton, *marks).save(path)
    read = Pattern.load(str(path))
    assert isinstance(read, Pattern)
    assert (read.source, read.fingerprint, read.mask_token_id, read.spaced) == marks
    for one, other in zip(read.automaton, pattern.automaton, strict=True):
        if isinstance(one, torch.Tensor):
            assert one.dtype == other.dtype
            assert one.equal(other)
    assert read.automaton.start == pattern.automaton.start


def test_the_suffix_alone_says_what_a_file_is(pattern, tmp_path):
    """Safetensors is what that package reads: small whole numbers, and texts beside the tensors."""
    for suffix in SUFFIXES:
        pattern.save(tmp_path / f"pattern{suffix}")
    for suffix in (".json", ".pattern", ""):
        assert json.loads((tmp_path / f"pattern{suffix}").read_text())["source"] == pattern.source
    with safe_open(tmp_path / "pattern.safetensors", framework="pt") as file:
        dtypes = {name: file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
        header = file.metadata()
    assert dtypes == {"step": torch.uint8, "final": torch.bool, "class_of": torch.uint8}
    assert json.loads(header["source"]) == pattern.source
    assert json.loads(header["format"]) == "hf_maskgit pattern 1"


@pytest.mark.parametrize("classes", [255, 256, 32767, 32768])
def test_numbers_of_every_size_are_kept(tmp_path, classes):
    """On both sides of where one byte, or two, hold them no more."""
    step = torch.full((1, classes + 1), 0)
    step[0, 0] = 1
    automaton = Automaton(step, torch.ones(1, dtype=torch.bool), torch.arange(classes + 1), 0)
    TokenPattern(automaton).save(tmp_path / "wide.safetensors")
    read = TokenPattern.load(tmp_path / "wide.safetensors").automaton
    assert read.class_of.equal(automaton.class_of)
    assert read.step.equal(step)


def changed_json(path, change):
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def changed_safetensors(path, change):
    with safe_open(path, framework="pt") as file:
        stored = {name: json.loads(value) for name, value in file.metadata().items()}
        stored |= {name: file.get_tensor(name).tolist() for name in file.keys()}  # noqa: SIM118
    stored = change(stored)
    beside = {k: json.dumps(v) for k, v in stored.items() if not isinstance(v, list)}
    path.write_bytes(
        save({k: torch.tensor(v) for k, v in stored.items() if k not in beside}, beside)
    )


CHANGED = {".json": changed_json, ".safetensors": changed_safetensors}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": "2"}, r"holds no pattern that this version reads \(KeyError\); make the pat"),
        ({"step": [1, 2]}, "holds no pattern that this version reads"),
        ({"step": [[0.5]]}, r"holds no pattern that this version reads \(TypeError\)"),
        ({"step": [[]]}, "holds no pattern that this version reads"),
        ({"step": []}, "holds no pattern that this version reads"),
        ({"start": 99}, "is damaged: states or classes that it names do not exist"),
        ({"start": True}, "is damaged: states or classes"),
        ({"class_of": [7]}, "is damaged: states or classes"),
        ({"final": [1]}, "is damaged: states or classes"),
        ({"final": [0] * 7}, "is damaged: .* it has no text"),
        ({"source": 3}, "is damaged: .* what stands beside them is of another kind"),
        ({"fingerprint": None}, "is damaged: .* what stands beside them"),
        ({"mask_token_id": True}, "is damaged: .* what stands beside them"),
        ({"spaced": 0}, "is damaged: .* what stands beside them"),
    ],
)
@pytest.mark.parametrize("suffix", CHANGED)
def test_a_file_that_is_changed_is_refused(pattern, tmp_path, suffix, change, sentence):
    path = tmp_path / f"pattern{suffix}"
    pattern.save(path)
    CHANGED[suffix](path, lambda stored: stored)
    assert TokenPattern.load(path).matches([5, 6, 7, 9])
    CHANGED[suffix](path, lambda stored: stored | change)
    with pytest.raises(ValueError, match=sentence):
        TokenPattern.load(path)


@pytest.mark.parametrize("lost", ["format", "start", "source", "spaced", "step", "class_of"])
@pytest.mark.parametrize("suffix", CHANGED)
def test_a_file_that_lacks_something_is_refused(pattern, tmp_path, suffix, lost):
    path = tmp_path / f"pattern{suffix}"
    pattern.save(path)
    CHANGED[suffix](path, lambda stored: {k: v for k, v in stored.items() if k != lost})
    with pytest.raises(ValueError, match="holds no pattern that this version reads"):
        TokenPattern.load(path)


NUMBER = '{"format": "hf_maskgit pattern 1", "step": [[1e400]]}'


@pytest.mark.parametrize("content", [b"nothing", b"", b"[1]", b"5", NUMBER.encode(), b"[" * 10**6])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_none_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"pattern{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="holds no pattern that this version reads"):
        TokenPattern.load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_cut_off_or_named_as_another_format_is_refused(pattern, tmp_path, suffix):
    path = tmp_path / f"pattern{suffix}"
    other = tmp_path / ("other.json" if suffix.lower() == ".safetensors" else "other.safetensors")
    pattern.save(path)
    pattern.save(other)
    for content in (path.read_bytes()[:-3], other.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="holds no pattern that this version reads"):
            TokenPattern.load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_not_there_is_named(tmp_path, suffix):
    with pytest.raises(FileNotFoundError, match=f"There is no file '.*none{suffix}' to read a pat"):
        TokenPattern.load(tmp_path / f"none{suffix}")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        TokenPattern.from_token_classes([[5]], 6).save(tmp_path / f"nowhere/none{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(IsADirectoryError, match=f"folder{suffix}"):
        TokenPattern.load(tmp_path / f"folder{suffix}")


def test_a_model_may_have_more_ids_and_not_fewer(pattern):
    assert pattern.in_vocabulary(14).class_of.tolist()[12:] == [0, 0]
    with pytest.raises(ValueError, match="a vocabulary of 12 tokens, the model's has 11; make it"):
        pattern.in_vocabulary(11)


def test_a_pattern_knows_its_tokenizer():
    words = Pattern.from_choices(["w1 w2"], word_tokenizer())
    words.check_tokenizer(word_tokenizer())
    with pytest.raises(ValueError, match="compiled for another tokenizer than this one"):
        words.check_tokenizer(roberta_tokenizer())


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(4))
def test_texts_of_two_patterns_belong_to_both(seed):
    """All texts there can be, of random classes; ids that one does not know are in none."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(size):
        picks = torch.rand(3, size, generator=generator) < 0.6
        elements = [pick.nonzero().squeeze(1).tolist() or [0] for pick in picks]
        counts = torch.randint(0, 2, (3, 2), generator=generator).sort(1).values.tolist()
        return TokenPattern.from_token_classes(
            [(ids, low, high + 1) for ids, (low, high) in zip(elements, counts, strict=True)], size
        )

    first, second = drawn(3), drawn(4)
    texts = [text for n in range(7) for text in itertools.product(range(4), repeat=n)]
    wanted = {text for text in texts if first.matches(text) and second.matches(text)}
    if not wanted:
        with pytest.raises(ValueError, match="met by no text"):
            first & second
        return
    found = first & second
    assert {text for text in texts if found.matches(text)} == wanted


def test_two_patterns_that_do_not_go_together_are_refused(monkeypatch):
    first, second = (
        Pattern.from_choices([t], word_tokenizer(words=["a", t])) for t in ("w1", "w2")
    )
    with pytest.raises(ValueError, match="were compiled for two tokenizers, so that no text"):
        first & second
    five, six = (TokenPattern.from_token_classes([[token]], 9) for token in (5, 6))
    with pytest.raises(ValueError, match="met by no text that this vocabulary can write"):
        five & six
    with pytest.raises(TypeError, match="unsupported operand"):
        five & "6"
    both = first & TokenPattern.from_token_classes([list(range(5, 7))], 7)
    assert isinstance(both, Pattern)
    assert (both.fingerprint, both.spaced) == (first.fingerprint, first.spaced)
    monkeypatch.setattr("hf_maskgit.core.pattern_automaton._MOST_PAIRS", 20)
    long = [TokenPattern.from_token_classes([([t], 0, 9), ([7], 0, 9)], 9) for t in (5, 5)]
    with pytest.raises(ValueError, match="an automaton of more than 20 states; 16,384 are the"):
        long[0] & TokenPattern.from_token_classes([([5, 7], 0, 30)], 9)


def test_a_pattern_of_another_copy_of_the_code_is_taken_over(pattern):
    """As a checkpoint that carries its code has one."""

    class Other:
        automaton = tuple(pattern.automaton)
        source, fingerprint, mask_token_id, spaced = "other", "", None, True

    taken = as_pattern(Other())
    assert isinstance(taken, TokenPattern)
    assert isinstance(taken.automaton, Automaton)
    assert taken.matches([5, 6, 7, 9])


def test_a_regular_expression_is_no_pattern_yet():
    with pytest.raises(TypeError, match=r"must be a Pattern.* got str .*from_regex\(regex, tok"):
        as_pattern("[a-z]+")
