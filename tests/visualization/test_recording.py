"""What is noted of a text that comes about agrees with `generate`'s own account of it."""

import pytest

from hf_maskgit.visualization import (
    UnmaskingRecorder,
    from_output,
    record_unmasking,
)
from hf_maskgit.visualization.recording import letters_of, said_of
from tests.support.grids import wide
from tests.support.tiny import TableModel, tiny_config, word_tokenizer

TOKENIZER = word_tokenizer()
SAMPLERS = {
    "plain": {"steps": 4},
    "p2": {"preset": "p2", "steps": 5, "top_k": 0},
    "remdm": {"preset": "remdm", "steps": 12},
    "eager": {"pace": "threshold", "confidence_threshold": 0.2},
    "blocks": {"steps": 4, "block_length": 3},
    "speculative": {"pace": "speculative", "order": "random", "anneal_temperature": False},
    "competing": {"steps": 5, "can_mask_prev_unmasked": True},
}


def ids(text):
    return TOKENIZER(text, return_tensors="pt", padding=True, return_attention_mask=True)


def model(**options):
    return TableModel(tiny_config(**options))


def asked(**options):
    return {"return_dict_in_generate": True, "output_history": True, **options}


def slow_frames(output, row):
    """Every frame as words, straight from the history; dots where a mask stands."""
    kept = [i for i, t in enumerate(output.sequences[row].tolist()) if t not in (0, 2, 3)]
    words = TOKENIZER.convert_ids_to_tokens
    found = [
        ["·" if t == TOKENIZER.mask_token_id else words(t) for t in [ids[i] for i in kept]]
        for ids in output.history[:, row].tolist()
    ]
    while len(found) > 1 and found[-1] == found[-2]:
        found.pop()
    return found


def words_of(unmasking):
    return [["·" if p.text is None else p.text for p in frame] for frame in unmasking.frames]


def same(one, other):
    """Equal but for the last bits of probabilities."""
    return all(
        a[:3] == b[:3] and (a.probability or 0) == pytest.approx(b.probability or 0)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.grid(3)
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("seed", range(3))
def test_output_and_recorder_tell_what_the_history_tells(name, seed):
    texts = ["w1 [MASK] [MASK] w2 [MASK]", "w3 [MASK] w4 [MASK] [MASK] [MASK] w5"]
    recorders = [UnmaskingRecorder(TOKENIZER, row=row) for row in range(2)]

    def both(step, state):
        for recorder in recorders:
            recorder(step, state)

    options = asked(seed=seed, callback_on_step_end=both, **SAMPLERS[name])
    output = model().generate(**ids(texts), **options)
    for row, recorder in enumerate(recorders):
        of_output, noted = from_output(output, TOKENIZER, row), recorder.unmasking()
        assert words_of(of_output)[1:] == words_of(noted)[1:] == slow_frames(output, row)
        before = texts[row].replace("[MASK]", "·").split()
        assert words_of(of_output)[0] == words_of(noted)[0] == before
        assert same(of_output.frames[-1], noted.frames[-1])


def test_probabilities_are_those_of_the_output():
    output = model().generate(**ids("w1 [MASK] [MASK]"), **asked(seed=0, steps=2))
    frame = from_output(output, TOKENIZER).frames[-1]
    expected = output.reveal_log_probabilities[0].exp().tolist()[2:4]
    assert [place.probability for place in frame[1:]] == pytest.approx(expected)
    assert frame[0].probability is None
    assert [place.step for place in frame] == output.reveal_steps[0].tolist()[1:4]


def test_without_the_history_a_text_comes_about_by_its_last_reveals():
    options = {"seed": 1, "preset": "remdm", "steps": 12, "return_dict_in_generate": True}
    output = model().generate(**ids("w1 [MASK] [MASK] w2 [MASK]"), **options)
    steps = output.reveal_steps[0].tolist()
    for number, frame in enumerate(from_output(output, TOKENIZER).frames):
        assert [p.text is None for p in frame] == [step >= number for step in steps[1:6]]


def test_without_a_dictionary_nobody_kept_the_probabilities():
    recorder = UnmaskingRecorder(TOKENIZER)
    model().generate(**ids("w1 [MASK] [MASK]"), seed=0, steps=2, callback_on_step_end=recorder)
    frame = recorder.unmasking().frames[-1]
    assert [place.probability for place in frame] == [None] * 3
    assert [place.step >= 0 for place in frame] == [False, True, True]


@pytest.mark.parametrize("seed", [*range(3), *map(wide, range(3, 8))])
def test_what_an_end_of_text_or_a_stop_string_cut_off_is_not_shown(seed):
    """The text is what the tokenizer makes of the returned ids, prompt and all."""
    options = {"max_new_tokens": 12, "seed": seed, "temperature": 2.0}
    stops = [f" w{i}" for i in range(0, 35, 5)]
    for more in ({}, {"stop_strings": stops}):
        found = record_unmasking(model(), TOKENIZER, **ids("w1 w2"), **options, **more)
        written = model().generate(**ids("w1 w2"), tokenizer=TOKENIZER, **options, **more)
        assert found.text == TOKENIZER.decode(written[0], skip_special_tokens=True)
        assert [place.text for place in found.frames[0][:2]] == ["w1", "w2"]


def test_frames_are_told_as_soon_as_they_are_there():
    told = []
    found = record_unmasking(
        model(), TOKENIZER, **ids("w1 [MASK] [MASK] [MASK]"), seed=0, steps=3, on_frame=told.append
    )
    assert tuple(told) == found.frames
    assert [sum(p.text is None for p in frame) for frame in told] == [3, 2, 1, 0]


def test_tokens_that_are_joined_stand_so():
    found = record_unmasking(
        model(), TOKENIZER, joined=True, **ids("w1 [MASK] w2"), seed=0, steps=1
    )
    assert " " not in found.text
    assert found.text.startswith("w1")
    assert found.text.endswith("w2")


def test_mistakes_are_said():
    batch = ids("w1 [MASK]")
    sequences = model().generate(**batch, seed=0)
    with pytest.raises(TypeError, match=r"return_dict_in_generate=True; got Tensor\."):
        from_output(sequences, TOKENIZER)
    output = model().generate(**batch, **asked(seed=0))
    with pytest.raises(ValueError, match="`row` must be from 0 to 0, got 1"):
        from_output(output, TOKENIZER, row=1)
    with pytest.raises(ValueError, match="`row` must be from 0 to 0, got 2"):
        model().generate(**batch, callback_on_step_end=UnmaskingRecorder(TOKENIZER, row=2))
    with pytest.raises(ValueError, match="No pass was made, so there is nothing to show"):
        record_unmasking(model(), TOKENIZER, **ids("w1 w2"), max_new_tokens=0)


def test_what_is_said_of_a_token(short):
    said = [said_of(place, short.num_passes) for place in short.frames[2]]
    assert said == [
        "Known from the start.",
        "Revealed in pass 2 of 3, with probability 0.25.",
        "Revealed in pass 1 of 3, with probability 0.5.",
        "Still masked.",
    ]
    unknown = short.frames[2][1]._replace(probability=None)
    assert said_of(unknown, 3) == "Revealed in pass 2 of 3."


def test_letters_stay_on_their_line():
    assert (
        letters_of("a\nb\tc\x1b")
        == "a\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}b c\N{SYMBOL FOR ESCAPE}"
    )
