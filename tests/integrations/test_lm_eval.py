"""What the lm-evaluation-harness is answered, without the harness."""

import itertools
import logging
import math
from types import SimpleNamespace

import pytest
import torch
from tokenizers import processors

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import exact_likelihood
from hf_maskgit.integrations.lm_eval import Answers
from tests.support.grids import wide
from tests.support.oracles import mean_over_orders
from tests.support.tiny import WORDS, tiny_model, word_tokenizer
from tests.support.tiny_tokenizers import byte_level_tokenizer, model_for, wordpiece_tokenizer

# Stored with a model: what the harness never asks for.
_OF_CALLS = {"num_return_sequences": 2, "return_dict_in_generate": True, "output_history": True}


class Harness:
    """What its class LM brings."""

    def __init__(self):
        self.told = []
        self.cache_hook = SimpleNamespace(add_partial=lambda *args: self.told.append(args))


class Model(Answers, Harness):
    pass


def request(*args, doc_id=0):
    return SimpleNamespace(args=args, doc_id=doc_id)


def made(saved, **options):
    return Model(saved, **{"batch_size": 16, "device": "cpu", **options})


def exactly(saved, text, num_judged):
    """The exact likelihood of the last words of a text, in evaluation's own words."""
    ids = torch.tensor([word_tokenizer()(text)["input_ids"]])
    maskable = torch.zeros_like(ids)
    maskable[0, -1 - num_judged : -1] = 1
    return exact_likelihood(MaskGitForMaskedLM.from_pretrained(saved), ids, maskable=maskable)


@pytest.mark.parametrize("likelihood", ["bound", "exact"])
def test_log_likelihoods_are_those_of_evaluation(saved, likelihood):
    pairs = [("w1 w2", " w3"), ("w1 w2", " w4 w5 w6"), ("", "w7 w8"), ("w9", " w1 w1")]
    model = made(saved, likelihood=likelihood)
    found = model.loglikelihood([request(*pair) for pair in pairs])
    for (context, continuation), (log_p, _) in zip(pairs, found, strict=True):
        expected = exactly(saved, f"{context} {continuation}", len(continuation.split()))
        nats = expected.nats if likelihood == "exact" else expected.bound_nats
        assert log_p == pytest.approx(-float(nats), abs=1e-4)
    assert sorted(model.told) == sorted(
        ("loglikelihood", pair, answer) for pair, answer in zip(pairs, found, strict=True)
    )


@pytest.mark.parametrize("length", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_probabilities_of_all_continuations_sum_to_one(saved, length):
    """Given their number of tokens, and only one of them is what greedy decoding writes."""
    model = made(saved, likelihood="exact", batch_size=512)
    texts = list(itertools.product([*WORDS, "[UNK]", "[SEP]"], repeat=length))
    answers = model.loglikelihood([request("w1", " " + " ".join(text)) for text in texts])
    assert sum(math.exp(log_p) for log_p, _ in answers) == pytest.approx(1, abs=1e-4)
    greedy = [text for text, (_, is_greedy) in zip(texts, answers, strict=True) if is_greedy]
    prompt = word_tokenizer()(" ".join(["w1", *["[MASK]"] * length]), return_tensors="pt")
    order = {"order": "top_probability", "steps": length, "do_sample": False}
    written = MaskGitForMaskedLM.from_pretrained(saved).generate(**prompt, **order)
    assert greedy == [tuple(word_tokenizer().convert_ids_to_tokens(written[0, 2:-1]))]


@pytest.mark.wide
def test_batch_size_order_and_company_change_no_figure(saved):
    context = " ".join(WORDS[:9])
    asked = [request(context, " ".join(["", *WORDS[i : i + 9]]), doc_id=i) for i in (0, 6)]
    asked += [request("w1", " w2"), request(context, " w2 w3")]
    found = made(saved, dtype="float64").loglikelihood(asked)
    for batch_size in (1, 500):
        again = made(saved, dtype="float64", batch_size=batch_size).loglikelihood(asked[::-1])
        for one, other in zip(found, again[::-1], strict=True):
            assert one == pytest.approx(other, rel=1e-10)
    other_seed = made(saved, dtype="float64", seed=1).loglikelihood(asked)
    assert other_seed[0][0] != found[0][0]  # 9 tokens, which are estimated
    assert other_seed[-2] == pytest.approx(found[-2])  # of few tokens all maskings are taken
    (alone,) = made(saved, dtype="float64").loglikelihood([asked[1]])
    assert alone == pytest.approx(found[1], rel=1e-10)


def test_estimates_tell_their_error(saved, caplog):
    caplog.set_level(logging.INFO)
    made(saved).loglikelihood([request("w1", " ".join(["", *WORDS[:9]])), request("w1", " w2")])
    assert "1 of 2 bounds are estimated, with a standard error of" in caplog.text


@pytest.mark.wide
def test_rolling_is_the_bound_of_the_whole_text_by_windows(saved):
    (short,) = made(saved).loglikelihood_rolling([request("w1 w2 w3")])
    assert short == pytest.approx(-float(exactly(saved, "w1 w2 w3", 3).bound_nats), abs=1e-4)
    # windows of 4 words that move on by 2: by hand, a sum of parts each given what comes before
    model = made(saved, max_length=6, window_stride=2)
    (long,) = model.loglikelihood_rolling([request(" ".join(WORDS[:8]))])
    parts = [(range(4), 4), (range(2, 6), 2), (range(4, 8), 2)]
    by_hand = [exactly(saved, " ".join(WORDS[i] for i in window), n) for window, n in parts]
    assert long == pytest.approx(-sum(float(one.bound_nats) for one in by_hand), abs=1e-4)


@pytest.mark.wide
def test_long_contexts_lose_their_beginning_and_long_continuations_are_cut_in_windows(
    saved, caplog
):
    model = made(saved, max_length=6, window_stride=2)
    kept, short = model.loglikelihood(
        [request("w1 w2 w3 w4", " w5 w6"), request("w3 w4", " w5 w6")]
    )
    assert kept == pytest.approx(short, abs=1e-4)
    assert "1 of 2 contexts lost their beginning" in caplog.text
    (long,) = model.loglikelihood([request("w0", " w1 w2 w3 w4 w5 w6 w7")])
    parts = [("w0 w1 w2 w3", 3), ("w2 w3 w4 w5", 2), ("w4 w5 w6 w7", 2)]
    by_hand = [float(exactly(saved, text, n).bound_nats) for text, n in parts]
    assert long[0] == pytest.approx(-sum(by_hand), abs=1e-4)


def test_merged_letters_are_told(tmp_path, caplog):
    tokenizer = wordpiece_tokenizer()
    model_for(tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    made(str(tmp_path)).loglikelihood([request("there was li", "ght")])
    assert "In 1 of 1 pairs the last letters of the context" in caplog.text


def without_frame():
    """As GPT-2's: no token begins a text, and none ends it."""
    tokenizer = byte_level_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


@pytest.mark.parametrize("kind", [wordpiece_tokenizer, wide(byte_level_tokenizer), without_frame])
def test_the_likelihood_behind_every_frame_is_the_mean_over_orders(kind, tmp_path):
    """Of BERT, of RoBERTa and of no frame at all: every order, written out in the whole text."""
    tokenizer, pairs = kind(), [("And God said,", " light"), ("The cat", " sat on"), ("", "light")]
    model = model_for(tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = made(str(tmp_path), likelihood="exact").loglikelihood([request(*p) for p in pairs])
    for (context, continuation), (log_p, _) in zip(pairs, found, strict=True):
        body = tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
        given = len(tokenizer(context, add_special_tokens=False)["input_ids"])
        text = torch.tensor([tokenizer(context + continuation)["input_ids"]])
        ahead = (text.shape[1] - len(body)) // 2  # as many stand behind
        assert text[0, ahead : ahead + len(body)].tolist() == body
        places = range(ahead + given, ahead + len(body))
        assert log_p == pytest.approx(mean_over_orders(model, text, places), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pretrained": None}, "Name the generator: --model_args pretrained=FOLDER"),
        ({"colour": 3}, "The model type 'hf_maskgit' has no argument 'colour'; it has pretrained"),
        ({"trust_remote_code": True}, "No code of a model's folder is run; leave out"),
        ({"likelihood": "best"}, "`likelihood` must be one of bound, exact, got 'best'."),
        ({"batch_size": "auto"}, "--batch_size is the number of masked texts per pass"),
        ({"max_batch_size": 8}, "got 16 with --max_batch_size 8."),
        ({"num_samples": 7}, "`num_samples` must be even"),
        ({"most_tokens": 0}, "`most_tokens` must be an integer of at least 1"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ({"max_length": 3}, "`max_length` must be an integer of at least 4"),
        ({"max_length": 65}, "`max_length` must be an integer of at most 64"),
        ({"window_stride": 63}, "`window_stride` must be an integer of at most 62"),
    ],
)
def test_arguments_are_checked(saved, options, told):
    with pytest.raises(ValueError, match=told):
        made(**{"saved": saved, **options} if "pretrained" not in options else {"saved": None})


def test_a_batch_size_of_one_and_an_absent_device_are_told(saved, caplog):
    caplog.set_level(logging.INFO)
    model = made(saved, batch_size="1", device="cuda:0")
    assert "It changes no figure." in caplog.text
    if not torch.cuda.is_available():
        assert "There is no device 'cuda:0' here" in caplog.text
        assert str(model.model.device) == "cpu"


def test_several_processes_are_refused(saved, monkeypatch):
    monkeypatch.setattr("hf_maskgit.integrations.lm_eval_arguments.num_processes", lambda: 2)
    with pytest.raises(ValueError, match="has started 2 processes, .* without `accelerate launch`"):
        made(saved)


def test_what_is_mostly_unknown_is_refused(saved):
    with pytest.raises(ValueError, match="The tokenizer does not know 3 of the 3 tokens"):
        made(saved).loglikelihood([request("some words", " unknown")])
    taken = made(saved, max_unknown_share=1.0)
    assert len(taken.loglikelihood([request("some words", " unknown")])) == 1
    with pytest.raises(ValueError, match="`max_unknown_share` is a share and must lie in"):
        made(saved, max_unknown_share=7)


def test_a_chat_template_is_refused(saved):
    model = made(saved)
    assert model.chat_template(False) == ""
    assert model.tokenizer_name
    for call in (model.apply_chat_template, lambda: model.chat_template(True)):
        with pytest.raises(ValueError, match="applies no chat template; leave out"):
            call()


class TestGenerating:
    """By the harness's own reading of options."""

    @pytest.fixture(autouse=True)
    def _harness(self):
        pytest.importorskip("lm_eval", reason="the lm-evaluation-harness is not installed")

    @pytest.mark.wide
    def test_contexts_are_continued_as_generate_does(self, saved):
        model = made(saved, batch_size=2)
        options = {"until": [], "max_gen_toks": 4, "steps": 4}
        contexts = ["w1 w2 w3", "w5", "w7 w8"]
        found = model.generate_until([request(c, options) for c in contexts])
        own = MaskGitForMaskedLM.from_pretrained(saved)
        for context, text in zip(contexts, found, strict=True):
            ids = word_tokenizer()(context, return_tensors="pt")["input_ids"]
            written = own.generate(ids, max_new_tokens=4, steps=4, do_sample=False)
            new = word_tokenizer().decode(written[0, ids.shape[1] :], skip_special_tokens=True)
            assert text.split() == new.split()
        assert len(model.told) == 3

    @pytest.mark.wide
    def test_texts_end_before_the_first_stop_string(self, saved):
        model, context = made(saved), "w1 w2 w3"
        (whole,) = model.generate_until([request(context, {"max_gen_toks": 6})])
        stop = whole.split()[2]
        (text,) = model.generate_until([request(context, {"until": stop, "max_gen_toks": 6})])
        assert text == whole[: whole.index(stop)]

    @pytest.mark.wide
    def test_draws_differ_by_repeat_and_seed_and_by_nothing_else(self, saved):
        options = {"until": [], "max_gen_toks": 8, "do_sample": True, "temperature": 1.0}
        asked = [request("w1 w2", options), request("w3", options), request("w1 w2", options)]
        found = made(saved).generate_until(asked)
        assert found[0] != found[2]
        assert made(saved, batch_size=1).generate_until(asked) == found
        assert made(saved, seed=5).generate_until(asked) != found

    def test_text_without_frame_and_context_is_written_from_nothing(self, tmp_path):
        tokenizer = word_tokenizer()
        tokenizer.backend_tokenizer.post_processor = None
        model_for(tokenizer).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        options = {"until": [], "max_gen_toks": 3}
        found = made(str(tmp_path)).generate_until([request("", options), request("w1", options)])
        assert [type(text) for text in found] == [str, str]

    @pytest.mark.parametrize("way", ["sampled", wide("window")])
    def test_texts_are_as_long_as_the_model_finds_and_never_longer_than_asked_for(
        self, tmp_path, way
    ):
        model = tiny_model(lengths={"4": 1, "6": 1}, end_fill=12)
        model.generation_config.update(num_tokens=way, suppress_tokens=[3], **_OF_CALLS)
        model.save_pretrained(tmp_path)
        word_tokenizer().save_pretrained(tmp_path)
        asked = [request("w1 w2 w3", {"max_gen_toks": most}) for most in (8, 4, 2) * 2]
        found = made(str(tmp_path)).generate_until(asked)
        known, longest = 3, {"sampled": 6, "window": 10}[way]
        for (_, options), text in zip([one.args for one in asked], found, strict=True):
            assert 1 <= len(text.split()) <= min(options["max_gen_toks"], longest - known)
        # greedy decoding draws no more than the lengths, and these by the seed as well
        torch.manual_seed(1)
        assert made(str(tmp_path)).generate_until(asked) == found

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (
                {"num_return_sequences": 2},
                "`num_return_sequences` is no option of a task: each req",
            ),
            ({"stop_strings": "w1"}, "`stop_strings` is no option of a task: its word for them is"),
            ({"seed": 1}, "Masked decoding has no option 'seed'"),
            ({"order": "critic"}, "The model has no token critic"),
            ({"max_gen_toks": 62}, "asks for 62 new tokens, and `max_length` leaves 62"),
        ],
    )
    def test_options_of_any_request_are_refused_before_the_first_is_answered(
        self, saved, options, sentence
    ):
        model = made(saved)
        asked = [request("w1", {"max_gen_toks": 2}), request("w1", {"max_gen_toks": 2, **options})]
        with pytest.raises(ValueError, match=sentence):
            model.generate_until(asked)
        assert not model.told
