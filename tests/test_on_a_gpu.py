"""On a GPU all is as on the CPU: texts, losses, training, the server. Skipped where there is none.

In float64 rounding decides no token, so that a text of the GPU is that of the CPU, seed by seed.
"""

import copy
import json
import warnings

import pytest
import torch
from transformers import pipeline

from hf_maskgit import MaskGitForMaskedLM
from hf_maskgit.core.token_pattern import TokenPattern
from hf_maskgit.serving.engine import Engine
from scripts.train import main as train
from tests.core.test_position_logits import MOST_WAITS
from tests.serving.test_engine import together
from tests.support.combinations import LEGAL, choices
from tests.support.tiny import ENCODERS, tiny_model, word_tokenizer
from tests.support.tiny_training import write_inputs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA")

WIDE = list(range(5, 40))
OTHERS = {
    "greedy": {"do_sample": False},
    "filters": {"top_k": 6, "top_p": 0.9, "repetition_penalty": 1.2},
    "guidance": {"guidance_scale": 1.5},
    "blocks": {"block_length": 4, "steps": 9},
    "cache": {"block_length": 6, "steps": 12, "cache_refresh_interval": 3},
    "adaptive cache": {"block_length": 6, "steps": 12, "cache_refresh": "adaptive"},
    "many": {"num_return_sequences": 3},
    "pattern": {
        "pattern": TokenPattern.from_token_classes([(WIDE, 0, 4), [12], (WIDE, 0, None)], 40)
    },
    "numbers": {"return_dict_in_generate": True, "output_alternatives": 3},
}


@pytest.fixture(autouse=True)
def _whole_products():
    """No tensor-core rounding of float32 where results are compared."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def both(kind="bert", **options):
    """The same generator in float64 on the CPU and on the GPU."""
    model = tiny_model(kind, **options).double()
    return model, copy.deepcopy(model).to("cuda")


def text_of(model, rows=3, length=20):
    """Rows of unequal lengths, masks with words between them, padding behind."""
    text = torch.randint(6, 30, (rows, length), generator=torch.Generator().manual_seed(0))
    text[:, 3:16] = model.config.mask_token_id
    text[:, 9] = 12
    real = torch.arange(length) < length - torch.arange(rows)[:, None] * 2
    return text.masked_fill(~real, model.config.pad_token_id), real.long()


def check_same_texts(cpu, gpu, **options):
    text, real = text_of(cpu)
    options = {"steps": 5, "seed": 3, **options}
    here = cpu.generate(text, real, **options)
    there = gpu.generate(text.cuda(), real.cuda(), **options)
    if not isinstance(here, torch.Tensor):
        for name in ("reveal_steps", "denoiser_passes", "alternatives"):
            if getattr(here, name, None) is not None:
                assert torch.equal(getattr(there, name).cpu(), getattr(here, name)), name
        torch.testing.assert_close(
            there.reveal_log_probabilities.cpu(),
            here.reveal_log_probabilities,
            rtol=0,
            atol=1e-5,
            equal_nan=True,
        )
        here, there = here.sequences, there.sequences
    assert there.is_cuda
    assert torch.equal(there.cpu(), here)


@pytest.mark.parametrize("combination", LEGAL, ids="-".join)
def test_every_sampler_writes_the_texts_of_the_cpu(combination):
    check_same_texts(*both(token_critic="self"), **choices(combination))


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_other_options_write_the_texts_of_the_cpu(options):
    check_same_texts(*both(), **options)


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_kind_of_encoder_writes_the_texts_of_the_cpu(kind):
    check_same_texts(*both(kind))


@pytest.mark.parametrize("self_cond", [False, True])
def test_losses_and_gradients_are_those_of_the_cpu(self_cond):
    found = []
    for model in both(self_cond=self_cond):
        text, real = text_of(model)
        labels = torch.where(text == model.config.mask_token_id, 7, -100)
        weights = torch.tensor([[0.2], [0.5], [0.9]], dtype=torch.float64).expand(3, 20)
        inputs = {"attention_mask": real, "labels": labels, "loss_weights": weights}
        inputs = {name: value.to(model.device) for name, value in inputs.items()}
        own = {"self_condition": True} if self_cond else {}
        loss = model(text.to(model.device), **inputs, **own).loss
        loss.backward()
        gradients = {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}
        found.append((loss.detach().cpu(), gradients))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-8)


def waits_of(call):
    """How often the CPU waits for the GPU in a call."""
    call()  # lazily made handles are not counted
    torch.cuda.synchronize()
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            call()
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    return sum("synchroniz" in str(one.message) for one in told)


@pytest.mark.parametrize("options", [{}, {"order": "random"}, {"order": "confidence"}], ids=str)
def test_a_pass_waits_for_the_gpu_a_fixed_number_of_times(options):
    """However many rows there are, and no more often than what is counted without a GPU."""
    model = tiny_model().to("cuda")
    waits = {}
    for rows in (2, 16):
        text, real = (value.cuda() for value in text_of(model, rows, 60))
        for steps in (3, 11):
            waits[rows, steps] = waits_of(
                lambda text=text, real=real, steps=steps: model.generate(
                    text, real, steps=steps, seed=0, **options
                )
            )
    assert waits[2, 11] == waits[16, 11], waits
    assert 0 < (waits[2, 11] - waits[2, 3]) / 8 <= MOST_WAITS, waits


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_writes_a_whole_text(dtype):
    """By autocast and by weights; the same text by both draws is not promised."""
    model = tiny_model().to("cuda")
    text, real = (value.cuda() for value in text_of(model))
    with torch.autocast("cuda", dtype):
        one = model.generate(text, real, steps=5, seed=0)
    other = model.to(dtype).generate(text, real, steps=5, seed=0)
    for written in (one, other):
        assert model.config.mask_token_id not in written
        assert torch.equal(
            written[text != model.config.mask_token_id], text[text != model.config.mask_token_id]
        )


def test_a_pipeline_writes_on_the_gpu():
    tokenizer = word_tokenizer()
    fill = pipeline("infilling", model=tiny_model(), tokenizer=tokenizer, device=0)
    assert fill.model.device.type == "cuda"
    assert fill("w1 {blank:2} w3", seed=0)["infilled_text"].startswith("w1 ")
    writer = pipeline("text-generation", model=tiny_model(), tokenizer=tokenizer, device=0)
    assert writer("w1 w2", max_new_tokens=4, seed=0)[0]["generated_text"].startswith("w1 w2")


def test_rows_of_a_server_are_those_of_generate():
    model = tiny_model().double().to("cuda")
    rows = [
        {"input_ids": torch.tensor([[6, 7, 8 + i]]), "max_new_tokens": 6, "seed": [i], **options}
        for i, options in enumerate([{"steps": 3}, {"order": "random"}, {"top_k": 5}, {}] * 3)
    ]
    rows = [{**row, "input_ids": row["input_ids"].cuda()} for row in rows]
    alone = [model.generate(**row) for row in rows]
    engine = Engine(model)
    try:
        found = together(engine, rows)
    finally:
        engine.close()
    assert [one.error for one in found] == [None] * len(rows)
    assert all(torch.equal(one.value, row) for one, row in zip(found, alone, strict=True))


def test_training_learns_and_saves(tmp_path):
    """With bf16: the loss falls, and what is saved is loaded onto the GPU."""
    options = [
        *("--mixed_precision", "bf16", "--max_steps", "60", "--per_device_batch_size", "32"),
        *("--learning_rate", "3e-3", "--checkpoint_every", "30", "--eval_split", "train[:50]"),
        *("--log_every", "10", "--keep_checkpoints", "2", "--ema_decay", "0.9"),
    ]
    inputs = write_inputs(tmp_path)
    train([*inputs, *options, "--output_dir", str(tmp_path / "run")])
    told = [
        json.loads(line)
        for line in (tmp_path / "run" / "training_log.jsonl").read_text().splitlines()
    ]
    losses = [one["loss"] for one in told if "loss" in one]
    assert losses[-1] < 0.8 * losses[0]
    model = MaskGitForMaskedLM.from_pretrained(tmp_path / "run", device_map="cuda")
    assert model.device.type == "cuda"


@pytest.mark.slow
def test_compiled_training_learns(tmp_path):
    options = ["--torch_compile", "--max_steps", "20", "--mixed_precision", "bf16"]
    train([*write_inputs(tmp_path), *options, "--output_dir", str(tmp_path / "run")])
    assert (tmp_path / "run" / "model.safetensors").exists()
