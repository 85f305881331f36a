"""The whole idea in one file: hide tokens, learn to restore them, write by restoring masks.

    python scripts/minimal.py verses.txt answerdotai/ModernBERT-base

The library does the same for every case that real encoders and texts bring; a test holds this file
to its loss and to its greedy texts. Shapes: B texts, L tokens of a text, V ids, N hidden tokens.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, AutoTokenizer

TRAINING = {"updates": 1000, "batch_size": 32, "max_length": 64, "learning_rate": 1e-4}
WRITING = {"new_tokens": 24, "steps": 18, "temperature": 1.0}


def hide(ids: Tensor, maskable: Tensor, mask_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Hide k of each text's n maskable tokens, where k = 1, 2 ... n are equally likely."""
    n = maskable.sum(1, keepdim=True)  # (B, 1)
    k = (torch.rand(len(ids), 1, device=ids.device) * n).floor() + 1  # (B, 1)
    # Sorting noise .9 .2 .7 gives the places 1 2 0; sorting these gives the ranks 2 0 1.
    noise = torch.rand(ids.shape, device=ids.device).masked_fill(~maskable, 2)  # 2 sorts last
    hidden = maskable & (noise.argsort(1).argsort(1) < k)  # (B, L)
    return ids.masked_fill(hidden, mask_id), hidden, hidden * n / k  # a weight of 1 on average


def predict(model: nn.Module, ids: Tensor, real: Tensor, forbidden: Tensor) -> Tensor:
    """Ask the encoder what stands at each place: logits (B, L, V); a mask is never the answer."""
    logits = model(input_ids=ids, attention_mask=real).logits.float()
    return logits.index_fill(-1, forbidden, -torch.inf)


def bound(logits: Tensor, ids: Tensor, hidden: Tensor, weight: Tensor, maskable: Tensor) -> Tensor:
    """Estimate an upper bound on the nats per token (MDLM, arXiv 2406.07524, eq. 10)."""
    nll = nn.functional.cross_entropy(logits[hidden], ids[hidden], reduction="none")  # (N,)
    return (nll * weight[hidden]).sum() / maskable.sum()  # visible tokens count as well


@torch.no_grad()
def write(
    model: nn.Module, ids: Tensor, mask_id: int, forbidden: Tensor, steps: int, temperature: float
) -> Tensor:
    """Fill the masks of one text (1, L), the surest places first (MaskGIT, arXiv 2202.04200)."""
    ids, total = ids.clone(), int((ids == mask_id).sum())
    steps = min(steps, total)  # each reveals at least one
    for to_come in reversed(range(steps)):  # steps after this one
        masked, left = ids[0] == mask_id, total * to_come // steps  # (L,); falls evenly to 0
        logits = predict(model, ids, torch.ones_like(ids), forbidden)[0]  # (L, V)
        sureness = logits.softmax(-1).amax(-1).masked_fill(~masked, -1)  # (L,); known tokens last
        places = sureness.argsort(descending=True, stable=True)[: int(masked.sum()) - left]
        # Logits plus scaled Gumbel noise draw from softmax(logits / scale); a scale of 0 is greedy.
        scale = temperature * to_come / steps  # try things out first, be strict in the end
        gumbel = -torch.empty_like(logits[places]).exponential_().log()
        ids[0, places] = (logits[places] + scale * gumbel).argmax(-1)
    return ids


def main(argv: list[str] | None = None) -> None:
    """Train on the lines of a file, then write a text from nothing but masks."""
    parser = argparse.ArgumentParser(description="Train a masked diffusion model and let it write.")
    parser.add_argument("file", type=Path, help="texts to learn from, one per line")
    parser.add_argument("encoder", help="a masked-LM model, by its name on the Hub or its folder")
    for name, value in {**TRAINING, **WRITING}.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"default {value}")
    o = parser.parse_args(argv)
    lines = o.file.read_text(encoding="utf-8").splitlines() if o.file.is_file() else []
    texts = [line for line in lines if line.strip()]
    if not texts:
        parser.error(f"{str(o.file)!r} is no file with a text on each line.")

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(o.encoder, model_max_length=o.max_length)
    model = AutoModelForMaskedLM.from_pretrained(o.encoder).to(device).train()
    mask_id, rows = tokenizer.mask_token_id, set(range(model.config.vocab_size))
    words = set(tokenizer.get_vocab().values()) - set(tokenizer.added_tokens_decoder)
    forbidden = torch.tensor(sorted(rows - words), device=device)  # specials are added tokens
    optimizer = torch.optim.AdamW(model.parameters(), lr=o.learning_rate)
    for update in range(1, o.updates + 1):
        drawn = [texts[i] for i in torch.randint(len(texts), (o.batch_size,))]
        batch = tokenizer(drawn, padding=True, truncation=True, return_tensors="pt").to(device)
        ids, real = batch["input_ids"], batch["attention_mask"]  # both (B, L)
        maskable = real.bool() & ~torch.isin(ids, forbidden)
        shown, hidden, weight = hide(ids, maskable, mask_id)
        loss = bound(predict(model, shown, real, forbidden), ids, hidden, weight, maskable)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if update % 10 == 0:
            print(f"update {update} of {o.updates}: at most {loss.item():.3f} nats per token")

    blanks = tokenizer(tokenizer.mask_token * o.new_tokens, return_tensors="pt").to(device)
    text = write(model.eval(), blanks["input_ids"], mask_id, forbidden, o.steps, o.temperature)
    print(tokenizer.decode(text[0], skip_special_tokens=True))


if __name__ == "__main__":
    main()
