"""Logits read by blocks are the logits; and a pass waits for the device a fixed number of times."""

import sys
from collections import Counter

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hf_maskgit.core import chunked_head, position_logits
from hf_maskgit.core.position_logits import LateLogits, PositionLogits
from hf_maskgit.core.sampler_orders import ORDERS
from hf_maskgit.core.sampler_scores import negative_entropy, top_log_probability
from hf_maskgit.evaluation.benchmark_rounds import peak_bytes
from tests.support.grids import wide
from tests.support.tiny import bert_config, tiny_model

SUPPRESSED, ENDS = torch.tensor([0, 5]), torch.tensor([3])


def logits_of(raw, **options):
    random = torch.Generator().manual_seed(1)
    can_end = torch.rand(len(raw), generator=random) < 0.5
    allowed = torch.randint(2, (len(raw),), generator=random)
    table = torch.stack([torch.ones(raw.shape[1]), torch.arange(raw.shape[1]) % 2]).bool()
    return (
        PositionLogits(raw, SUPPRESSED, ENDS, can_end, allowed, table, **options),
        can_end,
        allowed,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_what_cannot_stand_somewhere_is_minus_infinity_and_the_rest_as_it_was(dtype):
    raw = torch.randn(7, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    logits, can_end, allowed = logits_of(raw)
    found = logits.at(slice(None))
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    for position in range(7):
        for token in range(9):
            gone = token in (0, 5) or (token == 3 and not can_end[position])
            gone = gone or (bool(allowed[position]) and token % 2 == 0)
            expected = -torch.inf if gone else float(raw[position, token])
            assert float(found[position, token]) == expected
    chosen = torch.tensor([1, 0, 0, 1, 1, 0, 0]).bool()
    assert torch.equal(logits.only(chosen).at(slice(None)), found[chosen])


def blocks_of(logits):
    seen = []

    def read(block, which):
        seen.append(block.logits.clone())
        return (block.highest,)

    logits.read(read)
    return torch.cat(seen)


@pytest.mark.parametrize("late", [True, False])
def test_logits_put_beside_each_other_are_those_of_all(late):
    raw = torch.randn(7, 9, generator=torch.Generator().manual_seed(0))
    where = torch.tensor([1, 0, 0, 1, 1, 0, 0]).bool()
    numbers = torch.arange(7)
    logits, can_end, _ = logits_of(raw)
    if late:
        logits._raw = LateLogits(lambda which: raw[which].clone(), numbers, 3)
    assert not can_end.all()
    whole = PositionLogits.beside([(here, logits.only(here)) for here in (where, ~where)])
    for chosen in (slice(None), where, ~where, numbers % 3 == 0, numbers < 0):
        expected = logits_of(raw)[0].only(chosen)
        found, others = blocks_of(whole.only(chosen)), blocks_of(expected)
        assert torch.equal(found, others)


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 50])
def test_blocks_of_any_size_give_what_the_whole_gives(rows, monkeypatch):
    raw = torch.randn(7, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    monkeypatch.setattr(position_logits, "_BLOCK", 9 * rows)
    logits, *_ = logits_of(raw)
    seen = []

    def read(block, which):
        seen.append(len(block))
        return top_log_probability(block), negative_entropy(block)

    found = logits.read(read)
    whole = logits.at(slice(None))
    assert torch.equal(found[0], top_log_probability(whole))
    assert torch.equal(found[1], negative_entropy(whole))
    assert max(seen) == min(rows, 7)
    assert sum(seen) == 7
    seen.clear()
    logits_of(raw, whole=True)[0].read(read)
    assert seen == [7]


def test_no_position_at_all_is_no_fault():
    logits = PositionLogits(torch.zeros(0, 4), SUPPRESSED[:1], ENDS, torch.zeros(0).bool())
    assert logits.read(lambda block, which: (block.logits.amax(-1),))[0].shape == (0,)


def test_a_position_whose_logits_are_no_distribution_is_refused_in_whatever_block(monkeypatch):
    monkeypatch.setattr(position_logits, "_BLOCK", 8)
    raw = torch.zeros(6, 4)
    raw[4, 1] = torch.nan
    logits = PositionLogits(raw, SUPPRESSED[:1], ENDS, torch.ones(6).bool())
    with pytest.raises(ValueError, match="not finite at 1 of 6 positions"):
        logits.read(lambda block, which: (block.logits.amax(-1),))


# Operations that need a value, or a size that depends on values, before the next can start.
_WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "equal"}


class Lists(TorchFunctionMode):
    """Counts tensors that become lists of Python's, which on a CPU no operation tells of."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.count += getattr(function, "__name__", "") in ("tolist", "numpy")
        return function(*args, **(kwargs or {}))


class Waits(TorchDispatchMode):
    """Counts what would wait for a device; an index by truth values is a search for them."""

    def __init__(self):
        super().__init__()
        self.count = Counter()
        self.operations = 0  # all, those that wait among them

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        indices = args[1] if name in ("index", "index_put", "index_put_") else ()
        by_truth = any(i is not None and i.dtype == torch.bool for i in indices)
        self.operations += 1
        if name in _WAITING or by_truth:
            self.count[name] += 1
        return function(*args, **(kwargs or {}))


def counted_in(order, num_rows, width, steps, **sizes):
    torch.manual_seed(0)
    model = tiny_model(text_config=bert_config(max_position_embeddings=128, **sizes)).eval()
    text = torch.full((num_rows, width), model.config.mask_token_id)
    with Waits() as counted:
        model.generate(text, steps=steps, order=order, seed=0)
    return counted


def waits(*call):
    return sum(counted_in(*call).count.values())


# How often a pass may wait; on a CPU it costs nothing, elsewhere some microseconds each.
MOST_WAITS = 19


@pytest.mark.wide
@pytest.mark.parametrize("order", [name for name, row in ORDERS.items() if not row.asks_critic])
def test_a_pass_waits_a_fixed_number_of_times(order, monkeypatch):
    """However many rows and places there are, and blocks that their logits are read in."""
    found = set()
    for rows, width, block in ((1, 24, 2**19), (4, 24, 2**19), (4, 48, 2**19), (4, 48, 100)):
        monkeypatch.setattr(position_logits, "_BLOCK", block)
        found.add((waits(order, rows, width, 6) - waits(order, rows, width, 2)) / 4)
    (per_pass,) = found
    assert per_pass <= MOST_WAITS


# Likewise where logits are many and computed late, in one part of the rows; for each further one.
MOST_WAITS_LATE, MOST_WAITS_OF_A_PART = 24, 12


@pytest.mark.parametrize(
    "order",
    [
        "top_probability",
        *map(wide, ("margin", "entropy", "confidence")),
    ],
)
def test_a_pass_whose_logits_come_in_parts_waits_as_often_for_each(order, monkeypatch):
    monkeypatch.setattr(chunked_head, "_READ_ELEMENTS", {True: 1})
    found = {}
    for rows_at_once, parts in ((400, 1), (12, 4)):  # of 4 rows, all together and one by one
        monkeypatch.setattr(chunked_head, "_LEAST_READ", rows_at_once)
        counts = []
        for steps in (2, 6):
            with Lists() as lists:
                counts.append(waits(order, 4, 48, steps) + lists.count)
        found[parts] = (counts[1] - counts[0]) / 4
    assert found[1] <= MOST_WAITS_LATE
    assert (found[4] - found[1]) / 3 <= MOST_WAITS_OF_A_PART


# Operations of a pass, 101 of them the encoder's: on a GPU they are what few short texts cost.
MOST_OPERATIONS = 342


@pytest.mark.wide
@pytest.mark.parametrize("order", [name for name, row in ORDERS.items() if not row.asks_critic])
def test_a_pass_takes_few_operations_however_many_rows_and_places_there_are(order):
    for rows, width in ((1, 24), (4, 24), (4, 48)):
        few, many = (
            counted_in(order, rows, width, steps, vocab_size=3000).operations for steps in (2, 6)
        )
        assert 0 < (many - few) / 4 <= MOST_OPERATIONS


def lines_run(call):
    """How many lines of the package's Python a call runs, a loop's once for each time."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line" and "hf_maskgit/" in frame.f_code.co_filename
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "options",
    [
        {},
        wide({"order": "random"}),
        wide({"remask": "p2"}),
        wide({"block_length": 12, "use_cache": False}),
        wide({"guidance_scale": 2.0}),
    ],
    ids=str,
)
def test_no_line_of_python_is_run_row_by_row(options):
    model, found = tiny_model(), {}
    for rows in (2, 9):
        text = torch.full((rows, 24), model.config.mask_token_id)
        found[rows] = [
            lines_run(lambda text=text, s=s: model.generate(text, steps=s, seed=0, **options))
            for s in (2, 4)
        ]
    per_pass = {rows: (many - few) / 2 for rows, (few, many) in found.items()}
    assert per_pass[2] == per_pass[9] > 100


@pytest.mark.wide
@pytest.mark.parametrize(
    "options", [{}, {"order": "random"}, {"block_length": 16, "use_cache": False}]
)
def test_the_memory_of_a_call_does_not_grow_with_its_steps(options):
    """But for the plan, a few numbers per step and row; all of a pass is freed behind it."""
    torch.manual_seed(0)
    model = tiny_model(text_config=bert_config(vocab_size=3000, max_position_embeddings=128))
    text = torch.full((2, 64), model.config.mask_token_id)
    options |= {"seed": 0, "temperature": 0.5}

    def peak(steps):
        return peak_bytes(lambda: model.generate(text, steps=steps, **options), text.device)

    peak(8)  # what is made once
    few, many = peak(8), peak(32)
    logits = 2 * 64 * 3000 * 4
    assert few > logits / 8  # it is counted at all
    assert many <= few + 0.01 * logits
