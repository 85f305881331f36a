"""Rows that are one text are read once, and every row gets what it gets alone."""

import pytest
import torch

from hf_maskgit import MaskGitConfig, MaskGitForMaskedLM
from hf_maskgit.core import chunked_head
from hf_maskgit.core.equal_rows import EqualRows
from tests.support.grids import wide
from tests.support.tiny import bert_config

PAD, CLS, SEP, MASK = 0, 2, 3, 4
PROMPTS = torch.tensor([[CLS, 9, 8, SEP], [CLS, 7, SEP, PAD], [CLS, 9, 8, SEP]])
SEEDS = [[5, 6], [7, 8], [9, 10]]  # two texts of each prompt


@pytest.fixture
def model():
    return generator()


def generator(**changes):
    config = MaskGitConfig(
        text_config=bert_config(pad_token_id=PAD),
        mask_token_id=MASK,
        pad_token_id=PAD,
        special_token_ids=[PAD, CLS, SEP, MASK],
        **changes,
    )
    torch.manual_seed(0)
    return MaskGitForMaskedLM(config).double().eval()


def rows_read(model):
    """The rows of each pass of the encoder from now on."""
    counts = []
    body = model.denoiser.base_model
    body.register_forward_pre_hook(lambda module, args: counts.append(len(args[0])))
    return counts


def test_rows_are_told_apart_as_one_by_one():
    draws = torch.Generator().manual_seed(1)
    for _ in range(50):
        count, length = (int(torch.randint(1, 7, (), generator=draws)) for _ in range(2))
        parts = [torch.randint(2, (count, length), generator=draws) for _ in range(2)]
        positions = torch.randint(2, (count, length), generator=draws) > 0
        texts = [tuple(row) for row in torch.cat(parts, 1).tolist()]
        equal = EqualRows.of(*parts)
        if len(set(texts)) == len(texts):
            assert equal is None
            continue
        assert len(equal.read) == len(set(texts))
        assert [texts[i] for i in equal.read[equal.text].tolist()] == texts
        asked, which = equal.asked(positions)
        places = asked.nonzero().tolist()
        wanted = positions.nonzero().tolist()
        assert [places[i] for i in which.tolist()] == [
            [int(equal.text[row]), column] for row, column in wanted
        ]
        assert set(which.tolist()) == set(range(len(places)))  # nothing that nobody asks for


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, {}),
        ({"self_cond": True}, {}),
        wide({}, {"order": "random"}),
        wide({}, {"guidance_scale": 1.5}),
        wide({}, {"pace": "speculative", "anneal_temperature": False}),
        wide({}, {"remask": "confidence"}),
    ],
    ids=lambda given: ", ".join(given) or "default",
)
@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "late"])
def test_a_text_is_what_it_is_alone(monkeypatch, changes, options, is_late):
    if is_late:
        monkeypatch.setattr(chunked_head, "_LEAST_READ", 3)
        monkeypatch.setattr(chunked_head, "_READ_ELEMENTS", {True: 1, False: 1})
    model = generator(**changes)
    mask = (PROMPTS != PAD).long()
    options = {"max_new_tokens": 9, "steps": 4, "return_dict_in_generate": True, **options}
    if options.get("pace"):
        del options["steps"]
    counts = rows_read(model)
    flat = [seed for seeds in SEEDS for seed in seeds]
    found = model.generate(PROMPTS, mask, seed=flat, num_return_sequences=2, **options)
    assert counts[0] == 2  # of six rows, which are two texts
    for row, seed in enumerate(flat):
        prompt = PROMPTS[row // 2][mask[row // 2] > 0][None]
        alone = model.generate(prompt, seed=[seed], **options)
        new = slice(prompt.shape[1], prompt.shape[1] + 9)
        assert found.sequences[row, new].equal(alone.sequences[0, new])
        logs = (given.reveal_log_probabilities for given in (found, alone))
        torch.testing.assert_close(next(logs)[row, new], next(logs)[0, new])


def test_the_first_pass_alone_looks_for_them(model):
    counts = rows_read(model)
    model.generate(PROMPTS[:1], num_return_sequences=5, max_new_tokens=9, steps=3, seed=0)
    assert counts == [1, 5, 5]


def test_token_types_tell_rows_apart(model):
    counts = rows_read(model)
    both = PROMPTS[:1].expand(2, -1)
    types = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1]])
    model.generate(both, token_type_ids=types, max_new_tokens=3, steps=1, seed=0)
    model.generate(both, token_type_ids=types[1:].expand(2, -1), max_new_tokens=3, steps=1, seed=0)
    assert counts == [2, 1]


def test_dropout_is_another_one_in_every_row(model):
    counts = rows_read(model.train())
    model.generate(PROMPTS[:1], num_return_sequences=5, max_new_tokens=3, steps=1, seed=0)
    assert counts == [5]


def test_a_compiled_model_gets_rows_of_one_number(model):
    model.denoiser._compiled_call_impl = model.denoiser._call_impl  # as `compile()` leaves it
    counts = rows_read(model)
    model.generate(PROMPTS[:1], num_return_sequences=5, max_new_tokens=3, steps=2, seed=0)
    assert counts == [5, 5]
