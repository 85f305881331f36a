"""Streaming: what is put into a streamer, when, and what a reader of the terminal sees."""

import re
import threading
from dataclasses import replace

import pytest
import torch
from transformers import TextIteratorStreamer, TextStreamer
from transformers.generation import TextDiffusionStreamer

from tests.support.combinations import LEGAL, choices
from tests.support.prompts import CLS, MASK, PAD, SEP
from tests.support.tiny import TableModel, tiny_config, tiny_model, word_tokenizer


@pytest.fixture
def table():
    return TableModel(tiny_config(), critic=True)


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


def ids(*rows):
    return torch.tensor(rows)


class Recorder:
    """Remembers what it is given; `events` tells puts and drafts in their order."""

    def __init__(self):
        self.puts, self.events, self.ended = [], [], 0

    def put(self, value):
        assert value.ndim == 1
        assert not self.ended
        self.puts.append(value.tolist())
        self.events.append(("put", value.tolist()))

    def end(self):
        self.ended += 1

    @property
    def text(self):
        return [token for tokens in self.puts for token in tokens]


class Drafter(Recorder):
    def put_draft(self, value, **kwargs):
        self.events.append(("draft", value.tolist()))


def boost(token, nats):
    def processor(input_ids, scores):
        scores[:, token] += nats
        return scores

    return processor


# What stands in the text, and how many of its real tokens are a prompt that is put at once.
TEXTS = {
    "continued": (ids([CLS, 5, SEP]), 3, {"max_new_tokens": 7}),
    "padded right": (ids([CLS, 5, SEP, PAD, PAD]), 3, {"max_new_tokens": 7}),
    "padded left": (ids([PAD, CLS, 5, 6]), 3, {"max_new_tokens": 7}),
    "filled": (ids([CLS, MASK, 5, MASK, MASK, 6, MASK, SEP]), 0, {}),
    "filled and continued": (ids([PAD, 5, MASK, 6, MASK, SEP]), 0, {"max_new_tokens": 4}),
    "from nothing": (None, 0, {"max_new_tokens": 7}),
}


@pytest.mark.grid(6)
@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("combination", LEGAL, ids="-".join)
def test_all_that_is_put_is_the_text_up_to_its_end(table, combination, kind):
    remask = combination[2]
    input_ids, num_prompt, options = TEXTS[kind]
    mask = None if input_ids is None else (input_ids != PAD).long()
    options = options | {
        **choices(combination),
        "steps": 4,
        "remdm_eta": 0.5,
        "anneal_temperature": False,
        "logits_processor": [boost(SEP, 3)],
    }
    for seed, block_length in ((0, None), (2, 2)):
        if remask == "remdm_loop":
            block_length = None
        plain = table.generate(input_ids, mask, seed=seed, block_length=block_length, **options)[
            0
        ].tolist()
        streamer = Drafter()
        streamed = table.generate(
            input_ids, mask, seed=seed, block_length=block_length, streamer=streamer, **options
        )[0].tolist()
        assert streamed == plain
        assert streamer.ended == 1
        text = [token for token in plain if token != PAD]
        assert streamer.text == text
        assert len(streamer.puts[0]) == num_prompt
        assert all(streamer.puts[1:]), "nothing is no event"
        # A draft completes what was put before it to a text of full length, and is refined later.
        length = len(text) + plain.count(PAD) - int((mask == 0).sum() if mask is not None else 0)
        num_put = 0
        for event, tokens in streamer.events:
            if event == "put":
                num_put += len(tokens)
            else:
                assert num_put + len(tokens) == length


@pytest.mark.parametrize("kind", [Recorder, Drafter])
def test_where_nothing_is_generated_the_prompt_is_put(table, kind):
    streamer = kind()
    table.generate(ids([CLS, 5, SEP]), max_new_tokens=0, streamer=streamer)
    assert streamer.events == [("put", [CLS, 5, SEP])]
    assert streamer.ended == 1


def test_stop_strings_and_criteria_end_the_stream(table, tokenizer):
    """What a pass revealed behind the stop is not put, nor are masks that were left."""
    options = {"max_new_tokens": 9, "steps": 3, "order": "left_to_right", "seed": 0}
    free = table.generate(ids([CLS, 5, SEP]), suppress_tokens=[SEP], **options)[0, 3:].tolist()
    streamer = Drafter()
    table.generate(
        ids([CLS, 5, SEP]),
        suppress_tokens=[SEP],
        stop_strings=tokenizer.decode(free[3:5]),
        tokenizer=tokenizer,
        streamer=streamer,
        **options,
    )
    assert streamer.puts == [[CLS, 5, SEP], free[:3], free[3:5]]
    streamer = Drafter()
    table.generate(
        ids([CLS, 5, SEP]),
        suppress_tokens=[SEP],
        stopping_criteria=[lambda text, scores: True],
        streamer=streamer,
        **options,
    )
    assert streamer.puts == [[CLS, 5, SEP], free[:3]]
    assert streamer.ended == 1


@pytest.mark.parametrize("stop", ["w7 w8", "w9 w8"])
def test_a_stop_string_is_not_read_across_a_gap(table, tokenizer, stop):
    """Two tokens with a mask between them are no text yet."""
    words = tokenizer.convert_tokens_to_ids(["w7", "w9", "w8", "w1"])
    # The second of them comes third. The logits change by tens of nats, as no other does.
    for place, (word, sure) in enumerate(zip(words, (90, 30, 60, 15), strict=True), start=2):
        table.of_place[place, word] += sure
    streamer = Recorder()
    out = table.generate(
        ids([CLS, 5, SEP]),
        max_new_tokens=4,
        steps=4,
        do_sample=False,
        stop_strings=stop,
        tokenizer=tokenizer,
        streamer=streamer,
    )
    expected = words if stop == "w7 w8" else [*words[:3], PAD]
    assert out[0, 3:].tolist() == expected
    assert streamer.text == [CLS, 5, SEP, *[token for token in expected if token != PAD]]


def test_left_to_right_puts_one_token_per_pass(table):
    streamer = Recorder()
    out = table.generate(
        ids([CLS, 5, SEP]),
        max_new_tokens=6,
        steps=6,
        order="left_to_right",
        streamer=streamer,
        suppress_tokens=[SEP],
    )
    assert streamer.puts == [[CLS, 5, SEP], *([token] for token in out[0, 3:].tolist())]


@pytest.mark.parametrize("options", [{}, {"remask": "confidence"}], ids=str)
def test_blocks_are_put_as_they_are_completed(table, options):
    streamer = Recorder()
    table.generate(
        ids([CLS, 5, SEP]),
        max_new_tokens=6,
        steps=6,
        block_length=2,
        streamer=streamer,
        suppress_tokens=[SEP],
        **options,
    )
    ends = {0, 2, 4, 6}
    put = len(streamer.puts[0])
    seen = {0}
    for tokens in streamer.puts[1:]:
        put += len(tokens)
        seen.add(put - 3)
    assert seen >= ends
    if options:  # inside a block a token may still be masked again
        assert seen == ends


def test_with_remasking_nothing_is_put_before_the_last_pass(table):
    streamer = Drafter()
    table.generate(
        ids([CLS, 5, SEP]),
        max_new_tokens=6,
        steps=4,
        remask="remdm_cap",
        streamer=streamer,
    )
    kinds = [event for event, tokens in streamer.events]
    assert kinds == ["put", *["draft"] * 4, "put"]


def test_drafts_show_the_text_as_it_comes_about(table):
    streamer = Drafter()
    out = table.generate(
        ids([CLS, 5, SEP]),
        max_new_tokens=6,
        steps=3,
        streamer=streamer,
        suppress_tokens=[SEP],
        return_dict_in_generate=True,
        output_history=True,
    )
    position, step = 0, 0
    for event, tokens in streamer.events[1:]:
        if event == "put":
            position += len(tokens)
        else:
            assert tokens == out.history[step, 0, 3 + position :].tolist()
            step += 1
    assert step == 2, "the third pass leaves nothing to draft"


# --- transformers' streamers ---------------------------------------------------------------------


def screen(printed):
    """What a terminal shows: a saved cursor is restored, what was behind it cleared."""
    shown, saved = "", 0
    for part in re.split("(\0337|\0338\033\\[J|\033\\[33m|\033\\[0m)", printed):
        if part == "\0337":
            saved = len(shown)
        elif part == "\0338\033[J":
            shown = shown[:saved]
        elif not part.startswith("\033"):
            shown += part
    return shown


OPTIONS = {"max_new_tokens": 8, "steps": 4, "seed": 3}


@pytest.mark.grid(2)
@pytest.mark.parametrize("kind", [TextStreamer, TextDiffusionStreamer])
@pytest.mark.parametrize("skip_prompt", [False, True])
@pytest.mark.parametrize("options", [{}, {"order": "left_to_right"}, {"block_length": 3}], ids=str)
def test_a_streamer_prints_the_decoded_text(capsys, tokenizer, kind, skip_prompt, options):
    model = tiny_model().double()
    prompt = tokenizer("w1 w2", return_tensors="pt")
    streamer = kind(tokenizer, skip_prompt=skip_prompt, skip_special_tokens=True)
    capsys.readouterr()
    out = model.generate(**prompt, streamer=streamer, **OPTIONS, **options)[0]
    printed = capsys.readouterr().out
    text = tokenizer.decode(out[4:] if skip_prompt else out, skip_special_tokens=True)
    assert len(text.split()) > 3
    assert screen(printed) == text + "\n"
    if kind is TextDiffusionStreamer and not options:
        assert "\033[33m" in printed, "drafts are shown in yellow"


@pytest.mark.parametrize("skip_prompt", [False, True])
@pytest.mark.parametrize("text", ["w1 [MASK] w2 [MASK] w3", None])
def test_a_text_that_is_filled_has_no_prompt_to_skip(capsys, tokenizer, skip_prompt, text):
    """The streamer is handed an empty prompt first, which it skips or prints to no effect."""
    prompt = {} if text is None else tokenizer(text, return_tensors="pt")
    streamer = TextStreamer(tokenizer, skip_prompt=skip_prompt)
    length = {"max_new_tokens": 5} if text is None else {}
    capsys.readouterr()
    out = tiny_model().generate(**prompt, streamer=streamer, seed=0, **length)[0]
    kept = [token for token in out.tolist() if token != PAD]
    assert capsys.readouterr().out == tokenizer.decode(kept) + "\n"


@pytest.mark.parametrize("skip_prompt", [False, True])
def test_an_iterator_in_another_thread(tokenizer, skip_prompt):
    model, prompt = tiny_model().double(), tokenizer("w1 w2", return_tensors="pt")
    streamer = TextIteratorStreamer(
        tokenizer, skip_prompt=skip_prompt, timeout=60, skip_special_tokens=True
    )
    arguments = {**prompt, "streamer": streamer, "order": "left_to_right", **OPTIONS}
    thread = threading.Thread(target=model.generate, kwargs=arguments)
    thread.start()
    pieces = list(streamer)
    thread.join()
    out = model.generate(**prompt, order="left_to_right", **OPTIONS)[0]
    text = tokenizer.decode(out[4:] if skip_prompt else out, skip_special_tokens=True)
    assert "".join(pieces) == text
    assert len([piece for piece in pieces if piece]) > 2


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("token", [MASK, 9])
def test_a_callback_that_changes_what_was_put_is_refused(table, token):
    """What is put is not taken back, so that a reader would see another text than is returned."""

    def change(column):
        def callback(step, state):
            text = state.text.clone()
            if step == 1:
                text[0, column] = token
            return replace(state, text=text, masked=text == MASK)

        return callback

    def write(column):
        options = {"order": "left_to_right", "do_sample": False, "max_new_tokens": 4, "steps": 4}
        streamer = Recorder()
        given = {"streamer": streamer, "callback_on_step_end": change(column)}
        return streamer, table.generate(ids([CLS, 7]), **given, **options)[0].tolist()

    with pytest.raises(ValueError, match="changed a token that `streamer` had been given as sett"):
        write(2)  # revealed, and put, in the pass before
    streamer, text = write(3)  # just revealed
    assert streamer.text == text


def test_a_streamer_that_wants_logits_is_refused(table, tokenizer):
    streamer = TextDiffusionStreamer(tokenizer)
    streamer._takes_logits = True
    with pytest.raises(ValueError, match="TextDiffusionStreamer wants the logits of every positio"):
        table.generate(ids([CLS, MASK]), streamer=streamer)
    assert table.calls == []


@pytest.mark.parametrize("options", [{}, {"num_return_sequences": 2}])
def test_a_streamer_for_several_texts_is_refused(table, options):
    rows = 1 if options else 2
    with pytest.raises(ValueError, match="A streamer shows one text, and 2 are asked for; pass on"):
        table.generate(torch.full((rows, 3), MASK), streamer=Recorder(), **options)
    assert table.calls == []
