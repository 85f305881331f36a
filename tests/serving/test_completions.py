"""Texts as they are told from the left, and where they end."""

import pytest
import torch

from hf_maskgit.core.pipeline_splicing import continuation
from hf_maskgit.serving.completions import Deltas, Prompt, cut, rest_of
from hf_maskgit.serving.program import main
from tests.support import tiny_tokenizers

KINDS = ("wordpiece", "byte_level", "unigram", "molecule")


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_told_is_always_how_the_text_begins(kind):
    """Of any tokens, put in any portions, for tokenizers that keep their spaces or do not."""
    tokenizer = getattr(tiny_tokenizers, f"{kind}_tokenizer")()
    drawn = torch.Generator().manual_seed(0)
    prompt = Prompt("C", torch.tensor([tokenizer("C").input_ids]))
    known, lengths = prompt.ids[0].tolist(), []
    for number in range(40):
        ids = torch.randint(5, len(tokenizer), (30,), generator=drawn)
        text = continuation(tokenizer, prompt.text, known, ids.tolist())
        stops = [text[n : n + 3] for n in (12, 18) if number % 2 and len(text) > 21]
        told: list[str] = []
        deltas = Deltas(tokenizer, prompt, stops, told.append)
        deltas.put(prompt.ids[0])
        start = 0
        while start < len(ids):
            size = int(torch.randint(1, 6, (), generator=drawn))
            deltas.put(ids[start : start + size])
            # but for the space in front, which a tokenizer decides by the whole text
            rest = rest_of(cut(text, stops), "".join(told))
            assert rest is not None
            assert ("".join(told) + rest).lstrip() == cut(text, stops).lstrip()
            start += size
        lengths.append(len("".join(told)))
    # a text of molecules has no spaces, so that nothing is certain before its end
    assert max(lengths) > 20 or kind == "molecule"


def test_a_text_that_was_told_otherwise_has_no_rest():
    assert rest_of("one two", "one") == " two"
    assert rest_of("one two", " one") == " two"
    assert rest_of("one two", "two") is None


def test_a_text_ends_before_the_first_of_its_stops():
    assert cut("one two three", ["three", "two"]) == "one "
    assert cut("one two three", ["four"]) == "one two three"


def test_a_server_that_is_not_installed_says_how_it_is(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    sentence = (
        r"The server needs 'uvicorn', which is not installed: pip install 'hf_maskgit\[serve\]'"
    )
    with pytest.raises(ImportError, match=sentence):
        main(["--model", "m"])
