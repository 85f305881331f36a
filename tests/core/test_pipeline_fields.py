"""Fields: blanks with names and patterns, filled jointly, and how sure the model is of them."""

import functools
import itertools
import json
import math
import re

import pytest
import torch
from transformers import pipeline as any_pipeline

from hf_maskgit import Pattern
from hf_maskgit.core.pipeline_fields import by_mass, joined, log_masses
from hf_maskgit.core.token_pattern import TokenPattern
from tests.support.grids import wide
from tests.support.tiny import tiny_model, tokenizer_for
from tests.support.tiny_tokenizers import TOKENIZERS, byte_level_tokenizer, model_for

pipeline = functools.partial(any_pipeline, device="cpu")
TIME = "[0-9]{2}:[0-9]{2}"


@pytest.fixture(scope="module")
def words():
    return pipeline("infilling", model=tiny_model("bert"), tokenizer=tokenizer_for("bert"))


@pytest.fixture(scope="module")
def bytes_pipe():
    tokenizer = byte_level_tokenizer()
    torch.manual_seed(0)
    return pipeline("infilling", model=model_for(tokenizer), tokenizer=tokenizer)


@pytest.mark.parametrize("seeds", [range(1), wide(range(1, 4))], ids=str)
def test_fields_are_filled_jointly_and_stand_in_the_text_as_typed(bytes_pipe, seeds):
    template = "The {who:1-3} sat at {time}, then at {again:1-6}{blank:1}!"
    patterns = {"time": TIME, "who": ["cat", "players"], "again": "[a-z]{3}"}
    patterns["time"] = Pattern.from_regex(TIME, bytes_pipe.tokenizer)
    for seed in seeds:
        out = bytes_pipe(template, patterns=patterns, seed=seed, return_probabilities=True)
        fields = {name: field["value"] for name, field in out["fields"].items()}
        assert list(fields) == ["who", "time", "again"]
        assert fields["who"] in patterns["who"]
        assert re.fullmatch(TIME, fields["time"])
        assert re.fullmatch("[a-z]{3}", fields["again"])
        start = "The {who} sat at {time}, then at {again}".format(**fields)
        assert out["text"] == out["infilled_text"]
        assert out["text"].startswith(start)
        for field, span in zip(out["fields"].values(), out["spans"][:3], strict=True):
            assert field["value"] == span["text"]
            assert field["probability"] == pytest.approx(math.prod(span["probabilities"]))


# What is typed around a field decides nothing about the spaces in it.
TYPED = {
    "wordpiece": ["the cat {x} on", "{x}", "cat{x}sat", "the cat, {x}."],
    "byte-level": ["the cat {x} on", "{x}", "10:{x}45"],
    "unigram": ["the cat {x} on", "{x}", "cat{x}sat", " {x} "],
    "protein": ["M K T {x} A Y", "MKT{x}AY", "{x}", "M K{x}", "{x} A"],
    "molecule": ["C C ( {x} ) O", "CC({x})O", "{x}", "C=O {x} C", "C1 C{x} 1"],
}
WRITTEN = {
    "wordpiece": ["[a-z]+( (cat|mat|the))?", "[a-z]{2}[a-z ]{1,4}[a-z]"],
    "byte-level": ["[A-Za-z]+( [a-z]{2}| 10:45)?", "[a-z] ?[a-z]"],
    "unigram": ["[a-z]+( (ball|the|[a-z]))?", "[a-z] ?[a-z]"],
    "protein": ["[ACDEF]{4}", "A+[LIVM]{2}", "A-x(1,3)-[ST]"],
    "molecule": ["(C|Cl|N)+O", r"[CN]{2}(\(Cl\))?C"],
}


@pytest.mark.parametrize("kind", [kind if kind == "byte-level" else wide(kind) for kind in TYPED])
def test_a_value_matches_its_pattern_whatever_is_typed_around_it(kind, tmp_path):
    """Its spaces too, also of a pattern that was saved; of decoded spaces between residues none."""
    tokenizer = TOKENIZERS[kind]()
    pipe = pipeline("infilling", model=model_for(tokenizer), tokenizer=tokenizer)
    for regex in WRITTEN[kind]:
        make = Pattern.from_prosite if "-x" in regex else Pattern.from_regex
        pattern = make(regex, tokenizer)
        regex = regex.replace("-x(1,3)-", ".{1,3}")
        assert pattern.spaced == (kind not in ("protein", "molecule"))
        pattern.save(tmp_path / "pattern.json")
        read = Pattern.load(tmp_path / "pattern.json")
        for text in TYPED[kind]:
            options = {"seed": 1, "steps": 2}
            template = text.replace("{x}", "{x:4-6}")
            out = pipe(template, patterns={"x": read}, **options)
            value = out["fields"]["x"]["value"]
            assert re.fullmatch(regex, value), (text, value)
            assert out["text"] == text.replace("{x}", value)
            assert out["fields"] == pipe(template, patterns={"x": pattern}, **options)["fields"]


@pytest.mark.wide
def test_a_field_is_the_same_alone_and_in_a_batch_and_as_its_seed_says(words):
    texts = ["w1 {x} w2 {y:1-3}", "{y} {x}", "w3 w4 w5 {x}, {y:2} w1"]
    options = {"patterns": {"x": ["w1 w2", "w3", "w4 w5 w6"]}, "seed": 3, "num_return_sequences": 2}
    together = words(texts, batch_size=3, **options)
    values = {}
    for text, batched in zip(texts, together, strict=True):
        for one, other in zip(words(text, **options), batched, strict=True):
            assert one["token_ids"] == other["token_ids"]
            probability = other["fields"]["x"]["probability"]
            assert one["fields"]["x"]["probability"] == pytest.approx(probability, rel=1e-4)
    values = {words(texts[0], patterns={"x": "w[0-9]"}, seed=s)["text"] for s in range(8)}
    assert len(values) > 1


def test_without_patterns_other_braces_are_text_and_with_them_none_is(words):
    assert words("w1 {blank:1}{x:2}", seed=0)["infilled_text"].endswith("{x:2}")
    assert list(words("w1 {x:2} {blank}", patterns={}, seed=0)["fields"]) == ["x"]


def test_one_pass_gives_a_field_its_share_of_the_law(words):
    """In one pass with one token, its probability is the model's among what the pattern takes."""
    model, tokenizer = words.model, words.tokenizer
    allowed = ["w1", "w5", "w9"]
    ids = tokenizer("w2 [MASK] w3", return_tensors="pt")
    place = ids["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    with torch.no_grad():
        logits = model(**ids).logits[0, place].double()
    share = torch.softmax(logits[tokenizer.convert_tokens_to_ids(allowed)], 0)
    expected = dict(zip(allowed, share.tolist(), strict=True))
    for seed in range(4):
        out = words("w2 {x} w3", patterns={"x": allowed}, steps=1, seed=seed)["fields"]["x"]
        assert out["probability"] == pytest.approx(expected[out["value"]], rel=1e-4)


def random_pattern(seed):
    generator = torch.Generator().manual_seed(seed)
    picks = [[i for i in range(4) if torch.rand((), generator=generator) < 0.6] for _ in range(3)]
    elements = [(ids or [seed % 4], n, n + 1) for n, ids in zip((1, 0, 1), picks, strict=True)]
    return TokenPattern.from_token_classes(elements, 4)


@pytest.mark.parametrize("seed", [0, *map(wide, range(1, 5))])
def test_joined_patterns_are_all_texts_of_the_one_and_then_of_the_other(seed):
    first, second = random_pattern(seed), random_pattern(seed + 10)
    for one, two in [(2, 3), (3, 2), (4, 2)]:
        possible = first.lengths(one)[one] and second.lengths(two)[two]
        parts = [(first.automaton, one), (None, 1), (second.automaton, two)]
        if not possible:
            continue
        whole = TokenPattern(joined(parts, 5))
        for text in itertools.product(range(4), repeat=one + two):
            row = [*text[:one], 4, *text[one:]]
            expected = first.matches(text[:one]) and second.matches(text[one:])
            assert whole.matches(row) == expected
        assert (whole.shortest, whole.longest) == (one + 1 + two,) * 2


def test_a_joint_automaton_too_large_is_refused(monkeypatch):
    monkeypatch.setattr("hf_maskgit.core.pipeline_fields.MOST_STATES", 2048)
    anything = TokenPattern.from_token_classes([([0], 0, 60), ([1], 0, 60)], 2).automaton
    with pytest.raises(ValueError, match="automaton of more than 2,048 states"):
        joined([(anything, 60), (None, 1), (anything, 60)], 2)


def enumerated(pipe, drafts, texts, scale=1.0, allowed=None):
    """The product law of `generate`'s first pass, summed over the texts that match, in nats.

    It writes no unknown token, and no end before known tokens; with guidance it is u + w (c - u).
    """
    config, found = pipe.model.config, []
    never = {*config.unwritten_token_ids, *config.end_token_ids}
    never |= set(range(40)) - set(range(40) if allowed is None else allowed)
    for draft, possible in zip(drafts, texts, strict=True):
        ids = torch.tensor([draft.columns["input_ids"]])
        (start, stop) = draft.template.spans[0]
        bare = ids.clone()
        bare[:, 1:-1] = config.mask_token_id
        with torch.no_grad():
            given, other = (
                pipe.model(each).logits[0].double().log_softmax(-1) for each in (ids, bare)
            )
        logits = other + scale * (given - other)
        logits[:, sorted(never)] = -torch.inf
        logs = logits.log_softmax(-1)[start:stop]
        read = [pipe.tokenizer(text, add_special_tokens=False)["input_ids"] for text in possible]
        mass = sum(math.exp(sum(float(logs[i, t]) for i, t in enumerate(ids))) for ids in read)
        found.append(math.log(mass) if mass else -math.inf)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"guidance_scale": 2.0},
        {"allowed_token_ids": list(range(6, 30))},
        {"suppress_tokens": [20, 21]},
        wide({"block_length": 1}),
    ],
    ids=lambda options: next(iter(options), "default"),
)
@pytest.mark.parametrize("self_cond", [False, wide(True)])
def test_the_mass_of_a_length_is_that_of_all_its_texts(options, self_cond):
    """Against enumeration: what the first pass of these very options writes, and none else."""
    tokenizer = tokenizer_for("bert")
    model = tiny_model("bert", self_cond=self_cond)
    with torch.no_grad():  # it would write the unknown token and the end, if it were let
        model.get_output_embeddings().bias[[tokenizer.unk_token_id, tokenizer.sep_token_id]] += 4
        if self_cond:  # and sees what it looks back on
            model.self_conditioning.weight.normal_(0, 3)
    pipe = pipeline("infilling", model=model, tokenizer=tokenizer)
    pattern = Pattern.from_choices(["w1 w2", "w3", "w4 w5"], tokenizer)
    item = pipe.preprocess("w7 {x} w8", patterns={"x": pattern}, seed=0)
    drafts = item["drafts"][0]
    assert item["by_mass"]
    assert [d.template.spans for d in drafts] == [((2, 3),), ((2, 4),)]
    allowed = options.get("allowed_token_ids")
    allowed = allowed or set(range(40)) - set(options.get("suppress_tokens", []))
    texts = [["w3"], ["w1 w2", "w4 w5"]]
    expected = enumerated(pipe, drafts, texts, options.get("guidance_scale", 1.0), allowed)
    resolved = model.resolve_options(
        None, None, {k: v for k, v in options.items() if "_token_ids" not in k}
    )
    given = drafts, model, tokenizer, resolved
    found = log_masses(*given, options.get("allowed_token_ids")).tolist()
    assert found == pytest.approx(expected, abs=1e-4)


def test_lengths_come_as_often_as_their_masses(words):
    """400 draws; a false alarm in one of 10^7."""
    pattern = Pattern.from_choices(["w1 w2", "w3", "w4 w5"], words.tokenizer)
    drafts = words.preprocess("w7 {x} w8", patterns={"x": pattern}, seed=0)["drafts"][0]
    expected = enumerated(words, drafts, [["w3"], ["w1 w2", "w4 w5"]])
    share = 1 / (1 + math.exp(expected[1] - expected[0]))
    judge = words.model, words.tokenizer
    options = words.model.resolve_options(None, None, {})
    chosen = by_mass([drafts] * 400, *judge, list(range(400)), options)
    found = sum(one[0] is drafts[0] for one in chosen) / 400
    assert abs(found - share) <= 5.3 * math.sqrt(share * (1 - share) / 400)
    likeliest = drafts[expected.index(max(expected))]
    assert by_mass([drafts], *judge, None, options) == [[likeliest]]


@pytest.mark.wide
def test_a_length_whose_texts_a_copy_may_not_hold_is_not_chosen_for_it(words):
    """Column 2 is the first of the blank: w3 alone is one token, the others are two."""
    ids = {word: words.tokenizer.convert_tokens_to_ids(word) for word in ("w1", "w3", "w4")}
    allowed = [{2: [ids["w3"]]}, {2: [ids["w1"], ids["w4"]]}] * 3
    options = {"num_return_sequences": 6, "allowed_token_ids": allowed}
    for seed in range(4):
        out = words("w7 {x} w8", patterns={"x": ["w1 w2", "w3", "w4 w5"]}, seed=seed, **options)
        values = [one["fields"]["x"]["value"] for one in out]
        assert values[::2] == ["w3"] * 3
        assert set(values[1::2]) <= {"w1 w2", "w4 w5"}


@pytest.mark.wide
def test_a_blank_without_a_number_takes_the_lengths_of_its_pattern(bytes_pipe):
    pattern = Pattern.from_regex(TIME, bytes_pipe.tokenizer)
    for options in [{}, {"length": "likeliest", "length_samples": 4}, {"do_sample": False}]:
        out = bytes_pipe("sat at {blank}.", pattern=pattern, seed=1, **options)
        assert re.fullmatch(TIME, out["spans"][0]["text"])
    lengths = {len(bytes_pipe("{blank}", pattern=pattern, seed=s)["token_ids"]) for s in range(8)}
    assert len(lengths) > 1


def test_a_pattern_over_several_blanks_is_that_of_generate(words):
    pattern = Pattern.from_regex("w[1-3] w2 w[4-6]", words.tokenizer)
    out = words("w9 {blank:1} w2 {blank:1}", pattern=pattern, seed=0)
    assert re.fullmatch("w9 w[1-3] w2 w[4-6]", out["infilled_text"])
    rows = words("w9 {blank:3}", pattern=[pattern], seed=0)
    assert re.fullmatch("w9 w[1-3] w2 w[4-6]", rows["infilled_text"])


def test_a_pattern_without_a_name_is_compiled_as_one_with_a_name(words):
    named = words("w9 {x}", patterns={"x": "w[1-3]"}, seed=0)
    assert words("w9 {blank}", pattern="w[1-3]", seed=0)["infilled_text"] == named["text"]
    with pytest.raises(TypeError, match="must be a Pattern, or a list with one or None per row"):
        words("w9 {blank}", pattern=["w1", "w2"], seed=0)  # a list has one for each row


def test_distinct_texts_come_by_how_often_they_were_drawn(words):
    options = {"patterns": {"x": ["w1", "w2", "w3"]}, "seed": 1, "num_return_sequences": 60}
    every = [out["text"] for out in words("w5 {x}", **options)]
    kept = words("w5 {x}", num_distinct=2, **options)
    counts = [out["count"] for out in kept]
    assert [every.count(out["text"]) for out in kept] == counts
    assert counts == sorted((every.count(text) for text in set(every)), reverse=True)[:2]


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        (
            "{x} {x}",
            {"patterns": {"x": ["w1"]}},
            r"two blanks with the name \{x\}",
        ),
        ("{x}", {"patterns": {"y": ["w1"]}}, r"names 'y', and the text has no .* are \{x\}"),
        ("[MASK]", {"patterns": {"y": ["w1"]}}, "named blanks are none"),
        ("{x y}", {"patterns": {}}, r"'\{x y\}' is no blank"),
        ("{x}", {"patterns": ["w1"]}, "`patterns` must be a dict from the name .* got list"),
        ("{x}", {"patterns": {"x": 5}}, r"The pattern of \{x\} must be a Pattern, .* got int"),
        ("{blank}", {"pattern": 5}, "The `pattern` must be a Pattern, .* got int"),
        ("{blank}", {"pattern": {"enum": ["w1"]}}, "The `pattern` is none: .* met by no text"),
        ("{x}", {"patterns": {"x": "w1( w1)*"}}, "takes any number of tokens from 1, .* a range"),
        ("{x:3}", {"patterns": {"x": ["w1"]}}, "takes from 1 to 1 tokens, and its blank has 3"),
        ("{x:2-3}", {"patterns": {"x": "w1|w1( w1){4,}"}}, "from 1 to any number tokens"),
        ("{x:99}", {"patterns": {"x": "w1( w1)*"}}, "has 99 .one at least, and the encoder takes"),
        ("{x}", {"patterns": {"x": ""}}, "takes from 0 to 0 tokens, and its blank has 1 or more"),
        ("{x}", {"patterns": {"x": "[0-9]"}}, r"of \{x\} is none: The pattern is met by no text"),
        ("{x}", {"patterns": {"x": "("}}, r"The pattern of \{x\} is none: The regular expression"),
        ("{x}", {"patterns": {"x": {"enum": {1}}}}, r"of \{x\} is none: `schema` holds somethin"),
        ("{x}", {"patterns": {"x": {"type": "x"}}}, r"of \{x\} is none: At its top the JSON"),
        ("{x}", {"patterns": {"x": ["w1"]}, "length": "uniform"}, "use one of 'likeliest', 'patt"),
        ("{blank}", {"length": "pattern"}, "no blank of this text has one; give `patterns`"),
        ("{blank:1}", {"num_distinct": 3}, "asks for 3 different texts of 1 drawn; draw more"),
        ("{blank:1}", {"num_distinct": 0}, "`num_distinct` must be an integer of at least 1"),
    ],
)
def test_what_makes_no_field_is_refused(words, text, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        words(text, **options)


def test_patterns_of_two_kinds_are_refused(words):
    pattern = Pattern.from_choices(["w1"], words.tokenizer)
    with pytest.raises(ValueError, match="Give `patterns` by name or `pattern`, not both"):
        words("{x}", patterns={"x": pattern}, pattern=pattern)
    with pytest.raises(ValueError, match="Give `patterns` by name or a list as `pattern`, not"):
        words("{x}", patterns={"x": pattern}, pattern=[pattern])


def test_a_pattern_of_another_tokenizer_is_refused(words):
    other = Pattern.from_choices(["cat"], TOKENIZERS["wordpiece"]())
    for options in ({"patterns": {"blank_": other}}, {"pattern": other}):
        with pytest.raises(ValueError, match="compiled for another tokenizer"):
            words("{blank_} {blank:1}", **options)


def test_without_the_package_a_text_cannot_be_compiled_and_a_pattern_is_used(words, monkeypatch):
    pattern = Pattern.from_choices(["w1"], words.tokenizer)

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("hf_maskgit.core.pipeline_fields.importlib.import_module", missing)
    with pytest.raises(ImportError, match=r"\{x\} must be compiled, .*pip install 'hf_maskgit"):
        words("{x}", patterns={"x": "w1"})
    assert words("{x}", patterns={"x": pattern})["fields"]["x"]["value"] == "w1"


@pytest.mark.wide
def test_what_was_compiled_for_a_tokenizer_is_kept(monkeypatch):
    """Compilations are counted: of equal sources one, also over pipelines; the oldest goes."""
    compiled = []

    class Counted(Pattern):
        @classmethod
        def _compiled(cls, language, tokenizer, source):
            compiled.append(source)
            return super()._compiled(language, tokenizer, source)

    monkeypatch.setattr("hf_maskgit.Pattern", Counted)
    monkeypatch.setattr("hf_maskgit.core.pipeline_fields._MOST_COMPILED", 2)
    tokenizer, model = tokenizer_for("bert"), tiny_model("bert")
    first, second = (pipeline("infilling", model=model, tokenizer=tokenizer) for _ in range(2))
    options = {"seed": 0, "steps": 1}
    for pipe in (first, second, first):
        assert pipe("{x}", patterns={"x": "w[12]"}, **options)["fields"]["x"]["value"] in "w1 w2"
        pipe("{x} {y}", patterns={"x": ["w3", "w4"], "y": "w[12]"}, **options)
    assert compiled == ["w[12]", "w3 | w4"]
    first("{x}", patterns={"x": ("w3", "w4")}, **options)
    assert len(compiled) == 2  # a tuple of choices is a list of them
    first("{x}", patterns={"x": "w5"}, **options)
    first("{x}", patterns={"x": ["w3", "w4"]}, **options)
    assert compiled[2:] == ["w5"]
    first("{x}", patterns={"x": "w[12]"}, **options)
    assert compiled[2:] == ["w5", "w[12]"]  # which was the one not used for longest
    for bad in ([1, 2], [{"a"}]):
        with pytest.raises(ValueError, match="must be a list of one or more texts"):
            first("{x}", patterns={"x": bad}, **options)
    tokenizer.add_tokens(["w-new"])  # whose texts are others now
    with pytest.raises(ValueError, match="a vocabulary of 41 tokens, the model's has 40"):
        first("{x}", patterns={"x": "w[12]"}, **options)
    assert compiled[4:] == ["w[12]"]


@pytest.mark.wide
def test_a_schema_is_a_pattern_by_name(bytes_pipe):
    schema = {
        "type": "object",
        "properties": {"at": {"enum": ["10:45", "closed"]}},
        "required": ["at"],
    }
    pattern = Pattern.from_json_schema(schema, bytes_pipe.tokenizer)
    low = pattern.shortest
    out = bytes_pipe(f"It was {{record:{low}-{low + 2}}}", patterns={"record": schema}, seed=0)
    assert json.loads(out["fields"]["record"]["value"])["at"] in ("10:45", "closed")
