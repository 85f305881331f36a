"""Against the ancestor: the sampler of `NonAutoregressiveWrapper` in the package x-transformers.

With the same network, schedule and steps, and its noise replaced by ours, the text after every pass
is the same token by token, so the positions revealed are. Where we differ on purpose, a test shows
what the ancestor does there and why we do not. Both run for real; nothing of it is restated here
but the numbers of masks in `test_its_plan...`.
"""

import itertools
import math
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch import nn

import hf_maskgit.core.decoding
from hf_maskgit.core.decoding import fill_masks
from hf_maskgit.core.decoding_noise import row_uniforms
from hf_maskgit.core.decoding_state import DecodingState
from hf_maskgit.core.sampler import Sampler
from hf_maskgit.core.sampler_choices import resolve_choices
from hf_maskgit.core.sampler_paces import remaining_by_blocks
from hf_maskgit.core.sampler_scores import draw, gumbel
from hf_maskgit.core.schedules import get_schedule
from tests.support.grids import wide
from tests.support.oracles_sampling import chi_square

x_transformers = pytest.importorskip("x_transformers")
ancestor = pytest.importorskip("x_transformers.nonautoregressive_wrapper")

VOCABULARY, ROWS = 11, 16  # ids, the last one the mask
MASK = VOCABULARY - 1


def real_network(length, can_emit_masks=False):
    """A small random transformer; its logits are spread so that scores differ clearly."""
    torch.manual_seed(length)
    net = x_transformers.TransformerWrapper(
        num_tokens=VOCABULARY,
        max_seq_len=length,
        attn_layers=x_transformers.Encoder(dim=32, depth=2, heads=2),
    ).eval()
    with torch.no_grad():
        net.to_logits.weight.mul_(4)

    def forbid(module, arguments, output):
        if isinstance(output, tuple):
            output[0][..., MASK] = -torch.inf

    if not can_emit_masks:
        net.register_forward_hook(forbid)
    return net


class FixedLaws(nn.Module):
    """A network, as the ancestor calls it, that believes the same whatever the text."""

    def __init__(self, laws):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(laws).log(), requires_grad=False)
        self.max_seq_len, self.num_tokens = self.logits.shape
        self.emb_dim, self.output_is_log_prob = 1, False

    def forward(self, seq, **kwargs):
        logits = self.logits.expand(len(seq), -1, -1).clone()
        return logits, logits


def uniforms_of(step, rows, length):
    """Noise as `generate` draws it: rows seeded by their number."""
    numbers = torch.arange(rows)
    return row_uniforms(numbers, torch.full((rows,), length), numbers, step, length)


@contextmanager
def our_noise(uniforms):
    """Replace the two functions the ancestor draws with; `uniforms(step)` is (B, L, 2)."""
    passes = iter(range(1000))
    now = {}

    def gumbel_sample(logits, temperature=1.0, dim=-1):
        now["noise"] = uniforms(next(passes))
        if temperature == 1e-3:  # it never falls to 0, where we draw without noise
            return logits.argmax(-1)
        flat = draw((logits / temperature).flatten(0, 1), now["noise"][..., 0].flatten())
        return flat.view(logits.shape[:2])

    def gumbel_noise(scores):
        # It scores what is fake and masks the highest, we what is right and keep the highest.
        return -gumbel(now["noise"][..., 1]).to(scores.dtype)

    with mock.patch.multiple(ancestor, gumbel_sample=gumbel_sample, gumbel_noise=gumbel_noise):
        yield


def its_passes(
    net, steps, schedule, uniforms, *, rows=ROWS, mask=MASK, filter_thres=None, **kwargs
):
    """The text before each pass of the ancestor and at the end, and the wrapper."""
    options = {k: kwargs.pop(k) for k in ("noise_level_scale",) if k in kwargs}
    wrapper = ancestor.NonAutoregressiveWrapper(
        net, mask_id=mask, steps=steps, schedule=schedule, **kwargs
    )
    texts = []

    def remember(module, arguments, keywords, output):
        if keywords.get("return_logits_and_embeddings"):
            texts.append(arguments[0].clone())

    handle = net.register_forward_hook(remember, with_kwargs=True)
    with our_noise(uniforms):
        texts.append(wrapper.generate(batch_size=rows, filter_thres=filter_thres, **options))
    handle.remove()
    return texts, wrapper


def our_passes(net, steps, schedule, uniforms, *, rows=ROWS, mask=MASK, critic=None, **options):
    """The same of ours."""
    text = torch.full((rows, net.max_seq_len), mask)
    choices = resolve_choices(options.pop("order", None), None, options.pop("remask", None))
    sampler = Sampler(
        steps=steps,
        schedule=get_schedule(schedule),
        mask_token_id=mask,
        suppressed=torch.tensor([mask]),
        end_ids=torch.tensor([], dtype=torch.long),
        **choices._asdict(),
        **options,
    )

    def logits_fn(rows, text, positions):
        return net(text, return_logits_and_embeddings=True)[0][positions]

    def critic_fn(rows, text, positions):
        return -critic(text).squeeze(-1)[positions]  # its critic tells how fake a token is

    texts = [text]
    noise = mock.patch.object(
        hf_maskgit.core.decoding,
        "RowNoise",
        return_value=SimpleNamespace(of=lambda rows, step: uniforms(step)[rows]),
    )
    with noise, torch.no_grad():
        fill_masks(
            logits_fn,
            DecodingState.start(text, text == mask, text == mask),
            torch.full((rows,), net.max_seq_len),
            sampler,
            range(rows),
            critic_fn=critic_fn,
            on_step_end=lambda step, state: texts.append(state.text.clone()),
        )
    return texts


# --- where it is right ---------------------------------------------------------------------------

CASES = [  # where its float32 plan is right
    (12, 4, "linear"),
    (12, 7, "linear"),
    (16, 16, "linear"),
    (16, 5, "cosine"),
    (21, 6, "cosine"),
]


@pytest.mark.grid(2)
@pytest.mark.parametrize(("length", "steps", "schedule"), CASES)
@pytest.mark.parametrize("by", ["confidence", "critic"])
def test_every_pass_is_the_ancestors(by, length, steps, schedule):
    """Its order, plan, annealed temperature and noise on the critic, token by token."""
    net = real_network(length)
    noise = [uniforms_of(step, ROWS, length) for step in range(steps)]
    theirs, wrapper = its_passes(
        net, steps, schedule, noise.__getitem__, self_token_critic=by == "critic"
    )
    ours = our_passes(
        net, steps, schedule, noise.__getitem__, order=by, critic=wrapper.token_critic
    )
    assert len(ours) == len(theirs) == steps + 1
    for before, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert torch.equal(a, b), f"before pass {before}"
    other = our_passes(net, steps, schedule, noise.__getitem__, order="top_probability")
    assert not all(torch.equal(a, b) for a, b in zip(other, theirs, strict=True)), "no power"


@pytest.mark.parametrize(("length", "steps", "schedule"), [*CASES, (8, 16, "linear")])
def test_remasking_by_critic_is_the_ancestors(length, steps, schedule):
    """A critic scores the tokens that stand there; with more steps than masks all are spent."""
    net = real_network(length)
    noise = [uniforms_of(step, ROWS, length) for step in range(steps)]
    theirs, wrapper = its_passes(
        net,
        steps,
        schedule,
        noise.__getitem__,
        self_token_critic=True,
        can_mask_prev_unmasked=True,
    )
    ours = our_passes(
        net, steps, schedule, noise.__getitem__, remask="critic", critic=wrapper.token_critic
    )
    for before, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        assert torch.equal(a, b), f"before pass {before}"
    # Passes behind the last mask change nothing in either; we do not make them.
    assert all(torch.equal(ours[-1], text) for text in theirs[len(ours) :])
    hidden_again = [bool(((b == MASK) & (a != MASK)).any()) for a, b in itertools.pairwise(ours)]
    assert any(hidden_again), "nothing was remasked"


# --- where we differ on purpose ------------------------------------------------------------------


@pytest.mark.parametrize("longest", [28, wide(64)])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_its_plan_misses_whole_numbers_and_makes_passes_that_reveal_nothing(schedule, longest):
    """Float32 puts 1 - 1/3 of 3 masks a hair off; floor then costs a mask. We count exactly, and
    reveal at least one per pass. Up to both, the plans are the same for every N and S here."""
    differs = {"rounding": 0, "idle": 0}
    for length in range(1, longest + 1):
        for steps in range(1, length + 1):
            times = torch.linspace(0.0, 1.0, steps + 1)[1:]
            fraction = (
                ancestor.linear_schedule if schedule == "linear" else ancestor.cosine_schedule
            )
            theirs = (fraction(times) * length).long().clamp_min(0).tolist()
            ours = remaining_by_blocks(torch.tensor([length]), steps, get_schedule(schedule), None)[
                :, 0
            ].tolist()
            before = length
            for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                rate = 1 - (step + 1) / steps
                exact = length * (rate if schedule == "linear" else math.sin(math.pi / 2 * rate))
                if a == b:
                    pass
                elif abs(exact - round(exact)) < 1e-4:
                    assert a == min(round(exact), before - 1)
                    differs["rounding"] += 1
                else:
                    assert b >= before, "not idle"  # it would leave as many as there are
                    assert a == before - 1
                    differs["idle"] += 1
                before = a
    assert differs["rounding"] > 0
    assert (differs["idle"] > 0) == (schedule == "cosine")


def test_its_passes_beyond_the_number_of_masks_reveal_nothing():
    """12 steps on 4 masks: 4 passes reveal one each, the rest is work for nothing."""
    net = FixedLaws([[0.6, 0.4, 0.0]] * 4)
    theirs, _ = its_passes(net, 12, "linear", lambda step: torch.rand(1, 4, 2), rows=1, mask=2)
    ours = our_passes(net, 12, "linear", lambda step: torch.rand(1, 4, 2), rows=1, mask=2)
    idle = sum(bool((a == b).all()) for a, b in itertools.pairwise(theirs))
    assert (len(theirs) - 1, idle) == (12, 8)
    assert len(ours) - 1 == 4


def test_its_remasking_scores_a_fresh_draw_and_not_the_token_that_stands_there():
    """A token of probability 0.9 stands at place 0. The ancestor draws there again, gets one of
    0.1, and hides the place: a good token goes for the fault of another. We ask for the one that
    stands there, and hide places 2 and 3, where the draw was unlikely."""
    net = FixedLaws([[0.9, 0.1, 0.0], [0.6, 0.4, 0.0], [0.6, 0.4, 0.0], [0.4, 0.6, 0.0]])
    noise = torch.tensor([[0.5] * 4, [0.999, 0.5, 0.99, 0.0], [0.5] * 4, [0.5] * 4]).double()
    uniforms = lambda step: noise[step][None, :, None].expand(1, 4, 2)  # noqa: E731
    options = {"rows": 1, "mask": 2}
    theirs, _ = its_passes(net, 4, "linear", uniforms, can_mask_prev_unmasked=True, **options)
    ours = our_passes(
        net, 4, "linear", uniforms, order="confidence", remask="confidence", **options
    )
    assert theirs[1].tolist() == ours[1].tolist() == [[0, 2, 2, 2]]
    assert ours[2].tolist() == [[0, 0, 2, 2]]
    assert theirs[2][0, 0] == 2, "the ancestor kept the good token"


def test_its_scores_come_after_the_filter_so_that_a_narrow_one_ends_the_order():
    """With one token left by the filter every place is certain, and the leftmost are hidden."""
    net = FixedLaws([[0.95, 0.05, 0.0], [0.6, 0.4, 0.0]])
    uniforms = lambda step: torch.full((1, 2, 2), 0.1).double()  # noqa: E731
    theirs, _ = its_passes(net, 2, "linear", uniforms, rows=1, mask=2, filter_thres=0.7)
    ours = our_passes(net, 2, "linear", uniforms, order="confidence", rows=1, mask=2)
    assert ours[1].tolist() == [[0, 2]]
    assert theirs[1].tolist() == [[2, 0]], "it revealed the surer place"


def test_it_may_emit_the_mask():
    net = FixedLaws([[0.05, 0.05, 0.9]] * 4)
    uniforms = lambda step: torch.full((1, 4, 2), 0.5).double()  # noqa: E731
    theirs, _ = its_passes(net, 2, "linear", uniforms, rows=1, mask=2)
    ours = our_passes(net, 2, "linear", uniforms, order="confidence", rows=1, mask=2)
    assert bool((theirs[-1] == 2).all())
    assert not bool((ours[-1] == 2).any())


@pytest.mark.wide
def test_its_critic_noise_chooses_what_to_hide_and_ours_what_to_keep():
    """Gumbel noise of scale 1 on what is fake draws the *hidden* places one by one by softmax; ours
    draws the revealed ones. First pass of 4 on 4 places; 20,000 rows, false alarm 1e-6 each."""
    rows, right = 20_000, torch.tensor([2.0, 0.5, 0.0, -1.0])

    class Critic(nn.Module):
        def forward(self, seq):
            return -right[:, None].expand(len(seq), -1, -1)

    net = FixedLaws([[0.5, 0.5, 0.0]] * 4)
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(4, rows, 4, 2, dtype=torch.float64, generator=generator)
    with mock.patch.object(
        ancestor, "gumbel_sample", lambda logits, temperature: logits.argmax(-1)
    ):
        wrapper = ancestor.NonAutoregressiveWrapper(net, mask_id=2, steps=4, token_critic=Critic())
        texts = []
        net.register_forward_hook(lambda module, arguments, output: texts.append(arguments[0]))
        torch.manual_seed(0)
        wrapper.generate(batch_size=rows, filter_thres=None, noise_level_scale=4 / 3)
    theirs = torch.bincount((texts[1] != 2).long().argmax(1), minlength=4).numpy()
    after = our_passes(
        net,
        4,
        "linear",
        noise.__getitem__,
        rows=rows,
        mask=2,
        order="critic",
        noise_level_scale=4 / 3,
        critic=wrapper.token_critic,
    )[1]
    ours = torch.bincount((after != 2).long().argmax(1), minlength=4).numpy()
    keep = right.softmax(0).numpy()
    hide, last = (-right).softmax(0).tolist(), [0.0] * 4
    for places in itertools.permutations(range(4)):  # the order in which places are hidden
        odds, left = 1.0, 1.0
        for place in places:
            odds, left = odds * hide[place] / left, left - hide[place]
        last[places[-1]] += odds
    assert chi_square(ours, keep) > 1e-6
    assert chi_square(theirs, last) > 1e-6
    assert chi_square(ours, last) < 1e-12
    assert chi_square(theirs, keep) < 1e-12
