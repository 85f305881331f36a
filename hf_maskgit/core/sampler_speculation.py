"""Speculative decoding: tokens one by one by the denoiser's law, in fewer passes than tokens.

A round drafts the next tokens of the order in one pass, each from its law in the present text, and
verifies them in another, whose rows are the text with the first draft put in, with the first two,
and so on. A draft x is accepted with probability min(1, q(x) / p(x)), with p its law when it was
drafted and q its law behind the tokens before it; the first that is not is drawn from (q - p)+
instead, and ends the round. So each token has the law q, as if it had been revealed in a pass of
its own (speculative sampling, arXiv 2211.17192; for any order, ASSD, arXiv 2504.20456). The order
must be known without a look at tokens or logits: one that depends on a draft would depend on
whether it is accepted. With a pattern p and q are those of one place given that the text will
match; drafts that contradict each other have a q of 0.

Letters: R rows still being decoded, L length, V vocabulary, N drafts, S prefixes to verify.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .decoding_state import DecodingState
from .decoding_turn import Turn
from .finite import no_text
from .pattern_pass import PatternLaw
from .position_logits import PositionLogits
from .sampler_orders import Look, placed
from .sampler_paces import annealing_by_reveals
from .sampler_scores import (
    Distribution,
    draw_by,
    likeliest,
    likeliest_tokens,
    log_probability,
    ranks,
)

# Columns of a turn's uniforms: what a draft is drawn with, whether it is accepted, and what takes
# its place. Column 1 is the order's.
_DRAFT, _ACCEPT, _INSTEAD = 0, 2, 3


def next_drafts(last_revealed: Tensor, most: int) -> Tensor:
    """Return how many tokens the next round drafts, (R,) long.

    Two more than the round before revealed: where all k drafts are accepted, k + 1 tokens are
    revealed and k + 3 are drafted; where the first fails, 2 and 4. The first round drafts 2.

    Args:
        last_revealed: (R,) long, tokens that the row's round before revealed, 0 for none.
        most: upper limit, at least 1.
    """
    return (last_revealed + 2).clamp_max(most)


class Draft(NamedTuple):
    """Tokens drafted at N places.

    Attributes:
        places: (R, L) bool, the N.
        tokens: (R, L) long, those drafted; elsewhere 0.
        law: (N, V) float, what they were drawn by.
        chances: (R, L) float, their probabilities in it.
        log_probabilities: (R, L) float32, theirs by the denoiser alone, where they are recorded.
        alternatives: (R, L, K, 2) float64, see `DecodingState`, where they are kept; else None.
        log_weights: (R,) float64, what the first adds to those of rows with patterns; else zeros.
    """

    places: Tensor
    tokens: Tensor
    law: Tensor
    chances: Tensor
    log_probabilities: Tensor
    alternatives: Tensor | None
    log_weights: Tensor

    def at(self, places: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return some places (R, L) bool with their tokens, log-probabilities, alternatives."""
        others = None if self.alternatives is None else self.alternatives[places]
        return places, self.tokens[places], self.log_probabilities[places], others


def write_verified(turn: Turn, look: Look, chosen: Tensor) -> DecodingState:
    """Write tokens at the first of the chosen places, in the order's sequence: one round.

    All chosen but the last are drafted; the last has a token of its own if all others were
    accepted.

    Args:
        turn: the rows, with uniforms (R, L, 4).
        look: the order's scores; it drew and asked for nothing.
        chosen: (R, L) bool.

    Returns:
        The rows, with one token more at least where one was chosen.

    Raises:
        ValueError: for logits that are no distribution, see `_law`.
    """
    rank = ranks(look.scores, chosen)  # (R, L) the order's sequence, from 0
    draft = _drafted(turn, chosen, rank)
    # The first draft has the law of the text as it is: there is nothing to verify.
    row, column = (chosen & (rank > 0)).nonzero(as_tuple=True)  # (S,)
    if len(row) == 0:
        return _weighed(turn, turn.state.reveal(*draft.at(draft.places)), draft.log_weights)
    ahead, place = _prefixes(turn, draft, rank, row, column)
    logits = _logits(ahead, place)
    if isinstance(logits.condition, PatternLaw):
        logits.condition.tentative = True  # drafts may contradict each other: one is refused
    law = _law(ahead, logits, place, _scale(ahead.state, 0))  # (S, V)
    # A draft is accepted, or ends the round; where none stands, the round ends anyway.
    chance = law.gather(1, draft.tokens[row, column, None]).squeeze(1)
    coin = turn.uniforms[row, column, _ACCEPT]
    accepted = draft.places[row, column] & (coin * draft.chances[row, column] < chance)
    beyond = rank.shape[1]
    ends = torch.full_like(rank, beyond)
    ends[row, column] = rank[row, column].masked_fill(accepted, beyond)
    end = ends.amin(1, keepdim=True)  # (R, 1) the rank that ends the round
    last = rank[row, column] == end[row, 0]  # (S,)
    nothing = (law[last].sum(-1) == 0).nonzero()
    if len(nothing):
        raise no_text(int(row[last][nothing[0]]))
    tokens = _instead(turn, draft, law[last], (row[last], column[last]))
    ending = torch.zeros_like(chosen)
    ending[row[last], column[last]] = True
    if not turn.sampler.records_probabilities:
        kept = draft.at(draft.places & (rank < end))
        return turn.state.reveal(*kept).reveal(ending, tokens)
    # Each is told by the logits that it was accepted by.
    draft.log_probabilities[row, column] = _log_probabilities(logits, draft.tokens[row, column])
    count, others = turn.state.num_alternatives, None
    if draft.alternatives is not None:
        draft.alternatives[row, column] = _likeliest_tokens(logits, count)
        others = likeliest_tokens(logits.at(last), count)
    after = turn.state.reveal(*draft.at(draft.places & (rank < end)))
    after = after.reveal(ending, tokens, log_probability(logits.at(last), tokens), others)
    # Each token weighs what it does in the text before it; behind the end of the round none does.
    added = _log_weights(logits, place, ahead.state.text.where(~place, after.text[row]))
    added = added.where(rank[row, column] <= end[row, 0], 0.0)
    return _weighed(turn, after, draft.log_weights.index_add(0, row, added))


def _log_weights(logits: PositionLogits, place: Tensor, text: Tensor) -> Tensor:
    """Return what the tokens of texts (R, L) at places (R, L) bool weigh, (R,) float64."""
    if not isinstance(logits.condition, PatternLaw):
        return torch.zeros(len(text), dtype=torch.float64, device=text.device)
    return logits.condition.log_weights(place, text).to(text.device)


def _weighed(turn: Turn, after: DecodingState, added: Tensor) -> DecodingState:
    """Add to the importance weights (R,) of rows with patterns, where they are recorded."""
    if after.log_weights is None or not turn.sampler.records_probabilities:
        return after
    sampler = turn.sampler
    plain = sampler.do_sample and sampler.temperature == 1 and not sampler.anneal_temperature
    known = plain and not sampler.changes_scores
    added = added if known else torch.full_like(added, torch.nan)
    return replace(after, log_weights=after.log_weights + added)


def _drafted(turn: Turn, chosen: Tensor, rank: Tensor) -> Draft:
    """Draft tokens at the chosen places but the last; at a single one too."""
    count = chosen.sum(1, keepdim=True)
    places = chosen & (rank < (count - 1).clamp_min(1))
    logits = _logits(turn, places)
    # At the temperature that each would have if it were drawn behind those before it.
    scale = _scale(turn.state.rows(places.nonzero()[:, 0]), rank[places])
    law = _law(turn, logits, places, scale)
    tokens = draw_by(law, turn.uniforms[..., _DRAFT][places])
    kept, others = torch.zeros_like(turn.state.log_probabilities), turn.state.alternatives
    if others is not None:
        found = _likeliest_tokens(logits, turn.state.num_alternatives)
        others = others.masked_scatter(places[..., None, None], found)
    if turn.sampler.records_probabilities:
        kept = kept.masked_scatter(places, _log_probabilities(logits, tokens))
    chances = law.gather(1, tokens[:, None]).squeeze(1)
    drafted, first = placed(tokens, places), places & (rank == 0)
    weights = torch.zeros(len(places), dtype=torch.float64, device=places.device)
    if turn.sampler.records_probabilities:
        weights = _log_weights(logits, first, turn.state.text.where(~first, drafted))
    return Draft(places, drafted, law, placed(chances, places), kept, others, weights)


def _logits(turn: Turn, places: Tensor) -> PositionLogits:
    # What is recorded is read a second time, and a pattern's law reads them itself.
    kept = turn.sampler.records_probabilities or turn.state.patterns is not None
    return turn.logits(places, kept, scored=False)


def _prefixes(
    turn: Turn, draft: Draft, rank: Tensor, row: Tensor, column: Tensor
) -> tuple[Turn, Tensor]:
    """Put the drafts before each of S places, of these rows and columns, into a text of its own.

    Returns:
        The pass of these texts, and the place (S, L) bool in each.
    """
    put_in = draft.places[row] & (rank[row] < rank[row, column, None])
    state = turn.state.rows(row).reveal(put_in, draft.tokens[row][put_in])
    place = torch.zeros_like(put_in)
    place[torch.arange(len(row), device=row.device), column] = True
    return turn.of_texts(row, state), place


def _law(turn: Turn, logits: PositionLogits, positions: Tensor, scale: Tensor) -> Tensor:
    """Return the probabilities that `drawer` draws by, all at once; of a pattern, each by itself.

    Args:
        turn: the rows.
        logits: of the positions.
        positions: (R, L) bool, N of them.
        scale: (N,) float64, of the temperature where it is annealed.

    Returns:
        (N, V) float; at temperature 0, and where nothing is drawn, 1 at the likeliest token.

    Raises:
        ValueError: as what `drawer` returns.
    """
    rows = positions.nonzero()[:, 0]
    temperature = turn.temperature_at(scale)
    cold = (temperature == 0)[:, None]
    if isinstance(logits.condition, PatternLaw):
        return _pattern_law(turn, logits, logits.condition, temperature)
    all_cold, some_cold = bool(cold.all()), bool(cold.any())

    def law(block: Distribution, which: slice) -> tuple[Tensor]:
        scores, text = turn.processed(block.logits, logits, which, rows[which])
        certain = scores
        if some_cold:
            best = likeliest(scores)[:, None]
            certain = torch.zeros_like(scores).scatter(1, best, 1.0)
        if all_cold:
            return (certain,)
        warm = turn.warm(Distribution(scores), temperature[which]).logits
        warm = turn.filtered(warm, text).softmax(-1)
        return (torch.where(cold[which], certain, warm),)

    (probabilities,) = logits.read(law)
    return probabilities


def _pattern_law(
    turn: Turn, logits: PositionLogits, condition: PatternLaw, temperature: Tensor
) -> Tensor:
    """Do as `_law` for rows with patterns, at temperatures (N,) of the places themselves."""
    # The others have the one of the next token: any law will do for a draft, but the first has it.
    of_row = turn.temperature_at(_scale(turn.state, 0))
    others = of_row[condition.rows]
    mine = others.index_put((logits.index,), temperature)
    own, _ = turn.pattern_warps(condition, mine)
    chances = condition.chances(turn.pattern_warps(condition, others), own, of_row == 0)

    def law(block: Distribution, which: slice) -> tuple[Tensor]:
        index = logits.index[which]
        found = chances(condition.logits.at(index), index)
        best = torch.zeros_like(found).scatter(1, found.argmax(-1, keepdim=True), 1.0)
        cold = (mine[index] == 0)[:, None] & (found > 0).any(-1, keepdim=True)
        return (torch.where(cold, best, found),)

    (probabilities,) = logits.read(law)
    return probabilities


def _instead(turn: Turn, draft: Draft, law: Tensor, at: tuple[Tensor, Tensor]) -> Tensor:
    """Draw the token that ends a round, (M,) long, of its law (M, V) at M rows and columns."""
    # Where a token was drafted and refused, what the draft would have given too often is taken off.
    number = torch.zeros_like(draft.tokens).masked_scatter(
        draft.places, torch.arange(len(draft.law), device=law.device)
    )
    rest = (law - draft.law[number[at]] * draft.places[at][:, None]).clamp_min(0)
    # Of equal laws nothing is left but what rounding refused; then the law itself will do.
    weights = torch.where(rest.sum(-1, keepdim=True) > 0, rest, law)
    return draw_by(weights, turn.uniforms[..., _INSTEAD][at])


def _scale(state: DecodingState, before: Tensor | int) -> Tensor:
    """Return the annealing (R,) of a token that is revealed behind so many others."""
    return annealing_by_reveals(state.masked.sum(1) - before, (state.block >= 0).sum(1))


def _log_probabilities(logits: PositionLogits, tokens: Tensor) -> Tensor:
    """Return those of (N,) tokens by the denoiser alone, (N,) float32."""
    (found,) = logits.read(lambda block, which: (log_probability(block, tokens[which]),))
    return found.float()


def _likeliest_tokens(logits: PositionLogits, count: int) -> Tensor:
    """Return the likeliest tokens by the denoiser alone, (N, K, 2) float64."""
    (found,) = logits.read(lambda block, which: (likeliest_tokens(block, count),))
    return found
