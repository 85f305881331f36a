"""The writing script: prompts, masks, samplers, and mistakes in their options."""

import json
import re
import shutil

import pytest

from hf_maskgit.visualization import first_text
from scripts import generate
from tests.support.tiny import WORDS


def lines_of(capsys, *options):
    generate.main(list(options))
    return capsys.readouterr().out.splitlines()


def test_prompts_are_continued_and_masks_filled(saved, capsys):
    lines = lines_of(
        capsys,
        *("--model", saved, "--max_new_tokens", "6", "--text", "w1 w2", "w3"),
        *("--num_samples", "2", "--steps", "3", "--schedule", "cosine", "--order", "confidence"),
        *("--temperature", "9", "--anneal_temperature", "false"),
    )
    assert len(lines) == 4
    assert [line.split()[:2] for line in lines[:2]] == [["w1", "w2"]] * 2
    assert {line.split()[0] for line in lines[2:]} == {"w3"}
    assert lines[0] != lines[1]
    (filled,) = lines_of(capsys, "--model", saved, "--text", "w1 [MASK] w2 [MASK]")
    words = filled.split()
    assert (words[0], words[2]) == ("w1", "w2")
    assert set(words) <= set(WORDS)


@pytest.mark.wide
def test_a_sample_does_not_depend_on_the_batch_it_was_written_in(saved, tmp_path, capsys):
    rows = ["w1", "w2 [MASK] w3", "w4 w5 w6", "[MASK] w7", "w8 [MASK] [MASK]"]
    (tmp_path / "prompts.txt").write_text("\n".join(rows))
    options = ("--model", saved, "--input_file", str(tmp_path / "prompts.txt"))
    options = (*options, "--num_samples", "2", "--seed", "7")
    alone = lines_of(capsys, *options, "--batch_size", "1")
    assert lines_of(capsys, *options, "--batch_size", "3") == alone
    assert len(alone) == 10
    other = lines_of(capsys, *options[:-1], "8")
    assert other != alone


@pytest.mark.wide
def test_every_text_may_have_a_number_of_new_tokens_of_its_own(saved, capsys):
    texts = ("--text", "w1 w2", "w3", "w4 [MASK]", "--num_samples", "2")
    options = ("--model", saved, *texts, "--options", '{"suppress_tokens": [3]}')
    for batch_size in ("1", "4", "32"):
        lines = lines_of(capsys, *options, "--batch_size", batch_size, "--max_new_tokens", *"351")
        assert [len(line.split()) for line in lines] == [5, 5, 6, 6, 3, 3]
    lines = lines_of(capsys, *options, "--max_new_tokens", "2")
    assert [len(line.split()) for line in lines] == [4, 4, 3, 3, 4, 4]
    with pytest.raises(ValueError, match="`max_new_tokens` has 2 numbers for 3 texts; give one"):
        lines_of(capsys, *options, "--max_new_tokens", "2", "5")


@pytest.mark.wide
def test_json_lines_tell_how_each_text_came_about(saved, tmp_path):
    file = tmp_path / "out.jsonl"
    options = ["--model", saved, "--output_format", "jsonl", "--output_file", str(file)]
    generate.main([*options, "--num_samples", "3"])
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["text"], line["sample"]) for line in found] == [("", 0), ("", 1), ("", 2)]
    assert len({line["seed"] for line in found}) == 3
    assert all(set(line["output"].split()) <= set(WORDS) for line in found)
    for name, written in (
        ("by_suffix.jsonl", file.read_text()),
        ("by_suffix.txt", "".join(line["output"] + "\n" for line in found)),
    ):
        words = ["--model", saved, "--output_file", str(tmp_path / name), "--num_samples", "3"]
        generate.main(words)
        assert (tmp_path / name).read_text() == written


def test_a_picture_that_cannot_be_saved_costs_no_text(saved, tmp_path, capsys, monkeypatch, caplog):
    """How large it will be is known when the text is there."""

    def too_large(*args):
        raise ValueError("It is too large.")

    monkeypatch.setattr(first_text, "save_animation", too_large)
    words = ("--model", saved, "--text", "w1", "--max_new_tokens", "2")
    lines = lines_of(capsys, *words, "--save_animation", str(tmp_path / "a.gif"))
    assert lines == lines_of(capsys, *words)
    assert "The animation was not saved. It is too large." in caplog.text


def test_the_writers_mistakes_are_named(saved, tmp_path, capsys):
    with pytest.raises(ValueError, match="Cannot read '.*missing.txt': No such file"):
        generate.main(["--model", saved, "--input_file", str(tmp_path / "missing.txt")])
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(ValueError, match="empty.txt' is empty; write one text per line"):
        generate.main(["--model", saved, "--input_file", str(tmp_path / "empty.txt")])
    with pytest.raises(
        ValueError, match=r"'And \{blank:3\} w1' holds a blank.*pipeline..infilling"
    ):
        generate.main(["--model", saved, "--text", "w1", "And {blank:3} w1"])
    with pytest.raises(SystemExit):
        generate.main(["--model", saved, "--num_samples", "0"])
    assert "`num_samples` must be at least 1, got 0" in capsys.readouterr().err


@pytest.mark.wide
def test_texts_the_tokenizer_does_not_know(saved, tmp_path, capsys, caplog):
    output = tmp_path / "out.txt"
    output.write_text("kept")
    start = ("--model", saved, "--max_new_tokens", "3", "--output_file", str(output))
    with pytest.raises(
        ValueError,
        match=r"does not know 2 of the 3 words of the text 'zz w1 qq' \(66.7 %\), such as",
    ):
        generate.main([*start, "--text", "w1 w2", "zz w1 qq"])
    assert output.read_text() == "kept"
    generate.main([*start, "--text", "zz w1 qq", "", "--max_unknown_share", "0.7"])
    generate.main([*start, "--text", "zz w1 qq", "--options", '{"max_unknown_share": 1}'])
    caplog.clear()
    generate.main([*start, "--text", "zz w1 w2", "w3", "[MASK]", "--num_samples", "2"])
    (told,) = [r.getMessage() for r in caplog.records if "does not know" in r.getMessage()]
    assert "does not know 1 of the 4 words of the texts (25 %), such as 'zz': the model" in told


@pytest.mark.wide
def test_a_sampler_is_chosen_by_its_parts_or_by_its_name(saved, capsys):
    start = ("--model", saved, "--text", "w1", "--max_new_tokens", "6")
    by_parts = lines_of(capsys, *start, "--pace", "ancestral", "--anneal_temperature", "false")
    assert lines_of(capsys, *start, "--preset", "mdlm", "--steps", "18") == by_parts
    by_name = lines_of(capsys, *start, "--preset", "mdlm", "--options", '{"steps": 18}')
    assert by_name == by_parts
    assert lines_of(capsys, *start, "--preset", "p2", "--block_length", "3", "--steps", "6")


@pytest.mark.wide
def test_a_continued_text_ends_at_a_stop_string(saved, capsys):
    start = ("--model", saved, "--text", "w1", "--max_new_tokens", "12", "--seed", "3")
    (whole,) = lines_of(capsys, *start)
    stop = whole.split()[4]
    (stopped,) = lines_of(capsys, *start, "--stop_strings", stop)
    assert stopped.split() == whole.split()[: whole.split().index(stop, 1) + 1]


def test_a_decoding_option_that_is_given_twice(saved):
    words = ["--model", saved, "--steps", "3", "--options", '{"steps": 4}']
    with pytest.raises(ValueError, match="`steps` is given by name and in `options`"):
        generate.main(words)
    with pytest.raises(ValueError, match="`options` must be a JSON object such as"):
        generate.main(["--model", saved, "--options", "steps=4"])


@pytest.mark.wide
def test_several_samples_of_a_sampler_that_draws_nothing(saved, tmp_path, capsys):
    """As in `generate`: refused where the call says so, and drawn whatever the model stores."""
    output = tmp_path / "out.txt"
    output.write_text("kept")
    start = ("--model", saved, "--text", "w1", "--max_new_tokens", "8", "--num_samples", "4")
    with pytest.raises(ValueError, match="do_sample=False draws nothing at random, which num_ret"):
        generate.main([*start, "--do_sample", "false", "--output_file", str(output)])
    assert output.read_text() == "kept"
    greedy = tmp_path / "greedy"
    shutil.copytree(saved, greedy)
    (greedy / "generation_config.json").write_text('{"do_sample": false}')
    written = lines_of(capsys, "--model", str(greedy), *start[2:])
    assert written == lines_of(capsys, *start)
    assert len(set(written)) > 1


@pytest.mark.wide
def test_a_folder_is_written_in_parts_with_the_columns_of_the_input(saved, tmp_path, capsys):
    rows = [{"id": i, "prompt": text} for i, text in enumerate(["w1", "w2 [MASK]", "w3 w4"])]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = ["--model", saved, "--input_file", str(file), "--text_column", "prompt"]
    start += ["--max_new_tokens", "3", "--num_samples", "2", "--output_column", "made"]
    lines = lines_of(capsys, *start, "--output_format", "jsonl")
    folder = tmp_path / "out"
    generate.main([*start, "--output_file", f"{folder}/", "--samples_per_part", "4"])
    parts = sorted(folder.glob("part-*"))
    assert [path.name for path in parts] == [f"part-0000{i}-of-00002.jsonl" for i in range(2)]
    assert [line for path in parts for line in path.read_text().splitlines()] == lines
    found = [json.loads(line) for line in lines]
    assert [(row["id"], row["prompt"], row["sample"]) for row in found] == [
        (row["id"], row["prompt"], sample) for row in rows for sample in range(2)
    ]
    assert all(set(row["made"].split()) <= set(WORDS) for row in found)
    again = ["--output_file", f"{folder}/", "--samples_per_part", "4"]
    with pytest.raises(ValueError, match=r"written with seed=0, and this call has seed=1"):
        generate.main([*start, *again, "--seed", "1"])
    longer = tmp_path / "longer.jsonl"
    longer.write_text(file.read_text() * 2)
    words = [str(longer) if word == str(file) else word for word in start]
    with pytest.raises(ValueError, match=r"written with input='[0-9a-f]{64}', and this call"):
        generate.main([*words, *again])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--output_file", "o.parquet"], "`output_format` parquet is written in parts; name a"),
        (["--output_file", "o.csv"], "'o.csv' would hold plain texts, one per line, which is not"),
        (["--output_file", "o.jsonl.gz"], "end it in .txt, or in .jsonl for JSON Lines, or ask"),
        (["--output_format", "parquet"], "`output_format` parquet is written in parts; name a"),
        (["--text", "w1", "--input_file", "a", "--output_file", "o/"], "from `text` or from `inp"),
        (["--output_file", "o/", "--allow_missing_weights"], "draws weights anew in each process"),
        (["--samples_per_part", "0"], "`samples_per_part` must be at least 1, got 0"),
    ],
)
def test_mistakes_about_the_output_are_named(saved, capsys, words, sentence):
    with pytest.raises(SystemExit):
        generate.main(["--model", saved, *words])
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_several_processes_do_not_write_the_same_rows_twice(saved, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        generate.main(["--model", saved, "--text", "w1"])
    told = " ".join(capsys.readouterr().err.split())
    assert "2 processes were launched, and a single file or the screen is for one of them" in told


def test_the_first_text_is_shown_and_saved_while_nothing_else_changes(saved, tmp_path, capsys):
    options = ("--model", saved, "--text", "w1 [MASK] w2", "w3 [MASK] [MASK]", "--num_samples", "2")
    alone = lines_of(capsys, *options)
    file = tmp_path / "first.svg"
    generate.main([*options, "--show", "--save_animation", str(file), "--batch_size", "1"])
    printed = capsys.readouterr()
    assert printed.out.splitlines() == alone
    shown = [line.split()[1:] for line in printed.err.splitlines() if line[:3].strip().isdigit()]
    assert shown == [["w1", "···", "w2"], alone[0].split()]
    picture = file.read_text(encoding="utf-8")
    assert picture.startswith("<svg")
    assert "1 token in 1 pass<" in picture
    assert f'aria-label="{alone[0]}"' in picture


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--save_animation", "text.png"], r"one of \.html, \.svg, \.gif, \.webp; got 'text\.png'"),
        (["--show", "--output_file", "out/"], "`show` and `save_animation` look on while"),
        (["--save_animation", "a.svg", "--output_file", "out/"], "nobody knows who writes that of"),
    ],
)
def test_what_cannot_be_shown_or_saved_is_said_before_a_model_is_loaded(options, message, capsys):
    with pytest.raises(SystemExit):
        generate.main(["--model", "nowhere", *options])
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["--text", "w1 [MASK]", "[MASK]"], True),
        (["--text", "w1", "--max_new_tokens", "0"], True),
        (["--text", "w1 [MASK]", "w2"], False),
        (["--text", "w1 [MASK]", "--max_new_tokens", "2"], False),
    ],
)
def test_stop_strings_are_for_texts_that_get_new_tokens(saved, words, refused):
    asked = ["--model", saved, "--stop_strings", "w9", "--steps", "1", *words]
    if not refused:
        generate.main(asked)
        return
    with pytest.raises(ValueError, match="`stop_strings` end appended text, and nothing is append"):
        generate.main(asked)
