"""Samplers beside each other: the three measures against slow, obvious versions."""

import itertools
import math
import re
import statistics

import pytest
import torch

from hf_maskgit.evaluation.samplers import (
    compare_samplers,
    difference,
    difference_error,
    nats_of_texts,
    nats_per_token,
    resolved_sampler,
)
from tests.support.project import PACKAGE, ROOT
from tests.support.tiny import tiny_model

CLS, SEP, PAD, MASK = 2, 3, 0, 4
ROWS = torch.tensor([[CLS, 5, *[MASK] * 10, SEP], [CLS, *[MASK] * 3, 6, SEP, *[PAD] * 7]])
REAL = (ROWS != PAD).long()


@pytest.fixture(scope="module")
def model():
    return tiny_model(seed=3).double()


@pytest.mark.parametrize("way", ["sampled", "window"])
def test_the_masks_are_filled_however_the_model_finds_lengths(way):
    """What is written is what the same model writes that stores no way; none is longer."""
    samplers, found = [{"order": "random", "steps": 3}], []
    for stored in (None, way):
        model = tiny_model(seed=3).double()
        model.config.lengths, model.config.end_fill = {"2": 1}, 6
        model.generation_config.num_tokens = stored
        (quality,) = compare_samplers(model, ROWS, samplers, REAL, num_texts=2, progress=False)
        found.append(quality.texts)
    assert torch.equal(*found)


def test_difference_is_the_mean_over_pairs_of_texts():
    texts = torch.randint(5, 8, (2, 4, 13), generator=torch.Generator().manual_seed(0))
    written = ROWS == MASK
    shares = [
        [
            float((one != other)[places].double().mean())
            for one, other in itertools.combinations(p, 2)
        ]
        for p, places in zip(texts, written, strict=True)
    ]
    expected = sum(sum(row) / len(row) for row in shares) / len(shares)
    assert difference(texts, written) == pytest.approx(expected)


def test_nats_per_token_is_that_of_every_eighth_token_hidden(model):
    texts = ROWS.clone()
    texts[ROWS == MASK] = torch.arange(13) % 6 + 5
    places = [(ROWS == MASK)[row].nonzero()[:, 0].tolist() for row in range(2)]
    nats = []
    for row, where in enumerate(places):
        for first in range(8):
            hidden = where[first::8]
            if not hidden:
                continue
            shown = texts[row].clone()
            shown[hidden] = MASK
            logits = model(shown[None], REAL[row][None]).logits[0].detach()
            logits[:, model.config.forbidden_token_ids] = -torch.inf
            shares = logits.log_softmax(-1)
            nats += [-float(shares[place, texts[row, place]]) for place in hidden]
    found = nats_per_token(model, texts[:, None], REAL, ROWS == MASK)
    assert found == pytest.approx(sum(nats) / len(nats), abs=1e-6)


def test_the_error_of_the_difference_is_how_far_other_texts_would_be():
    """Against the spread over 400 drawings of texts; 0.25 is beyond five of its own errors."""
    draws = torch.Generator().manual_seed(1)
    shares = torch.tensor([0.85, 0.1, 0.05]).expand(2 * 13 * 16, 3)
    written = ROWS == MASK
    found, errors = [], []
    for _ in range(400):
        texts = shares.multinomial(1, generator=draws).view(2, 16, 13)
        found.append(difference(texts, written))
        errors.append(difference_error(texts, written) ** 2)
    spread = torch.tensor(found).std()
    assert torch.tensor(errors).mean().sqrt() == pytest.approx(float(spread), rel=0.25)


def test_two_texts_tell_no_error_of_their_difference():
    assert math.isnan(difference_error(torch.randint(5, 8, (2, 2, 13)), ROWS == MASK))


def test_errors_are_those_of_the_texts_of_each_prompt(model):
    (quality,) = compare_samplers(model, ROWS, [{"steps": 3}], REAL, num_texts=4, progress=False)
    written = ROWS == MASK
    nats = nats_of_texts(model, quality.texts, REAL, written)
    variances = [statistics.variance(row) / 4 for row in nats.tolist()]
    assert quality.nats_per_token == pytest.approx(float(nats.sum()) / (4 * 13))
    assert quality.standard_errors["nats_per_token"] == pytest.approx(sum(variances) ** 0.5 / 13)
    assert quality.standard_errors["difference"] == difference_error(quality.texts, written)
    assert quality.standard_errors["passes"] == 0  # the schedule is the same for all texts


def test_every_sampler_writes_what_generate_writes(model):
    samplers = [{"steps": 3}, {"steps": 2, "order": "random"}]
    found = list(compare_samplers(model, ROWS, samplers, REAL, num_texts=3, seed=5, progress=False))
    assert [quality.options for quality in found] == samplers
    for quality, options in zip(found, samplers, strict=True):
        texts = model.generate(ROWS, REAL, num_return_sequences=3, seed=5, **options)
        assert torch.equal(quality.texts, texts.unflatten(0, (2, 3)))
        assert quality.passes <= options["steps"]
        distinct = [len({tuple(text) for text in row.tolist()}) for row in quality.texts]
        assert quality.distinct == sum(distinct) / 2


@pytest.mark.parametrize(
    ("rows", "samplers", "num_texts", "sentence"),
    [
        (ROWS, [], 8, "There is no sampler to compare; give options of `generate` for each."),
        (ROWS, [{}], 1, "`num_texts` must be an integer of at least 2, got 1."),
        (ROWS.masked_fill(ROWS == MASK, 5), [{}], 8, "and there are texts without one."),
        (ROWS, [{}, {"order": "best"}], 8, "Unknown order 'best'; choose from"),
        (ROWS, [{"num_return_sequences": 3}], 8, "`num_return_sequences` is one for all samplers"),
        (ROWS, [{"seed": 3}], 8, "`seed` is one for all samplers that are compared"),
        (ROWS, [{}, {"num_tokens": "window"}], 8, "`num_tokens` is one for all samplers that are"),
        (
            ROWS,
            [{}, {"block_length": 1, "steps": 2}],
            8,
            "each needs a step of its own, got steps=2",
        ),
        (ROWS, [{"do_sample": False}], 8, "do_sample=False draws nothing at random, which num_ret"),
    ],
)
def test_what_cannot_be_compared(model, rows, samplers, num_texts, sentence):
    with pytest.raises(ValueError, match=sentence):
        next(compare_samplers(model, rows, samplers, REAL, num_texts=num_texts, progress=False))


def test_a_sampler_is_read_as_generate_reads_it_with_or_without_a_preset(model):
    plain = model.resolve_options(None, None, {"order": "random", "top_k": 3})
    assert resolved_sampler(model, {"order": "random"}, top_k=3).to_dict() == plain.to_dict()
    asked = {"preset": "fast", "top_k": 2}
    named = model.resolve_options(None, "fast", {"top_k": 2})
    assert resolved_sampler(model, asked).to_dict() == named.to_dict()
    assert asked == {"preset": "fast", "top_k": 2}
    with pytest.raises(ValueError, match="Masked decoding has no option 'colour'"):
        resolved_sampler(model, {"colour": "red"})


def test_one_function_reads_the_samplers_of_programs_and_integrations():
    folders = [PACKAGE / "evaluation", PACKAGE / "training", PACKAGE / "integrations"]
    files = [file for folder in [*folders, ROOT / "scripts"] for file in folder.glob("*.py")]
    reading = re.compile(r"resolve_options\((?!None, None, \{\}\))")
    found = {file.name for file in files if reading.search(file.read_text("utf-8"))}
    assert found == {"samplers.py"}
