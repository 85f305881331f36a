"""The model card: the Hub can read it, it says what it was told, and its snippet runs."""

import ast
import contextlib
import importlib.metadata
import io
import re
from dataclasses import replace

import pytest
import torch
from huggingface_hub import ModelCard
from hypothesis import example, given, settings
from hypothesis import strategies as st

import hf_maskgit
from hf_maskgit.evaluation import NelboOutput
from hf_maskgit.hub.card import (
    GeneratorCard,
    address_card,
    card_from_config,
    installed_versions,
    own_examples,
    own_samples,
    render_model_card,
    write_model_card,
)
from tests.support.project import ROOT
from tests.support.tiny import protein_tokenizer, tiny_model, word_tokenizer


def bound(nats, std_error, num_tokens):
    return NelboOutput(
        torch.tensor(nats, dtype=torch.float64),
        torch.tensor(std_error, dtype=torch.float64),
        torch.tensor(num_tokens),
    )


SMALL = GeneratorCard(
    model_id="someone/some-verses",
    encoder="some-encoder",
    training_data="Verses of a book.",
    masked_example="w1 [MASK] w3",
    prompt_example="w1 w2",
)
FULL = replace(
    SMALL,
    license="mit",
    license_note="The weights are under the MIT licence.",
    num_parameters=22_713_216,
    training={"updates": 700, "number format": "bf16"},
    held_out_data="verses of other chapters",
    held_out_dataset="some-owner/other-chapters",
    bound=bound([10.0, 21.0], [3.0, 4.0], [3, 5]),  # 31 / 8 and 5 / 8 nats per token
    bound_before=bound([40.0, 40.0], [0.8, 0.6], [3, 5]),  # 10 and 1 / 8
    unigram_nats=6.0247,
    samples=["and it came to pass", "in those days"],
    sampling="Not selected, 24 passes.",
    limits=["It was trained for minutes."],
    base_model="some-owner/some-encoder",
    datasets=["some-owner/some-book"],
    language=["en"],
    tags=["verses"],
    versions={"hf_maskgit": "0.1.0", "torch": "2.13.0"},
)


def sections(card):
    """Text of each second-level section by its title, in order."""
    parts = re.split(r"^## (.+)$", render_model_card(card).content, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows_of(section):
    """Cells of the table in a section; a cell ends at a bar without a backslash before it."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def snippet_of(card):
    (code,) = re.findall(r"^```python\n(.*?)^```$", str(render_model_card(card)), re.S | re.M)
    return code


def test_the_hub_reads_back_the_metadata(tmp_path):
    path = write_model_card(tmp_path, FULL)
    assert path == tmp_path / "README.md"
    loaded = ModelCard.load(path)
    assert loaded.data.to_dict() == {
        "base_model": "some-owner/some-encoder",
        "datasets": ["some-owner/some-book"],
        "language": ["en"],
        "library_name": "hf_maskgit",
        "license": "mit",
        "pipeline_tag": "text-generation",
        "tags": ["masked-diffusion", "maskgit", "infilling", "fill-mask", "verses"],
        "model-index": [
            {
                "name": "some-verses",
                "results": [
                    {
                        "task": {"type": "text-generation"},
                        "dataset": {
                            "name": "verses of other chapters",
                            "type": "some-owner/other-chapters",
                        },
                        "metrics": [
                            {
                                "type": "nelbo",
                                "name": "nats per token of an upper bound on the negative "
                                "log-likelihood",
                                "value": 3.875,
                            },
                            {
                                "type": "nelbo_std_error",
                                "name": "standard error of the nats per token of an upper bound "
                                "on the negative log-likelihood",
                                "value": 0.625,
                            },
                        ],
                    }
                ],
            }
        ],
    }
    assert [
        (result.task_type, result.metric_type, result.metric_value)
        for result in loaded.data.eval_results
    ] == [
        ("text-generation", "nelbo", 3.875),
        ("text-generation", "nelbo_std_error", 0.625),
    ]


def test_a_bound_on_data_that_is_not_on_the_hub_is_not_laid_to_the_training_data():
    (result, _) = render_model_card(replace(FULL, held_out_dataset=None)).data.eval_results
    assert result.dataset_type == "other"


def test_what_is_unknown_is_not_in_the_metadata():
    assert render_model_card(SMALL).data.to_dict() == {
        "library_name": "hf_maskgit",
        "pipeline_tag": "text-generation",
        "tags": ["masked-diffusion", "maskgit", "infilling", "fill-mask"],
    }


def test_everything_told_stands_in_its_section():
    card = sections(FULL)
    assert list(card) == [
        "How to use",
        "Training data",
        "Training",
        "Evaluation",
        "Samples",
        "Limits",
        "Licence",
        "Versions",
    ]
    top = render_model_card(FULL).content.split("## ")[0]
    assert "# some-verses\n" in top
    assert "It is some-encoder,\ntrained" in top
    assert "(22.7 million parameters)" in top
    assert card["Training data"].strip() == "Verses of a book."
    assert rows_of(card["Training"])[2:] == [["updates", "700"], ["number format", "bf16"]]
    assert "On verses of other chapters (2 texts, 8 tokens):" in card["Evaluation"]
    assert rows_of(card["Evaluation"])[2:] == [
        ["this model", "3.875", "0.625"],
        ["before training", "10.000", "0.125"],
        ["unigram model of the training texts", "6.025", ""],
    ]
    assert "perplexity per token is at most 48.2." in card["Evaluation"]  # exp(3.875)
    assert "Not selected, 24 passes." in card["Samples"]
    assert "- It was trained for minutes.\n" in card["Limits"]
    assert card["Licence"].strip() == "The weights are under the MIT licence."
    assert card["Versions"].strip() == "hf_maskgit 0.1.0, torch 2.13.0."


def test_a_card_that_knows_little_says_so():
    card = sections(SMALL)
    assert list(card) == [
        "How to use",
        "Training data",
        "Evaluation",
        "Limits",
        "Licence",
        "Versions",
    ]
    assert card["Evaluation"].strip() == "The model was not evaluated on held-out texts."
    assert card["Licence"].strip() == "The licence of the weights is not stated."


@pytest.mark.parametrize("card", [SMALL, FULL], ids=["small", "full"])
def test_nothing_of_the_template_is_left_over(card):
    text = str(render_model_card(card))
    assert not re.search(r"\{\{|\}\}|\{%|%\}|None|Undefined|\n\n\n|[ \t]$", text, re.M)


def code_blocks(markdown):
    """Contents of the fenced blocks, by CommonMark's rule: a fence ends at one at least as long."""
    blocks, fence = [], None
    for line in markdown.split("\n"):
        opening = re.fullmatch(r"(`{3,})text", line)
        if fence is None and opening:
            fence, lines = opening[1], []
        elif fence is not None and re.fullmatch(f" {{0,3}}{fence}`* *", line):
            blocks.append("\n".join(lines))
            fence = None
        elif fence is not None:
            lines.append(line)
    return blocks


@pytest.mark.wide
@settings(max_examples=30)
@given(st.lists(st.text(alphabet="a`~ \n[", min_size=1), min_size=1, max_size=3))
@example(["```text\nno end", "`", "````"])
def test_samples_are_shown_as_they_are(samples):
    assert code_blocks(sections(replace(FULL, samples=samples))["Samples"]) == samples


def test_a_bar_or_a_new_line_stays_within_its_cell():
    card = replace(FULL, training={"a|b": "c|d\ne", "f": 1})
    assert rows_of(sections(card)["Training"])[2:] == [[r"a\|b", r"c\|d e"], ["f", "1"]]


@pytest.mark.wide
@settings(max_examples=15)
@given(st.text())
@example('a "quoted" \\ [MASK]\n\u2028é')
def test_examples_of_any_text_are_valid_python(text):
    card = replace(SMALL, masked_example=text, prompt_example=text, model_id=f"me/{text}")
    calls = [node for node in ast.walk(ast.parse(snippet_of(card))) if isinstance(node, ast.Call)]
    given_texts = [
        node.args[0].value for node in calls if node.args and isinstance(node.args[0], ast.Constant)
    ]
    options = [k.value.value for c in calls for k in c.keywords if k.arg == "model"]
    assert sorted(given_texts) == sorted(
        ["infilling", "text-generation", text, text, text, *[f"me/{text}"] * 2]
    )
    assert options == [f"me/{text}"] * 2


@pytest.mark.wide
def test_the_snippet_runs_on_a_saved_model(tmp_path, monkeypatch):
    tiny_model().save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    card = replace(SMALL, model_id="model")
    write_model_card(tmp_path / "model", card)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippet_of(card), {})
    filled, continued, by_hand = printed.getvalue().splitlines()
    assert re.fullmatch(r"w1 w\d+ w3", filled)
    assert re.match(r"w1 w2 ?", continued)
    assert set(continued.split()) <= {f"w{i}" for i in range(35)}
    assert re.fullmatch(r"w1 w\d+ w3", by_hand)


def test_versions_are_those_installed():
    versions = installed_versions()
    assert versions["hf_maskgit"] == hf_maskgit.__version__
    for package in ("torch", "transformers"):
        assert versions[package] == importlib.metadata.version(package)


def test_the_template_in_the_folder_of_cards_is_the_one_the_package_ships():
    shipped = ROOT / "hf_maskgit" / "hub" / "model_card_template.md"
    assert (ROOT / "model_cards" / "template.md").read_text() == shipped.read_text()


@pytest.mark.wide
@settings(max_examples=30)
@given(st.text(), st.one_of(st.none(), st.text()), st.booleans())
@example("a/b", None, True)
@example('"; import os', 'main"', False)
def test_a_card_that_moved_is_the_card_of_its_new_place(name, revision, with_code):
    """However often it moves, and back: nothing of a former place is left."""
    there = f"me/{name}"
    card = address_card(render_model_card(FULL), "x/y", revision="r", with_code=not with_code)
    moved = address_card(card, there, revision=revision, with_code=with_code)
    code = moved.text.split("```python\n")[1].split("```")[0]
    tree = ast.parse(code)
    loads = [
        (node.args, {k.arg: k.value.value for k in node.keywords})
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (
            any(k.arg == "model" for k in node.keywords)
            or getattr(node.func, "attr", "") == "from_pretrained"
        )
    ]
    assert len(loads) == 4
    for args, options in loads:
        assert (options.pop("model", None) or args[0].value) == there
        expected = {} if revision is None else {"revision": revision}
        assert options == expected | ({"trust_remote_code": True} if with_code else {})
    imported = [
        alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names
    ]
    assert imported == ([] if with_code else ["hf_maskgit"])
    assert ("package hf_maskgit has to be installed" in code) is not with_code
    assert "x/y" not in str(moved)
    home = address_card(moved, FULL.model_id)
    assert str(home) == str(render_model_card(FULL))


def test_title_and_results_move_too_and_nothing_else():
    moved = address_card(render_model_card(FULL), "me/others")
    expected = render_model_card(replace(FULL, model_id="me/others"))
    assert str(moved) == str(expected)
    assert "someone" not in str(moved)


def test_a_title_of_its_own_stays():
    card = replace(FULL, title="Some verses, small")
    assert str(render_model_card(card)).count("Some verses, small") == 2
    assert str(address_card(render_model_card(card), "me/others")) == str(
        render_model_card(replace(card, model_id="me/others"))
    )


def test_a_card_of_other_making_keeps_its_text():
    text = "---\nlicense: mit\n---\n\n# some-verses\n\n```python\nprint('some-verses')\n```\n"
    assert address_card(ModelCard(text), "me/others").text == ModelCard(text).text


@pytest.mark.wide
@pytest.mark.parametrize("kind", ["bert", "esm"])
def test_a_card_made_from_the_configuration_claims_nothing_else(kind):
    model = tiny_model(kind)
    tokenizer = {"bert": word_tokenizer, "esm": protein_tokenizer}[kind]()
    card = card_from_config(model, tokenizer, "me/verses")
    assert card.encoder == f"an encoder of the type `{kind}`"
    assert card.license is None
    assert card.bound is None
    assert (card.masked_example, card.prompt_example) == own_examples(model, tokenizer)
    ids = tokenizer(card.masked_example)["input_ids"]
    assert ids.count(tokenizer.mask_token_id) == 1
    assert f"({sum(p.numel() for p in model.parameters()):,} parameters)" in str(
        render_model_card(card)
    )


def test_the_examples_are_short_however_long_the_model_writes():
    model, tokenizer = tiny_model(), word_tokenizer()
    model.generation_config.max_new_tokens = 50
    masked, prompt = own_examples(model, tokenizer)
    assert (len(masked.split()), masked.split()[8]) == (16, tokenizer.mask_token)
    assert masked.split()[:8] == prompt.split()
    model.generation_config.max_new_tokens = 3
    masked, _ = own_examples(model, tokenizer)
    assert len(masked.split()) == 3


def test_a_former_card_is_replaced(tmp_path):
    (tmp_path / "README.md").write_text("old")
    write_model_card(tmp_path, SMALL)
    assert "old" not in (tmp_path / "README.md").read_text().split()


def test_a_card_without_a_model_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere.*save the model there first"):
        write_model_card(tmp_path / "nowhere", SMALL)


@pytest.mark.parametrize("name", ["bound", "bound_before"])
@pytest.mark.parametrize("nats", [float("inf"), float("nan")])
def test_a_bound_that_is_no_number_is_refused(name, nats):
    with pytest.raises(ValueError, match=f"`{name}` is {nats} nats per token, not a finite number"):
        replace(FULL, **{name: bound([nats], [1.0], [3])})


def test_samples_without_a_word_on_their_drawing_are_refused():
    with pytest.raises(ValueError, match="`samples` come without `sampling`"):
        replace(SMALL, samples=["a"])


def test_texts_have_the_lengths_asked_for():
    tokenizer = word_tokenizer()
    texts = own_samples(tiny_model(), tokenizer, [5, 12, 9], seed=0)
    assert [len(text.split()) for text in texts] == [3, 10, 7]  # without the two that frame them
