"""Prompts, conversations and ids: what is given is never masked, what is learned is."""

import json

import pytest
import torch
from datasets import Dataset
from sklearn.datasets import load_digits

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM
from hf_maskgit.training.arguments import DataArguments, ModelArguments, TrainArguments
from hf_maskgit.training.data import check_together
from hf_maskgit.training.examples import prepare_examples
from hf_maskgit.training.ids import ids_tokenizer
from hf_maskgit.training.tokenising import Form, Tokenising, tokenize_texts, tokenizer_key
from scripts import evaluate, generate
from scripts.train import main
from tests.support.tiny import word_tokenizer
from tests.support.tiny_training import SMALL, log_of, words, write_inputs

PROMPTS = Form(prompt_column="prompt", completion_column="completion")
CHATS = Form(messages_column="messages")
# Each turn begins with w1 (the user's) or w2 (the assistant's) and ends with w3.
PLAIN = (
    "{% for m in messages %}{{ 'w1 ' if m['role'] == 'user' else 'w2 ' }}{{ m['content'] }} w3 "
    "{% endfor %}{% if add_generation_prompt %}w2 {% endif %}"
)
MARKED = (
    "{% for m in messages %}{% if m['role'] == 'user' %}w1 {{ m['content'] }} w3 {% else %}w2 "
    "{% generation %}{{ m['content'] }} w3 {% endgeneration %}{% endif %}{% endfor %}"
)
FORGETFUL = "{% for m in messages %}{{ m['content'] if loop.last else 'w9' }} {% endfor %}"


def pairs(*rows):
    return Dataset.from_dict(
        {"prompt": [row[0] for row in rows], "completion": [row[1] for row in rows]}
    )


def chat(*contents):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]


def chatting(template):
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_a_prompt_is_never_masked_and_its_completion_is_in_every_epoch():
    tokenizer = word_tokenizer()
    data = pairs(("w1 w2", "w3 w4 w5"), ("w6", "w7"))
    examples, report = prepare_examples(data, tokenizer, form=PROMPTS, max_length=16)
    assert examples["input_ids"][:] == tokenizer(["w1 w2 w3 w4 w5", "w6 w7"])["input_ids"]
    assert examples["maskable"][:] == [[0, 0, 0, 1, 1, 1, 0], [0, 0, 1, 0]]
    assert (report.texts, report.words) == (2, 7)
    collator = DataCollatorForMaskGit(tokenizer)
    masked = torch.zeros(2, 7, dtype=torch.bool)
    for epoch in range(40):  # a position of three is chosen with probability 2/3 on average
        collator.set_epoch(epoch)
        batch = collator(list(examples))
        masked |= batch["masked_positions"]
        assert ((batch["labels"] != -100) >= batch["masked_positions"]).all()
    assert masked.tolist() == [
        [False, False, False, True, True, True, False],
        [False, False, True, False, False, False, False],
    ]


def test_what_is_too_long_is_cut_from_the_completion_alone():
    tokenizer = word_tokenizer()
    data = pairs(("w1 w2", "w3 w4 w5"))
    examples, report = prepare_examples(data, tokenizer, form=PROMPTS, max_length=6)
    assert examples["input_ids"][:] == tokenizer(["w1 w2 w3 w4"])["input_ids"]
    assert (report.cut_texts, report.cut_tokens) == (1, 1)
    with pytest.raises(ValueError, match="given in row 0 takes up all of an example's 2 tokens"):
        prepare_examples(data, tokenizer, form=PROMPTS, max_length=4)
    with pytest.raises(ValueError, match="text in row 0 has 5 tokens, and an example has room fo"):
        prepare_examples(data, tokenizer, form=PROMPTS, max_length=6, too_long="refuse")


def test_a_completion_without_a_token_is_refused_or_dropped():
    data = pairs(("w1", "w2"), ("w3", ""))
    with pytest.raises(ValueError, match="row 1 has no token that could be masked"):
        prepare_examples(data, word_tokenizer(), form=PROMPTS)
    examples, _ = prepare_examples(data, word_tokenizer(), form=PROMPTS, drop_empty_texts=True)
    assert len(examples) == 1


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_what_the_assistant_says_is_learned(template):
    tokenizer = chatting(template)
    data = Dataset.from_dict({"messages": [chat("w4", "w5 w6", "w7 w8", "w9"), chat("w4", "w5")]})
    examples, report = prepare_examples(data, tokenizer, form=CHATS, max_length=32)
    whole = tokenizer.apply_chat_template(data["messages"][0], tokenize=True, return_dict=True)
    assert examples["input_ids"][0] == whole["input_ids"]
    shown = ["w1 w4 w3 w2 w5 w6 w3 w1 w7 w8 w3 w2 w9 w3", "w1 w4 w3 w2 w5 w3"]
    assert [tokenizer.decode(ids) for ids in examples["input_ids"]] == shown
    assert examples["maskable"][0] == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1]
    assert examples["maskable"][1] == [0, 0, 0, 0, 1, 1]
    assert report.words == 20


@pytest.mark.parametrize(
    ("template", "row", "sentence"),
    [
        (PLAIN, [], "row 0 is none: a list of"),
        (PLAIN, [{"role": "user", "content": "w1"}], "row 0 has no turn of the role 'assistant'"),
        (FORGETFUL, chat("w1", "w2", "w3", "w4"), "row 0 cannot be split into turns"),
        (
            "{{ raise_exception('no') }}",
            chat("w1", "w2"),
            r"row 0 does not go through the chat template \(no\)",
        ),
    ],
)
def test_what_is_no_conversation_is_refused_by_its_row(template, row, sentence):
    tokenise = Tokenising(chatting(template), CHATS)
    with pytest.raises(ValueError, match=f"The conversation in {sentence}"):
        tokenise([row], [0])


def test_a_tokenizer_that_cannot_read_conversations_is_refused():
    with pytest.raises(ValueError, match="has no chat template, by which `messages_column` is rea"):
        Tokenising(word_tokenizer(), CHATS)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"prompt_column": "a"}, "`prompt_column` names what is given and `completion_column`"),
        ({"text_column": "a", "ids_column": "b"}, r"names texts \('a'\), and another option .*'b'"),
        ({"completion_column": "a"}, "`completion_column` names what is learned behind what"),
        ({"messages_column": "a", "ids_column": "b", "vocab_size": 9}, "give one of them"),
        ({"prompt_column": "a", "messages_column": "b"}, "`prompt_column` names what is given"),
        ({"ids_column": "a"}, "`vocab_size` says how many ids there are; give both"),
        ({"vocab_size": 9}, "give both or neither"),
        ({"messages_column": "a", "pack": "joined"}, "would tear completions from their prompts"),
        ({"messages_column": "a", "too_long": "split"}, "'cut', which takes from the end of the"),
        ({"too_long": "fold"}, "`too_long` must be one of cut, split, refuse, got 'fold'"),
        ({"pack": "tight"}, "`pack` must be one of no, joined"),
    ],
)
def test_forms_that_do_not_go_together_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        DataArguments("a", **options)


@pytest.mark.parametrize(
    ("model", "data", "sentence"),
    [
        ({}, {}, "`from_scratch` builds a new encoder and needs `tokenizer`"),
        (
            {"tokenizer": "t"},
            {"ids_column": "a", "vocab_size": 9},
            "need no tokenizer; leave `tokenizer` out",
        ),
    ],
)
def test_a_vocabulary_comes_from_a_tokenizer_or_from_its_size(model, data, sentence):
    options = ModelArguments("bert", from_scratch=True, **model)
    with pytest.raises(ValueError, match=sentence):
        check_together(options, DataArguments("a", **data), TrainArguments("b"))


def test_a_long_text_is_split_without_losing_a_token():
    tokenizer = word_tokenizer()
    texts = Dataset.from_dict({"text": ["w1 w2 w3 w4 w5", "w6"]})
    examples, report = prepare_examples(texts, tokenizer, max_length=4, too_long="split")
    expected = tokenizer(["w1 w2", "w3 w4", "w5", "w6"])["input_ids"]
    assert examples["input_ids"][:] == expected
    assert (report.texts, report.examples, report.cut_tokens) == (2, 4, 0)
    assert examples["example_id"][:] == [0, 1, 2, 3]


def test_texts_are_tokenised_once(tmp_path, monkeypatch):
    """By what they are, what the tokenizer is, and how it reads; not by what it has read before."""
    path = tmp_path / "texts.parquet"
    Dataset.from_dict({"text": ["w1 w2", "w3"]}).to_parquet(path)
    load = lambda: Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))  # noqa: E731
    first, _ = prepare_examples(load(), word_tokenizer(), max_length=8)
    read_before = word_tokenizer()
    read_before(["w1", "w2 w3"], truncation=True, max_length=3, padding=True)
    assert tokenizer_key(read_before) == tokenizer_key(word_tokenizer())
    calls = []
    plain = Tokenising.__call__
    monkeypatch.setattr(Tokenising, "__call__", lambda *a: calls.append(1) or plain(*a))
    again, _ = prepare_examples(load(), read_before, max_length=8)
    assert (again[:], calls) == (first[:], [])
    other = word_tokenizer()
    other.add_tokens(["w1 w2"])
    prepare_examples(load(), other, max_length=8)
    assert calls == [1]


def test_ids_are_taken_as_they_are_and_checked():
    tokenizer = ids_tokenizer(16)
    assert (tokenizer.mask_token_id, tokenizer.pad_token_id, len(tokenizer)) == (16, 17, 19)
    assert tokenizer("3 0 15")["input_ids"] == [3, 0, 15]
    assert tokenizer.decode([3, 0, 15, 17], skip_special_tokens=True) == "3 0 15"
    form = Form(ids_column="ids")
    data = Dataset.from_dict({"ids": [[0, 15, 3], [7]]})
    examples, report = prepare_examples(data, tokenizer, form=form)
    assert examples["input_ids"][:] == [[0, 15, 3], [7]]
    assert report.tokens == 4
    tokenise = Tokenising(tokenizer, form)
    for row, sentence in (
        ([3, 16], "holds the id 16, and `vocab_size` is 16: ids lie in 0..15"),
        ([-1], "holds the id -1"),
        ("3", "holds no list of integers"),
        ([1.0], "holds no list of integers"),
    ):
        with pytest.raises(ValueError, match=f"Row 4 of column 'ids' {sentence}"):
            tokenise([row], [4])


def test_ids_may_stand_behind_ids_that_are_given():
    form = Form(prompt_column="class", ids_column="ids")
    assert form.columns == ("class", "ids")
    tokenizer = ids_tokenizer(16)
    data = Dataset.from_dict({"ids": [[0, 15, 3], [7]], "class": [[9], []]})
    examples, report = prepare_examples(data, tokenizer, form=form)
    assert examples["input_ids"][:] == [[9, 0, 15, 3], [7]]
    assert examples["maskable"][:] == [[0, 1, 1, 1], [1]]
    assert report.tokens == 5
    with pytest.raises(ValueError, match="Row 4 of column 'class' holds the id 16"):
        Tokenising(tokenizer, form)([[16]], [[3]], [4])


@pytest.mark.wide
@pytest.mark.usefixtures("_fresh_accelerate")
def test_a_run_on_prompts_learns_and_is_evaluated(tmp_path):
    inputs = write_inputs(tmp_path)
    rows = [{"prompt": f"w{i % 5}", "completion": f"w{i % 5} w{i % 5}"} for i in range(60)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    inputs[inputs.index("--dataset") + 1] = str(tmp_path / "pairs.jsonl")
    columns = {"prompt_column": "prompt", "completion_column": "completion"}
    options = {**SMALL, **columns, "validation_fraction": 0.2, "output_dir": tmp_path / "run"}
    main([*inputs, *words(options)])
    found = evaluate.main(
        [
            *("--model", str(tmp_path / "run"), "--dataset", str(tmp_path / "pairs.jsonl")),
            *words({**columns, "num_samples": 4}),
        ]
    )
    assert found["maskable_tokens"] == 120  # two of each row, and no prompt


@pytest.mark.wide
@pytest.mark.usefixtures("_fresh_accelerate")
def test_images_are_learned_written_and_evaluated_without_a_tokenizer(tmp_path, capsys):
    """Handwritten digits of 8 x 8 pixels in 17 shades."""
    digits = load_digits().images[:120].astype(int).reshape(-1, 64)
    Dataset.from_dict({"pixels": digits.tolist()}).to_parquet(tmp_path / "digits.parquet")
    options = {
        **SMALL,
        "encoder": "bert",
        "from_scratch": "true",
        "encoder_overrides": json.dumps(
            {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
            | {"intermediate_size": 32, "max_position_embeddings": 64}
        ),
        "dataset": tmp_path / "digits.parquet",
        "ids_column": "pixels",
        "vocab_size": 17,
        "max_length": 64,
        "validation_fraction": 0.2,
        "output_dir": tmp_path / "run",
    }
    main(words(options))
    assert min(log_of(tmp_path / "run").values()) < 3.1
    model = MaskGitForMaskedLM.from_pretrained(tmp_path / "run")
    assert (model.config.mask_token_id, model.config.pad_token_id) == (17, 18)
    assert model.config.vocab_size == 20
    image = model.generate(max_new_tokens=64, steps=4, seed=0)
    assert image.shape == (1, 64)
    assert int(image.max()) < 17
    holes = torch.tensor(digits[:1]).clone()
    holes[:, 20:30] = 17
    filled = model.generate(holes, steps=4, seed=0)
    assert torch.equal(filled[:, :20], holes[:, :20])
    assert int(filled.max()) < 17
    found = evaluate.main(
        [
            *("--model", str(tmp_path / "run"), "--dataset", str(tmp_path / "digits.parquet")),
            *words({"ids_column": "pixels", "num_samples": 4, "num_examples": 20}),
        ]
    )
    assert found["maskable_tokens"] == 20 * 64
    generate.main(["--model", str(tmp_path / "run"), "--max_new_tokens", "64", "--steps", "4"])
    written = capsys.readouterr().out.strip().splitlines()[-1].split()
    assert len(written) == 64
    assert {*map(int, written)} <= set(range(17))


@pytest.mark.parametrize(
    ("form", "columns", "kept"),
    [
        (Form(), {"text": ["w1", None, "w2"]}, [0, 2]),
        (Form(ids_column="ids"), {"ids": [[3], None, []]}, [0]),
        (PROMPTS, {"prompt": ["w1", None, "w1"], "completion": ["w2", "w3", None]}, [0, 1]),
    ],
    ids=["texts", "ids", "prompts"],
)
def test_a_null_is_an_empty_text_where_these_are_dropped(form, columns, kept):
    data = Dataset.from_dict(columns)
    dropped = tokenize_texts(data, word_tokenizer(), form, drop_empty_texts=True)
    assert dropped["row"][:] == kept
    empty = [] if form.ids_column else ""
    written = {
        name: [empty if one is None else one for one in column] for name, column in columns.items()
    }
    same = tokenize_texts(Dataset.from_dict(written), word_tokenizer(), form, drop_empty_texts=True)
    assert dropped["input_ids"][:] == same["input_ids"][:]
    with pytest.raises(ValueError, match="holds (NoneType, not a text. Remove .* `drop_|no list)"):
        tokenize_texts(data, word_tokenizer(), form)


def test_a_null_conversation_is_dropped_with_empty_texts():
    data = Dataset.from_dict({"messages": [None, chat("w4", "w5")]})
    tokenizer = chatting(MARKED)
    assert tokenize_texts(data, tokenizer, CHATS, drop_empty_texts=True)["row"][:] == [1]
    with pytest.raises(ValueError, match="The conversation in row 0"):
        tokenize_texts(data, tokenizer, CHATS)
