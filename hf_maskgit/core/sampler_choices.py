"""What follows from the rows of a sampler: what goes together, what reads an option, what draws."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from .decoding_cache import REFRESHES, CacheOptions
from .options import Option, options_of
from .sampler import Sampler
from .sampler_orders import ORDERS, Order
from .sampler_paces import block_sizes
from .sampler_rules import PACES, REMASKS, Pace, Remask, rules_of

# The tables by the option that picks a row of them.
TABLES: dict[str, Mapping[str, Order | Pace | Remask]] = {
    "order": ORDERS,
    "pace": PACES,
    "remask": REMASKS,
}
# Options that mean something where something is drawn alone, each with what leaves draws alone.
_OF_DRAWS = {"temperature": 1, "top_k": 0, "top_p": 1, "noise_level_scale": 0}
_OF_CACHE = options_of(CacheOptions).keys() - {"use_cache"}
# Who judges in P2, and whether that is a critic.
P2_PLANNERS = {"self": False, "critic": True}


def described(name: str, option: Option) -> Option:
    """Return the declaration of a choice with the names of its rows and what they say of them."""
    told = [
        f'"{value}", {row.help}' + (f" ({row.source})" if row.source else "")
        for value, row in TABLES[name].items()
    ]
    return replace(option, choices=tuple(TABLES[name]), help=f"{option.help} {'; '.join(told)}.")


class Choices(NamedTuple):
    """A legal combination."""

    order: str
    pace: str
    remask: str


def paces_with(remask: str) -> tuple[str, ...]:
    """Name the paces that a remasking goes with; the first is what an unset one becomes."""
    return REMASKS[remask].paces or tuple(PACES)


def orders_with(pace: str, remask: str, p2_planner: str = "self") -> list[str]:
    """Name the orders that both go with; the first is what an unset one becomes."""
    # In the order of the pace's row, or of the table: the first is the one to fall back on.
    rule = REMASKS[remask]
    of_both = [n for n in PACES[pace].orders or ORDERS if n in (rule.orders or ORDERS)]
    asks = P2_PLANNERS[p2_planner]
    return [n for n in of_both if not rule.planned or ORDERS[n].asks_critic == asks]


def resolve_choices(
    order: str | None, pace: str | None, remask: str | None, p2_planner: str = "self"
) -> Choices:
    """Complete the three choices, where unset from those that are set, and check the combination.

    Raises:
        ValueError: for a combination that makes no sense, naming what goes together.
    """
    # Remasking first, since it says most about the others; then the pace; last the order.
    remask = remask or next(iter(REMASKS))
    paces = paces_with(remask)
    pace = pace or paces[0]
    if pace not in paces:
        raise ValueError(
            f"remask={remask!r} goes with pace {_listed(paces)}, got pace={pace!r}; leave `pace` "
            "unset or choose another remasking."
        )
    orders = orders_with(pace, remask, p2_planner)
    order = order or orders[0]
    if order not in orders:
        planner = f" and p2_planner={p2_planner!r}" if REMASKS[remask].planned else ""
        raise ValueError(
            f"pace={pace!r} with remask={remask!r}{planner} goes with order {_listed(orders)}, got "
            f"order={order!r}; leave `order` unset or choose another pace or remasking."
        )
    return Choices(order, pace, remask)


def check_blocks(sampler: Sampler, most: int) -> None:
    """Refuse blocks that the steps or the remasking have no room for.

    Args:
        sampler: its options and rows.
        most: masks of the row that has most of them.

    Raises:
        ValueError: for fewer steps than blocks, or a remasking that plans over the whole text.
    """
    rules = rules_of(sampler)
    if sampler.block_length is None or not rules.pace.by_steps:
        return
    num_blocks = len(block_sizes(most, sampler.block_length))
    if sampler.steps < num_blocks:
        raise ValueError(
            f"{most} masks make {num_blocks} blocks of block_length={sampler.block_length}, and "
            f"each needs a step of its own, got steps={sampler.steps}."
        )
    if rules.remask.plan is not None:
        raise ValueError(
            f"remask={sampler.remask!r} plans its time over the whole text; leave `block_length` "
            "unset."
        )


def check_memory(pace: str, use_cache: bool | None, self_cond: bool) -> None:
    """Refuse what remembers a row's pass before, for a pace that asks for several of its texts.

    Args:
        pace: such a pace.
        use_cache: as the call or the model sets it.
        self_cond: whether the model looks back on the pass before.

    Raises:
        ValueError: for either.
    """
    if use_cache:
        raise ValueError(
            f"use_cache=True keeps what the pass before computed of a row, and pace={pace!r} asks "
            "for several texts of a row in one pass; set use_cache=False or choose another pace."
        )
    if self_cond:
        raise ValueError(
            f"pace={pace!r} asks for several texts of a row in one pass, and this model looks back "
            "on the pass before (self_cond), which those texts have not had; choose another pace."
        )


def readers_of(name: str) -> tuple[str, list[str]] | None:
    """Return the choice that an option belongs to, and its values that read it; None for any."""
    for choice, table in {**TABLES, "cache_refresh": REFRESHES}.items():
        readers = [value for value, row in table.items() if name in row.reads]
        if readers:
            return choice, readers
    return None


def without_effect(options: Mapping[str, Any], named: Iterable[str]) -> list[str]:
    """Say of each option that was named in a call, but that its sampler does not look at, so.

    Args:
        options: all of them, with the choices resolved.
        named: what the call set.
    """
    sentences = []
    asked = options["use_cache"]
    has_cache = options["block_length"] is not None if asked is None else asked
    for name in named:
        choice, readers = readers_of(name) or ("", [])
        if choice and options[choice] not in readers:
            sentences.append(
                f"`{name}` has no effect with {choice}={options[choice]!r}; it belongs to "
                f"{choice} {' or '.join(map(repr, readers))}."
            )
        elif name in _OF_CACHE and not has_cache:
            sentences.append(
                f"`{name}` has no effect without an attention cache; set use_cache=True or "
                "`block_length`."
            )
        elif options["do_sample"] is False and options[name] != _OF_DRAWS.get(name, options[name]):
            sentences.append(
                f"`{name}` has no effect with do_sample=False, which takes the likeliest token."
            )
    return sentences


def default_noise(choices: Choices, do_sample: bool) -> float:
    """Return the `choice_temperature` of a legal combination for which nobody sets one."""
    takes_noise = do_sample and PACES[choices.pace].takes_noise
    return ORDERS[choices.order].choice_temperature if takes_noise else 0.0


def what_draws(options: Mapping[str, Any]) -> list[str]:
    """Name the options that draw at random, besides the tokens themselves."""
    rows = {name: table.get(options.get(name) or "") for name, table in TABLES.items()}
    draws = {
        **{name: row is not None and row.draws for name, row in rows.items()},
        "choice_temperature": bool(options.get("choice_temperature")),
        "num_return_sequences": (options.get("num_return_sequences") or 1) > 1,
    }
    return [name for name, is_drawn in draws.items() if is_drawn]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
