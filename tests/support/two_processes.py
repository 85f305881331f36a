"""A model trained by two processes, each in its own interpreter, with gloo between them."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from hf_maskgit import DataCollatorForMaskGit, MaskGitForMaskedLM
from hf_maskgit.training.freezing import freeze_left_out
from tests.support.tiny import bert_config, tiny_model, word_tokenizer

TEXTS = ["w1 w2 w3 w4 w5 w6 w7", "w8 w9 w10", "w11 w12 w13 w14 w15", "w16 w17 w18 w19"]


def model_of_both(options: dict[str, Any], train: str) -> MaskGitForMaskedLM:
    if options.get("token_critic") == "separate":
        options = {**options, "critic_config": bert_config(num_hidden_layers=1)}
    model = tiny_model(**options).train()
    freeze_left_out(model, train)
    return model


def train_in_a_group(
    rank: int, folder: str, options: dict[str, Any], train: str, faults: Any
) -> None:
    """Three updates of one of two processes, each on its own rows."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.manual_seed(rank)  # the processes disagree on which texts had a pass before
    model = model_of_both(options, train)
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    collate = DataCollatorForMaskGit(word_tokenizer())
    rows = word_tokenizer()(TEXTS)["input_ids"][2 * rank : 2 * rank + 2]
    batch = collate([{"input_ids": row, "example_id": i} for i, row in enumerate(rows)])
    try:
        for _ in range(3):
            optimizer.zero_grad()
            parallel(**batch, train=train).loss.backward()
            optimizer.step()
    except RuntimeError as fault:
        faults[rank] = str(fault)
    torch.save({n: p.detach() for n, p in model.named_parameters()}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def train_two_processes(
    folder: Path, options: dict[str, Any], train: str = "both"
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Train a tiny BERT.

    Args:
        folder: empty, for what the processes tell.
        options: fields of `MaskGitConfig`.
        train: which part learns.

    Returns:
        The weights before, and after where both processes agree on them to the last bit.
    """
    with torch.multiprocessing.get_context("spawn").Manager() as manager:
        faults = manager.dict()
        spawn(train_in_a_group, (str(folder), options, train, faults), nprocs=2)
        assert dict(faults) == {}
    first, second = (torch.load(folder / f"{rank}.pt") for rank in (0, 1))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    before = {n: p.detach() for n, p in model_of_both(options, train).named_parameters()}
    return before, first
