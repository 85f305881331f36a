"""Every encoder type of transformers: what is checked, what docs/encoders.md says, what is refused.

The checks themselves are in `support_matrix.py`, which writes the table.
"""

import copy
import json
import os

import pytest
import torch
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    logging,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from hf_maskgit import MaskGitConfig, MaskGitForMaskedLM
from hf_maskgit.core import encoder_padding
from hf_maskgit.core.special_tokens import tokenizer_fields
from tests.support import support_matrix
from tests.support.grids import wide
from tests.support.support_matrix import (
    PAGE,
    row_of,
    run_checks,
    table,
    table_of_page,
    tiny_encoder_config,
    tiny_generator,
    tokenizer_of,
)
from tests.support.tiny import bert_config, word_tokenizer

TYPES = sorted(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
# One of each sort: classic, offset positions, rotary, protein, relative; one without padding.
DEFAULT_TIER = ("bert", "roberta", "modernbert", "esm", "deberta-v2", "fnet")
WIDE_TIER = [kind for kind in DEFAULT_TIER if kind not in ("bert", "fnet")]
REFUSED = ("bart", "mbart", "mra", "mvp", "perceiver", "reformer")
SLOW_TIER = [kind for kind in TYPES if kind not in (*DEFAULT_TIER, *REFUSED)]


@pytest.fixture(autouse=True)
def _no_progress_bars():
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


# --- the table -----------------------------------------------------------------------------------


def row_of_page(kind):
    (row,) = [line for line in table_of_page().splitlines() if line.startswith(f"| `{kind}` |")]
    return row


def test_the_table_lists_the_types_of_transformers():
    rows = [line for line in table_of_page().splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == TYPES, (
        "run python -m tests.support.support_matrix"
    )


@pytest.mark.parametrize("kind", ["bert", "fnet", *map(wide, WIDE_TIER), *REFUSED])
def test_a_type_passes_and_the_table_says_so(kind):
    assert row_of_page(kind) == str(row_of(kind)), "run python -m tests.support.support_matrix"


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW_TIER)
def test_every_type_passes_and_the_table_says_so(kind):
    assert row_of_page(kind) == str(row_of(kind)), "run python -m tests.support.support_matrix"


def test_the_command_writes_the_table_and_nothing_else(monkeypatch, tmp_path):
    page = tmp_path / "encoders.md"
    page.write_text(PAGE.read_text())
    monkeypatch.setattr(support_matrix, "PAGE", page)
    monkeypatch.setattr(support_matrix, "TYPES", ("bart", "perceiver"))
    support_matrix.main()
    before, after = PAGE.read_text(), page.read_text()
    rows = [row_of("bart"), row_of("perceiver")]
    assert after.replace(table(rows), "-") == before.replace(
        before[before.index("Checked with") : before.index("\n\n" + support_matrix.END)], "-"
    )


def test_a_check_that_fails_names_the_type_and_the_check(monkeypatch):
    def check_nothing(kind):
        assert kind == "another"

    monkeypatch.setattr(support_matrix, "CHECKS", (check_nothing,))
    with pytest.raises(AssertionError, match="bert: check_nothing failed"):
        run_checks("bert")


def test_a_type_that_leaks_unknown_to_the_library_fails(monkeypatch):
    """What a newer release might bring: padding that changes predictions."""
    monkeypatch.setattr(encoder_padding, "PADDING_LEAKS", {})
    monkeypatch.setattr(support_matrix, "PADDING_LEAKS", {})
    with pytest.raises(AssertionError, match="fnet: check_padding_as_told failed"):
        run_checks("fnet")


class NewConfig(BertConfig):
    model_type = "brand_new"


class NewModel(BertModel):
    config_class = NewConfig


class NewForMaskedLM(BertForMaskedLM):
    config_class = NewConfig


@pytest.fixture
def registered():
    """An encoder of one's own, known to transformers for the length of a test."""
    AutoConfig.register("brand_new", NewConfig)
    AutoModel.register(NewConfig, NewModel)
    AutoModelForMaskedLM.register(NewConfig, NewForMaskedLM)
    yield
    CONFIG_MAPPING._extra_content.pop("brand_new")
    for auto in (AutoModel, AutoModelForMaskedLM):
        auto._model_mapping._extra_content.pop(NewConfig)


@pytest.mark.wide
@pytest.mark.usefixtures("registered")
def test_a_new_type_is_checked_without_a_word_about_it():
    run_checks("brand_new")


# --- what is refused -----------------------------------------------------------------------------


def wrap(text_config):
    return MaskGitForMaskedLM(MaskGitConfig(text_config=text_config, mask_token_id=4))


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_type_says_why(kind, tmp_path):
    config = tiny_encoder_config(kind)
    sentence = row_of(kind).note
    assert sentence.startswith(f"'{kind}' ")
    assert sentence.endswith(".")
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the whole message is compared)
        wrap(config)
    assert str(refused.value) == sentence
    config.save_pretrained(tmp_path)  # no weights: refused before any would be loaded
    with pytest.raises(ValueError) as refused:  # noqa: PT011
        MaskGitForMaskedLM.from_encoder(str(tmp_path), tokenizer=word_tokenizer())
    assert str(refused.value) == sentence


def test_a_loaded_model_of_a_refused_type():
    model = AutoModelForMaskedLM.from_config(tiny_encoder_config("bart"))
    with pytest.raises(ValueError, match="'bart' is an encoder-decoder"):
        MaskGitForMaskedLM.from_encoder(model, tokenizer=word_tokenizer())


UNKNOWN = "is not what transformers knows as '{}', so a saved generator could not be loaded"


@pytest.mark.parametrize("kind", ["brand_new", "bert"])
def test_a_configuration_that_transformers_does_not_know(kind):
    config = NewConfig(**{**bert_config().to_diff_dict(), "model_type": kind})
    assert config.model_type == kind
    with pytest.raises(ValueError, match="NewConfig " + UNKNOWN.format(kind)):
        MaskGitForMaskedLM.from_encoder(NewForMaskedLM(config), tokenizer=word_tokenizer())
    with pytest.raises(ValueError, match="NewConfig " + UNKNOWN.format(kind)):
        wrap(config)


REMOTE_CODE = """
from transformers import BertConfig, BertForMaskedLM

class FarConfig(BertConfig):
    model_type = "far"

class FarForMaskedLM(BertForMaskedLM):
    config_class = FarConfig
"""


def test_an_encoder_with_code_of_its_own(tmp_path):
    values = {**bert_config().to_diff_dict(), "model_type": "far"}
    values["auto_map"] = {
        "AutoConfig": "far.FarConfig",
        "AutoModelForMaskedLM": "far.FarForMaskedLM",
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "far.py").write_text(REMOTE_CODE)
    with pytest.raises(ValueError, match="FarConfig " + UNKNOWN.format("far")):
        MaskGitForMaskedLM.from_encoder(
            str(tmp_path), tokenizer=word_tokenizer(), trust_remote_code=True
        )


def test_a_configuration_handed_to_loading(tmp_path):
    """The checkpoint need not hold one then."""
    encoder = AutoModelForMaskedLM.from_config(bert_config())
    encoder.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    model = MaskGitForMaskedLM.from_encoder(
        str(tmp_path), tokenizer=word_tokenizer(), config=bert_config(num_hidden_layers=1)
    )
    assert len(model.denoiser.bert.encoder.layer) == 1


@pytest.mark.parametrize(
    ("kind", "changes", "match"),
    [
        ("bert", {"is_decoder": True}, "set up as a decoder.*text_config.is_decoder=False"),
        ("xlm", {"causal": True}, "set up as a decoder.*text_config.causal=False"),
        ("esm", {"token_dropout": True}, "Set text_config.token_dropout=False"),
        ("big_bird", {"attention_type": "block_sparse"}, "attention_type='original_full'"),
        ("xmod", {"default_language": None}, "no language is chosen. Set text_config.default_lang"),
        ("nystromformer", {"num_landmarks": 8}, "num_landmarks equals"),
        ("flaubert", {"pre_norm": True}, "FlauBERT with text_config.pre_norm=True .* use one with"),
        ("yoso", {"use_expectation": False}, "unless text_config.use_expectation=True"),
    ],
)
def test_a_setting_that_cannot_work(kind, changes, match):
    config = tiny_encoder_config(kind)
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=match):
        wrap(config)


def test_flaubert_still_fails_in_transformers():
    """Once this test fails, the refusal of `pre_norm` can go."""
    config = tiny_encoder_config("flaubert")
    config.pre_norm = True
    with pytest.raises(TypeError, match="not subscriptable"):
        AutoModelForMaskedLM.from_config(config)(input_ids=torch.tensor([[2, 7, 3]]))


# --- what `from_encoder` adapts ------------------------------------------------------------------


def test_big_bird_attends_in_full_from_the_start(tmp_path, caplog):
    """Otherwise the first short text would change what is said of a longer one."""
    config = tiny_encoder_config("big_bird")
    full = AutoModelForMaskedLM.from_config(config).eval()
    full.config.attention_type = "block_sparse"
    full.config.block_size, full.config.num_random_blocks = 4, 1
    full.save_pretrained(tmp_path)
    model = MaskGitForMaskedLM.from_encoder(str(tmp_path), tokenizer=tokenizer_of("big_bird"))
    assert "BigBirdForMaskedLM attends in full from now on" in caplog.text
    assert model.config.text_config.attention_type == "original_full"
    text = torch.arange(5, 37)[None]  # longer than the 28 tokens up to which BigBird does it itself
    sparse = AutoModelForMaskedLM.from_pretrained(tmp_path)
    full.config.attention_type = "original_full"
    logits = model(input_ids=text).logits
    torch.testing.assert_close(logits, full(input_ids=text).logits)
    assert not torch.allclose(logits, sparse(input_ids=text).logits, atol=1e-4)
    model.save_pretrained(tmp_path / "own")
    reloaded = MaskGitForMaskedLM.from_pretrained(tmp_path / "own")
    assert torch.equal(reloaded(input_ids=text).logits, logits)


def test_a_language_is_chosen_while_loading(tmp_path):
    encoder = AutoModelForMaskedLM.from_config(tiny_encoder_config("xmod")).eval()
    text = torch.tensor([[0, 9, 10, 4, 2]])
    expected = {}
    for language in ("en_XX", "de_DE"):
        encoder.set_default_language(language)
        expected[language] = encoder(input_ids=text).logits
    encoder.config.default_language = None
    encoder.save_pretrained(tmp_path)
    for language, logits in expected.items():
        model = MaskGitForMaskedLM.from_encoder(
            str(tmp_path), tokenizer=tokenizer_of("xmod"), default_language=language
        )
        assert torch.equal(model(input_ids=text).logits, logits)
    assert not torch.equal(*expected.values())


def test_frozen_weights_are_those_of_the_encoder_a_caller_may_thaw():
    model = tiny_generator("esm")
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen
    assert all("contact_head" in name for name in frozen)
    model.requires_grad_(True)
    again = copy.deepcopy(model)
    assert all(p.requires_grad for p in again.parameters())


# --- without padding -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fnet():
    """Never changed."""
    return tiny_generator("fnet").double()


@pytest.fixture
def warnings(monkeypatch):
    """Warnings that are given once per process, caught as often as they are asked for."""
    caught = []
    monkeypatch.setattr(encoder_padding.logger, "warning_once", caught.append)
    return caught


ROWS = [torch.tensor(row) for row in ([2, 7, 4, 8, 3], [2, 4, 9, 3], [2, 5, 6, 4, 3])]


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_of_a_padded_batch_are_those_alone(fnet, warnings, side):
    text = pad_sequence(ROWS, True, 0, padding_side=side)
    text = torch.nn.functional.pad(text, (0, 2))  # padding that no row needs
    types = (text > 6).long()
    real = text != 0
    full = fnet(text, real.long(), types).logits
    assert full.shape == (3, 7, 40)
    assert bool((full[~real] == 0).all())
    for i, row in enumerate(ROWS):
        alone = fnet(row[None], token_type_ids=(row > 6).long()[None]).logits[0]
        torch.testing.assert_close(full[i][real[i]], alone)
    wanted = (text == 4) | (text == 3)
    wanted[0, -1] = True  # padding
    some = fnet(text, real.long(), types, masked_positions=wanted).logits
    torch.testing.assert_close(some, full[wanted])
    assert len(warnings) == 2
    assert "runs without padding: rows of each length of a batch run on their own" in warnings[0]


def test_rows_of_one_length_run_together(fnet, warnings, monkeypatch):
    lengths = []
    forward = fnet.denoiser.forward

    def counted(**arguments):
        lengths.append(tuple(arguments["input_ids"].shape))
        return forward(**arguments)

    monkeypatch.setattr(fnet.denoiser, "forward", counted)
    text = pad_sequence(ROWS, True, 0)
    fnet(text, (text != 0).long())
    assert sorted(lengths) == [(1, 4), (2, 5)]
    lengths.clear()
    warnings.clear()
    same = torch.stack([ROWS[0], ROWS[2]])
    fnet(same, torch.ones_like(same))
    padded = torch.nn.functional.pad(same, (3, 0))
    fnet(padded, (padded != 0).long())
    assert lengths == [(2, 5), (2, 5)]
    assert warnings == []


def test_a_row_without_tokens_has_no_logits(fnet):
    text = pad_sequence(ROWS, True, 0)
    mask = (text != 0).long()
    mask[1] = 0
    logits = fnet(text, mask).logits
    assert bool((logits[1] == 0).all())
    torch.testing.assert_close(logits[0], fnet(ROWS[0][None]).logits[0])


def test_a_batch_of_nothing_but_padding(fnet):
    with pytest.raises(ValueError, match="`attention_mask` marks no real token .1. in any row"):
        fnet(torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 5))


@pytest.mark.wide
def test_the_gradient_of_a_padded_batch_is_that_of_its_rows():
    model = tiny_generator("funnel").double().train()
    text = support_matrix._batch("funnel")
    model(**text).loss.backward()
    together = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    count = (text["labels"] != -100).sum()
    for i, real in enumerate(text["attention_mask"].bool()):
        row = {name: value[i : i + 1, real] for name, value in text.items()}
        model(**row, num_items_in_batch=count).loss.backward()
    alone = {n: p.grad for n, p in model.named_parameters()}
    torch.testing.assert_close(together, alone)


def test_hidden_states_of_a_padded_batch(fnet):
    text = pad_sequence(ROWS, True, 0)
    with pytest.raises(
        ValueError, match="not available from 'fnet', which runs without padding .its Fourier"
    ):
        fnet(text, (text != 0).long(), output_hidden_states=True)
    states = fnet(ROWS[0][None], torch.ones(1, 5), output_hidden_states=True).hidden_states
    assert states[-1].shape == (1, 5, 32)


def test_an_argument_without_a_value_per_token(fnet):
    text = pad_sequence(ROWS, True, 0)
    with pytest.raises(ValueError, match=r"`position_ids` must be of shape \(batch, length\) = "):
        fnet(text, (text != 0).long(), position_ids=torch.arange(5)[None])


def test_a_text_too_short_for_funnel():
    model = tiny_generator("funnel")
    assert model(input_ids=torch.tensor([[2, 7, 4, 8, 3]])).logits.shape == (1, 5, 40)
    with pytest.raises(ValueError, match="takes texts of at least 5 tokens .* got one of 4"):
        model(input_ids=torch.tensor([[2, 7, 4, 3]]))
    text = torch.tensor([[2, 7, 4, 3, 0], [2, 7, 8, 4, 3]])
    with pytest.raises(ValueError, match="got one of 4"):
        model(text, (text != 0).long())


# --- several processes ---------------------------------------------------------------------------


def train_in_a_group(rank, folder, kind, thawed, faults):
    """Two updates of one of two processes, each on its own rows; runs in a process of its own."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    model = tiny_generator(kind).train()
    model.requires_grad_(True) if thawed else None
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    rows = slice(2 * rank, 2 * rank + 2)
    batch = {name: value[rows] for name, value in support_matrix._batch(kind).items()}
    try:
        for _ in range(2):
            optimizer.zero_grad()
            parallel(**batch).loss.backward()
            optimizer.step()
    except RuntimeError as fault:
        faults[rank] = str(fault)
    weights = {name: p.detach() for name, p in model.named_parameters()}
    torch.save(weights, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "thawed"), [("esm", False), ("big_bird", False), ("esm", True)])
def test_two_processes_train_without_a_search_for_unused_weights(kind, thawed, tmp_path):
    """Thawed, the weights without a gradient stop the second update: what freezing is for."""
    with torch.multiprocessing.get_context("spawn").Manager() as manager:
        faults = manager.dict()
        spawn(train_in_a_group, (str(tmp_path), kind, thawed, faults), nprocs=2)
        assert bool(faults) == thawed
        assert all("not used in producing loss" in fault for fault in faults.values())
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    if not thawed:
        torch.testing.assert_close(first, second, rtol=0, atol=0)
        start = dict(tiny_generator(kind).named_parameters())
        assert any(not torch.equal(first[name], start[name]) for name in first)


def test_the_fields_of_the_tokenizer_are_those_of_its_type():
    """The tiny encoders stand for real ones: padding is where the type expects it."""
    for kind, pad in (("bert", 0), ("roberta", 1), ("esm", 0), ("xlm-roberta", 1)):
        assert tokenizer_fields(tokenizer_of(kind))["pad_token_id"] == pad
        assert tiny_encoder_config(kind).pad_token_id == pad
