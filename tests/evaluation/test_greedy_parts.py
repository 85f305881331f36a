"""Greedy parts: what `generate` writes is greedy, and nothing else."""

import pytest
import torch

from hf_maskgit.evaluation.greedy_parts import written_greedily
from tests.support.tiny import tiny_model, word_tokenizer
from tests.support.tiny_tokenizers import model_for


def filled(model, ids, places):
    """What greedy decoding, one token per pass, makes of these places."""
    row = torch.tensor([ids])
    row[0, list(places)] = model.config.mask_token_id
    options = {"order": "top_probability", "schedule": "linear", "steps": len(places)}
    return model.generate(row, do_sample=False, **options)[0].tolist()


@pytest.mark.wide
@pytest.mark.parametrize("kind", ["bert", "roberta", "self-conditioned", "without-frame", "ends"])
def test_what_generate_writes_is_greedy_and_its_neighbours_are_not(kind):
    if kind == "without-frame":  # a text may end where its masks are
        tokenizer = word_tokenizer()
        tokenizer.backend_tokenizer.post_processor = None
        model = model_for(tokenizer)
    elif kind == "self-conditioned":
        model = tiny_model(self_cond=True)
    elif kind == "ends":  # none of them may stand before a known token, likely as it is
        model = tiny_model()
        model.config.text_config.eos_token_id = [3, filled(model, [2, 8, 9, 10, 11, 3], [4])[4]]
    else:
        model = tiny_model(kind)
    frame = model.config.prefix_ids or [], model.config.suffix_ids or []
    examples, expected = [], []
    for length in (1, 2, 4):
        for start in (8, 20):
            ids = [*frame[0], *range(start, start + 3 + length), *frame[1]]
            places = range(len(frame[0]) + 3, len(frame[0]) + 3 + length)
            written = filled(model, ids, places)
            if len({*written} & {model.config.eos_token_id}) > len(frame[1]):
                continue  # it ended early
            changed = list(written)
            changed[places[-1]] = 8 + changed[places[-1]] % 20
            for row in (ids, written, changed):
                judged = [int(i in places) for i in range(len(row))]
                examples.append({"input_ids": row, "maskable": judged})
                expected.append(row == written)
    assert sum(expected) >= 3
    assert written_greedily(model, examples, 8) == expected
    assert written_greedily(model, examples[:6], 1) == expected[:6]
