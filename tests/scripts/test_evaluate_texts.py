"""The script that measures texts: its table, its folder, and what it refuses."""

import json
import re

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from hf_maskgit import MaskGitForMaskedLM
from scripts import evaluate_texts
from tests.support.tiny import tiny_model, word_tokenizer

pytest.importorskip("sacrebleu")


@pytest.fixture
def real(tmp_path):
    path = tmp_path / "real.txt"
    path.write_text("".join(f"w{i} w{i + 1} w{i % 3}\n" for i in range(12)))
    return str(path)


@pytest.mark.wide
def test_rows_for_real_texts_files_and_every_setting(saved, real, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    tokenizer = AutoTokenizer.from_pretrained(saved)
    torch.manual_seed(0)
    sizes = {"n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 2}
    config = GPT2Config(vocab_size=len(tokenizer), **sizes, bos_token_id=None, eos_token_id=None)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "judge")
    tokenizer.save_pretrained(tmp_path / "judge")
    model = MaskGitForMaskedLM.from_pretrained(saved)
    model.config.lengths = {"3": 1, "5": 1}
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    out = tmp_path / "new" / "out"
    words = f"""--model {tmp_path / "model"} --dataset {real} --training_dataset {real}
        --texts {real} --judge {tmp_path / "judge"} --steps 2 3 --temperature 1 --num_texts 5
        --batch_size 3 --output_dir {out}"""
    found = evaluate_texts.main(words.split())
    table = capsys.readouterr().out
    assert (out / "quality.md").read_text() == table
    judge = f"Measured by judge {tmp_path / 'judge'}, 5 texts in a row, seed 0."
    assert table.splitlines()[-2:] == ["", judge]
    names = ["real texts", "real", "steps=2, temperature=1", "steps=3, temperature=1"]
    assert [row["name"] for row in found] == names
    assert found[0]["whole_copies"] == found[1]["whole_copies"] == 1  # they are the training texts
    assert [row["passes"] for row in found[2:]] == [2, 3]
    assert json.loads((out / "quality.json").read_text())["rows"] == found
    texts = (out / "texts_2_1.txt").read_text().splitlines()
    assert {len(text.split()) for text in texts} <= {3, 5}
    assert found[2]["mean_length"] == sum(len(text.split()) for text in texts) / 5
    assert (out / "frontier.png").exists()
    assert (out / "passes.png").exists()


def test_files_of_one_name_in_several_folders_are_several_rows(real, tmp_path):
    files = [tmp_path / name / "out.txt" for name in ("a", "b")]
    for number, file in enumerate(files):
        file.parent.mkdir()
        file.write_text("".join(f"w{i} w{number}\n" for i in range(6)))
    named = list(map(str, files))
    words = ["--texts", *named, "--dataset", real, "--num_texts", "6", "--plot", "false"]
    found = evaluate_texts.main([*words, "--output_dir", str(tmp_path / "out")])
    assert [row["name"] for row in found] == ["real texts", *named]


def test_texts_of_others_need_no_model(real, tmp_path):
    words = ["--texts", real, "--dataset", real, "--num_texts", "6", "--by_characters"]
    found = evaluate_texts.main([*words, "--output_dir", str(tmp_path), "--plot", "false"])
    assert [row["name"] for row in found] == ["real texts", "real"]
    assert found[1]["mean_length"] == 6  # the first six lines, without blanks
    assert not (tmp_path / "passes.png").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "nothing to measure; name a --model, or files of --texts"),
        ("--texts REAL --num_texts 13", r"has 12 texts, and 13 are measured in every row"),
        ("--texts REAL --num_texts 7", r"There are 12 real texts, and 14 are needed"),
        (
            "--texts REAL --num_texts 2 --text_column words",
            "has no column 'words', but 'text'; it must hold texts, whose column --text_column",
        ),
        ('--texts REAL --decoding {"steps":2}', "`steps` has an option of its own, --steps"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(words, sentence, real, tmp_path, capsys):
    given = [real if word == "REAL" else word for word in words.split()]
    out = tmp_path / "out"
    with pytest.raises((ValueError, SystemExit)) as error:
        evaluate_texts.main(["--dataset", real, "--output_dir", str(out), *given])
    assert re.search(sentence, str(error.value) + capsys.readouterr().err)
    assert not out.exists()


@pytest.mark.parametrize(("way", "words"), [(None, 3), ("sampled", 3), ("window", 10)])
def test_texts_are_as_long_as_the_model_finds_by_what_it_stores(way, words):
    model = tiny_model(lengths={"3": 1}, end_fill=12)
    model.generation_config.update(num_tokens=way, suppress_tokens=[3])
    options = evaluate_texts.TextArguments("here", "there", model="m", num_texts=3, plot=False)
    texts, passes = evaluate_texts.write(model, word_tokenizer(), {"steps": 1}, options)
    assert [len(text.split()) for text in texts] == [words] * 3
    assert passes == 1
