"""Tokens of many rows in one grid: each row gets what it would have got alone."""

from types import SimpleNamespace

import pytest
import torch

from hf_maskgit.core.attention_cache import Active, Store, caching, set_aside, twin_of
from hf_maskgit.serving import grid as grids
from hf_maskgit.serving.grid import Grid
from hf_maskgit.serving.passes import Question, ask_together, grouped
from tests.support.grids import wide
from tests.support.tiny import ENCODERS, tiny_model

KINDS = [*list(ENCODERS)[:2], *map(wide, list(ENCODERS)[2:])]


def texts(model, rows: int, length: int, seed: int = 0, masks: float = 0.5, **more) -> Question:
    """Rows of which all but the first have padding."""
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(6, 30, (rows, length), generator=drawn)
    real = torch.ones_like(ids)
    real[1:, length - 2 :] = 0
    masked = (torch.rand(ids.shape, generator=drawn) < masks) & (real == 1)
    ids = ids.masked_fill(masked, model.config.mask_token_id)
    ids = ids.masked_fill(real == 0, model.config.pad_token_id or 0)
    given = {"input_ids": ids, "attention_mask": real, "masked_positions": masked}
    return Question("denoiser", {**given, **more})


class Cached:
    """Rows with an attention cache: their questions, and what each of its passes gives alone."""

    def __init__(self, model, question: Question) -> None:
        self.model, self.twin, self.question = model, twin_of(model), question
        self.stores = [Store(question.arguments["attention_mask"] == 1) for _ in range(2)]

    def asks(self, positions: torch.Tensor | None) -> tuple[Question, torch.Tensor]:
        """Return a full pass, or one of positions (R, L) bool: a question, and its logits alone."""
        given = dict(self.question.arguments)
        active = None if positions is None else Active.of(positions)
        if active is not None:
            given = {name: active.pick(value) for name, value in given.items()}
            given["position_ids"] = active.index + self.model_first
        rows = torch.arange(len(given["input_ids"]))
        with caching(self.stores[0], rows, active):
            alone = self.twin(**given).logits
            with set_aside() as running:
                own = type(running)(self.stores[1], rows, active, None)
        return Question("denoiser", given, own, self.twin), alone

    @property
    def model_first(self) -> int:
        return Grid(self.model)._first


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_rows_of_any_lengths_with_a_cache_and_without_are_what_each_is_alone(kind):
    model = tiny_model(kind).double()
    grid, plain = Grid.of(model), [texts(model, 2, 9), texts(model, 1, 4, 1), texts(model, 3, 6, 2)]
    cached = [Cached(model, texts(model, rows, 7, seed)) for rows, seed in ((1, 3), (2, 4))]
    for chosen in (None, 3, 2):  # a full pass, and two of some positions
        questions, alone = list(plain), [one.ask(model).logits for one in plain]
        for one in cached:
            masked = one.question.arguments["masked_positions"]
            positions = None if chosen is None else masked | (torch.arange(7) == chosen)
            asked, expected = one.asks(positions)
            questions.insert(1, asked)
            alone.insert(1, expected)
        found = ask_together(model, questions, model.config.pad_token_id or 0, grid=grid)
        for answer, expected in zip(found, alone, strict=True):
            torch.testing.assert_close(answer.logits, expected)


@torch.no_grad()
def test_a_grid_has_no_padding_but_at_its_end(monkeypatch):
    model = tiny_model().double()
    grid, seen = Grid.of(model), []
    questions = [texts(model, 2, 9), texts(model, 1, 3, 1), texts(model, 1, 6, 2)]

    def run(twin, arguments):
        seen.append(arguments["attention_mask"])
        return twin(**arguments)

    grid.ask(questions, 0, False, run)
    tokens = sum(int(one.arguments["attention_mask"].sum()) for one in questions)
    rows, width = seen[0].shape
    assert width <= 9  # which the encoder takes
    assert 0 <= seen[0].numel() - tokens < rows
    assert int(seen[0].sum()) == tokens
    # so that lengths need not be alike
    assert len(grouped(questions, 1000)) == 2
    assert len(grouped(questions, 1000, lambda one: one.fits_grid)) == 1


@torch.no_grad()
def test_positions_are_counted_as_the_encoder_counts_them():
    """RoBERTa leaves out the id of its padding, also within a text."""
    model = tiny_model("roberta").double()
    question = texts(model, 1, 8, masks=0.3)
    question.arguments["input_ids"][0, 2] = model.config.pad_token_id
    others = [question, texts(model, 1, 5, 1)]
    found = ask_together(model, others, model.config.pad_token_id, grid=Grid.of(model))
    for one, answer in zip(others, found, strict=True):
        torch.testing.assert_close(answer.logits, one.ask(model).logits)


@torch.no_grad()
def test_numbers_that_are_none_stay_in_their_row():
    """Also where a shorter row is padded to attend, and in the places that a grid has left."""
    model = tiny_model().double()
    broken, *others = [texts(model, 1, 9), texts(model, 2, 5, 1), texts(model, 1, 7, 2)]
    model.denoiser.base_model.embeddings.position_embeddings.weight[8] = torch.nan
    found = ask_together(model, [broken, *others], 0, grid=Grid.of(model))
    assert found[0].logits.isnan().all()
    for one, answer in zip(others, found[1:], strict=True):
        torch.testing.assert_close(answer.logits, one.ask(model).logits)


def test_what_goes_in_no_grid():
    assert Grid.of(tiny_model(self_cond=True)) is None
    model = tiny_model()
    assert texts(model, 1, 5).fits_grid
    assert not texts(model, 1, 5, output_last_hidden_state=True).fits_grid
    assert not texts(model, 1, 5, position_ids=torch.arange(5)[None]).fits_grid
    watched = SimpleNamespace(store=Store(torch.ones(1, 5).bool(), watches=True))
    asked = Question("denoiser", texts(model, 1, 5).arguments, watched)
    assert asked.kind is None  # it goes by itself


def test_the_attention_of_a_grid_says_where_it_runs():
    with pytest.raises(RuntimeError, match="runs within `Grid.ask` alone"):
        twin_of(tiny_model(), grids._NAME)(torch.tensor([[2, 7, 4, 3]]))


def test_a_mask_of_an_encoders_own_is_refused_unless_it_hides_padding_alone():
    real = torch.tensor([[True, True, False]])
    part = grids.Part.of(torch.arange(3)[None], real, torch.arange(3)[None], real, None)
    now = grids._Running([part], torch.arange(2))
    (mask,) = grids._masks_of(torch.nn.Linear(1, 1), torch.zeros(1, 1, 1, 2), now)
    assert torch.equal(mask.expand(1, 1, 3, 3)[0, 0, 0], real[0])
    with pytest.raises(RuntimeError, match="Linear masks its attention in a way of its own"):
        grids._masks_of(torch.nn.Linear(1, 1), torch.zeros(1, 1, 2, 2), now)
