"""What may be asked of `generate`: whose option counts, which processors work, what is refused."""

import json
import re
import warnings

import pytest
import torch
from transformers import (
    BertConfig,
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    ForcedBOSTokenLogitsProcessor,
    GenerationConfig,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    MinLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from hf_maskgit import MaskGitConfig, MaskGitForMaskedLM, MaskGitGenerationConfig
from hf_maskgit.core.generation_config_maskgit import DEFAULTS
from tests.support.tiny import TableModel, tiny_config, tiny_model, word_tokenizer

PAD, UNK, CLS, SEP, MASK = range(5)
WORDS = range(5, 40)
ORDERS = ["top_probability", "confidence", "random"]


@pytest.fixture
def table():
    return TableModel(tiny_config())


def ids(*rows):
    return torch.tensor(rows)


TEXT = ids([CLS, *[MASK] * 20, SEP])


# --- whose option counts -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [GenerationConfig, MaskGitGenerationConfig])
def test_call_goes_before_config_before_model_before_default(table, kind):
    def passes(**options):
        table.calls.clear()
        table.generate(TEXT, **options)
        return len(table.calls)

    own = kind(steps=5)
    table.generation_config.steps = 7
    assert passes(steps=3, generation_config=own) == 3
    assert passes(generation_config=own) == 5
    assert passes(generation_config=kind(temperature=0.5)) == 7
    assert passes() == 7
    assert passes(steps=None) == 7
    table.generation_config.steps = None
    assert passes() == 18


def test_the_models_own_schedule_is_the_default():
    table = TableModel(tiny_config(schedule="cosine"))
    assert table.generation_config.schedule == "cosine"
    table.generate(TEXT, steps=3)
    assert [int((c.input_ids == MASK).sum()) for c in table.calls] == [20, 17, 10]
    table.calls.clear()
    table.generate(TEXT, steps=3, schedule="linear")
    assert [int((c.input_ids == MASK).sum()) for c in table.calls] == [20, 13, 6]


def test_a_plain_generation_config_is_understood(table):
    plain = GenerationConfig(do_sample=False, max_new_tokens=3)
    greedy = table.generate(ids([CLS, 5]), do_sample=False, max_new_tokens=3)
    assert torch.equal(table.generate(ids([CLS, 5]), generation_config=plain), greedy)
    sampled = GenerationConfig(do_sample=True, top_k=1, temperature=0.7, num_return_sequences=2)
    out = table.generate(TEXT, generation_config=sampled, choice_temperature=0)
    assert out.shape == (2, 22)
    assert torch.equal(out[0], out[1])


def test_a_plain_generation_config_with_left_to_right_options_is_refused(table):
    with pytest.raises(ValueError, match="Masked decoding has no option 'num_beams'"):
        table.generate(TEXT, generation_config=GenerationConfig(num_beams=2))


def test_fresh_options_of_a_model():
    options = tiny_model().generation_config
    assert type(options) is MaskGitGenerationConfig
    assert options.max_new_tokens == 32, "half of the 64 positions"
    assert (options.pad_token_id, options.bos_token_id, options.eos_token_id) == (PAD, CLS, SEP)
    assert options.do_sample is True
    assert options.temperature == 1.0


def test_a_long_encoder_starts_with_64_new_tokens():
    config = MaskGitConfig(text_config=BertConfig())
    assert MaskGitGenerationConfig.from_model_config(config).max_new_tokens == 64


def test_options_round_trip_through_json(tmp_path):
    options = MaskGitGenerationConfig(
        steps=7, order="random", top_p=0.9, eos_token_id=[3, 4], anneal_temperature=False
    )
    options.save_pretrained(tmp_path)
    loaded = MaskGitGenerationConfig.from_pretrained(tmp_path)
    assert loaded.to_diff_dict() == options.to_diff_dict()
    assert loaded.steps == 7
    assert loaded.eos_token_id == [3, 4]
    assert loaded.top_k is None


EVERY_OPTION = {
    "max_new_tokens": 7,
    "num_tokens": "fixed",
    "schedule": "cosine",
    "can_mask_prev_unmasked": False,
    "top_k": 20,
    "top_p": 0.9,
    "repetition_penalty": 1.2,
    "suppress_tokens": [5, 6],
    "bad_words_ids": [[7], [8]],
    "guidance_scale": 1.5,
    "p2_planner": "self",
    "stop_strings": ["w1", "w2"],
    "max_unknown_share": 0.75,
    "num_return_sequences": 2,
    "return_dict_in_generate": True,
    "output_history": True,
    "output_alternatives": 3,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": [3],
    "steps": 9,
    "order": "confidence",
    "pace": "schedule",
    "remask": "p2",
    "block_length": 3,
    "do_sample": True,
    "temperature": 0.7,
    "anneal_temperature": False,
    "choice_temperature": 1.5,
    "noise_level_scale": 2.0,
    "confidence_threshold": 0.8,
    "threshold_factor": None,
    "entropy_budget": 0.2,
    "draft_length": 5,
    "remdm_eta": 0.1,
    "remdm_t_on": 0.6,
    "remdm_t_off": 0.1,
    "remdm_alpha_on": 0.8,
    "p2_eta": 2.0,
    "use_cache": True,
    "cache_refresh": "adaptive",
    "cache_refresh_interval": 5,
    "cache_drift": 0.2,
}


@pytest.mark.wide
def test_every_option_round_trips_through_a_checkpoint(tmp_path):
    """And means after loading what it meant before."""
    assert list(EVERY_OPTION) == list(DEFAULTS)
    model = tiny_model()
    model.generation_config = MaskGitGenerationConfig(**EVERY_OPTION)
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "generation_config.json").read_text())
    for name, value in EVERY_OPTION.items():
        assert stored.get(name) == value, name
    loaded = MaskGitForMaskedLM.from_pretrained(tmp_path)
    assert loaded.generation_config.to_dict() == model.generation_config.to_dict()
    tokenizer, prompt = word_tokenizer(), ids([CLS, 5, SEP])
    before, after = (m.generate(prompt, seed=0, tokenizer=tokenizer) for m in (model, loaded))
    assert before.sequences.shape == (2, 10)
    assert torch.equal(before.sequences, after.sequences)
    assert torch.equal(before.history, after.history)


def test_a_threshold_factor_round_trips_too(tmp_path):
    options = MaskGitGenerationConfig(pace="threshold", threshold_factor=0.5)
    options.save_pretrained(tmp_path)
    loaded = MaskGitGenerationConfig.from_pretrained(tmp_path)
    assert loaded.threshold_factor == 0.5
    assert loaded.confidence_threshold is None


@pytest.mark.wide
def test_generating_warns_of_nothing(table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table.generate(TEXT, seed=0)
        tiny_model().generate(TEXT, seed=0)


# --- filters and processors ----------------------------------------------------------------------


def test_suppressed_tokens_are_never_emitted(table):
    allowed = {5, 6, 7}
    banned = [i for i in WORDS if i not in allowed]
    for order in ORDERS:
        out = table.generate(TEXT, suppress_tokens=banned, order=order, anneal_temperature=False)
        assert set(out[0, 1:-1].tolist()) <= allowed


def test_top_k_of_one_is_greedy(table):
    greedy = table.generate(TEXT, do_sample=False)
    in_its_order = {"choice_temperature": 0, "anneal_temperature": False}
    assert torch.equal(table.generate(TEXT, top_k=1, seed=3, **in_its_order), greedy)


@pytest.mark.parametrize(
    ("options", "kept"),
    [({"top_k": 3}, 3), ({"top_p": 0.9}, None), ({"top_p": 1.0}, 36), ({}, 36)],
)
def test_filters_keep_the_likeliest(table, options, kept):
    """500 draws of one place stay inside the set and, where it is small, cover it.

    The set is found by sorting; a likely token that is never drawn has odds below 1e-6.
    """
    everywhere = torch.ones(1, 1, dtype=torch.bool)
    logits = table(ids([MASK]), torch.ones(1, 1), everywhere).logits[0]
    logits[[PAD, UNK, CLS, MASK]] = -torch.inf
    law = logits.softmax(-1)
    ranked = law.argsort(descending=True).tolist()
    if kept is None:
        kept = 1 + int((law[ranked].cumsum(0) < 0.9).sum())
        assert 1 < kept < 36
    out = table.generate(
        ids([MASK]), num_return_sequences=500, anneal_temperature=False, seed=0, **options
    )
    drawn = set(out[:, 0].tolist())
    assert drawn <= set(ranked[:kept])
    weights = law[ranked[:kept]] / law[ranked[:kept]].sum()
    certain = [t for t, w in zip(ranked[:kept], weights, strict=True) if (1 - w) ** 500 < 1e-6]
    assert len(certain) > 1
    assert drawn >= set(certain)


def test_temperature_concentrates(table):
    def distinct(temperature):
        out = table.generate(
            ids([MASK]),
            num_return_sequences=300,
            anneal_temperature=False,
            seed=0,
            temperature=temperature,
        )
        return len(out.unique())

    assert distinct(0.01) == 1 < distinct(1.0) < distinct(10.0)


PARALLEL = [
    EpsilonLogitsWarper(1e-3),
    EtaLogitsWarper(1e-3, device="cpu"),
    InfNanRemoveLogitsProcessor(),
    LogitNormalization(),
    MinPLogitsWarper(0.1),
    RepetitionPenaltyLogitsProcessor(1.5),
    SuppressTokensLogitsProcessor([7]),
    TemperatureLogitsWarper(0.7),
    TopHLogitsWarper(0.5),
    TopKLogitsWarper(3),
    TopPLogitsWarper(0.8),
    TypicalLogitsWarper(0.8),
]


@pytest.mark.grid(3)
@pytest.mark.parametrize("processor", PARALLEL, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("order", ORDERS)
def test_processors_of_transformers_that_work_in_parallel(table, processor, order):
    rows = ids([CLS, 5, *[MASK] * 6, SEP], [MASK, 6, *[MASK] * 6, SEP])
    for do_sample in {True, order == "random"}:
        out = table.generate(
            rows, logits_processor=[processor], order=order, seed=0, do_sample=do_sample
        )
        assert set(out[rows == MASK].tolist()) <= set(WORDS)


class Favourite:
    """Gives every position the same scores, whatever was impossible before."""

    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores):
        scores = torch.zeros_like(scores)
        scores[:, self.token] = 50
        return scores


@pytest.mark.parametrize("token", [MASK, PAD, CLS, SEP])
@pytest.mark.parametrize("order", ORDERS)
def test_no_processor_brings_back_what_may_not_stand_there(table, order, token):
    out = table.generate(
        ids([CLS, MASK, 7, MASK, SEP]), order=order, logits_processor=[Favourite(token)], seed=0
    )
    assert {int(out[0, 1]), int(out[0, 3])} <= set(WORDS)


@pytest.mark.parametrize(
    "processor",
    [
        NoRepeatNGramLogitsProcessor(2),
        MinLengthLogitsProcessor(3, SEP),
        ForcedBOSTokenLogitsProcessor(CLS),
        NoBadWordsLogitsProcessor([[5, 6]], eos_token_id=SEP),
    ],
    ids=lambda p: type(p).__name__,
)
def test_processors_that_read_history_are_refused(table, processor):
    with pytest.raises(ValueError, match=rf"{type(processor).__name__} reads the tokens in the o"):
        table.generate(TEXT, logits_processor=[processor])
    assert table.calls == []


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("score", [-torch.inf, torch.nan])
def test_a_processor_that_leaves_nothing(table, order, score):
    with pytest.raises(ValueError, match="`logits_processor` leaves nothing to emit at a position"):
        table.generate(TEXT, order=order, logits_processor=[lambda ids, s: s + score])


# --- what is refused, before any pass ------------------------------------------------------------


WRONG_OPTIONS = [
    ({"order": "alphabetical"}, "Unknown order 'alphabetical'; choose from 'top_probability'"),
    ({"pace": "slow"}, "Unknown pace 'slow'; choose from 'schedule'"),
    ({"schedule": "sine"}, "Unknown schedule 'sine'; choose from 'linear', 'cosine'"),
    ({"steps": 0}, "`steps` must be an integer of at least 1, got 0"),
    ({"steps": 2.5}, "`steps` must be an integer of at least 1, got 2.5"),
    ({"steps": True}, "`steps` must be an integer of at least 1, got True"),
    ({"max_new_tokens": -1}, "`max_new_tokens` must be an integer of at least 0, got -1"),
    ({"num_return_sequences": 0}, "`num_return_sequences` must be an integer of at least 1"),
    ({"top_k": -1}, "`top_k` must be an integer of at least 0, got -1"),
    ({"temperature": 0}, "`temperature` must be greater than 0, got 0; for the likeliest"),
    ({"temperature": float("nan")}, "`temperature` must be greater than 0, got nan"),
    ({"top_p": 0.0}, r"`top_p` must lie in \(0, 1\], got 0.0"),
    ({"top_p": 1.5}, r"`top_p` must lie in \(0, 1\], got 1.5"),
    ({"choice_temperature": -1.0}, "`choice_temperature` must be at least 0, got -1.0"),
    ({"do_sample": False, "order": "random"}, "nothing at random, which order='random' needs"),
    ({"do_sample": False, "choice_temperature": 1.0}, "at random, which choice_temperature=1.0 ne"),
    ({"do_sample": False, "num_return_sequences": 2}, "which num_return_sequences=2 needs; set"),
    ({"remask": "always"}, "Unknown remask 'always'; choose from 'never', 'confidence', 'critic'"),
    ({"p2_planner": "judge"}, "Unknown p2_planner 'judge'; choose from 'self', 'critic'"),
    ({"block_length": 0}, "`block_length` must be an integer of at least 1, got 0"),
    ({"use_cache": "yes"}, "`use_cache` must be True or False, got 'yes'"),
    ({"cache_refresh": "never"}, "Unknown cache_refresh 'never'; choose from 'interval', 'adaptiv"),
    ({"cache_refresh_interval": 0}, "`cache_refresh_interval` must be an integer of at least 1, g"),
    ({"cache_drift": 1.5}, r"`cache_drift` must lie in \[0, 1\], got 1.5"),
    ({"noise_level_scale": -1}, "`noise_level_scale` must be at least 0, got -1"),
    ({"repetition_penalty": 0}, "`repetition_penalty` must be greater than 0, got 0"),
    ({"guidance_scale": -0.5}, "`guidance_scale` must be at least 0, got -0.5"),
    ({"guidance_scale": float("inf") * 0}, "`guidance_scale` must be at least 0, got nan"),
    ({"confidence_threshold": 1.1}, r"`confidence_threshold` must lie in \[0, 1\], got 1.1"),
    ({"confidence_threshold": -0.1}, r"`confidence_threshold` must lie in \[0, 1\], got -0.1"),
    ({"threshold_factor": 0}, "`threshold_factor` must be greater than 0, got 0"),
    ({"entropy_budget": -1}, "`entropy_budget` must be at least 0, got -1"),
    ({"remdm_eta": 2}, r"`remdm_eta` must lie in \[0, 1\], got 2"),
    ({"remdm_t_on": 0.0}, r"`remdm_t_on` must lie in \(0, 1\], got 0.0"),
    ({"remdm_t_off": 1.0}, r"`remdm_t_off` must lie in \[0, 1\), got 1.0"),
    ({"remdm_t_on": 0.3, "remdm_t_off": 0.3}, "`remdm_t_off` must be less than .*, got 0.3 and"),
    ({"remdm_t_off": 0.6}, "`remdm_t_off` must be less than `remdm_t_on`, got 0.6 and 0.55"),
    ({"remdm_alpha_on": 1.0}, r"`remdm_alpha_on` must lie in \(0, 1\), got 1.0"),
    ({"remdm_alpha_on": 0.0}, r"`remdm_alpha_on` must lie in \(0, 1\), got 0.0"),
    ({"p2_eta": 0.0}, "`p2_eta` must be greater than 0, got 0.0"),
    ({"can_mask_prev_unmasked": 1}, "`can_mask_prev_unmasked` must be True or False, got 1"),
    ({"do_sample": "no"}, "`do_sample` must be True or False, got 'no'"),
    ({"anneal_temperature": 0}, "`anneal_temperature` must be True or False, got 0"),
    ({"output_alternatives": -1}, "`output_alternatives` must be an integer of at least 0, got -1"),
    ({"output_history": "yes"}, "`output_history` must be True or False, got 'yes'"),
    ({"suppress_tokens": [5, "w1"]}, r"must be a list of token ids, got \[5, 'w1'\]"),
    ({"bad_words_ids": [5]}, r"`bad_words_ids` must be a list of lists of token ids, got \[5\]"),
    ({"bad_words_ids": [[5, 6]]}, r"`bad_words_ids` holds \[5, 6\]; parallel decoding can keep o"),
    ({"bad_words_ids": [[5], []]}, r"`bad_words_ids` holds \[\]; parallel decoding can keep out"),
    ({"stop_strings": ""}, "`stop_strings` must be a string or a list of strings, none empty, got"),
    ({"stop_strings": ["a", ""]}, "`stop_strings` must be a string or a list of strings, none emp"),
    (
        {"stop_strings": 3},
        "`stop_strings` must be a string or a list of strings, none empty, got 3",
    ),
    (
        {"confidence_threshold": 0.5, "threshold_factor": 1.0},
        "`confidence_threshold` and `threshold_factor` are two rules for the same pace; set one",
    ),
    ({"do_sample": False, "pace": "ancestral"}, "at random, which pace='ancestral' needs; set do"),
    ({"do_sample": False, "pace": "first_hitting"}, "which pace='first_hitting' needs; set do_sa"),
    ({"do_sample": False, "remask": "remdm_cap"}, "which remask='remdm_cap' needs; set do_sample"),
    (
        {"choice_temperature": 1.0, "order": "random"},
        "is noise on the scores of an order, and order='random' with pace=None leaves it nothing",
    ),
    (
        {"choice_temperature": 1.0, "order": "left_to_right"},
        "order='left_to_right' with pace=None leaves it nothing to change; set it to 0, or the or",
    ),
    (
        {"choice_temperature": 1.0, "pace": "threshold"},
        "order=None with pace='threshold' leaves it nothing to change; set it to 0",
    ),
    ({"num_beams": 4}, "Masked decoding has no option 'num_beams'; its options are max_new_tok"),
    ({"max_length": 9}, "no option 'max_length'.* Instead of `max_length` give `max_new_tokens`"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS, ids=lambda v: str(v)[:40])
def test_wrong_options(table, options, message):
    with pytest.raises(ValueError, match=message):
        MaskGitGenerationConfig(**options)
    with pytest.raises(ValueError, match=message):
        table.generate(TEXT, **options)
    assert table.calls == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"can_mask_prev_unmasked": True, "remask": "never"},
            "can_mask_prev_unmasked=True means remask='confidence' here, got remask='never'; leave",
        ),
        (
            {"can_mask_prev_unmasked": True, "remask": "confidence", "order": "critic"},
            "can_mask_prev_unmasked=True means remask='critic' here, got remask='confidence'",
        ),
        (
            {"can_mask_prev_unmasked": True, "pace": "threshold"},
            "remask='confidence' goes with pace 'schedule', got pace='threshold'; leave `pace` uns",
        ),
        ({"can_mask_prev_unmasked": True, "order": "random"}, "goes with order 'top_probability'"),
        (
            {"remask": "p2", "order": "critic"},
            "remask='p2' and p2_planner='self' goes with order 'top_probability', 'confidence'",
        ),
        (
            {"remask": "p2", "p2_planner": "critic", "order": "confidence"},
            "and p2_planner='critic' goes with order 'critic', got order='confidence'",
        ),
        (
            {"block_length": 3, "steps": 6},
            "20 masks make 7 blocks of block_length=3, and each needs a step of its own, got st",
        ),
        ({"block_length": 5, "remask": "remdm_loop"}, "plans its time over the whole text; leave"),
        ({"output_alternatives": 2}, "`output_alternatives` is a part of what return_dict_in_gen"),
        ({"output_history": True}, "is a part of what return_dict_in_generate=True returns; set b"),
        ({"bad_words_ids": [[40]]}, "names the id 40; the vocabulary has 0 to 39"),
    ],
)
def test_choices_that_do_not_go_together(table, options, message):
    with pytest.raises(ValueError, match=message):
        table.generate(TEXT, **options)
    assert table.calls == []


def test_enough_steps_for_the_blocks_will_do(table):
    table.generate(TEXT, block_length=3, steps=7)
    assert len(table.calls) == 7


def test_paces_without_steps_ask_for_no_step_per_block(table):
    out = table.generate(
        TEXT, block_length=1, steps=1, pace="first_hitting", return_dict_in_generate=True
    )
    assert out.denoiser_passes.tolist() == [20]


RULES = {"confidence_threshold": 0.0, "threshold_factor": 1e-9}  # all at once; one by one


@pytest.mark.parametrize("rule", RULES)
def test_of_two_rules_for_a_threshold_the_more_specific_counts(table, rule):
    def passes(**options):
        table.calls.clear()
        table.generate(TEXT, pace="threshold", **options)
        return len(table.calls)

    (other,) = set(RULES) - {rule}
    setattr(table.generation_config, other, RULES[other])
    expected = {"confidence_threshold": 1, "threshold_factor": 20}
    assert passes() == expected[other]
    assert passes(**{rule: RULES[rule]}) == expected[rule]
    own = MaskGitGenerationConfig(**{rule: RULES[rule]})
    assert passes(generation_config=own) == expected[rule]
    assert passes(generation_config=own, **{other: RULES[other]}) == expected[other]


def test_an_unknown_preset():
    with pytest.raises(ValueError, match="Unknown preset 'gpt'; choose from"):
        MaskGitGenerationConfig.preset("gpt")


@pytest.mark.parametrize(
    "stored",
    [
        {"choice_temperature": 2.0},
        {"order": "random"},
        {"order": "random", "pace": "ancestral", "remask": "remdm_cap"},
        {"order": "confidence", "choice_temperature": 1.0, "num_return_sequences": 2},
    ],
    ids=str,
)
def test_greedy_decoding_in_a_call_silences_what_is_stored_and_draws(table, stored):
    order = stored["order"] if stored.get("order") == "confidence" else None
    expected = table.generate(TEXT, do_sample=False, order=order)
    for name, value in stored.items():
        setattr(table.generation_config, name, value)
    assert torch.equal(table.generate(TEXT, do_sample=False), expected)
    config = MaskGitGenerationConfig(do_sample=False)
    assert torch.equal(table.generate(TEXT, generation_config=config), expected)


def test_a_drawing_choice_in_a_call_silences_stored_greed(table):
    expected = table.generate(TEXT, order="random", seed=1)
    table.generation_config.do_sample = False
    assert torch.equal(table.generate(TEXT, order="random", seed=1), expected)
    texts = table.generate(TEXT, num_return_sequences=2, seed=1)
    assert not torch.equal(texts[0], texts[1])


def test_options_that_clash_within_a_call(table):
    with pytest.raises(ValueError, match="do_sample=False draws nothing at random"):
        table.generate(TEXT, do_sample=False, order="random")


def test_a_preset_by_name_is_its_config_and_its_whole_law(table):
    """Whatever is stored: temperature, filters, guidance, blocks; only steps it leaves open."""
    expected = table.generate(TEXT, generation_config=MaskGitGenerationConfig.preset("p2"), seed=2)
    stored = {"temperature": 0.3, "top_k": 2, "top_p": 0.4, "repetition_penalty": 3.0}
    for name, value in {**stored, "guidance_scale": 2.0, "block_length": 4}.items():
        setattr(table.generation_config, name, value)
    assert torch.equal(table.generate(TEXT, preset="p2", seed=2), expected)
    assert not torch.equal(table.generate(TEXT, preset="p2", temperature=9.0, seed=2), expected)
    given = table.generation_config  # as a pipeline passes it
    again = table.generate(TEXT, preset="p2", generation_config=given, seed=2)
    assert torch.equal(again, expected)


def test_a_config_that_is_none(table):
    with pytest.raises(
        TypeError, match="must be a GenerationConfig, got str; for a sampler by its"
    ):
        table.generate(TEXT, generation_config="llada")


def test_a_single_processor_or_criterion_without_brackets(table):
    with pytest.raises(TypeError, match="`logits_processor` must be a list of processors, got fu"):
        table.generate(TEXT, logits_processor=lambda ids, scores: scores)
    with pytest.raises(TypeError, match="`stopping_criteria` must be a list, got function"):
        table.generate(TEXT, stopping_criteria=lambda ids, scores: True)


@pytest.mark.parametrize("seed", [1.5, "7", None.__class__])
def test_a_seed_that_is_no_integer(table, seed):
    with pytest.raises(ValueError, match="`seed` must be an integer, or one per row"):
        table.generate(TEXT, seed=seed)


@pytest.mark.wide
def test_a_seed_may_come_as_a_tensor(table):
    assert torch.equal(table.generate(TEXT, seed=torch.tensor(7)), table.generate(TEXT, seed=7))
    assert torch.equal(table.generate(TEXT, seed=torch.tensor([7])), table.generate(TEXT, seed=[7]))


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("temprature", "Did you mean `temperature`?"),
        ("max_length", "Instead of `max_length` give `max_new_tokens`."),
        ("num_beams", "take the best of `num_return_sequences`"),
    ],
)
def test_an_unknown_option_is_told_what_to_write(table, option, hint):
    with pytest.raises(ValueError, match=re.escape(hint)):
        table.generate(TEXT, **{option: 3})


def test_an_attribute_that_is_no_option_is_told_what_to_write(table):
    options = MaskGitGenerationConfig(temperature=0.5)
    options.temprature = 0.7
    with pytest.raises(ValueError, match="no option 'temprature'; .* Did you mean `temperature`"):
        table.generate(TEXT, generation_config=options)


def test_an_option_that_nothing_reads_is_told_so(table, caplog):
    table.generate(TEXT, remdm_eta=0.31)
    (warning,) = [r.getMessage() for r in caplog.records if "remdm_eta" in r.getMessage()]
    assert warning.startswith("`remdm_eta` has no effect with remask='never'; it belongs to remask")


GREEDY = {"do_sample": False}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pace": "threshold", "schedule": "cosine"}, "`schedule` has no effect with pace='thresh"),
        ({"cache_drift": 0.2}, "`cache_drift` has no effect with cache_refresh='interval'"),
        ({"cache_refresh_interval": 3}, "`cache_refresh_interval` has no effect without an attent"),
        ({"cache_refresh": "adaptive", "block_length": 2, "use_cache": False}, "`cache_refresh` h"),
        ({**GREEDY, "temperature": 0.5}, "`temperature` has no effect with do_sample=False, which"),
        ({**GREEDY, "top_k": 3}, "`top_k` has no effect with do_sample=False"),
        ({**GREEDY, "top_p": 0.5}, "`top_p` has no effect with do_sample=False"),
    ],
    ids=lambda value: next(reversed(value)) if isinstance(value, dict) else "",
)
def test_whatever_a_call_names_and_nothing_reads_is_told(table, caplog, options, told):
    table.generate(TEXT, **options)
    (warning,) = [r.getMessage() for r in caplog.records if "no effect" in r.getMessage()]
    assert warning.startswith(told)


@pytest.mark.parametrize(
    "options",
    [
        {"pace": "ancestral", "schedule": "cosine"},
        {"cache_refresh_interval": 3, "block_length": 2},
        {**GREEDY, "temperature": 1.0, "top_k": 0, "top_p": 1},
        {**GREEDY, "preset": "llada", "generation_config": MaskGitGenerationConfig(top_k=3)},
        {"temperature": 0.5, "top_k": 3},
    ],
    ids=str,
)
def test_what_is_read_or_asks_for_nothing_is_not_told(table, caplog, options):
    table.generate(TEXT, **options)
    assert "no effect" not in caplog.text


def test_a_model_in_training_mode_is_told_so(caplog):
    model = tiny_model().train()
    model.generate(TEXT, seed=0)
    assert "The model is in training mode" in caplog.text


def test_filled_and_continued_texts_in_one_batch(table):
    """What becomes of a row must not depend on the rows beside it."""
    rows = ids([CLS, 5, 6, SEP], [CLS, MASK, 7, SEP])
    with pytest.raises(ValueError, match="Row 0 of the batch holds no mask and other rows do. Na"):
        table.generate(rows)
    assert table.generate(rows, max_new_tokens=0, seed=1).shape == (2, 4)
    assert table.generate(rows, max_new_tokens=2, seed=1).shape == (2, 6)


def test_a_function_is_no_stored_schedule():
    with pytest.raises(ValueError, match="Unknown schedule <function"):
        MaskGitGenerationConfig(schedule=lambda t: t)


@pytest.mark.parametrize("token", [-1, 40])
def test_suppressing_an_id_that_does_not_exist(table, token):
    with pytest.raises(ValueError, match=rf"names the id {token}; the vocabulary has 0 to 39"):
        table.generate(TEXT, suppress_tokens=[token])


def test_suppressing_everything(table):
    with pytest.raises(ValueError, match="Every token of the vocabulary is suppressed; leave at"):
        table.generate(TEXT, suppress_tokens=list(range(40)))


def test_suppressing_everything_but_the_end(table):
    """Nothing would be left for a mask inside a text."""
    with pytest.raises(ValueError, match="suppressed"):
        table.generate(TEXT, suppress_tokens=list(WORDS))


@pytest.mark.parametrize("end", [40, -1, [SEP, 99]])
def test_an_end_of_text_that_does_not_exist(table, end):
    with pytest.raises(ValueError, match="eos_token_id"):
        table.generate(TEXT, eos_token_id=end)


@pytest.mark.parametrize(
    "end", [(SEP,), torch.tensor(SEP), torch.tensor([SEP]), "[SEP]", 3.0, True, [[SEP]], ["3"]]
)
def test_an_end_of_text_of_a_wrong_type(table, end):
    with pytest.raises(ValueError, match="`eos_token_id` must be a token id or a list of token id"):
        table.generate(TEXT, eos_token_id=end)
    assert table.calls == []


@pytest.mark.parametrize("name", ["pad_token_id", "bos_token_id"])
@pytest.mark.parametrize("value", [[0], torch.tensor(0), "0", False])
def test_other_ids_of_a_wrong_type(table, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be a token id, got"):
        table.generate(TEXT, **{name: value})


@pytest.mark.parametrize("value", [-1, 40, 999])
def test_padding_that_does_not_exist(table, value):
    with pytest.raises(ValueError, match=f"`pad_token_id` names the id {value}; the vocabulary"):
        table.generate(TEXT, pad_token_id=value)


# --- what the model knows is never erased --------------------------------------------------------


class Ends:
    """Makes the end of text the likeliest token wherever it has any probability."""

    def __call__(self, input_ids, scores):
        return scores.masked_fill(torch.arange(scores.shape[1]) == SEP, 50.0)


SOURCES = {
    "an empty file": {"stored": {}},
    "a length": {"stored": {"max_new_tokens": 6}},
    "a preset": {"stored": {"order": "confidence", "pace": "schedule", "do_sample": False}},
    "another end, stored": {"stored": {"eos_token_id": 9}},
    "another end": {"eos_token_id": 9},
    "no end": {"eos_token_id": []},
    "a config of a call": {"generation_config": MaskGitGenerationConfig(steps=6)},
    "a preset of a call": {"preset": "llada"},
}


@pytest.mark.parametrize("options", SOURCES.values(), ids=SOURCES)
def test_the_models_end_is_an_end_under_all_options(table, options):
    options = dict(options)
    if "stored" in options:
        table.generation_config = MaskGitGenerationConfig(**options.pop("stored"))
    options["logits_processor"] = [Ends()]
    filled = table.generate(ids([CLS, 5, MASK, MASK, 6, SEP]), seed=1, **options)
    assert SEP not in filled[0, 2:4], "a hole is filled with words"
    continued = table.generate(ids([CLS, 5, SEP]), max_new_tokens=4, seed=1, **options)
    assert continued.tolist() == [[CLS, 5, SEP, SEP, PAD, PAD, PAD]]


def test_an_end_that_is_named_ends_a_text_too(table):
    def both(input_ids, scores):
        return scores.masked_fill(torch.arange(scores.shape[1]) == 9, 60.0)

    out = table.generate(ids([CLS, 5]), max_new_tokens=3, eos_token_id=9, logits_processor=[both])
    assert out.tolist() == [[CLS, 5, 9, PAD, PAD]]
    hole = ids([CLS, MASK, 6])
    assert 9 not in table.generate(hole, eos_token_id=[9], logits_processor=[both])


def test_to_write_on_and_on_the_end_is_suppressed(table):
    out = table.generate(
        ids([CLS, 5]), max_new_tokens=8, suppress_tokens=[SEP], logits_processor=[Ends()]
    )
    assert SEP not in out


def test_a_length_that_is_not_stored_follows_from_the_positions(table):
    table.generation_config = MaskGitGenerationConfig(steps=3)
    assert table.generate(ids([CLS, 5]), suppress_tokens=[SEP]).shape == (1, 2 + 32)


def test_a_schedule_that_is_not_stored_is_the_models_own():
    table = TableModel(tiny_config(schedule="cosine"))
    table.generation_config = MaskGitGenerationConfig(steps=3)
    table.generate(TEXT)
    assert [int((c.input_ids == MASK).sum()) for c in table.calls] == [20, 17, 10]


def test_plain_options_stored_with_a_model_are_checked_as_those_of_a_call(table):
    table.generation_config = GenerationConfig(max_new_tokens=2)
    out = table.generate(ids([CLS, 5]), suppress_tokens=[SEP])
    assert out.shape == (1, 4)
    table.generation_config = GenerationConfig(num_beams=3)
    with pytest.raises(ValueError, match="Masked decoding has no option 'num_beams'"):
        table.generate(ids([CLS, 5]))


def test_no_padding_id_to_write_behind_an_end():
    table = TableModel(tiny_config(pad_token_id=None))
    with pytest.raises(ValueError, match="`pad_token_id` is not set, which fills a row behind"):
        table.generate(ids([CLS, 5]), max_new_tokens=2)
    assert table.calls == []
    assert table.generate(TEXT).shape == TEXT.shape, "no row can end here"


def test_neither_padding_nor_end_is_needed():
    config = tiny_config()
    config.pad_token_id = config.eos_token_id = config.text_config.pad_token_id = None
    out = TableModel(config).generate(TEXT)
    assert MASK not in out


def test_no_mask_token():
    config = MaskGitConfig(text_config=tiny_config().text_config)
    with pytest.raises(ValueError, match="no `mask_token_id`, so nothing can be filled; set mod"):
        TableModel(config).generate(TEXT)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.tensor([5, 6]), r"of shape \(batch, length\), got dtype torch.int64 and shape \(2,"),
        (torch.ones(1, 2), "must be integers of shape .*, got dtype torch.float32"),
        (ids([5, 40]), "run from 5 to 40; the vocabulary has 0 to 39. Is this the model's own"),
        (ids([-100, 5]), "run from -100 to 5; the vocabulary has 0 to 39"),
        (ids([5, PAD]), "hold the padding id 0 and no `attention_mask` says which"),
        (torch.zeros(0, 3, dtype=torch.long), "hold no token: 0 rows of length 3"),
        (torch.zeros(0, 0, dtype=torch.long), "hold no token: 0 rows of length 0"),
    ],
)
def test_wrong_input_ids(table, wrong, message):
    with pytest.raises(ValueError, match=message):
        table.generate(wrong)
    assert table.calls == []


def test_integers_of_32_bits_will_do(table):
    out = table.generate(TEXT.int(), seed=0)
    assert out.tolist() == table.generate(TEXT, seed=0).tolist()


@pytest.mark.parametrize(
    ("companions", "message"),
    [
        ({"attention_mask": ids([1])}, r"`attention_mask` must have the shape of .* \(1, 3\), go"),
        ({"attention_mask": ids([2, 1, 1])}, r"must hold 0 \(padding\) and 1 \(real tokens\) onl"),
        (
            {"attention_mask": ids([0, 0, 0])},
            "Row 0 of `input_ids` is all padding; give it at leas",
        ),
        ({"token_type_ids": ids([0])}, r"`token_type_ids` must have the shape of `input_ids`, \("),
    ],
)
def test_wrong_companions_of_the_input(table, companions, message):
    with pytest.raises(ValueError, match=message):
        table.generate(ids([5, MASK, 6]), **companions)
    assert table.calls == []


def test_a_boolean_attention_mask_is_one_too(table):
    rows, real = ids([5, MASK, PAD]), ids([1, 1, 0])
    out = table.generate(rows, real, seed=1)
    assert torch.equal(table.generate(rows, real.bool(), seed=1), out)


def test_seed_and_generator(table):
    with pytest.raises(ValueError, match="Give `seed` or `generator`, not both"):
        table.generate(TEXT, seed=1, generator=torch.Generator())


@pytest.mark.parametrize("seeds", [[], [1, 2, 3]])
def test_a_wrong_number_of_seeds(table, seeds):
    text = TEXT.repeat(2, 1)
    with pytest.raises(ValueError, match=rf"has {len(seeds)} entries for 2 rows and 4 returned"):
        table.generate(text, seed=seeds, num_return_sequences=2)


def test_too_long_for_the_encoder(table):
    with pytest.raises(ValueError, match=r"comes to 72 tokens \(50 of them new\), the encoder tak"):
        table.generate(TEXT, max_new_tokens=50)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (lambda t: 1 - t, "runs from 1 to 0; a schedule must rise"),
        (3, "A schedule is a name or a function, got int"),
    ],
)
def test_a_function_that_is_no_schedule(table, schedule, message):
    with pytest.raises(ValueError, match=message):
        table.generate(TEXT, schedule=schedule)
    assert table.calls == []


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"temperature": "hot"}, "`temperature` must be a number, got 'hot'"),
        ({"top_p": "most"}, "`top_p` must be a number, got 'most'"),
        ({"suppress_tokens": 5}, "`suppress_tokens` must be a list of token ids, got 5"),
    ],
)
def test_options_of_another_type(table, option, sentence):
    with pytest.raises(ValueError, match=sentence):
        table.generate(TEXT, **option)


# --- a sampler is one thing ----------------------------------------------------------------------


STORED = {"order": "margin", "choice_temperature": 2.0, "steps": 7}


@pytest.mark.parametrize(
    "asked",
    [
        {"pace": "first_hitting"},
        {"remask": "remdm_cap"},
        {"order": "random"},
        {"can_mask_prev_unmasked": True},
        {"generation_config": MaskGitGenerationConfig.preset("fast_dllm")},
    ],
    ids=lambda asked: next(iter(asked)),
)
def test_who_names_a_sampler_gets_nothing_of_the_models_own(table, asked):
    """The stored order and choice noise would be refused beside these; the stored steps hold."""
    expected = table.generate(TEXT, seed=1, **{"steps": 7, **asked})
    for name, value in STORED.items():
        setattr(table.generation_config, name, value)
    assert torch.equal(table.generate(TEXT, seed=1, **asked), expected)


def test_who_names_none_gets_the_models_own(table):
    expected = table.generate(TEXT, seed=1, **STORED)
    without_noise = table.generate(TEXT, seed=1, order="margin", steps=7, choice_temperature=0)
    for name, value in STORED.items():
        setattr(table.generation_config, name, value)
    assert torch.equal(table.generate(TEXT, seed=1), expected)
    assert torch.equal(table.generate(TEXT, seed=1, choice_temperature=0.0), without_noise)
    assert not torch.equal(expected, without_noise)
