"""When a row is finished before its masks are: an end of text, stop strings, criteria."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    EosTokenCriteria,
    MaxLengthCriteria,
    MaxTimeCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)
from transformers.generation import ConfidenceCriteria

from hf_maskgit import MaskGitConfig
from hf_maskgit.core.decoding_state import DecodingState
from hf_maskgit.core.decoding_stops import StopRules, tokens_until
from hf_maskgit.core.special_tokens import tokenizer_fields
from tests.support.combinations import LEGAL, choices
from tests.support.prompts import CLS, MASK, PAD, SEP
from tests.support.tiny import TableModel, bert_config, tiny_config, word_tokenizer
from tests.support.tiny_tokenizers import wordpiece_tokenizer

FIRST_WORD = 5  # the id of "w0"


@pytest.fixture
def table():
    return TableModel(tiny_config(), critic=True)


@pytest.fixture(scope="module")
def tokenizer():
    return word_tokenizer()


class Writer(TableModel):
    """Writes the given tokens, whatever stands beside them: the n-th new token is the n-th."""

    def __init__(self, config, num_before, tokens, lead=20.0):
        super().__init__(config)
        self.lead = lead  # of the token's logit over all others
        self.script = torch.tensor([0] * num_before + tokens + [0] * 64)

    def __call__(self, input_ids, attention_mask, masked_positions, token_type_ids=None):
        super().__call__(input_ids, attention_mask, masked_positions, token_type_ids)
        places = masked_positions.nonzero()[:, 1]
        logits = torch.zeros(len(places), self.config.get_text_config().vocab_size).double()
        logits[torch.arange(len(places)), self.script[places]] = self.lead
        return type(self.calls[-1])(logits=logits)


def words(*numbers):
    return [FIRST_WORD + n for n in numbers]


def writer(*numbers, lead=20.0):
    """Continues the prompt `CLS w0 SEP` with these words."""
    return Writer(tiny_config(), 2, words(*numbers), lead)


PROMPT = torch.tensor([[CLS, *words(0), SEP]])


def boost(token, nats):
    def processor(input_ids, scores):
        scores[:, token] += nats
        return scores

    return processor


@pytest.fixture
def decodes_on(monkeypatch):
    """Call it to switch early stops off."""
    return lambda: monkeypatch.setattr(StopRules, "stop_fn", None)


# --- ends of text --------------------------------------------------------------------------------


@pytest.mark.grid(4, first=1)
@pytest.mark.parametrize("block_length", [None, 3])
@pytest.mark.parametrize("combination", LEGAL, ids="-".join)
def test_stopping_at_an_end_changes_nothing_but_the_passes(
    table, decodes_on, combination, block_length
):
    order, _, remask, _ = combination
    if remask == "remdm_loop" and block_length:
        return
    options = {
        **choices(combination),
        "block_length": block_length,
        "max_new_tokens": 12,
        "steps": 12,
        "seed": list(range(24)),
        "anneal_temperature": False,
        "remdm_eta": 0.3,
        "logits_processor": [boost(SEP, 4)],
        "return_dict_in_generate": True,
    }
    prompts = PROMPT.repeat(24, 1)
    stopped = table.generate(prompts, **options)
    decodes_on()
    full = table.generate(prompts, **options)
    assert bool((stopped.sequences == PAD).any()), "no text ended"
    for name in ("sequences", "reveal_steps", "reveal_log_probabilities"):
        assert torch.equal(stopped[name], full[name])
    saved = full.denoiser_passes - stopped.denoiser_passes
    assert int(saved.min()) >= 0
    goes_from_the_left = block_length or order in ("left_to_right", "random")
    if goes_from_the_left and not remask.startswith("remdm"):
        assert int(saved.sum()) > 0
    if remask.startswith("remdm"):  # any token may be masked again until the last pass
        assert not saved.any()
    behind = stopped.sequences == PAD
    assert set(stopped.reveal_steps[behind].tolist()) == {-1}
    assert set(stopped.reveal_log_probabilities[behind].tolist()) == {0}


def test_a_row_stops_in_the_pass_that_makes_its_end_certain():
    out = Writer(tiny_config(), 2, [*words(1, 2), SEP, *words(3, 4, 5)]).generate(
        PROMPT,
        max_new_tokens=6,
        steps=6,
        order="left_to_right",
        return_dict_in_generate=True,
    )
    assert out.sequences[0, 3:].tolist() == [*words(1, 2), SEP, PAD, PAD, PAD]
    assert out.denoiser_passes.tolist() == [3]
    assert out.reveal_steps[0].tolist() == [-1, -1, -1, 0, 1, 2, -1, -1, -1]


def test_padding_behind_an_end_is_no_revealed_token_even_where_they_share_their_id():
    model = Writer(tiny_config(), 2, [*words(1), SEP, SEP, SEP])
    out = model.generate(
        PROMPT, max_new_tokens=4, steps=1, pad_token_id=SEP, return_dict_in_generate=True
    )
    assert out.sequences[0, 3:].tolist() == [*words(1), SEP, SEP, SEP]
    assert out.reveal_steps[0, 3:].tolist() == [0, 0, -1, -1]
    assert bool((out.reveal_log_probabilities[0, 3:5] < 0).all())
    assert out.reveal_log_probabilities[0, 5:].tolist() == [0, 0]


# --- stop strings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop_strings", "kept"),
    [
        ("w3", 3),
        (["w5", "w3"], 3),
        ("w2 w3", 3),
        ("3 w", 4),
        (["w8"], 6),
        ("w1", 1),
        ("w6", 6),
        ([], 6),
    ],
)
def test_a_text_ends_behind_its_first_stop_string(tokenizer, stop_strings, kept):
    out = writer(1, 2, 3, 4, 5, 6).generate(
        PROMPT, max_new_tokens=6, stop_strings=stop_strings, tokenizer=tokenizer
    )
    assert out[0, :3].tolist() == PROMPT[0].tolist()
    assert out[0, 3:].tolist() == [*words(1, 2, 3, 4, 5, 6)[:kept], *[PAD] * (6 - kept)]


def test_a_stop_string_of_the_prompt_ends_nothing(tokenizer):
    prompt = tokenizer("w3 w9", return_tensors="pt")
    model = Writer(tiny_config(), 3, words(1, 2, 4))
    out = model.generate(
        **prompt, max_new_tokens=3, stop_strings=["w3", "w9 w1"], tokenizer=tokenizer
    )
    assert out[0, 4:].tolist() == words(1, 2, 4)


def test_an_end_before_the_stop_string_comes_first(tokenizer):
    model = Writer(tiny_config(), 2, [*words(1), SEP, *words(3, 4)])
    out = model.generate(PROMPT, max_new_tokens=4, stop_strings="w3", tokenizer=tokenizer)
    assert out[0, 3:].tolist() == [*words(1), SEP, PAD, PAD]


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({"order": "left_to_right"}, 3),
        ({"block_length": 2, "choice_temperature": 0}, 3),
        ({"choice_temperature": 0}, 3),
    ],
)
def test_a_stop_string_saves_passes_once_all_before_it_is_certain(
    tokenizer, decodes_on, options, passes
):
    """Equally sure places are filled from the left, so each of these finds it in the third pass."""
    options = {
        "max_new_tokens": 8,
        "steps": 8,
        "stop_strings": "w3",
        "tokenizer": tokenizer,
        "return_dict_in_generate": True,
        **options,
    }
    # A lead of 60 leaves nothing to the others in float64: all places are sure to the last bit.
    model = writer(1, 2, 3, 4, 5, 6, 7, 8, lead=60.0)
    stopped = model.generate(PROMPT, **options)
    assert stopped.denoiser_passes.tolist() == [passes]
    decodes_on()
    full = model.generate(PROMPT, **options)
    assert full.denoiser_passes.tolist() == [8]
    assert torch.equal(stopped.sequences, full.sequences)
    assert torch.equal(stopped.reveal_steps, full.reveal_steps)


@pytest.mark.parametrize(
    "options",
    [
        {"order": "left_to_right"},
        {"order": "random"},
        {},
        {"block_length": 3},
        {"remask": "confidence"},
        {"remask": "confidence", "block_length": 3},
        {"remask": "remdm_cap", "remdm_eta": 0.3},
        {"pace": "threshold", "confidence_threshold": 0.3},
    ],
    ids=str,
)
def test_stop_strings_cut_the_text_that_would_come_without_them(table, tokenizer, options):
    options |= {"max_new_tokens": 12, "steps": 12, "seed": 3, "num_return_sequences": 16}
    plain = table.generate(PROMPT, suppress_tokens=[SEP], **options)[:, 3:].tolist()
    stops = ["w1", "w22 ", "9 w"]
    out = table.generate(
        PROMPT, suppress_tokens=[SEP], stop_strings=stops, tokenizer=tokenizer, **options
    )[:, 3:].tolist()
    lengths = set()
    for full, stopped in zip(plain, out, strict=True):
        kept = len(full)
        for count in range(len(full), 0, -1):
            text = " ".join(f"w{token - FIRST_WORD}" for token in full[:count])
            if any(stop in text for stop in stops):
                kept = count
        assert stopped == full[:kept] + [PAD] * (len(full) - kept)
        lengths.add(kept)
    assert len(lengths) > 1


@pytest.mark.parametrize("stop", ["on the", "play", "mat,", "laying", "the cat sat on the mat"])
def test_stop_strings_are_found_across_the_pieces_of_words(stop):
    tokenizer = wordpiece_tokenizer()
    encoder = bert_config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    config = MaskGitConfig(text_config=encoder, **tokenizer_fields(tokenizer))
    tokens = tokenizer("the cat sat on the mat, playing", add_special_tokens=False)["input_ids"]
    assert len(tokens) > 7, "some words are pieces"
    model = Writer(config, 1, tokens)
    out = model.generate(
        max_new_tokens=len(tokens), steps=3, stop_strings=[stop], tokenizer=tokenizer
    )
    kept = [t for t in out[0, 1:].tolist() if t != tokenizer.pad_token_id]
    kept = kept[:-1] if kept[-1] == tokenizer.sep_token_id else kept
    assert stop in tokenizer.decode(kept)
    assert stop not in tokenizer.decode(kept[:-1])
    assert kept == tokens[: len(kept)]


def test_counting_the_tokens_up_to_a_stop_string(tokenizer):
    ids = words(1, 2, 3)
    assert tokens_until(ids, ["w2"], tokenizer) == 2
    assert tokens_until(ids, ["w3", "w1"], tokenizer) == 1
    assert tokens_until(ids, ["w4"], tokenizer) is None
    assert tokens_until([], ["w4"], tokenizer) is None
    framed = [ids[0], SEP, ids[1]]  # special tokens are no text
    assert tokens_until(framed, ["w1 w2"], tokenizer) == 3


@pytest.mark.parametrize(("gap", "ends"), [(MASK, False), (SEP, True)])
def test_tokens_on_both_sides_of_an_open_place_are_no_stop_string(tokenizer, gap, ends):
    text = torch.tensor([[*words(1), gap, *words(2)]])
    everywhere = torch.ones_like(text).bool()
    state = DecodingState.start(text, text == MASK, everywhere)
    sampler = SimpleNamespace(remask="never", end_ids=torch.tensor([], dtype=torch.long))
    stops = StopRules(sampler, everywhere, "w1 w2", tokenizer)
    found, _ = stops.ends_so_far(torch.tensor([0]), state)
    assert found.tolist() == [[False, False, ends]]


def test_stop_strings_need_a_tokenizer(table):
    with pytest.raises(ValueError, match="`stop_strings` are looked for in decoded text; pass the"):
        table.generate(PROMPT, stop_strings="w1")
    assert table.calls == []


@pytest.mark.parametrize("options", [{}, {"max_new_tokens": 0}])
def test_stop_strings_need_appended_text(table, tokenizer, options):
    with pytest.raises(ValueError, match="`stop_strings` end appended text, and nothing is append"):
        table.generate(
            torch.tensor([[CLS, MASK, SEP]]), stop_strings="w1", tokenizer=tokenizer, **options
        )
    assert table.calls == []


@pytest.mark.parametrize("how", ["stop_strings", "stopping_criteria"])
def test_what_cuts_rows_off_needs_a_padding_id(tokenizer, how):
    config = tiny_config()
    config.pad_token_id = config.eos_token_id = config.text_config.pad_token_id = None
    table = TableModel(config)
    given = {"stop_strings": "w1"} if how == "stop_strings" else {how: [MaxTimeCriteria(1)]}
    with pytest.raises(ValueError, match="`pad_token_id` is not set, which fills a row that `stop"):
        table.generate(PROMPT, tokenizer=tokenizer, **given)
    assert table.calls == []


# --- criteria ------------------------------------------------------------------------------------


def test_time_that_is_up_stops_after_the_first_pass(table):
    out = table.generate(
        PROMPT.repeat(2, 1),
        max_new_tokens=6,
        steps=3,
        stopping_criteria=StoppingCriteriaList([MaxTimeCriteria(1.0, initial_timestamp=0.0)]),
        suppress_tokens=[SEP],
        return_dict_in_generate=True,
    )
    assert out.denoiser_passes.tolist() == [1, 1]
    new, steps = out.sequences[:, 3:], out.reveal_steps[:, 3:]
    assert bool(((steps == 0).sum(1) == 2).all())
    assert torch.equal(new == PAD, steps == -1)
    assert MASK not in out.sequences


def test_time_enough_changes_nothing(table):
    options = {"max_new_tokens": 6, "seed": 0}
    plain = table.generate(PROMPT, **options)
    timed = table.generate(PROMPT, stopping_criteria=[MaxTimeCriteria(1e6)], **options)
    assert torch.equal(plain, timed)


def test_a_criterion_of_ones_own_stops_rows_one_by_one(table):
    """The second row has a word more to go, so it is asked once more."""
    rows, seen = torch.tensor([[MASK, MASK, MASK, 5], [MASK, MASK, MASK, MASK]]), []

    def two_left(input_ids, scores):
        assert scores is None
        seen.append(input_ids.tolist())
        return (input_ids == MASK).sum(1) <= 2

    out = table.generate(
        rows, steps=4, stopping_criteria=[two_left], seed=0, return_dict_in_generate=True
    )
    assert [len(texts) for texts in seen] == [2, 1]
    assert out.denoiser_passes.tolist() == [1, 2]
    assert (out.sequences == PAD).sum(1).tolist() == [2, 2]
    assert out.sequences[0, 3] == 5


def test_a_verdict_may_be_one_for_all_rows(table):
    steps = iter([False, True])
    out = table.generate(
        torch.full((2, 6), MASK),
        steps=6,
        stopping_criteria=[lambda input_ids, scores: next(steps)],
        return_dict_in_generate=True,
    )
    assert out.denoiser_passes.tolist() == [2, 2]


@pytest.mark.parametrize("verdict", [None, "no", [True], torch.ones(2, 6).bool()], ids=str)
def test_a_verdict_that_is_none_is_refused(table, verdict):
    rows = torch.full((2, 6), MASK)
    with pytest.raises(ValueError, match="or one of them for each of the 2 rows still being dec"):
        table.generate(rows, stopping_criteria=[lambda input_ids, scores: verdict])


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (lambda: MaxLengthCriteria(9), "MaxLengthCriteria .* decoding: use `max_new_tokens`"),
        (lambda: EosTokenCriteria(SEP), "EosTokenCriteria cannot .* an end of text stops a row"),
        (
            lambda: StopStringCriteria(wordpiece_tokenizer(), "a"),
            "StopStringCriteria cannot .* use `stop_strings`",
        ),
        (lambda: ConfidenceCriteria(0.5), "ConfidenceCriteria cannot .* use pace='threshold'"),
    ],
)
def test_criteria_that_measure_what_is_not_there_are_refused(table, make, hint):
    with pytest.raises(ValueError, match=hint):
        table.generate(PROMPT, stopping_criteria=[make()])
    assert table.calls == []
