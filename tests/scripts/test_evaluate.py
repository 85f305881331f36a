"""The measuring script: its figures are those of the library."""

import json
import math

import pytest
import torch

from hf_maskgit import MaskGitForMaskedLM, nelbo
from hf_maskgit.evaluation import ONE_PASS, TWO_PASSES
from scripts import evaluate
from tests.support.launches import launched
from tests.support.tiny import tiny_model, word_tokenizer
from tests.support.tiny_training import repeated_symbols, words


@pytest.mark.wide
def test_measuring_agrees_with_the_library(saved, tmp_path, capsys):
    texts = repeated_symbols(12)
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    options = ["--model", saved, "--dataset", str(tmp_path / "texts.txt"), "--split", "train"]
    output = ["--output_file", str(tmp_path / "figures.json")]
    figures = evaluate.main([*options, *output, "--num_samples=64", "--mask_rates", "0.5", "1"])
    assert json.loads(capsys.readouterr().out) == figures
    assert json.loads((tmp_path / "figures.json").read_text()) == figures
    inputs = word_tokenizer()(texts, padding=True, return_tensors="pt")
    model = MaskGitForMaskedLM.from_pretrained(saved)
    generator = torch.Generator().manual_seed(1)
    bound = nelbo(model, inputs["input_ids"], inputs["attention_mask"], None, 64, generator)
    # two independent estimates; 5 standard errors of the difference: false alarm about 6e-7
    error = math.hypot(bound.nats_per_token_std_error, figures["std_error"])
    assert abs(figures["nats_per_token"] - bound.nats_per_token) < 5 * error
    assert figures["maskable_tokens"] == sum(len(text.split()) for text in texts)
    assert figures["bits_per_token"] == pytest.approx(figures["nats_per_token"] / math.log(2))
    assert figures["perplexity"] == pytest.approx(math.exp(figures["nats_per_token"]))
    assert figures["masked_accuracy"].keys() == {"0.5", "1.0"}
    assert figures["data"]["texts"] == figures["measured_examples"] == 12
    again = evaluate.main([*options, "--num_samples=64", "--mask_rates", "0.5", "1"])
    assert again["nats_per_token"] == figures["nats_per_token"]


@pytest.mark.wide
def test_a_model_that_ends_its_texts_is_measured_with_their_ends(saved, tmp_path, capsys):
    """Texts of 3 and 5 words in a window of 8 tokens, 2 of which frame it: 6 to judge in each."""
    model = MaskGitForMaskedLM.from_pretrained(saved)
    model.config.end_fill = 8
    model.save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("w1 w2 w3\nw1 w2 w3 w4 w5")
    options = ["--dataset", str(tmp_path / "texts.txt"), "--num_samples", "4"]
    figures = {
        folder: evaluate.main(["--model", str(folder), *options])
        for folder in (saved, tmp_path / "model")
    }
    assert [found["end_fill"] for found in figures.values()] == [None, 8]
    assert [found["maskable_tokens"] for found in figures.values()] == [8, 12]
    packed = evaluate.main(["--model", str(tmp_path / "model"), *options, "--pack"])
    assert packed["end_fill"] is None


@pytest.mark.wide
def test_measuring_says_what_was_cut_and_left_out(saved, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(["w1 w2 w3 w4 w5", "", "w1 w2"] * 4))
    options = ["--model", saved, "--dataset", str(tmp_path / "texts.txt"), "--split", "train"]
    figures = evaluate.main(
        [*options, "--drop_empty_texts", "--max_length=5", "--num_examples=3", "--num_samples=4"]
    )
    assert figures["data"] | {"tokens": 0} == {
        "texts": 8,
        "empty_texts": 4,
        "examples": 8,
        "tokens": 0,
        "cut_texts": 4,
        "cut_tokens": 8,
        "words": 28,
        "unknown_words": 0,
        "sources": {},
        "filled": None,
    }
    assert figures["unknown_share"] == 0
    assert figures["measured_examples"] == 3
    with pytest.raises(ValueError, match="`max_length` is 65 tokens, but the encoder takes 64"):
        evaluate.main([*options, "--max_length=65"])


@pytest.mark.wide
def test_measuring_says_how_many_words_are_unknown(saved, tmp_path, caplog, capsys):
    (tmp_path / "texts.txt").write_text("w1 w2 zz\nw3\nqq w4 w5 w6")
    options = ["--model", saved, "--dataset", str(tmp_path / "texts.txt"), "--num_samples=4"]
    figures = evaluate.main(options)
    assert (figures["unknown_share"], figures["data"]["unknown_words"]) == (0.25, 2)
    (told,) = [r.getMessage() for r in caplog.records if "does not know" in r.getMessage()]
    assert "2 of the 8 words of the texts in column 'text' (25 %), such as 'zz' and 'qq'" in told
    (tmp_path / "texts.txt").write_text("zz yy\nw1")
    with pytest.raises(ValueError, match="does not know 2 of the 3 words of the texts in column"):
        evaluate.main(options)
    assert evaluate.main([*options, "--max_unknown_share=1"])["unknown_share"] == 2 / 3
    with pytest.raises(SystemExit):
        evaluate.main([*options, "--max_unknown_share=7"])
    assert (
        "`max_unknown_share` is a share and must lie in [0, 1], got 7.0" in capsys.readouterr().err
    )


@pytest.fixture
def tokenizer():
    return word_tokenizer()


@pytest.mark.wide
def test_the_script_measures_both_bounds_and_the_critic(tmp_path, tokenizer, capsys):
    model = tiny_model(self_cond=True, token_critic="self")
    torch.nn.init.normal_(model.self_conditioning.weight)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("\n".join(repeated_symbols(60)))
    arguments = {"model": tmp_path / "model", "dataset": tmp_path / "texts.txt", "split": "train"}
    found = evaluate.main(words({**arguments, "num_samples": 4}))
    assert found["estimator"] == TWO_PASSES
    assert found["one_pass"]["estimator"] == ONE_PASS
    assert found["one_pass"]["nats_per_token"] != found["nats_per_token"]
    critic = found["critic_auroc"]
    assert critic["auroc"] == pytest.approx(critic["wins"] / critic["num_pairs"])
    assert json.loads(capsys.readouterr().out)["critic_auroc"] == critic


@pytest.mark.wide
def test_a_critic_that_cannot_be_measured_costs_no_other_figure(
    tmp_path, tokenizer, capsys, caplog
):
    """A text of one token is right or wrong, never both."""
    tiny_model(token_critic="self").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "texts.txt").write_text("w1\nw2\n")
    arguments = {"model": tmp_path / "model", "dataset": tmp_path / "texts.txt", "num_samples": 4}
    found = evaluate.main(words({**arguments, "output_file": tmp_path / "figures.json"}))
    assert found["critic_auroc"] is None
    assert found["nats_per_token"] > 0
    assert json.loads(capsys.readouterr().out) == found
    assert json.loads((tmp_path / "figures.json").read_text()) == found
    assert "no text has both a right and a wrong token" in caplog.text


def _options(saved, tmp_path, texts, name="texts.txt"):
    (tmp_path / name).write_text("\n".join(texts))
    return ["--model", saved, "--dataset", str(tmp_path / name), "--num_samples", "4"]


@pytest.mark.wide
def test_the_corpus_has_its_errors_and_its_characters(saved, tmp_path):
    options = _options(saved, tmp_path, ["w1 w2 w3", "w4 w5", "w6"])
    found = evaluate.main([*options, "--per_character"])
    corpus = found["corpus"]
    assert corpus["nats_per_token"]["value"] == pytest.approx(found["nats_per_token"])
    assert corpus["nats_per_token"]["masking_std_error"] == pytest.approx(found["std_error"])
    low, high = corpus["nats_per_token"]["interval_95"]
    assert low < found["nats_per_token"] < high
    nats = found["nats_per_token"] * 6
    assert corpus["bits_per_character"]["value"] == pytest.approx(nats / math.log(2) / 15)
    assert corpus["bits_per_byte"] == corpus["bits_per_character"]
    alone = evaluate.main(_options(saved, tmp_path, ["w1 w2 w3"]))["corpus"]["nats_per_token"]
    assert (alone["std_error"], alone["interval_95"]) == (None, None)


@pytest.mark.wide
def test_only_completions_are_judged_where_rows_have_prompts(saved, tmp_path):
    rows = [{"p": "w1 w2 ", "c": "w3 w4 w5"}, {"p": "w6 ", "c": "w7"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = ["--model", saved, "--dataset", str(tmp_path / "rows.jsonl"), "--num_samples=4"]
    columns = ["--prompt_column=p", "--completion_column=c", "--per_character"]
    found = evaluate.main([*options, *columns])
    assert found["maskable_tokens"] == 4
    bits = found["corpus"]["bits_per_character"]["value"]
    assert bits == pytest.approx(found["bits_per_token"] * 4 / 10)


@pytest.mark.wide
def test_characters_are_refused_where_they_are_not_those_of_the_texts(saved, tmp_path):
    with pytest.raises(ValueError, match="the tokens of 'w1  w2' read 'w1 w2'"):
        evaluate.main([*_options(saved, tmp_path, ["w1  w2", "w3"]), "--per_character"])
    options = [*_options(saved, tmp_path, ["w1 w2 w3 w4", "w3"]), "--max_length=5"]
    with pytest.raises(ValueError, match="1 texts are longer than 5 tokens and were cut"):
        evaluate.main([*options, "--per_character"])
    whole = evaluate.main([*options, "--per_character", "--window_stride=1"])
    assert (whole["maskable_tokens"], whole["data"]["cut_texts"]) == (5, 0)
    assert (whole["measured_examples"], whole["data"]["examples"]) == (2, 3)


@pytest.mark.parametrize(
    ("words_", "told"),
    [
        (["--pack", "--per_character"], "`pack` joins texts and cuts blocks of them"),
        (["--pack", "--window_stride=2"], "`pack` joins texts and cuts blocks of them"),
        (["--ids_column=ids", "--per_character"], "`per_character` counts the characters of texts"),
        (["--window_stride=0"], "`window_stride` must be at least 1, got 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words_, told, saved, capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["--model", saved, "--dataset", "none.txt", *words_])
    assert told in " ".join(capsys.readouterr().err.split())


@pytest.mark.wide
def test_a_baseline_is_met_with_the_same_masks(saved, tmp_path):
    other = tiny_model()
    torch.nn.init.normal_(next(other.parameters()), std=0.5)
    other.save_pretrained(tmp_path / "other")
    word_tokenizer().save_pretrained(tmp_path / "other")
    options = _options(saved, tmp_path, ["w1 w2 w3 w4", "w4 w5", "w6 w7 w8"])
    itself = evaluate.main([*options, "--baseline", saved])["difference"]
    assert itself["nats_per_token"]["value"] == 0 == itself["nats_per_token"]["std_error"]
    assert itself["share_better"] == 0.5
    found = evaluate.main([*options, "--baseline", str(tmp_path / "other")])
    gap = found["nats_per_token"] - found["baseline_figures"]["nats_per_token"]
    assert found["difference"]["nats_per_token"]["value"] == pytest.approx(gap)
    swapped = ["--model", str(tmp_path / "other"), *options[2:], "--baseline", saved]
    back = evaluate.main(swapped)["difference"]["nats_per_token"]
    assert back["value"] == pytest.approx(-gap)
    assert back["std_error"] == pytest.approx(found["difference"]["nats_per_token"]["std_error"])


@pytest.mark.wide
def test_a_baseline_that_does_not_do_is_refused_before_work(saved, tmp_path, monkeypatch):
    other = tiny_model()
    other.save_pretrained(tmp_path / "other")
    word_tokenizer(words=[f"w{i}" for i in reversed(range(35))]).save_pretrained(tmp_path / "other")
    options = _options(saved, tmp_path, ["w1 w2 w3 w4", "w4 w5"])
    monkeypatch.setattr(evaluate, "bound_of", lambda *_: pytest.fail("was measured"))
    with pytest.raises(ValueError, match="do not read the texts as the same tokens"):
        evaluate.main([*options, "--baseline", str(tmp_path / "other")])
    with pytest.raises(ValueError, match="There is no folder"):
        evaluate.main([*options, "--baseline", str(tmp_path / "nothing")])


@pytest.mark.wide
def test_the_reliability_of_confidences_is_told_and_drawn(saved, tmp_path):
    options = _options(saved, tmp_path, repeated_symbols(20))
    picture = tmp_path / "reliability.png"
    found = evaluate.main([*options, "--mask_rates", "0.5", "--reliability_plot", str(picture)])
    (one,) = found["calibration"].values()
    assert 0 <= one["expected_error"] <= 1
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_two_processes_find_the_figures_of_one(saved, tmp_path):
    """Five batches of three texts, and one of all: then the second process has none."""
    options = [*_options(saved, tmp_path, repeated_symbols(15)), "--per_character"]
    for size in ("3", "20"):
        both = tmp_path / f"both{size}.json"
        given = [*options, "--batch_size", size, "--output_file"]
        launched(*given, str(both), program="scripts/evaluate.py")
        alone = evaluate.main([*given, str(tmp_path / "alone.json")])
        found = json.loads(both.read_text())
        assert _flat(found | {"output_file": alone["output_file"]}) == [
            pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
            for value in _flat(json.loads(json.dumps(alone)))
        ]


def _flat(value):
    """Every number and word of a JSON value, with the names that lead there."""
    if isinstance(value, dict):
        return [one for name in sorted(value) for one in (name, *_flat(value[name]))]
    return [one for part in value for one in _flat(part)] if isinstance(value, list) else [value]
