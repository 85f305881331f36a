"""The infilling pipeline: what is typed stays, what is blank is filled, and nothing is guessed."""

import functools
import random
import re

import pytest
import torch
from transformers import BertForMaskedLM, EsmTokenizer
from transformers import pipeline as any_pipeline

from hf_maskgit import InfillingPipeline, MaskGitGenerationConfig
from hf_maskgit.core import pipeline_drafts
from hf_maskgit.core.generation_output import MaskGitGenerationOutput
from hf_maskgit.core.pipeline_infilling import holds_blank
from tests.support.tiny import bert_config, tiny_model, tokenizer_for
from tests.support.tiny_tokenizers import SENTENCES, TOKENIZERS, byte_level_tokenizer, model_for
from tests.support.tiny_training import trained_on

pipeline = functools.partial(any_pipeline, device="cpu")  # also where there is a GPU


@pytest.fixture(scope="module", params=list(TOKENIZERS))
def fill(request):
    """A pipeline with random weights over each kind of tokenizer."""
    return pipeline_over(request.param)


@pytest.fixture(scope="module")
def words():
    """A pipeline whose tokens are words."""
    return pipeline("infilling", model=tiny_model("bert"), tokenizer=tokenizer_for("bert"))


def pipeline_over(kind):
    tokenizer = TOKENIZERS[kind]()
    torch.manual_seed(0)
    return pipeline("infilling", model=model_for(tokenizer), tokenizer=tokenizer)


# Texts of which any token may be blanked out; of the others, words.
CHAINS = {
    "protein": ["MKTAYIAKQRQISFV", "ACDEFGHIK"],
    "molecule": ["CC(=O)Nc1ccc(O)cc1", "CC(C)(C)C#N"],
}


def answer_with(pipe, monkeypatch, ids):
    """Let the model write a given text into the blanks."""

    def generate(input_ids, attention_mask, **options):
        filled = torch.tensor([ids])
        known = input_ids != pipe.tokenizer.mask_token_id
        assert torch.equal(filled[known], input_ids[known])  # all blanks stand where they should
        return MaskGitGenerationOutput(
            sequences=filled, reveal_log_probabilities=torch.zeros(filled.shape)
        )

    monkeypatch.setattr(pipe.model, "generate", generate)


def blank_out(tokenizer, text, rng):
    """Replace some words of a text by blanks of as many tokens; return it and the words."""
    words = list(re.finditer(r"\w+", text))
    if " " not in text:
        spans = sorted(rng.sample(range(1, len(text) - 1), 3))
        chosen = [(i, i + 1) for i in spans if i - 1 not in spans]
        counts = [1] * len(chosen)
    else:
        offsets = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        chosen, counts = [], []
        for word in words:
            # a token may hold the space before the word, or be it
            first = word.start() - (word.start() > 0 and text[word.start() - 1] == " ")
            inside = [(a, b) for a, b in offsets["offset_mapping"] if a < word.end() and b > first]
            whole = all(first <= a and b <= word.end() for a, b in inside)
            if whole and rng.random() < 0.4:
                chosen.append(word.span())
                counts.append(len(inside))
    blanked, end = "", 0
    for (start, stop), count in zip(chosen, counts, strict=True):
        blanked += text[end:start] + f"{{blank:{count}}}"
        end = stop
    return blanked + text[end:], [text[a:b] for a, b in chosen]


@pytest.mark.parametrize("kind", ["wordpiece", "byte-level", "protein", "molecule"])
def test_a_text_with_its_own_words_put_back_is_the_text(kind, monkeypatch):
    """The only difference allowed is what the tokenizer itself does to the words it writes."""
    pipe = pipeline_over(kind)
    tokenizer = pipe.tokenizer
    spoken = str
    if kind == "wordpiece":
        spoken = tokenizer.backend_tokenizer.normalizer.normalize_str
    rng = random.Random(0)
    num_filled = 0
    for text in CHAINS.get(kind, SENTENCES) * 8:
        blanked, expected = blank_out(tokenizer, text, rng)
        if not expected:
            continue
        num_filled += len(expected)
        ids = tokenizer(text)["input_ids"]
        answer_with(pipe, monkeypatch, ids)
        out = pipe(blanked)
        assert [span["text"] for span in out["spans"]] == [spoken(word) for word in expected]
        assert out["token_ids"] == ids
        assert spoken(out["infilled_text"]) == spoken(text)
        typed = re.split(r"\{blank:\d+\}", blanked)
        pattern = ".+?".join(map(re.escape, typed))  # to the letter, capitals and spaces included
        assert re.fullmatch(pattern, out["infilled_text"], re.DOTALL)
    assert num_filled > 20


@pytest.mark.parametrize(
    ("kind", "template", "tokens", "expected"),
    [
        # a token that continues a word is joined to it, and one that begins a word is not
        ("wordpiece", "The play {blank:1} sat", ["##ers"], "The players sat"),
        ("wordpiece", "The play{blank:1} sat", ["##ers"], "The players sat"),
        ("wordpiece", "The play{blank:1} sat", ["cat"], "The play cat sat"),
        ("wordpiece", "the {blank:1}ing", ["play"], "the play ing"),
        ("wordpiece", "  The {blank:2}\n\n  SAT ", ["play", "##ers"], "  The players\n\n  SAT "),
        ("wordpiece", "({blank:1}), {blank:1}!", ["cat", "mat"], "(cat), mat!"),
        ("wordpiece", "{blank:1}{blank:1} {blank:1}", ["the", "cat", "sat"], "the cat sat"),
        ("wordpiece", "Qx\u4e9c {blank:1}", ["cat"], "Qx\u4e9c cat"),  # an unknown word stays
        ("wordpiece", "[MASK] [MASK]", ["play", "##ers"], "players"),
        ("byte-level", "The <mask> sat", ["\u0120cat"], "The cat sat"),
        ("byte-level", "The<mask> sat", ["\u0120cat"], "The cat sat"),
        ("byte-level", "The play <mask> sat", ["ers"], "The players sat"),
        ("byte-level", "(<mask>)\tSAT", ["as"], "(as)\tSAT"),
        (
            "byte-level",
            "na{blank:2}ve",
            ["\u00c3", "\u00af"],
            "na\u00efve",
        ),  # one letter, two bytes
        ("byte-level", "The <mask>cat", ["\u0120"], "The cat"),  # a token that is a space
        ("byte-level", "The{blank:2}", ["\u0120", "mat"], "The mat"),
        ("byte-level", "The{blank:1}{blank:1}", ["\u0120", "mat"], "The mat"),
        ("unigram", "The <mask>, sat", ["\u2581cat"], "The cat, sat"),
        ("unigram", "The play <mask>, sat", ["ers"], "The players, sat"),
        ("protein", "MK<mask>{blank:2}LL", ["A", "Y", "W"], "MKAYWLL"),
        ("protein", "{blank:3}", ["A", "Y", "W"], "AYW"),
        ("molecule", "CC(=O){blank:4}", ["(", "Cl", ")", "N"], "CC(=O)(Cl)N"),
        ("molecule", "{blank:3}#N", ["C", "(", "Br"], "C(Br#N"),
        ("protein", "M K {blank:2} L", ["A", "Y"], "M K A Y L"),
    ],
)
def test_a_filled_token_is_written_as_it_joins_on(kind, template, tokens, expected, monkeypatch):
    pipe = pipeline_over(kind)
    ids = pipe.tokenizer.convert_tokens_to_ids(tokens)
    assert pipe.tokenizer.unk_token_id not in ids

    def generate(input_ids, **options):
        filled = input_ids.clone()
        filled[filled == pipe.tokenizer.mask_token_id] = torch.tensor(ids)
        return MaskGitGenerationOutput(
            sequences=filled, reveal_log_probabilities=torch.zeros(filled.shape)
        )

    monkeypatch.setattr(pipe.model, "generate", generate)
    assert pipe(template, max_unknown_share=1)["infilled_text"] == expected


@pytest.mark.parametrize("token", ["ers", "\u0120cat"])
def test_a_typed_space_that_is_a_token_of_its_own_parts_words(token, monkeypatch):
    """Where the mask leaves the space before it alone, what follows begins a word either way."""
    tokenizer = byte_level_tokenizer(takes_space=False)
    pipe = pipeline("infilling", model=model_for(tokenizer), tokenizer=tokenizer)
    ids = tokenizer("The play <mask> sat")["input_ids"]
    hole = ids.index(tokenizer.mask_token_id)
    assert tokenizer.convert_ids_to_tokens(ids[hole - 1]) == "\u0120"
    ids[hole] = tokenizer.convert_tokens_to_ids(token)
    answer_with(pipe, monkeypatch, ids)
    word = token.removeprefix("\u0120")
    assert pipe("The play {blank:1} sat")["infilled_text"] == f"The play {word} sat"


def text_with(pipe, *holes):
    """A text the tokenizer knows, with these holes in it."""
    known = ["the ", " sat ", " cat ", " on"]
    if isinstance(pipe.tokenizer, EsmTokenizer):
        known = ["MK", "TA", "YI", "AK"]
    elif pipe.tokenizer.convert_tokens_to_ids("Cl") != pipe.tokenizer.unk_token_id:
        known = ["C(Cl)", "N", "=", "O"]
    return known[0] + "".join(a + b for a, b in zip(holes, known[1:], strict=False))


def test_every_hole_is_filled_and_nothing_else_changes(fill):
    mask = fill.tokenizer.mask_token
    text = text_with(fill, mask, "{blank:3}", mask + mask)
    out = fill(text, seed=0)
    assert set(out) == {"infilled_text", "token_ids", "spans"}
    assert [len(span["token_ids"]) for span in out["spans"]] == [1, 3, 2]
    frame = [fill.tokenizer.mask_token_id]
    masked = fill.tokenizer(text.replace("{blank:3}", mask * 3))["input_ids"]
    assert len(out["token_ids"]) == len(masked)
    assert not set(frame) & set(out["token_ids"])
    filled = {}
    for span in out["spans"]:
        assert set(span) == {"text", "token_ids", "start"}
        stop = span["start"] + len(span["token_ids"])
        assert out["token_ids"][span["start"] : stop] == span["token_ids"]
        filled.update(zip(range(span["start"], stop), span["token_ids"], strict=True))
    assert [filled.get(i, known) for i, known in enumerate(masked)] == out["token_ids"]
    assert [i for i, token in enumerate(masked) if token == frame[0]] == sorted(filled)


def test_masks_with_a_token_between_them_are_two_spans():
    """Where the mask leaves the space before it alone, the space is a token of its own."""
    for takes_space, lengths in ((True, [3]), (False, [1, 1, 1])):
        tokenizer = byte_level_tokenizer(takes_space)
        pipe = pipeline("infilling", model=model_for(tokenizer), tokenizer=tokenizer)
        out = pipe("The<mask> <mask> <mask>", seed=0)
        assert [len(span["token_ids"]) for span in out["spans"]] == lengths
        known = len(tokenizer("The")["input_ids"])
        assert len(out["token_ids"]) == known + 3 + (0 if takes_space else 2)


def test_the_tokens_are_those_of_generate(fill):
    mask = fill.tokenizer.mask_token
    text = text_with(fill, "{blank:2}", mask)
    inputs = fill.tokenizer(text.replace("{blank:2}", mask * 2), return_tensors="pt")
    options = {"seed": [5], "temperature": 0.7, "order": "random", "steps": 2}
    ids = fill.model.generate(**inputs, **options)
    assert fill(text, **{**options, "seed": 5})["token_ids"] == ids[0].tolist()


@pytest.mark.wide
def test_a_text_comes_out_the_same_alone_and_in_any_batch(words):
    texts = ["w1 {blank} w2", "{blank:1-6} w3 w4 w5 w6", "[MASK]", "w7 {blank} {blank} w8"]
    alone = [words(text, seed=3) for text in texts]
    for batch_size in (1, 3, 4):
        together = words(texts, seed=3, batch_size=batch_size)
        # To rounding: a batch adds padding, which float32 sums in another order.
        assert [o["infilled_text"] for o in together] == [o["infilled_text"] for o in alone]
        assert together == alone
    assert words(texts, seed=4) != alone
    assert words([]) == []
    assert list(words(text for text in texts[:2])) != []


def test_without_a_seed_torchs_global_generator_decides(words):
    torch.manual_seed(7)
    first = words("w1 {blank:1-9} w2")
    second = words("w1 {blank:1-9} w2")
    torch.manual_seed(7)
    assert words("w1 {blank:1-9} w2") == first != second


def test_a_generator_decides_over_lengths_and_tokens(words):
    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        return words("w1 {blank:1-9} w2 {blank:1-9}", generator=generator)

    assert run(0) == run(0) != run(1)


@pytest.mark.parametrize(
    ("blank", "options", "allowed"),
    [
        ("{blank}", {}, range(1, 5)),
        ("{blank}", {"blank_lengths": (2, 3)}, range(2, 4)),
        ("{blank}", {"blank_lengths": [5, 5]}, range(5, 6)),
        ("{blank:2-5}", {"blank_lengths": (9, 9)}, range(2, 6)),
        ("{blank:3}", {"blank_lengths": (9, 9)}, range(3, 4)),
    ],
)
def test_lengths_are_drawn_evenly_from_their_range(words, blank, options, allowed):
    """Chi-squared over 4 x 60 draws; other seeds would fail at most once in 10,000 times."""
    counts = dict.fromkeys(allowed, 0)
    for seed in range(60):
        text = f"w1 {blank} {blank} {blank} {blank}"
        template = words.preprocess(text, seed=seed, **options)["drafts"][0][0].template
        lengths = [stop - start for start, stop in template.spans]
        assert len(lengths) == 4
        for length in lengths:
            counts[length] += 1
    expected = 240 / len(allowed)
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 21.1  # 3 degrees, 1e-4
    assert len(words(f"w1 {blank}", seed=0, **options)["spans"][0]["token_ids"]) in allowed


def test_each_of_several_texts_decides_on_lengths_of_its_own(words):
    out = words("w1 {blank:2-6} w2", num_return_sequences=4, seed=1)
    assert len(out) == 4
    assert len({o["infilled_text"] for o in out}) > 1
    assert len({len(o["token_ids"]) for o in out}) > 1
    assert out[0] == words("w1 {blank:2-6} w2", seed=1)
    batch = words(["w1 {blank:2-6} w2", "[MASK]"], num_return_sequences=4, seed=1, batch_size=2)
    assert batch[0] == out
    assert [len(o) for o in batch] == [4, 4]


@pytest.mark.wide
@pytest.mark.parametrize("length", ["uniform", "sampled", "likeliest"])
def test_lengths_are_the_same_alone_and_in_any_batch(length):
    """In float64, where padding does not show in the last digit of a bound."""
    model = tiny_model("bert", lengths={"5": 3, "6": 1, "9": 4, "12": 2}).double()
    pipe = pipeline("infilling", model=model, tokenizer=tokenizer_for("bert"))
    texts = ["w1 {blank} w2", "{blank:2-4} w3 w4 {blank:1-2}", "[MASK] {blank:2} w1"]
    options = {"length": length, "num_return_sequences": 2, "seed": 5, "length_samples": 4}
    alone = [pipe(text, **options) for text in texts]
    for batch_size in (2, 3):
        assert pipe(texts, batch_size=batch_size, **options) == alone
    if length == "sampled":
        # of the third text nothing is drawn, its length is not of the histogram
        assert {len(o["token_ids"]) - 2 for out in alone[:2] for o in out} <= {5, 6, 9, 12}
    if length == "likeliest":  # draws nothing then
        greedy = {"length": length, "do_sample": False, "length_samples": 4}
        assert pipe(texts[0], **greedy) == pipe(texts[0], **greedy)


def test_a_blank_without_a_number_may_be_as_long_as_the_texts_of_training():
    model = tiny_model("bert", lengths={"2": 1, "30": 1, "55": 1})
    pipe = pipeline("infilling", model=model, tokenizer=tokenizer_for("bert"))
    drafts = pipe.preprocess(
        "w1 {blank}", length="sampled", seed=1, options={"num_return_sequences": 60}
    )
    assert {of_copy[0].length for of_copy in drafts["drafts"]} == {2, 30, 55}
    named = pipe.preprocess("w1 {blank}", length="sampled", seed=1, blank_lengths=(1, 40))
    assert named["drafts"][0][0].length in (2, 30)


@pytest.mark.wide
def test_the_likeliest_text_is_kept_and_of_equals_the_shortest(words, monkeypatch):
    """The bounds are made up: what is compared, and with what, is all there is to see."""
    text = "w1 {blank:1-4} w2"

    def kept(bounds):
        monkeypatch.setattr(pipeline_drafts, "text_bounds", lambda *given: torch.tensor(bounds))
        return len(words(text, length="likeliest", seed=0)["spans"][0]["token_ids"])

    assert kept([9.0, 7.5, 8.0, 7.6]) == 2
    assert kept([9.0, 7.5, 7.5, 7.5]) == 2
    # 4, 5 and 6 tokens were seen 9, 0 and 19 times: ln 10, ln 1 and ln 20 go off
    monkeypatch.setattr(words.model.config, "lengths", {"4": 9, "6": 19})
    assert kept([20.0, 10.0, 8.0, 7.4]) == 4
    assert kept([20.0, 9.7, 7.3, 10.4]) == 3
    assert kept([20.0, 9.0, 7.3, 10.4]) == 2
    assert words.model.config.lengths is not None


@pytest.mark.slow
def test_the_likeliest_length_is_the_one_that_the_text_announces(tmp_path):
    """Texts of a word that says how many follow, so many of another, and a last one."""
    texts = [" ".join([f"w{10 + n}", *["w1"] * n, "w30"]) for n in (1, 2, 3, 4, 5)] * 20
    model = trained_on(tmp_path, texts, max_length=10, max_steps=400)
    assert model.config.lengths == {str(n + 2): 20 for n in (1, 2, 3, 4, 5)}
    pipe = pipeline("infilling", model=model, tokenizer=tokenizer_for("bert"))
    for number in (1, 2, 3, 4, 5):
        text = f"w{10 + number} {{blank:1-5}} w30"
        found = pipe(text, length="likeliest", num_return_sequences=3, seed=number)
        expected = " ".join([f"w{10 + number}", *["w1"] * number, "w30"])
        assert [one["infilled_text"] for one in found] == [expected] * 3
    # of the others either says nothing: evenly, and by what training saw, which is even, too
    drawn = pipe("w13 {blank} w30", length="sampled", num_return_sequences=200, seed=0)
    assert {len(one["spans"][0]["token_ids"]) for one in drawn} == {1, 2, 3, 4, 5}


def test_options_may_be_set_once(words):
    pipe = pipeline(
        "infilling",
        model=words.model,
        tokenizer=words.tokenizer,
        seed=2,
        temperature=0.5,
        steps=3,
        blank_lengths=(3, 3),
    )
    text = "w1 {blank} w2"
    options = {"seed": 2, "temperature": 0.5, "steps": 3, "blank_lengths": (3, 3)}
    assert pipe(text) == words(text, **options)
    assert pipe(text, steps=1) == words(text, **{**options, "steps": 1})
    config = MaskGitGenerationConfig(do_sample=False, max_new_tokens=9)
    greedy = words("w1 {blank:3}", generation_config=config)
    assert greedy == words("w1 {blank:3}", do_sample=False)


@pytest.mark.parametrize(
    "text",
    ["{blanket} [MASK]", "{} [MASK]", "{ blank} [MASK]", "{a: {b}} [MASK]", "{Blank} [MASK] }"],
)
def test_other_braces_are_text(words, text):
    out = words(text, max_unknown_share=1)  # text of which this tokenizer knows nothing
    assert len(out["spans"]) == 1
    assert out["infilled_text"].startswith(text.split("[MASK]")[0])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{blank:0}", r"'\{blank:0\}' has no length; .* at least 1 token"),
        ("w1 {blank:5-2}", "the smaller number comes first"),
        ("w1 {blank:9999999}", r"9999999.* is longer than any text; .* fewer than 1,000,000 tok"),
        ("w1 {blank:1-9999999}", "is longer than any text"),
        ("w1 {blank:-2}", r"'\{blank:-2\}' is no blank; write \{blank\}, \{blank:3\}"),
        ("w1 {blank:two}", "is no blank"),
        ("w1 {blank 2}", "is no blank"),
        ("w1 {blank:}", "is no blank"),
        ("w1 {blank:1-}", "is no blank"),
        ("w1 {blank", "is no blank"),
        ("w1 {blank{blank}", "is no blank"),
        ("w1 w2", r"nothing to fill in 'w1 w2'\. Write \[MASK\] .* or \{blank\}"),
        ("", "nothing to fill"),
        ("w1 {cdr:2-3}", r"of tokens\. \{cdr:2-3\} is a field where `patterns` is given, if only"),
        ("w1 {blank:70}", "comes to 73 tokens with its blanks, the encoder takes 64. Shorten"),
        (5, "fills a text .* got 5 of type int"),
        (None, "fills a text .* got None of type NoneType"),
        (["w1 [MASK]", 5], "got 5 of type int"),
        ([{"role": "user", "content": "[MASK]"}], "fills a text .* of type Chat"),
    ],
)
def test_what_cannot_be_filled_is_said(words, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        words(text)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"blank_lengths": (0, 3)}, r"two integers, .* at least 1 .*; got \(0, 3\)"),
        ({"blank_lengths": (1, 10**6)}, "the greatest below 1,000,000; got"),
        ({"blank_lengths": (3, 2)}, r"got \(3, 2\)"),
        ({"blank_lengths": (1, 2, 3)}, r"got \(1, 2, 3\)"),
        ({"blank_lengths": (1.0, 2)}, "two integers"),
        ({"blank_lengths": 3}, "two integers, .* got 3"),
        ({"seed": [1, 2]}, r"`seed` must be one int for all texts, got \[1, 2\]"),
        ({"seed": True}, "must be one int"),
        ({"max_new_tokens": 3}, r"appends nothing, .* Put \{blank:8\} at the end"),
        ({"num_tokens": "window"}, r"has no `num_tokens`. Put \{blank:8\} at the end"),
        ({"num_beams": 2}, "no option 'num_beams'"),
        ({"tokenizer_kwargs": {"truncation": True, "max_length": 3}}, "reads 1. .* shorten it"),
        ({"length": "longest"}, "Unknown length 'longest'; choose from 'uniform', 'sampled', 'lik"),
        ({"length_samples": 5}, "`length_samples` must be even .maskings come in pairs., got 5"),
        ({"length_samples": 2}, "`length_samples` must be an integer of at least 4, got 2"),
        ({"num_return_sequences": 10**9}, "makes 1,000,000,000 texts of 1 rows; .* 100,000 at m"),
        ({"seed": 1, "generator": torch.Generator()}, "`seed` or `generator`, not both"),
    ],
)
def test_a_wrong_option_is_said(words, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        words("[MASK] w1 [MASK]", **options)


@pytest.mark.parametrize(
    ("lengths", "text", "length", "sentence"),
    [
        (None, "w1 {blank:1-3}", "sampled", "no `lengths`: .* Use length='uniform'"),
        ({"9": 1}, "w1 {blank:1-3}", "sampled", "has from 2 to 4 tokens, .* longest had 9. Give"),
        ({"2": 1}, "w1 w2 {blank}", "sampled", "has from 3 to 3 tokens, .* longest had 2. Give"),
        (None, "{blank:1-12} w1 {blank:1-11}", "likeliest", "here are 132; 128 at most are comp"),
    ],
)
def test_lengths_that_cannot_be_found_are_refused(lengths, text, length, sentence):
    model = tiny_model("bert", lengths=lengths)
    pipe = pipeline("infilling", model=model, tokenizer=tokenizer_for("bert"))
    with pytest.raises(ValueError, match=sentence):
        pipe(text, length=length, seed=0)


def test_a_plain_encoder_is_refused():
    encoder = BertForMaskedLM(bert_config())
    with pytest.raises(ValueError, match=r"got one of type 'bert'\. Make one with .*from_encoder"):
        pipeline("infilling", model=encoder, tokenizer=tokenizer_for("bert"))


def test_a_wrong_tokenizer_is_refused():
    with pytest.raises(ValueError, match="mask token has the id 32, the model's 4"):
        pipeline("infilling", model=tiny_model("bert"), tokenizer=tokenizer_for("esm"))
    with pytest.raises(ValueError, match="needs the model's tokenizer"):
        InfillingPipeline(tiny_model("bert"))


def test_token_types_go_along(words, monkeypatch):
    seen = {}
    generate = type(words.model).generate

    def spy(self, **options):
        seen.update(options)
        return generate(self, **options)

    monkeypatch.setattr(type(words.model), "generate", spy)
    words(["w1 [MASK]", "[MASK]"], batch_size=2)
    assert seen["token_type_ids"].shape == seen["input_ids"].shape == (2, 4)
    assert seen["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def law_at(model, ids, place):
    """Probabilities of the tokens that may stand there, by the model's own forward pass."""
    logits = model(input_ids=torch.tensor([ids])).logits[0, place]
    never = {
        *model.config.forbidden_token_ids,
        model.config.unk_token_id,
        model.config.eos_token_id,
    }
    logits[sorted(never)] = -torch.inf
    return logits.softmax(-1)


def test_probabilities_are_those_of_the_moment_of_reveal(words):
    """Neither temperature nor filters count, and what is revealed later is still masked."""
    text = "w1 {blank:3} w2 [MASK] w3"
    options = {"order": "left_to_right", "steps": 4, "temperature": 3.0, "top_k": 20, "seed": 1}
    out = words(text, return_probabilities=True, **options)
    mask = words.tokenizer.mask_token_id
    ids = words.tokenizer(text.replace("{blank:3}", "[MASK]" * 3))["input_ids"]
    places = [i for i, token in enumerate(ids) if token == mask]
    expected = []
    for place in places:
        expected.append(law_at(words.model, ids, place)[out["token_ids"][place]].item())
        ids[place] = out["token_ids"][place]
    got = [p for span in out["spans"] for p in span["probabilities"]]
    assert [len(span["probabilities"]) for span in out["spans"]] == [3, 1]
    assert got == pytest.approx(expected, rel=1e-4)
    assert all(type(p) is float for p in got)
    plain = words(text, **options)
    assert all(set(span) == {"text", "token_ids", "start"} for span in plain["spans"])
    batch = words([text, "[MASK]"], return_probabilities=True, batch_size=2, **options)
    assert [p for span in batch[0]["spans"] for p in span["probabilities"]] == pytest.approx(got)


def test_a_streamer_shows_the_text_as_it_is_filled(words):
    class Notes:
        def __init__(self):
            self.put_ids, self.drafts, self.ended = [], 0, False

        def put(self, value):
            self.put_ids += value.tolist()

        def put_draft(self, value):
            self.drafts += 1

        def end(self):
            self.ended = True

    notes = Notes()
    out = words("w1 {blank:4} w2", streamer=notes, steps=4, seed=0)
    assert notes.put_ids == out["token_ids"]
    assert notes.drafts > 0
    assert notes.ended
    with pytest.raises(ValueError, match="A streamer shows one text, and 2 are asked for"):
        words(["w1 [MASK]", "[MASK]"], batch_size=2, streamer=Notes())


def test_a_blank_is_known_from_other_braces():
    blanks = ["{blank}", "a {blank:3} b", "{blank:2-5}", "{blank:x}", "{blank", "{blank-3}"]
    assert all(map(holds_blank, blanks))
    assert not any(map(holds_blank, ["", "blank", "{blanket}", "{ blank }", "{Blank}", "{a}"]))
