"""Rows of many callers side by side: each is what it would have been alone."""

import threading
from types import SimpleNamespace

import pytest
import torch

from hf_maskgit.core import chunked_head, linear_maps, packed_weights
from hf_maskgit.serving.engine import Engine, Job
from hf_maskgit.serving.errors import QueueFull, TimeIsUp, Unavailable
from hf_maskgit.serving.passes import Question, ask_together, grouped
from tests.support.grids import wide
from tests.support.served import until
from tests.support.tiny import ENCODERS, TableModel, bert_config, tiny_config, tiny_model

MIXTURE = [
    {"steps": 4},
    {"preset": "llada", "steps": 8},
    {"preset": "remdm", "steps": 9},
    {"pace": "speculative", "order": "random"},
    {"pace": "threshold", "confidence_threshold": 0.4},
    {"pace": "ancestral", "steps": 6},
    {"order": "left_to_right", "top_k": 5},
    {"do_sample": False, "steps": 3},
    {"guidance_scale": 1.5, "steps": 3},
    {"block_length": 4, "steps": 8},
    {"repetition_penalty": 1.3, "temperature": 0.7},
    {"use_cache": True, "cache_refresh": "adaptive", "cache_drift": 0.01, "steps": 6},
]
WITH_CRITIC = [{"order": "critic", "steps": 5}, {"remask": "critic", "order": "critic", "steps": 4}]


def calls(count: int, mixture: list[dict]) -> list[dict]:
    """Rows of many lengths and options, each with a seed of its own."""
    drawn = torch.Generator().manual_seed(0)
    rows = []
    for i in range(count):
        length = int(torch.randint(3, 20, (), generator=drawn))
        ids = torch.randint(6, 30, (1, length), generator=drawn)
        rows.append(
            {
                "input_ids": ids,
                "max_new_tokens": 1 + i % 12,
                "seed": [i],
                **mixture[i % len(mixture)],
            }
        )
    return rows


class Done:
    """Collects the ends of jobs."""

    def __init__(self, count: int) -> None:
        self.found: dict[int, SimpleNamespace] = {}
        self._count, self._all = count, threading.Event()

    def of(self, number: int):
        def end(value, error):
            assert number not in self.found  # an end is told once
            self.found[number] = SimpleNamespace(value=value, error=error)
            if len(self.found) == self._count:
                self._all.set()

        return end

    def wait(self) -> list[SimpleNamespace]:
        assert self._all.wait(120)
        return [self.found[i] for i in range(self._count)]


@pytest.fixture
def engine_of():
    """Make engines, and close them in the end."""
    made = []

    def make(model, **options):
        made.append(Engine(model, **options))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


def together(engine, rows) -> list[SimpleNamespace]:
    done = Done(len(rows))
    jobs = [
        Job(lambda row=row: engine.model.generate(**row), 1, done.of(i))
        for i, row in enumerate(rows)
    ]
    for job in jobs:  # as so many requests
        engine.submit(job)
    return done.wait()


def at_once(engine, rows) -> list[SimpleNamespace]:
    """Rows that begin with the same pass."""
    hold = threading.Event()
    engine.submit(Job(lambda: hold.wait(30), 1, lambda *end: None))  # until all have come
    done = Done(len(rows))
    for i, row in enumerate(rows):
        engine.submit(Job(lambda row=row: engine.model.generate(**row), 1, done.of(i)))
    hold.set()
    return done.wait()


@pytest.mark.wide
def test_64_mixed_rows_of_a_table_are_to_the_last_bit_what_each_is_alone(engine_of):
    model = TableModel(tiny_config(), critic=True)
    rows = calls(64, MIXTURE + WITH_CRITIC)
    alone = [model.generate(**row) for row in rows]
    model.calls.clear()
    engine = engine_of(model)
    for one, expected in zip(together(engine, rows), alone, strict=True):
        assert one.error is None
        assert torch.equal(one.value, expected)
    # they did share passes, those of different options among them
    assert max(len(call.input_ids) for call in model.calls) > 32
    assert engine.counts.rows > 4 * engine.counts.passes
    # and steps of the sampler, those of equal options
    assert engine.counts.step_rows > 2 * engine.counts.steps > 0


def assert_as_alone(engine_of, model, rows) -> Engine:
    alone = [model.generate(**row) for row in rows]
    engine = engine_of(model, max_rows=24)
    found = together(engine, rows)
    assert [one.error for one in found] == [None] * len(rows)
    assert all(torch.equal(one.value, row) for one, row in zip(found, alone, strict=True))
    return engine


@pytest.mark.wide
def test_mixed_rows_of_a_real_model_in_float64_are_what_each_is_alone(engine_of):
    assert_as_alone(engine_of, tiny_model().double(), calls(len(MIXTURE), MIXTURE))


@pytest.mark.parametrize("options", [*MIXTURE[:3], *map(wide, MIXTURE[3:])], ids=str)
def test_rows_of_equal_options_make_one_step_and_are_what_each_is_alone(engine_of, options):
    """Other lengths, seeds and prompts, and one that asks for several texts."""
    rows = calls(5, [options])
    if "do_sample" not in options and options.get("preset") != "llada":  # which draw nothing
        rows.append({**rows[0], "seed": [7, 8], "num_return_sequences": 2})
    engine = assert_as_alone(engine_of, tiny_model(self_cond="pace" not in options).double(), rows)
    assert engine.counts.step_rows >= 3 * engine.counts.steps > 0


@pytest.mark.parametrize("options", [*WITH_CRITIC[:1], *map(wide, WITH_CRITIC[1:])], ids=str)
def test_a_common_step_has_each_row_judged_by_its_own_critic(engine_of, options):
    model = tiny_model(token_critic="self").double()
    assert assert_as_alone(engine_of, model, calls(5, [options])).counts.steps


@pytest.mark.wide
def test_a_long_vocabulary_and_logits_computed_late(engine_of, monkeypatch):
    """The head runs once for all rows of a step, whether a row alone would ask for it or not."""
    monkeypatch.setattr("hf_maskgit.core.chunked_head._USED_AGAIN", 40)
    monkeypatch.setattr("hf_maskgit.core.chunked_head._READ_ELEMENTS", {True: 40 * 80, False: 1})
    mixture = [{"steps": 4}, {"steps": 4}, {"order": "confidence", "steps": 3}]
    rows = calls(9, mixture)
    assert assert_as_alone(engine_of, tiny_model().double(), rows).counts.steps


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {}) for kind in ENCODERS),
        ("bert", {"self_cond": True}),
        ("bert", {"token_critic": "self"}),
        ("modernbert", {"token_critic": "separate"}),
    ],
    ids=str,
)
def test_64_of_them_with_every_kind_of_encoder(engine_of, kind, options):
    if options.get("token_critic") == "separate":
        options = {**options, "critic_config": tiny_model().config.text_config}
    mixture = [
        one
        for one in MIXTURE + (WITH_CRITIC if "token_critic" in options else [])
        # which does not go with self-conditioning
        if one.get("pace") != "speculative" or "self_cond" not in options
    ]
    assert_as_alone(engine_of, tiny_model(kind, **options).double(), calls(64, mixture))


@pytest.mark.wide
@pytest.mark.parametrize("options", [{"steps": 4}, {"pace": "speculative", "order": "random"}])
def test_what_is_told_of_a_row_is_what_is_told_of_it_alone(engine_of, options):
    """Its likeliest tokens among them; rows that want others make a step of their own."""
    model, told = tiny_model().double(), {"return_dict_in_generate": True}
    rows = calls(6, [{**options, **told, "output_alternatives": n} for n in (3, 3, 0)])
    alone = [model.generate(**row) for row in rows]
    engine = engine_of(model)
    for one, expected in zip(together(engine, rows), alone, strict=True):
        assert one.value.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(one.value[name], value)
    assert engine.counts.steps


@pytest.mark.wide
@pytest.mark.skipif(linear_maps.PRODUCT is None, reason="This torch has no maps by oneDNN.")
def test_rows_are_switched_outside_of_the_mode_in_which_onednn_multiplies(engine_of, monkeypatch):
    """A mode is of a thread: one that a row leaves behind would be that of the next."""
    monkeypatch.setattr(linear_maps, "LEAST_WIDTH", 1)
    depth, switch, resume = torch._C._len_torch_function_stack, Engine._switch, Engine._resume
    before, within = [], []
    model = tiny_model(token_critic="self")
    forward = model.forward

    def noted(function, depths):
        def call(*args, **kwargs):
            depths.append(depth())
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(Engine, "_switch", noted(switch, before))
    monkeypatch.setattr(Engine, "_resume", noted(resume, before))
    model.forward = noted(forward, within)
    rows = calls(8, [MIXTURE[0], MIXTURE[9], MIXTURE[3], WITH_CRITIC[1]])
    assert all(one.error is None for one in together(engine_of(model), rows))
    assert set(before) == {0}
    assert max(within) == 1  # it was at work


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_begin_together_take_as_many_passes_as_the_one_of_the_most(engine_of, seed):
    """With a cache too, and those that reveal nothing in some of their steps."""
    mixture = [
        {"steps": 6},
        {"preset": "llada", "steps": 9},
        {"preset": "remdm", "steps": 12},
        {"pace": "ancestral", "steps": 20},
        {"block_length": 2, "steps": 7, "temperature": 0.7},
        {"order": "left_to_right"},
    ]
    model, told = tiny_model().double(), {"return_dict_in_generate": True, "max_new_tokens": 9}
    rows = [{**row, **told, "seed": [seed]} for row in calls(6, mixture)]
    engine = engine_of(model)
    found = at_once(engine, rows)
    most = max(int(one.value.denoiser_passes) for one in found)
    assert engine.counts.passes == most
    assert engine.counts.rows == sum(int(one.value.denoiser_passes) for one in found)


WIDE = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2}


@pytest.mark.wide
@pytest.mark.skipif(packed_weights._REORDER is None, reason="This torch packs no weights.")
def test_weights_are_packed_once_for_all_requests(engine_of, monkeypatch):
    """One after the other, side by side, and those with an attention cache too."""
    cut, reorder = [], packed_weights._REORDER
    monkeypatch.setattr(
        packed_weights, "_REORDER", lambda weight, rows: (cut.append(1), reorder(weight, rows))[1]
    )
    model = tiny_model(text_config=bert_config(vocab_size=200, **WIDE)).eval()
    engine = engine_of(model)
    rows = calls(8, [{"steps": 4}, {"preset": "llada", "steps": 6}])
    for some in (rows[:1], rows[1:2], rows):
        assert all(one.error is None for one in together(engine, some))
    assert len(cut) == 6 * model.config.text_config.num_hidden_layers + 2  # the head's two too


def test_the_head_runs_once_for_all_rows_of_a_common_step(engine_of, monkeypatch):
    monkeypatch.setattr("hf_maskgit.core.chunked_head._LATE_SHARE", {True: 10**6, False: 1})
    model, heads = tiny_model().double(), []
    run = chunked_head.run_head

    def noted(denoiser, states, *args, **kwargs):
        heads.append(len(states))
        return run(denoiser, states, *args, **kwargs)

    rows = calls(4, [{"steps": 3, "order": "confidence", "choice_temperature": 0}])
    alone = [model.generate(**row) for row in rows]
    monkeypatch.setattr(chunked_head, "run_head", noted)
    found = at_once(engine_of(model), rows)
    assert all(torch.equal(one.value, row) for one, row in zip(found, alone, strict=True))
    assert len(heads) == 3  # one for each pass
    assert heads[0] == sum(row["max_new_tokens"] for row in rows)


def test_a_row_joins_at_the_next_pass_and_leaves_when_it_is_done(engine_of):
    """A short row that comes while a long one is in work ends before it."""
    model = TableModel(tiny_config())
    engine, order, passes = engine_of(model), [], threading.Event()
    ids = torch.full((1, 3), 7)

    def long():
        def look(step, state):
            if step == 0:
                passes.set()
                until(lambda: engine.counts.waiting)  # the short one has come
            return

        engine.model.generate(ids, max_new_tokens=40, steps=40, seed=0, callback_on_step_end=look)

    done = Done(2)
    engine.submit(Job(lambda: (long(), order.append("long")), 1, done.of(0)))
    passes.wait(30)
    short = Job(
        lambda: (engine.model.generate(ids, max_new_tokens=30, steps=2), order.append("short")),
        1,
        done.of(1),
    )
    engine.submit(short)
    assert all(one.error is None for one in done.wait())
    assert order == ["short", "long"]
    assert [len(call.input_ids) for call in model.calls].count(2) == 2


def test_a_row_that_fails_fails_alone(engine_of):
    """Neither a refused row nor one on which the network itself fails takes others with it."""
    model = TableModel(tiny_config())
    rows = calls(6, [{"steps": 4}])
    alone = [model.generate(**row) for row in rows]
    plain = type(model).__call__

    class Failing(TableModel):
        def __call__(self, input_ids, attention_mask, masked_positions, token_type_ids=None):
            if (input_ids == 33).any():
                raise RuntimeError("of the network")
            return plain(self, input_ids, attention_mask, masked_positions, token_type_ids)

    model.__class__ = Failing
    rows[1]["input_ids"] = torch.full((1, 5), 33)
    rows[3]["max_new_tokens"] = 1000
    found = together(engine_of(model), rows)
    assert isinstance(found[1].error, RuntimeError)
    assert isinstance(found[3].error, ValueError)
    for i in (0, 2, 4, 5):
        assert torch.equal(found[i].value, alone[i])


def test_a_row_that_fails_in_the_midst_of_a_common_step_leaves_no_trace(engine_of):
    """The others make the step alone with what their networks said: none is asked twice."""
    model = tiny_model(self_cond=True).double()
    rows = calls(4, [{"steps": 4, "return_dict_in_generate": True}])
    alone = [model.generate(**row) for row in rows]
    rows[1]["input_ids"] = torch.full((1, 5), 33)
    plain = model.forward
    asked = []

    def forward(input_ids, *args, **kwargs):
        if (input_ids == 33).any():
            asked.append(len(input_ids))
            if len(asked) > 1:  # not in its first pass
                raise RuntimeError("of the network")
        return plain(input_ids, *args, **kwargs)

    model.forward = forward
    engine = engine_of(model)
    found = together(engine, rows)
    assert isinstance(found[1].error, RuntimeError)
    assert engine.counts.steps
    for i in (0, 2, 3):
        assert torch.equal(found[i].value.sequences, alone[i].sequences)
        assert torch.equal(found[i].value.denoiser_passes, alone[i].denoiser_passes)


def test_a_step_that_fails_is_made_by_each_row_alone(engine_of):
    """Logits of one row are no distribution: that one is told so, and the others go on."""
    model = TableModel(tiny_config())
    rows = calls(5, [{"steps": 4}])
    alone = [model.generate(**row) for row in rows]
    plain = type(model).__call__

    class Broken(TableModel):
        def __call__(self, input_ids, attention_mask, masked_positions, **kwargs):
            found = plain(self, input_ids, attention_mask, masked_positions, **kwargs)
            bad = (input_ids == 33).any(1)[masked_positions.nonzero()[:, 0]]
            found.logits[bad] = float("nan")
            return found

    model.__class__ = Broken
    rows[2]["input_ids"] = torch.full((1, 5), 33)
    found = together(engine_of(model), rows)
    assert isinstance(found[2].error, ValueError)
    for i in (0, 1, 3, 4):
        assert torch.equal(found[i].value, alone[i])


def blocking(engine, hold: threading.Event):
    """A row that holds the engine up in the midst of its first pass."""
    return lambda: engine.model.generate(
        torch.full((1, 3), 7), max_new_tokens=9, steps=9, seed=0,
        callback_on_step_end=lambda step, state: hold.wait(30) and None,
    )  # fmt: skip


def test_a_full_queue_refuses_and_leaves_what_waits_alone(engine_of):
    engine, hold, done = (
        engine_of(TableModel(tiny_config()), max_rows=1, max_queue=2),
        None,
        Done(3),
    )
    hold = threading.Event()
    engine.submit(Job(blocking(engine, hold), 1, done.of(0)))
    until(lambda: engine.counts.decoding)
    engine.submit(*(Job(blocking(engine, hold), 1, done.of(i)) for i in (1, 2)))
    with pytest.raises(QueueFull, match="2 rows wait already and this request has 1; 2 may wait."):
        engine.submit(Job(blocking(engine, hold), 1, lambda *end: None))
    hold.set()
    assert all(one.error is None for one in done.wait())
    assert (engine.counts.waiting, engine.counts.decoding) == (0, 0)


def test_rows_that_are_cancelled_or_late_are_freed(engine_of):
    engine, hold, done = (
        engine_of(TableModel(tiny_config()), max_rows=2),
        threading.Event(),
        Done(4),
    )
    jobs = [Job(blocking(engine, hold), 1, done.of(i)) for i in range(3)]
    late = Job(blocking(engine, hold), 1, done.of(3), seconds=0.01)
    engine.submit(*jobs, late)
    until(lambda: engine.counts.decoding)
    engine.cancel(jobs[0], jobs[2])  # one in work, one that waits
    hold.set()
    found = done.wait()
    assert found[1].error is None
    assert isinstance(found[3].error, TimeIsUp)
    assert "longer than 0.01 seconds" in str(found[3].error)
    assert (engine.counts.waiting, engine.counts.decoding) == (0, 0)


def test_a_closed_engine_ends_what_it_has_and_takes_no_more():
    engine, hold, done = Engine(TableModel(tiny_config())), threading.Event(), Done(1)
    engine.submit(Job(blocking(engine, hold), 1, done.of(0)))
    until(lambda: engine.counts.decoding)
    threading.Timer(0.05, hold.set).start()
    engine.close()
    assert isinstance(done.wait()[0].error, Unavailable)
    with pytest.raises(Unavailable, match="shutting down"):
        engine.submit(Job(blocking(engine, hold), 1, lambda *end: None))


def question(rows: int, length: int, **more):
    ids = torch.full((rows, length), 7)
    own = {"attention_mask": torch.ones_like(ids), "masked_positions": ids > 0}
    return Question("denoiser", {"input_ids": ids, **own, **more})


def test_passes_hold_questions_of_one_kind_of_like_lengths_and_not_too_many():
    questions = [question(1, 10), question(2, 40), question(1, 6), question(1, 30), question(3, 12)]
    assert sorted(map(sorted, grouped(questions, 1000))) == [[0, 2, 4], [1, 3]]
    # 3 rows of 12 and 1 of 10 would be 48 places
    assert sorted(map(sorted, grouped(questions, 40))) == [[0, 2], [1], [3], [4]]
    types = question(1, 10, token_type_ids=torch.zeros(1, 10).long())
    # whether logits are wanted or what they are computed of, the pass is one
    late = question(1, 10, output_head_states=True)
    assert grouped([questions[0], types, late], 1000) == [[0, 2], [1]]
    # with labels there is a loss, which is one number for all
    labelled = question(1, 10, labels=torch.zeros(1, 10).long())
    assert grouped([labelled, labelled], 1000) == [[0], [1]]


def test_answers_of_joined_questions_are_those_of_each():
    model = tiny_model(self_cond=True).double()
    drawn = torch.Generator().manual_seed(1)
    questions = []
    for rows, length in ((2, 9), (1, 5), (3, 7)):
        ids = torch.randint(6, 30, (rows, length), generator=drawn)
        masked = torch.rand(ids.shape, generator=drawn) < 0.5
        states = torch.randn(rows, length, 32, generator=drawn, dtype=torch.float64)
        questions.append(
            Question(
                "denoiser",
                {
                    "input_ids": ids.masked_fill(masked, model.config.mask_token_id),
                    "attention_mask": torch.ones_like(ids),
                    "masked_positions": masked,
                    "previous_hidden_states": states,
                    "has_previous": torch.ones(rows, dtype=torch.bool),
                    "output_last_hidden_state": True,
                },
            )
        )
    questions.insert(
        1, Question("denoiser", {**questions[0].arguments, "output_head_states": True})
    )
    with torch.no_grad():
        found = ask_together(model, questions, 0)
        for one, answer in zip(questions, found, strict=True):
            alone = one.ask(model)
            torch.testing.assert_close(answer.logits, alone.logits)
            torch.testing.assert_close(answer.head_states, alone.head_states)
            torch.testing.assert_close(answer.last_hidden_state, alone.last_hidden_state)
