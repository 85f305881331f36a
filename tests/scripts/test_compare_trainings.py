"""The script that compares ways of training: who is trained, and what is told of them."""

import json
import math
import statistics
import sys

import pytest
import torch
import yaml
from datasets import Dataset, DatasetDict
from transformers import BertForMaskedLM

from hf_maskgit.training.recipes import parse_options, save_recipe
from scripts import compare_trainings, evaluate
from tests.support.tiny import word_tokenizer
from tests.support.tiny_training import fresh_encoder_config, repeated_symbols

WAYS = {
    "cosine": {"schedule": "cosine"},
    "slow": {"learning_rate": 1e-9},
    "same": {"warmup_steps": 1},
}


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe of a tiny encoder on texts of one word repeated."""
    torch.manual_seed(0)
    BertForMaskedLM(fresh_encoder_config()).save_pretrained(tmp_path / "encoder")
    word_tokenizer().save_pretrained(tmp_path / "encoder")
    texts = {
        split: Dataset.from_dict({"text": repeated_symbols(number, seed)})
        for seed, (split, number) in enumerate({"train": 64, "validation": 16}.items())
    }
    DatasetDict(texts).save_to_disk(tmp_path / "texts")
    options = {
        "encoder": str(tmp_path / "encoder"),
        "dataset": str(tmp_path / "texts"),
        "eval_split": "validation",
        "corruption_prob": 0.0,
        "max_length": 16,
        "max_steps": 40,
        "per_device_batch_size": 16,
        "learning_rate": 0.01,
        "warmup_steps": 1,
        "use_cpu": True,
        "output_dir": str(tmp_path / "unused"),
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(options))
    return path


def run(recipe, folder, *more):
    given = ["--recipe", str(recipe), "--output_dir", str(folder)]
    return compare_trainings.main([*given, "--num_samples", "4", *more])


@pytest.mark.slow
def test_ways_are_measured_beside_the_recipe_under_the_same_masks(recipe, tmp_path, capfd):
    folder = tmp_path / "ways"
    more = ("--ways", json.dumps(WAYS), "--seeds", "0", "1")
    found = run(recipe, folder, *more)
    said = capfd.readouterr()
    assert said.out.startswith("| way | bound, nats per token | less the recipe's")
    assert "'same' is left out: the recipe is trained so already." in said.err
    assert found.keys() == {compare_trainings.AS_IT_IS, "cosine", "slow"}
    assert found == json.loads((folder / "comparison.json").read_text())
    base, slow = found[compare_trainings.AS_IT_IS], found["slow"]
    assert base["difference"] == base["std_error"] == 0
    # A model that learned nothing says log 35 of each of 35 words, one that did far less.
    assert slow["difference"] > 5 * slow["std_error"] > 0
    assert slow["bounds"][0] == pytest.approx(math.log(35), abs=0.3)
    for number in range(2):
        apart = slow["bounds"][number] - base["bounds"][number]
        assert slow["differences"][number]["value"] == pytest.approx(apart, abs=1e-9)
    values = [one["value"] for one in slow["differences"]]
    assert slow["std_error"] == pytest.approx(statistics.stdev(values) / math.sqrt(2))
    # The bounds are those of `scripts/evaluate.py`.
    asked = ["--dataset", str(tmp_path / "texts"), "--split", "validation", "--num_samples", "4"]
    place = compare_trainings.place_of(folder, "slow", 1)
    figures = evaluate.main(["--model", str(place), "--max_length", "16", *asked])
    assert figures["nats_per_token"] == slow["bounds"][1]
    # What is trained is kept, and only measured again.
    (place / "model.safetensors").touch()
    before = (place / "model.safetensors").stat().st_mtime_ns
    assert run(recipe, folder, *more) == found
    assert (place / "model.safetensors").stat().st_mtime_ns == before


def test_a_training_that_fails_says_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(RuntimeError, match="ended with exit code 1; .* The same command goes on"):
        compare_trainings.train(["recipe.yaml"], tmp_path / "way-0")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--ways", "[]"], "`--ways` must be a JSON object"),
        (["--ways", '{"a": 1}'], "The way 'a' must be a JSON object of options"),
        (["--ways", '{"a": {"shedule": "cosine"}}'], "The way 'a': .*shedule"),
        (["--ways", '{"a": {"schedule": "cosin"}}'], "The way 'a': .*invalid choice: 'cosin'"),
        (["--ways", '{"a": {"learning_rate": 0}}'], "The way 'a': `learning_rate` must be greater"),
        (["--ways", '{"a": {"from_scratch": true}}'], "The way 'a': `from_scratch` builds"),
        (["--ways", '{"a": {"warmup_steps": 1}}'], "The recipe has all that `ways` changes"),
        (["--ways", '{"a": {"eval_split": null, "validation_fraction": 0.1}}'], "names no"),
        (["--ways", '{"a": {"dataset": ["one", "two"]}}'], "mixes 2 data sets, .* `eval_dataset`"),
        (["--ways", '{"a": {"end_fill": 16}}'], "The way 'a' changes `end_fill`, and a text with"),
        (["--ways", '{"a b": {"seed": 1}, "a_b": {"seed": 2}}'], "differ in blanks and `_` alone"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(recipe, tmp_path, more, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(recipe, tmp_path / "ways", *more)
    assert not (tmp_path / "ways").exists()


@pytest.mark.wide
def test_a_way_that_reads_the_texts_as_other_tokens_is_refused(recipe, tmp_path, monkeypatch):
    """Each text has as many tokens as by the recipe's tokenizer, and they are others."""
    monkeypatch.setattr(compare_trainings, "train", lambda *_: pytest.fail("was trained"))
    written = word_tokenizer()
    written.save_pretrained(tmp_path / "same")
    file = tmp_path / "same/tokenizer.json"
    table = json.loads(file.read_text())
    vocabulary = table["model"]["vocab"]
    words = [word for word in vocabulary if not word.startswith("[")]
    ids = [vocabulary[word] for word in words]
    vocabulary.update(zip(words, [*ids[1:], ids[0]], strict=True))
    written.save_pretrained(tmp_path / "other")
    (tmp_path / "other/tokenizer.json").write_text(json.dumps(table))
    ways = {"other words": {"tokenizer": str(tmp_path / "other")}}
    with pytest.raises(ValueError, match="'other words' reads the held-out texts as other tokens"):
        run(recipe, tmp_path / "ways", "--ways", json.dumps(ways))
    assert not (tmp_path / "ways").exists()
    asked = compare_trainings.TrainingsArguments(str(recipe), str(tmp_path / "ways"))
    compare_trainings.check_read_alike(asked, {"same": {"tokenizer": str(tmp_path / "same")}})


def test_a_training_that_is_kept_is_not_taken_for_another(recipe, tmp_path, monkeypatch):
    asked = compare_trainings.TrainingsArguments(str(recipe), str(tmp_path / "ways"), max_steps=3)
    place = compare_trainings.place_of(tmp_path / "ways", "a", 0)
    place.mkdir(parents=True)
    (place / "metrics.json").write_text("{}")
    given = [*compare_trainings.words_of(asked, "a", {"schedule": "cosine"}), "--seed=0"]
    trained = parse_options(compare_trainings.TRAINING, [*given, f"--output_dir={place}"])
    save_recipe(place / "training_options.yaml", *trained)
    compare_trainings.check_kept({place: given}, 1)
    monkeypatch.setattr(compare_trainings, "train", lambda *_: pytest.fail("was trained"))
    with pytest.raises(ValueError, match=r"a-0' holds a training by other options, which .*yaml'"):
        run(recipe, tmp_path / "ways", "--max_steps=3", "--ways", '{"a": {"ema_decay": 0.9}}')


def test_held_out_texts_are_prepared_as_in_training(recipe, tmp_path, monkeypatch):
    """Joined into blocks or one by one, of `eval_dataset` without the training's configuration."""
    seen, used = [], compare_trainings.evaluate
    monkeypatch.setattr(used, "load", lambda asked, _: seen.append(asked) or (None, None))
    monkeypatch.setattr(used, "prepare", lambda *_: None)
    monkeypatch.setattr(used, "bound_of", lambda *_: None)
    written = yaml.safe_load(recipe.read_text())
    for pack, other in (("no", None), ("joined", "held"), ("separate", "held")):
        changes = {"pack": pack, "eval_dataset": other, "dataset_config": "one"}
        recipe.write_text(yaml.safe_dump({**written, **changes}))
        asked = compare_trainings.TrainingsArguments(str(recipe), str(tmp_path / "ways"))
        compare_trainings.bound_of(asked, tmp_path)
    found = [(one.pack, one.dataset, one.dataset_config) for one in seen]
    assert found == [
        (False, written["dataset"], "one"),
        (True, "held", None),
        (False, "held", None),
    ]


def test_a_seed_that_stands_twice_is_refused(recipe, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(recipe, tmp_path / "ways", "--seeds", "1", "1")
    assert "`seeds` names one twice: [1, 1]; name each once." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(recipe, tmp_path / "ways", "--seeds", "0", "-1")
    assert "`seeds` must be at least 0 and below 2**31, got -1." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(recipe, tmp_path / "ways", "--max_steps", "0")
    assert "`max_steps` must be at least 1, got 0." in capsys.readouterr().err


@pytest.mark.wide
def test_the_ways_known_by_themselves_are_options_of_the_training(recipe, tmp_path):
    asked = compare_trainings.TrainingsArguments(str(recipe), str(tmp_path / "ways"))
    ways = compare_trainings.ways_of(asked)
    assert ways.keys() == {compare_trainings.AS_IT_IS, *compare_trainings.WAYS}
    for name, changes in ways.items():
        assert compare_trainings.words_of(asked, name, changes)[0] == str(recipe)
