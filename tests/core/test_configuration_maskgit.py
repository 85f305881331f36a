"""What a configuration takes, keeps, forbids and refuses."""

import copy
import json
import re

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import AutoConfig, BertConfig, RobertaConfig

from hf_maskgit import InfillingPipeline, MaskGitConfig, MaskGitForMaskedLM
from hf_maskgit.core.argument_checks import describes_generator
from hf_maskgit.core.configuration_maskgit import own_fields
from hf_maskgit.core.masking import Masking
from hf_maskgit.core.options import options_of
from tests.support.drawn_tokenizers import Table
from tests.support.tiny import (
    ENCODERS,
    bert_config,
    tiny_config,
    tiny_encoder,
    word_tokenizer,
)

BOOKKEEPING = {"architectures", "transformers_version", "dtype", "_name_or_path"}


def values_of(config):
    """All options, the encoder's included, without what transformers notes on saving."""
    values = {k: v for k, v in config.to_dict().items() if k not in BOOKKEEPING}
    values["text_config"] = {k: v for k, v in values["text_config"].items() if k not in BOOKKEEPING}
    return values


# --- what it keeps -------------------------------------------------------------------------------


@pytest.mark.grid(3, first=2)
@pytest.mark.parametrize("kind", ENCODERS)
def test_options_round_trip_through_a_folder(tmp_path, kind):
    config = tiny_config(
        kind, schedule="cosine", no_replace_prob=0.0, use_simple_mdlm_loss_weight=False
    )
    config.save_pretrained(tmp_path)
    for loaded in (MaskGitConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is MaskGitConfig
        assert type(loaded.text_config) is type(config.text_config)
        assert values_of(loaded) == values_of(config)


def test_a_loaded_option_can_be_overridden(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    assert MaskGitConfig.from_pretrained(tmp_path, schedule="cosine").schedule == "cosine"
    with pytest.raises(ValueError, match="Unknown schedule 'sine'"):
        MaskGitConfig.from_pretrained(tmp_path, schedule="sine")


def test_the_encoder_may_be_a_dict():
    config = MaskGitConfig(
        text_config={
            "model_type": "roberta",
            "vocab_size": 40,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
        }
    )
    assert type(config.text_config) is RobertaConfig
    assert config.text_config.vocab_size == 40


def test_without_an_encoder_it_is_bert():
    assert type(MaskGitConfig().text_config) is BertConfig


@pytest.mark.parametrize("as_dict", [False, True])
def test_the_callers_encoder_configuration_is_never_edited(as_dict):
    mine = bert_config().to_dict() if as_dict else bert_config()
    before = copy.deepcopy(mine if as_dict else mine.to_dict())
    config = MaskGitConfig(text_config=mine, mask_token_id=4)
    config.tie_word_embeddings = False
    model = MaskGitForMaskedLM(config)
    model.resize_token_embeddings(48, mean_resizing=False)
    assert (mine if as_dict else mine.to_dict()) == before
    assert model.config.text_config.vocab_size == 48


def test_ids_that_are_not_given_are_the_encoders():
    encoder = bert_config(pad_token_id=7, bos_token_id=8, eos_token_id=[9, 10])
    config = MaskGitConfig(text_config=encoder, bos_token_id=3)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (7, 3, 9)
    assert config.mask_token_id is None


def test_tying_belongs_to_the_encoder():
    config = tiny_config()
    assert config.tie_word_embeddings is True
    config.tie_word_embeddings = False
    assert config.text_config.tie_word_embeddings is False
    assert config.tie_word_embeddings is False


def test_the_place_an_encoder_came_from_stays_private(tmp_path):
    tiny_encoder().save_pretrained(tmp_path / "secret")
    word_tokenizer().save_pretrained(tmp_path / "secret")
    model = MaskGitForMaskedLM.from_encoder(str(tmp_path / "secret"))
    model.save_pretrained(tmp_path / "out")
    files = {file.name: file.read_text() for file in (tmp_path / "out").glob("*.json")}
    assert "config.json" in files
    assert not [name for name, text in files.items() if "secret" in text]


# --- what it forbids -----------------------------------------------------------------------------


def test_forbidden_are_all_specials_but_the_end_and_the_unknown():
    config = tiny_config()
    assert config.special_token_ids == [0, 1, 2, 3, 4]
    assert config.forbidden_token_ids == [0, 2, 4]  # not [UNK] = 1, not [SEP] = 3


def test_rows_the_tokenizer_does_not_know_are_forbidden():
    config = tiny_config(text_config=bert_config(vocab_size=44))
    assert config.num_token_ids == 40
    assert config.forbidden_token_ids == [0, 2, 4, 40, 41, 42, 43]


def test_without_a_tokenizer_the_mask_and_the_padding_that_is_named_are_forbidden():
    config = MaskGitConfig(text_config=bert_config(), mask_token_id=4, pad_token_id=7)
    assert config.forbidden_token_ids == [4, 7]
    config = MaskGitConfig(text_config=bert_config(pad_token_id=7), mask_token_id=4)
    assert config.forbidden_token_ids == [4, 7]


def test_what_an_encoders_class_assumes_is_no_fact_of_the_model():
    """BERT's says that 0 is padding, which is the background of a tokenised image."""
    assert bert_config().pad_token_id == 0
    config = MaskGitConfig(text_config=bert_config(), mask_token_id=39)
    assert config.pad_token_id is None
    assert config.forbidden_token_ids == [39]
    roberta = MaskGitConfig(text_config=RobertaConfig(vocab_size=40), mask_token_id=39)
    assert (roberta.pad_token_id, roberta.bos_token_id, roberta.eos_token_id) == (None, None, None)


def test_an_id_that_is_set_to_none_stays_none(tmp_path):
    encoder = bert_config(pad_token_id=7, bos_token_id=8, eos_token_id=9)
    config = MaskGitConfig(text_config=encoder, mask_token_id=4, pad_token_id=None)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (None, 8, 9)
    assert 7 not in config.forbidden_token_ids
    config.save_pretrained(tmp_path)
    for other in (
        MaskGitConfig.from_pretrained(tmp_path),
        copy.deepcopy(config),
        MaskGitConfig(**config.to_dict()),
    ):
        assert (other.pad_token_id, other.bos_token_id, other.eos_token_id) == (None, 8, 9)
        assert "_given" not in other.to_dict()
    assert MaskGitConfig.from_pretrained(tmp_path, bos_token_id=None).bos_token_id is None


def test_a_tokenizer_without_padding_or_end_is_no_invitation_to_assume_them():
    pixels = {f"p{i}": i for i in range(39)}
    tokenizer = Table({**pixels, "<mask>": 39}, {"mask": "<mask>"}).build()
    encoder = tiny_encoder(pad_token_id=0, bos_token_id=7, eos_token_id=9)
    model = MaskGitForMaskedLM.from_encoder(encoder, tokenizer=tokenizer)
    config = model.config
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (None, None, None)
    assert model.generation_config.pad_token_id is None
    assert config.forbidden_token_ids == config.unwritten_token_ids == [39]
    assert config.end_token_ids == []


def test_ids_without_a_text_are_forbidden():
    assert tiny_config(unassigned_token_ids=[17, 30]).forbidden_token_ids == [0, 2, 4, 17, 30]


def test_what_frames_a_text_is_forbidden_though_nobody_lists_it_as_special():
    config = MaskGitConfig(
        text_config=bert_config(), mask_token_id=4, prefix_ids=[9], suffix_ids=[10, 11]
    )
    assert config.forbidden_token_ids == [4, 9, 10, 11]
    config.eos_token_id = 11
    assert config.forbidden_token_ids == [4, 9, 10]


def test_the_unknown_token_is_never_written_unless_it_ends_a_text():
    config = tiny_config()
    assert config.unwritten_token_ids == [0, 1, 2, 4]
    one_for_all = tiny_config(
        bos_token_id=3, eos_token_id=3, unk_token_id=3, pad_token_id=3, special_token_ids=[3, 4]
    )
    assert one_for_all.unwritten_token_ids == one_for_all.forbidden_token_ids == [2, 4]


def test_all_ends_that_an_encoder_was_told_end_a_text():
    """Unless they are special: then they are never emitted at all."""
    encoder = bert_config(eos_token_id=[9, 10, 11])
    config = MaskGitConfig(text_config=encoder, mask_token_id=4, special_token_ids=[4, 9, 11])
    assert (config.eos_token_id, config.end_token_ids) == (9, [9, 10])
    config.eos_token_id = 3  # another tokenizer's
    assert config.end_token_ids == [3]
    config.eos_token_id = None
    assert config.end_token_ids == []


# --- a tokenizer that has grown ------------------------------------------------------------------


def test_a_tokenizer_that_has_grown_is_read_again(caplog):
    model = MaskGitForMaskedLM.from_encoder(tiny_encoder(), tokenizer=word_tokenizer())
    tokenizer = word_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<user>"]})
    tokenizer.add_tokens(["w35"])
    model.resize_token_embeddings(64, mean_resizing=False)  # by hand to a multiple
    assert model.config.num_token_ids == 64, "nothing else is known yet"
    assert "The ids from 40 to 63 are new, and the model takes them for words" in caplog.text
    caplog.clear()
    model.config.read_tokenizer(tokenizer)
    assert model.config.num_token_ids == 42
    assert model.config.forbidden_token_ids == [0, 2, 4, 40, *range(42, 64)]
    model.resize_token_embeddings(42, mean_resizing=False)
    assert not caplog.text, "nothing is new"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda t: t.add_tokens(["more"]), "`num_token_ids` must lie in 1..40, the encoder's voc"),
        (lambda t: setattr(t, "mask_token", "w3"), "mask token has id 8, the model learned that"),
        (lambda t: setattr(t, "mask_token", None), "no mask token"),
    ],
)
def test_a_tokenizer_that_does_not_fit_changes_nothing(changed, message):
    config, tokenizer = tiny_config(), word_tokenizer()
    before = config.to_dict()
    changed(tokenizer)
    with pytest.raises(ValueError, match=message):
        config.read_tokenizer(tokenizer)
    assert config.to_dict() == before


def test_what_is_no_size_and_no_tokenizer_is_refused():
    model = MaskGitForMaskedLM(tiny_config())
    for size in ("48", 48.5, -1, True):
        with pytest.raises(ValueError, match="`new_num_tokens` must be an integer of at least 1"):
            model.resize_token_embeddings(size)
    with pytest.raises(ValueError, match="`pad_to_multiple_of` must be an integer of at least 1"):
        model.resize_token_embeddings(48, pad_to_multiple_of=0)
    assert model.config.vocab_size == 40
    with pytest.raises(TypeError, match="must be a tokenizer of transformers, got str 'a name'"):
        model.config.read_tokenizer("a name")


def test_a_table_that_cuts_off_tokens_is_refused():
    config = tiny_config(mask_token_id=39, special_token_ids=[0, 1, 2, 3, 39])
    with pytest.raises(ValueError, match=r"A table of 39 rows has none for the ids 39 of the mod"):
        config.check_size(39)
    config = tiny_config(unassigned_token_ids=[20, 21])
    with pytest.raises(ValueError, match=r"none for the ids 38, 39 .* which len\(tokenizer\) is"):
        config.check_size(38)
    config.check_size(None)
    config.check_size(40)
    tiny_config().check_size(38)  # a vocabulary without gaps may be cut on purpose
    tiny_config(unassigned_token_ids=[38, 39]).check_size(38)


def test_a_mask_with_another_part_is_refused():
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id"):
        with pytest.raises(ValueError, match=f"id 4 is `mask_token_id` and stands in `{name}`"):
            tiny_config(**{name: 4})
    with pytest.raises(ValueError, match="`suffix_ids`, too; a mask must be a token of its own"):
        tiny_config(suffix_ids=[3, 4])


# --- what it refuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "sine"}, "Unknown schedule 'sine'; a config stores one of 'linear', 'cosin"),
        ({"no_replace_prob": 1.5}, r"`no_replace_prob` is a probability and must lie in \[0, 1\]"),
        ({"no_replace_prob": -0.1}, "must lie in .* got -0.1"),
        ({"random_token_prob": 2.0}, "`random_token_prob` is a probability"),
        ({"corruption_prob": float("nan")}, "`corruption_prob` is a probability .* got nan"),
        ({"no_replace_prob": 0.7, "random_token_prob": 0.4}, r"must not exceed 1 .* 0.7 \+ 0.4"),
        ({"mask_token_id": 40}, "`mask_token_id` must be an id of the encoder's vocabulary, 0 to"),
        ({"unassigned_token_ids": [7, -1]}, "`unassigned_token_ids` must be an id .* got -1"),
        ({"initializer_range": float("nan")}, "`initializer_range` must be a finite .* got nan"),
        ({"initializer_range": -0.1}, "`initializer_range` must be a finite .* got -0.1"),
        ({"pad_token_id": -1}, "`pad_token_id` must be an id of .* got -1. Resize the encoder's e"),
        ({"bos_token_id": 99}, "`bos_token_id` must be an id of the encoder's vocabulary"),
        ({"eos_token_id": 99}, "`eos_token_id` must be an id of the encoder's vocabulary"),
        ({"unk_token_id": 99}, "`unk_token_id` must be an id of the encoder's vocabulary"),
        ({"special_token_ids": [0, 40]}, "vocabulary"),
        ({"prefix_ids": [40]}, "vocabulary"),
        ({"suffix_ids": [40]}, "vocabulary"),
        ({"num_token_ids": 41}, "vocabulary"),
    ],
    ids=str,
)
def test_values_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        MaskGitConfig(text_config=bert_config(), **options)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"schedule": torch.sin}, "schedule"),
        ({"no_replace_prob": "half"}, "no_replace_prob"),
        ({"text_config": "bert-base"}, "text_config"),
        ({"use_simple_mdlm_loss_weight": "yes"}, "use_simple_mdlm_loss_weight"),
    ],
    ids=["function", "word", "name", "yes"],
)
def test_values_of_a_wrong_type(options, field):
    with pytest.raises(StrictDataclassFieldValidationError, match=f"field '{field}'"):
        MaskGitConfig(**options)


@pytest.mark.parametrize("name", [name for name in options_of(Masking) if name != "choice"])
def test_what_is_stored_of_masking_is_declared_by_masking(name):
    assert options_of(MaskGitConfig)[name] is options_of(Masking)[name]
    assert getattr(MaskGitConfig, name) is options_of(Masking)[name].default
    assert MaskGitConfig().masking_options()[name] is options_of(Masking)[name].default


def test_the_ends_of_a_probability_are_allowed():
    MaskGitConfig(no_replace_prob=0.0, random_token_prob=1.0, corruption_prob=1.0)
    MaskGitConfig(no_replace_prob=1.0, random_token_prob=0.0, corruption_prob=0.0)


@pytest.mark.parametrize("options", [{"scedule": "linear"}, {"hidden_size": 32, "foo": 1}])
def test_unknown_options(options):
    names = ", ".join(map(repr, sorted(options)))
    with pytest.raises(TypeError, match=rf"no option {names}; its options are text_config, .*`tex"):
        MaskGitConfig(text_config=bert_config(), **options)


def test_an_unknown_option_in_a_stored_configuration(tmp_path):
    """A typo in config.json is as wrong as one in the call."""
    tiny_config().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"schedule"', '"scedule"'))
    with pytest.raises(TypeError, match="no option 'scedule'"):
        MaskGitConfig.from_pretrained(tmp_path)


def test_the_encoders_own_options_belong_inside():
    with pytest.raises(TypeError, match="Options of the encoder belong in `text_config`"):
        MaskGitConfig(vocab_size=40)


@pytest.mark.parametrize(
    "load", [MaskGitConfig.from_pretrained, MaskGitForMaskedLM.from_pretrained]
)
def test_a_plain_encoder_is_not_loaded_but_pointed_to_from_encoder(tmp_path, load):
    tiny_encoder().save_pretrained(tmp_path)
    message = r"a checkpoint of type 'bert', not 'maskgit'.*MaskGitForMaskedLM\.from_encoder\('/"
    with pytest.raises(ValueError, match=message):
        load(tmp_path)
    with pytest.raises(ValueError, match=message):
        load(pretrained_model_name_or_path=str(tmp_path))


def test_a_source_given_by_its_keyword_is_named_too(tmp_path):
    tiny_encoder().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"'{tmp_path}' is a checkpoint of type 'bert'")):
        MaskGitConfig.get_config_dict(pretrained_model_name_or_path=str(tmp_path))


class OwnConfig(MaskGitConfig):
    """A user's configuration, with a name of its own."""

    model_type = "maskgit_of_a_user"


class OwnGenerator(MaskGitForMaskedLM):
    config_class = OwnConfig


def own_config():
    options = tiny_config("bert").to_dict()
    return OwnConfig(**{name: options.get(name) for name in own_fields()})


def test_a_configuration_of_a_users_class_describes_a_generator():
    assert describes_generator(own_config())
    assert describes_generator(tiny_config("bert"))
    assert not describes_generator(bert_config())


@pytest.mark.wide
def test_a_generator_of_such_a_configuration_is_one(tmp_path):
    model = OwnGenerator(own_config()).eval()
    model.save_pretrained(tmp_path)
    loaded = OwnGenerator.from_pretrained(tmp_path)
    assert type(loaded.config) is OwnConfig
    assert loaded.config.model_type == OwnConfig.model_type
    fill = {one: InfillingPipeline(one, tokenizer=word_tokenizer()) for one in (model, loaded)}
    assert fill[model]("w1 {blank:3}", seed=0) == fill[loaded]("w1 {blank:3}", seed=0)


def test_a_call_that_overrides_by_another_kind_blames_no_checkpoint(tmp_path):
    tiny_config("bert").save_pretrained(tmp_path)
    for name, value in (("schedule", max), ("self_cond", "yes")):
        with pytest.raises(TypeError, match=f"given beside the checkpoint .*'{name}'"):
            MaskGitConfig.from_pretrained(tmp_path, **{name: value})
    with pytest.raises(ValueError, match="Unknown schedule 'steep'"):
        MaskGitConfig.from_pretrained(tmp_path, schedule="steep")
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**stored, "self_cond": "yes"}))
    with pytest.raises(ValueError, match="The configuration of the checkpoint cannot be loaded"):
        MaskGitConfig.from_pretrained(tmp_path, schedule=max)
