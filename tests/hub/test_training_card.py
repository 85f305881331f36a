"""The card of a training: what options and run say, and nothing of the data."""

from dataclasses import replace

import pytest

from hf_maskgit import MaskGitGenerationConfig
from hf_maskgit.hub import training_card
from hf_maskgit.hub.card import render_model_card
from hf_maskgit.training.arguments import DataArguments, ModelArguments
from hf_maskgit.training.examples import DataReport
from hf_maskgit.training.run_log import append_line
from tests.support.grids import wide
from tests.support.tiny_training import examples, log_lines, loop_of

pytestmark = pytest.mark.usefixtures("_fresh_accelerate")


def test_the_card_tells_stored_options_from_those_of_the_library():
    stored = MaskGitGenerationConfig(max_new_tokens=9, steps=3, schedule="cosine", temperature=0.7)
    assert training_card.sampling_of(stored).endswith(
        "with the options stored in `generation_config.json`: `max_new_tokens=9`, `steps=3`, "
        "`schedule='cosine'`, `temperature=0.7`, and with the library's defaults "
        "`order='top_probability'`, `anneal_temperature=True`."
    )
    stored.order, stored.anneal_temperature = "random", False
    said = training_card.sampling_of(stored)
    assert said.endswith("`order='random'`, `temperature=0.7`, `anneal_temperature=False`.")
    stored.remask, stored.choice_temperature, stored.eos_token_id = "confidence", 2.0, 3
    stored.num_tokens, stored.order = "sampled", "confidence"
    stored.num_return_sequences = 4  # of calls: the card has its own
    assert training_card.sampling_of(stored).endswith(
        "`temperature=0.7`, `anneal_temperature=False`, `num_tokens='sampled'`, "
        "`remask='confidence'`, `choice_temperature=2.0`."
    )


@pytest.mark.wide
def test_samples_are_no_longer_than_what_was_learned_from(loop, caplog):
    model = loop.accelerator.unwrap_model(loop.model)
    longest = model.config.trained_length - 2  # without the framing
    assert longest < model.generation_config.max_new_tokens
    given = (ModelArguments(encoder="o/e"), DataArguments(dataset="o/texts"), loop.options)
    card = training_card.describe(loop, *given)
    assert max(len(text.split()) for text in card.samples) <= longest
    assert card.sampling.endswith(
        f". They have {longest} tokens at most, as many as the longest text it learned from."
    )
    assert "tokens, framing included" not in caplog.text


@pytest.fixture
def loop(tmp_path):
    """A run of six updates, measured at its end."""
    parts = {"token_critic": "self", "self_cond": True}
    loop = loop_of(tmp_path / "run", parts, eval_examples=examples(8, seed=1))
    loop.run()
    return loop


def test_a_card_counts_the_updates_that_were_taken(tmp_path):
    """And not those of a run that its patience has ended."""
    loop = loop_of(tmp_path / "run", max_steps=9)
    loop.progress.step = 4
    given = ModelArguments(encoder="o/e"), DataArguments(dataset="o/texts"), loop.options
    assert training_card.settings_of(loop, *given)["updates"] == 4


@pytest.mark.wide
def test_a_card_says_what_options_and_run_say(loop, tmp_path):
    model_options = ModelArguments(encoder="some-owner/encoder", revision="v2")
    (tmp_path / "texts.txt").write_text("w1")
    data_options = DataArguments(dataset=str(tmp_path / "texts.txt"), eval_dataset="owner/others")
    card = training_card.describe(loop, model_options, data_options, loop.options)
    assert card.bound is loop.bound
    assert card.critic_auroc == loop.evaluations.auroc.auroc
    assert f"in\n{card.critic_auroc:.3f} of all pairs (AUROC" in str(render_model_card(card))
    assert (card.base_model, card.encoder) == ("some-owner/encoder", "`some-owner/encoder`")
    assert card.training_data == "64 examples of `texts.txt`, split `train`."
    assert (card.datasets, card.held_out_dataset) == ([], "owner/others")
    assert len(card.samples) == 4
    assert card.limits == [f"It has seen texts of at most {data_options.max_length} tokens."]
    table = card.training
    assert list(table)[:5] == [
        "encoder's revision",
        "updates",
        "examples per update",
        "longest example in tokens",
        "packed",
    ]
    assert (table["encoder's revision"], table["updates"], table["learning rate"]) == (
        "v2",
        6,
        0.01,
    )
    assert table["mixed precision"] == "no"
    assert (table["schedule"], table["corruption prob"]) == ("linear", 0.5)
    assert (table["token critic"], table["trained part"]) == ("self", "both")
    assert "Those who trained the weights named no licence" in card.license_note
    licensed = replace(loop.options, license="mit")
    card = training_card.describe(loop, model_options, data_options, licensed)
    assert "are under `mit`" in card.license_note


@pytest.mark.wide
def test_a_card_says_how_many_words_are_unknown(loop):
    model_options = ModelArguments(encoder="owner/encoder")
    data_options = DataArguments(dataset="owner/texts")
    counts = {"texts": 4, "examples": 4, "tokens": 60, "cut_texts": 0, "cut_tokens": 0}
    reports = (DataReport(**counts, words=48, unknown_words=3), DataReport(**counts, words=9))
    given = (loop, model_options, data_options, loop.options)
    text = str(render_model_card(training_card.describe(*given, reports)))
    assert "split `train`. The tokenizer does not know 6.25 % of its words.\n" in text
    assert "masks alone. The tokenizer does not know 0 % of the words.\n" in text
    assert "does not know" not in str(render_model_card(training_card.describe(*given)))


@pytest.mark.parametrize("from_scratch", [False, wide(True)])
def test_an_encoder_of_this_machine_is_no_base_model(loop, tmp_path, from_scratch):
    (tmp_path / "encoder").mkdir()
    model_options = ModelArguments(
        encoder=str(tmp_path / "encoder"), from_scratch=from_scratch, tokenizer="some-tokenizer"
    )
    data_options = DataArguments(dataset="owner/texts")
    card = training_card.describe(loop, model_options, data_options, loop.options)
    assert card.base_model is None
    assert card.encoder == ("`encoder` with random weights" if from_scratch else "`encoder`")
    assert (card.datasets, card.held_out_dataset) == (["owner/texts"], "owner/texts")


def test_names_on_the_hub_are_told_from_files_and_addresses(tmp_path):
    (tmp_path / "a.txt").write_text("w1")
    assert training_card.public_name("owner/name") == "owner/name"
    (tmp_path / "a[1].txt").write_text("w1")
    named = (str(tmp_path / name) for name in ("a.txt", "*.txt", "a[1].txt"))
    for private in (*named, "https://host/path/b.txt"):
        assert not training_card.on_the_hub(private)
        assert "/" not in training_card.public_name(private)


@pytest.mark.wide
def test_a_part_of_several_data_sets_is_none_of_them_and_says_nothing_of_this_machine(
    loop, tmp_path
):
    (tmp_path / "a.txt").write_text("w1")
    mixture = DataArguments(dataset=["owner/texts", str(tmp_path / "a.txt")])
    card = training_card.describe(loop, ModelArguments(encoder="o/e"), mixture, loop.options)
    assert card.held_out_dataset is None
    assert card.held_out_data == "owner/texts + a.txt, held out"


@pytest.mark.wide
def test_an_option_that_was_changed_is_on_the_card(loop, tmp_path):
    """Whichever it is: no list of them has to be kept."""
    (tmp_path / "texts.txt").write_text("w1")
    model_options = ModelArguments(encoder="o/e")
    data_options = DataArguments(dataset="o/texts", text_column="verse", drop_empty_texts=True)
    options = replace(
        loop.options,
        adam_beta2=0.95,
        gradient_checkpointing=True,
        eval_texts=1,
        eval_prompts=["a text of the data"],
    )
    table = training_card.settings_of(loop, model_options, data_options, options)
    assert (table["text column"], table["drop empty texts"]) == ("verse", "True")
    assert (table["adam beta2"], table["gradient checkpointing"]) == ("0.95", "True")
    assert "adam beta1" not in table
    shown = " ".join(map(str, [*table, *table.values()]))
    assert "a text of the data" not in shown
    assert str(tmp_path) not in shown


@pytest.mark.wide
def test_the_card_says_how_many_tokens_were_seen_and_which_bound_was_the_lowest(loop, tmp_path):
    given = (ModelArguments(encoder="o/e"), DataArguments(dataset="o/texts"), loop.options)
    lines = log_lines(tmp_path / "run")
    card = training_card.describe(loop, *given)
    assert card.training["tokens seen"] == sum(line.get("tokens", 0) for line in lines)
    assert card.training["tokens seen"] > 0
    assert (card.best, card.curves) == (None, None), "the last is the best, and nothing was drawn"
    assert "![" not in str(render_model_card(card))
    append_line(loop.log.path, 3, {"eval_nats_per_token": 0.125, "eval_std_error": 0.0625})
    append_line(loop.log.path, 6, {"eval_nats_per_token": 0.25, "eval_std_error": 0.0625})
    (tmp_path / "run" / "curves.png").touch()
    text = str(render_model_card(training_card.describe(loop, *given)))
    assert "| the lowest of the run, after update 3: another model, kept by those" in text
    assert "trained it | 0.125 | 0.062 |" in text
    assert "by update](curves.png)" in text
