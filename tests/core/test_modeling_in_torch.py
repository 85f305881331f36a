"""A generator under what torch and transformers do to models: load, move, copy, compile."""

import copy
import pickle
import threading

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface, AutoModelForMaskedLM, BertForMaskedLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM
from hf_maskgit.core import chunked_head
from hf_maskgit.core.encoder_pass import EncoderPass, running
from hf_maskgit.core.losses import forbid
from hf_maskgit.core.text_bound import forbidden_ids
from tests.support.grids import wide
from tests.support.oracles_sampling import chi_square
from tests.support.tiny import (
    bert_config,
    tiny_config,
    tiny_encoder,
    tiny_model,
    tokenizer_for,
    word_tokenizer,
)

PAD, UNK, CLS, SEP, MASK = range(5)
TEXT = torch.tensor([[CLS, MASK, 7, MASK, MASK, SEP], [CLS, 8, MASK, SEP, PAD, PAD]])
INPUTS = {"input_ids": TEXT, "attention_mask": (TEXT != PAD).long()}
SLOW = pytest.mark.slow
HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture
def folder(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@torch.no_grad()
def logits_of(model):
    return model(**INPUTS).logits


@torch.no_grad()
def assert_same_model(found, expected):
    """The same logits everywhere and at chosen positions, and the same texts, to the last bit."""
    assert torch.equal(logits_of(found), logits_of(expected))
    chosen = {**INPUTS, "masked_positions": TEXT == MASK}
    assert torch.equal(found(**chosen).logits, expected(**chosen).logits)
    assert torch.equal(found.generate(**INPUTS, seed=1), expected.generate(**INPUTS, seed=1))
    assert torch.equal(found.generate(seed=1), expected.generate(seed=1))


def assert_text_is_filled(before, after):
    """Known tokens and padding stay, and no mask, padding or framing token is written."""
    masked = before == MASK
    assert torch.equal(after[~masked], before[~masked])
    assert not torch.isin(after[masked], torch.tensor([PAD, CLS, MASK, UNK])).any()


# Number formats


@pytest.mark.grid(2)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("as_name", [False, True])
def test_loading_in_half_precision(folder, dtype, as_name):
    name = str(dtype).removeprefix("torch.")
    model = MaskGitForMaskedLM.from_pretrained(folder, dtype=name if as_name else dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    configs = (model.config, model.config.text_config, model.denoiser.config)
    assert {config.dtype for config in configs} == {dtype}
    torch.testing.assert_close(logits_of(model).float(), logits_of(tiny_model()), atol=0.3, rtol=0)
    assert_text_is_filled(TEXT, model.generate(**INPUTS, seed=1))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_the_stored_format_is_found(tmp_path, dtype):
    tiny_model().to(dtype).save_pretrained(tmp_path)
    assert {w.dtype for w in load_file(tmp_path / "model.safetensors").values()} == {dtype}
    for wanted in ({}, {"dtype": "auto"}):
        model = MaskGitForMaskedLM.from_pretrained(tmp_path, **wanted)
        assert {p.dtype for p in model.parameters()} == {dtype}
        assert model.config.dtype == model.config.text_config.dtype == dtype
    whole = MaskGitForMaskedLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert {p.dtype for p in whole.parameters()} == {torch.float32}


@pytest.mark.grid(3)
@pytest.mark.parametrize("kind", ["bert", "modernbert", "esm", "roberta"])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("do_sample", [True, False])
def test_writing_in_half_precision(kind, dtype, do_sample):
    """The laws of `generate` hold in every number format; only the texts differ."""
    tokenizer = tokenizer_for(kind)
    model = tiny_model(kind).half() if dtype is torch.float16 else tiny_model(kind).bfloat16()
    assert model.dtype == dtype
    mask, pad = tokenizer.mask_token_id, tokenizer.pad_token_id
    words = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids][:2]
    frame = tokenizer.build_inputs_with_special_tokens if kind == "esm" else lambda ids: ids
    text = torch.tensor([frame([words[0], mask, mask, words[1], mask, words[0]])])
    options = {"seed": 1, "do_sample": do_sample, "steps": 2}
    written = model.generate(text, **options)
    known = text != mask
    assert torch.equal(written[known], text[known])
    assert not torch.isin(written[~known], torch.tensor([mask, pad])).any()
    assert torch.equal(model.generate(text, **options), written)
    longer = model.generate(text, max_new_tokens=4, **options)
    assert longer.shape[1] == text.shape[1] + 4
    assert torch.equal(longer[:, : text.shape[1]][known], text[known])


def test_a_half_precision_model_has_a_finite_loss_and_gradient():
    batch = DataCollatorForMaskGit(word_tokenizer())(
        [{"input_ids": row[row != PAD].tolist(), "example_id": i} for i, row in enumerate(FULL)]
    )
    whole = tiny_model()(**batch).loss
    for dtype in HALVES:
        model = tiny_model().to(dtype)
        loss = model(**batch).loss
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(whole.item(), rel=0.05)
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(bool(g.isfinite().all()) and g.dtype == dtype for g in gradients)


FULL = torch.tensor([[CLS, 9, 7, 12, 30, SEP], [CLS, 8, 11, SEP, PAD, PAD]])


def read_in_chunks(monkeypatch, rows):
    monkeypatch.setattr(chunked_head, "_READ_ELEMENTS", {True: 1, False: 1})
    monkeypatch.setattr(chunked_head, "_LEAST_READ", rows)


class WeightsInFloat32(TorchDispatchMode):
    """Names the weights of half precision of which an operation makes a wider copy."""

    def __init__(self, model):
        super().__init__()
        self.names = {p.untyped_storage().data_ptr(): n for n, p in model.named_parameters()}
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.dtype in (torch.float32, torch.float64):
            for weight in args:
                if not isinstance(weight, torch.Tensor) or weight.numel() != out.numel():
                    continue
                if weight.untyped_storage().data_ptr() in self.names and weight.dtype != out.dtype:
                    self.found.add(self.names[weight.untyped_storage().data_ptr()])
        return out


@pytest.mark.grid(2)
@pytest.mark.parametrize("order", ["top_probability", "confidence", "random"])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_half_precision_weights_stay_the_only_ones(folder, order, in_chunks, monkeypatch):
    if in_chunks:
        read_in_chunks(monkeypatch, 3)
    model = MaskGitForMaskedLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    with WeightsInFloat32(model) as copies:
        model.generate(**INPUTS, seed=1, steps=3, order=order)
    assert not copies.found
    with torch.no_grad(), WeightsInFloat32(model) as copies:
        model.get_output_embeddings().weight.float()
    assert copies.found, "the test has no power"


@pytest.mark.parametrize("in_chunks", [wide(True), pytest.param(False, marks=pytest.mark.slow)])
def test_texts_of_half_precision_have_the_law_of_its_own_logits(in_chunks, monkeypatch):
    """Drawn and scored in float32: chi-square of 40,000 draws; false alarm 1e-6 for a fresh seed.

    Scores of bfloat16 itself would be a hundredth off.
    """
    if in_chunks:
        read_in_chunks(monkeypatch, 5_000)
    # nearly flat, so that every word is drawn often
    model = tiny_model(text_config=bert_config(initializer_range=0.1)).bfloat16().eval()
    text = torch.tensor([[CLS, 9, MASK, 12, SEP]]).expand(40_000, -1)
    options = {"seed": 1, "anneal_temperature": False, "return_dict_in_generate": True}
    found = model.generate(text, **options)
    tokens = found.sequences[:, 2]
    with torch.no_grad():
        logits = model(text, masked_positions=text == MASK).logits
    assert logits.dtype == torch.bfloat16
    assert torch.equal(logits, logits[:1].expand_as(logits))
    law = forbid(logits[0].double(), forbidden_ids(model.config)).softmax(-1)
    counts = torch.bincount(tokens, minlength=len(law))
    possible = law > 0
    possible[[UNK, SEP]] = False  # nor does an end stand inside a text, or what is no word
    assert counts[~possible].sum() == 0
    law = law[possible] / law[possible].sum()
    assert chi_square(counts[possible].numpy(), law.numpy()) > 1e-6
    rough = law.bfloat16().cumsum(0).diff(prepend=torch.zeros(1).bfloat16()).double()
    assert chi_square(counts[possible].numpy(), (rough / rough.sum()).numpy()) < 1e-6, "no power"
    scores = found.reveal_log_probabilities[:, 2]
    assert scores.dtype == torch.float32
    exact = torch.zeros(len(possible), dtype=torch.float64).masked_scatter(possible, law.log())
    torch.testing.assert_close(scores.double(), exact[tokens], rtol=0, atol=1e-5)


# Devices


@pytest.mark.parametrize("device_map", ["cpu", wide("auto"), wide({"": "cpu"})])
def test_device_maps(folder, device_map):
    model = MaskGitForMaskedLM.from_pretrained(folder, device_map=device_map)
    assert_same_model(model, tiny_model())


@pytest.mark.parametrize(
    "on_disk",
    [
        wide(["denoiser"]),
        wide(["denoiser.bert.encoder.layer.1"]),
        wide(["denoiser.bert.encoder.layer.0", "denoiser.bert.encoder.layer.1"]),
    ],
)
def test_layers_that_lie_on_disk(folder, tmp_path, on_disk):
    parts = ["denoiser.bert.embeddings", "denoiser.cls"]
    parts += [f"denoiser.bert.encoder.layer.{i}" for i in range(2)]
    device_map = dict.fromkeys(parts if on_disk != ["denoiser"] else [], "cpu")
    device_map.update(dict.fromkeys(on_disk, "disk"))
    model = MaskGitForMaskedLM.from_pretrained(
        folder, device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert any(p.device.type == "meta" for p in model.parameters())
    assert_same_model(model, tiny_model())


def test_layers_that_must_stay_together_are_the_encoders():
    """They decide where "auto" may cut a model in two."""
    assert tiny_model()._no_split_modules == tiny_encoder()._no_split_modules != set()


@pytest.mark.parametrize("kind", ["bert", "modernbert", "esm", "distilbert"])
def test_a_model_without_memory_can_be_built(kind):
    with torch.device("meta"):
        model = MaskGitForMaskedLM(tiny_config(kind))
    assert {p.device.type for p in model.parameters()} == {"meta"}
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    assert shapes == {name: w.shape for name, w in tiny_model(kind).state_dict().items()}


@pytest.mark.wide
def test_moving_between_formats_and_devices():
    model = tiny_model()
    assert_same_model(copy.deepcopy(model).to("cpu", torch.float64).to(torch.float32), model)


# Saving


@pytest.mark.wide
def test_weights_in_several_files(tmp_path):
    tiny_model().save_pretrained(tmp_path, max_shard_size="10KB")
    files = sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".json")
    assert len(files) > 5
    assert all(name.endswith(".safetensors") for name in files)
    assert_same_model(MaskGitForMaskedLM.from_pretrained(tmp_path), tiny_model())


def test_nothing_that_is_saved_runs_code(folder):
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", "generation_config.json", "model.safetensors"]


@pytest.mark.wide
def test_weights_given_as_a_dict(folder):
    model = tiny_model(seed=5)
    fresh = tiny_model(seed=0)
    assert fresh.load_state_dict(model.state_dict()).missing_keys == []
    assert_same_model(fresh, model)
    loaded = MaskGitForMaskedLM.from_pretrained(
        None, config=model.config, state_dict=model.state_dict()
    )
    assert_same_model(loaded, model)


# Copies


@pytest.mark.wide
def test_a_copy_is_its_own_model():
    """Nothing that happens to the original reaches it."""
    model, expected = tiny_model(), tiny_model()
    twin = copy.deepcopy(model)
    assert twin.config is not model.config
    assert twin.denoiser.config is twin.config.text_config
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    # the original in the middle of a pass
    with running(EncoderPass(TEXT == MASK), model.denoiser, None, {}):
        assert_same_model(twin, expected)
    del model
    assert_same_model(twin, expected)
    twin.resize_token_embeddings(48)
    assert twin.config.text_config.vocab_size == 48


@pytest.mark.wide
def test_a_copy_of_a_copy_and_of_a_trained_model():
    model = tiny_model().train()
    model(**INPUTS, labels=TEXT.masked_fill(TEXT < 5, -100)).loss.backward()
    twin = copy.deepcopy(copy.deepcopy(model)).eval()
    assert_same_model(twin, tiny_model())


def replicate(network):
    """What torch.nn.DataParallel does for each of several devices, on this one."""
    modules = list(network.modules())
    replicas = {module: module._replicate_for_data_parallel() for module in modules}
    for module, replica in replicas.items():
        for name, child in module.named_children():
            setattr(replica, name, replicas[child])
        for name, parameter in module.named_parameters(recurse=False):
            setattr(replica, name, parameter.clone())
    return replicas[network]


def test_replicas_see_their_own_positions():
    """Trainer on a machine of several GPUs, without a launcher, replicates the model."""
    model = tiny_model()
    replica = replicate(model)
    batch = {**INPUTS, "labels": torch.where(TEXT == MASK, 9, -100)}
    with running(EncoderPass(TEXT >= 0), model.denoiser, None, {}):  # another's pass
        found = replica(**batch)
    expected = model(**batch)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.loss, expected.loss)


def test_a_configuration_survives_pickle():
    """Data loaders and launchers hand configurations from process to process."""
    config = tiny_config(schedule="cosine")
    again = pickle.loads(pickle.dumps(config))
    assert again.to_dict() == config.to_dict()
    assert type(again.text_config) is type(config.text_config)
    options = tiny_model().generation_config
    assert pickle.loads(pickle.dumps(options)).to_dict() == options.to_dict()


# Attention


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert", "esm"])
def test_attention_can_be_chosen(kind):
    model = tiny_model(kind)
    mask = tokenizer_for(kind).mask_token_id
    text = torch.tensor([[mask, 7, mask, mask, 8, 9]])
    logits = {}
    for name in ("eager", "sdpa"):
        model.set_attn_implementation(name)
        assert model.denoiser.config._attn_implementation == name
        logits[name] = model(input_ids=text).logits
        logits[name, "loaded"] = loaded(model, name)(input_ids=text).logits
    for found in logits.values():
        torch.testing.assert_close(found, logits["eager"], atol=1e-4, rtol=1e-4)


def loaded(model, attention):
    other = MaskGitForMaskedLM._from_config(model.config, attn_implementation=attention).eval()
    other.load_state_dict(model.state_dict())
    assert other.denoiser.config._attn_implementation == attention
    return other


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_attention_of_ones_own_reaches_the_encoder(kind, monkeypatch):
    calls = []

    def counting(module, query, key, value, *arguments, **options):
        calls.append(tuple(query.shape))
        return sdpa_attention_forward(module, query, key, value, *arguments, **options)

    monkeypatch.setitem(AttentionInterface._global_mapping, "counting", counting)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, "counting", sdpa_mask)
    model = tiny_model(kind)
    expected = logits_of(model)
    model.set_attn_implementation("counting")
    assert torch.equal(logits_of(model), expected)
    assert calls == [(2, 2, 6, 16)] * 2  # rows, heads, columns, width of a head; in both layers
    model.generate(**INPUTS, steps=1)
    assert len(calls) == 4


# Compilation


@pytest.fixture
def compiler():
    """Counts the graphs that are compiled."""
    torch._dynamo.reset()
    yield CompileCounter()
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "kind", [wide("bert"), *(pytest.param(k, marks=SLOW) for k in ("modernbert", "esm", "roberta"))]
)
def test_a_pass_is_one_graph(kind, compiler):
    """And stays one, whatever the number of chosen positions."""
    model = tiny_model(kind)
    compiled = torch.compile(model, backend=compiler, fullgraph=True)
    inputs = {"input_ids": TEXT % 30 + 3, "attention_mask": torch.ones_like(TEXT)}
    with torch.no_grad():
        assert torch.equal(compiled(**inputs).logits, model(**inputs).logits)
        assert compiler.frame_count == 1
        for n in (3, 1, 2, 5, 6):
            chosen = torch.zeros_like(TEXT, dtype=torch.bool)
            chosen[:, :n] = True
            found = compiled(**inputs, masked_positions=chosen).logits
            expected = model(**inputs, masked_positions=chosen).logits
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert compiler.frame_count == 2


@pytest.mark.slow
def test_a_compiled_pass_may_be_the_first_of_its_thread(compiler):
    """Of a process, too: nothing appears while the compiler looks that was absent before."""
    model, found = tiny_model(), []
    model.compile(backend=compiler, fullgraph=True)

    def fill():
        found.append(model.generate(**INPUTS, seed=1, steps=2))

    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()
    assert torch.equal(found[0], tiny_model().generate(**INPUTS, seed=1, steps=2))


@pytest.mark.slow
@pytest.mark.parametrize("fullgraph", [False, True])
def test_generate_with_a_compiled_model(fullgraph, compiler):
    """The same texts; and two texts of different sizes compile all there is to compile."""
    model, expected = tiny_model(), tiny_model()
    model.compile(backend=compiler, fullgraph=fullgraph)
    graphs = []
    for num_new in (None, 3, 9, 1, 20, None):
        options = {"seed": 1} if num_new is None else {"seed": 1, "max_new_tokens": num_new}
        found = model.generate(**INPUTS, **options)
        assert torch.equal(found, expected.generate(**INPUTS, **options))
        graphs.append(compiler.frame_count)
    assert 1 <= graphs[0] <= graphs[1] <= 6
    assert graphs[2:] == [graphs[1]] * 4


@pytest.mark.slow
@pytest.mark.parametrize("order", ["top_probability", "random"])
@pytest.mark.parametrize(("part", "most"), [("model", 5), ("denoiser", 5), ("body", 8)])
def test_passes_do_not_compile_again(part, most, order, compiler):
    """As masks grow fewer and rows are finished, sizes change; the graphs were made for any.

    Their number is that of the kinds of sizes (one row or several, one position or several), and
    not that of passes.
    """
    model = tiny_model().eval()
    parts = {"model": model, "denoiser": model.denoiser, "body": model.denoiser.base_model}
    text = torch.randint(10, 30, (4, 16), generator=torch.Generator().manual_seed(0))
    for row, masks in enumerate((16, 11, 8, 3)):
        text[row, :masks] = MASK
    expected = [model.generate(text, steps=steps, seed=1, order=order) for steps in (16, 3, 12, 7)]
    parts[part].compile(backend=compiler)
    graphs = []
    for steps, same in zip((16, 3, 12, 7), expected, strict=True):
        assert torch.equal(model.generate(text, steps=steps, seed=1, order=order), same)
        graphs.append(compiler.frame_count)
    assert graphs == graphs[:1] * 4
    assert graphs[0] <= most


@pytest.mark.slow
def test_training_a_compiled_model(compiler):
    """Checks of the labels cut the pass into a few graphs; their number does not grow."""
    model, expected = tiny_model(), tiny_model()
    compiled = torch.compile(model, backend=compiler)
    counts = []
    for seed in range(4):
        collator = DataCollatorForMaskGit(word_tokenizer(), seed=seed)
        batch = collator([{"input_ids": row.tolist(), "example_id": 0} for row in FULL[:1]] * 3)
        losses = [one(**batch).loss for one in (compiled, expected)]
        for loss in losses:
            loss.backward()
        torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)
        counts.append(compiler.frame_count)
    assert counts[1] == counts[2] == counts[3], "the second number of positions was one for all"
    for (name, one), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.slow
def test_inductor_gives_the_same_logits():
    torch._dynamo.reset()
    model = tiny_model()
    compiled = torch.compile(model, fullgraph=True)
    chosen = {**INPUTS, "masked_positions": TEXT == MASK}
    with torch.no_grad():
        for inputs in (INPUTS, chosen):
            found, expected = compiled(**inputs).logits, model(**inputs).logits
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    torch._dynamo.reset()


# The encoder


def test_the_inputs_of_every_pass_go_through_one_method(monkeypatch):
    """Where tools that wrap a writing model look for them."""
    model, calls = tiny_model(), []

    def prepare(input_ids, **inputs):
        calls.append(sorted(inputs))
        return {"input_ids": input_ids, **inputs}

    expected = model.generate(**INPUTS, seed=1, return_dict_in_generate=True)
    monkeypatch.setattr(model, "prepare_inputs_for_generation", prepare)
    assert torch.equal(model.generate(**INPUTS, seed=1), expected.sequences)
    assert calls == [["attention_mask", "masked_positions"]] * int(expected.denoiser_passes.max())


def test_the_encoder_can_be_had_back(tmp_path):
    """It was wrapped, not changed."""
    tiny_model().denoiser.save_pretrained(tmp_path)
    encoder = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert type(encoder) is BertForMaskedLM
    assert torch.equal(logits_of(encoder), logits_of(tiny_model()))
