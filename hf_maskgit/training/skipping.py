"""Updates whose loss or gradient is no number: the run ends, or goes on without them as it is told.

An update that is left out changes neither weights nor optimizer nor averages. It counts as one of
the run's updates, for its data and its learning rate.
"""

import logging

from .checkpoints import Progress
from .finiteness import CALMER, NotFiniteError
from .updates import Update

logger = logging.getLogger(__name__)
MOST_IN_A_ROW = 10  # left out one after another, before a run ends


def left_out(error: NotFiniteError, progress: Progress, on_nonfinite: str) -> Update:
    """Leave out the update that has failed, unless it ends the run.

    Args:
        error: why it failed; weights that are no numbers end the run in any case.
        progress: before the update; counts it.
        on_nonfinite: "stop" or "skip".

    Returns:
        What it did, nothing.

    Raises:
        NotFiniteError: naming the update, when the run ends with it.
    """
    said = f"In update {progress.step + 1} {error}"
    if on_nonfinite == "stop":
        skipping = " With `on_nonfinite` 'skip' a run goes on without such an update."
        raise NotFiniteError(f"{said} {CALMER}{'' if error.in_weights else skipping}") from error
    if error.in_weights:
        raise NotFiniteError(f"{said} {CALMER}") from error
    progress.skipped += 1
    progress.skipped_in_a_row += 1
    if progress.skipped_in_a_row == MOST_IN_A_ROW:
        raise NotFiniteError(f"{said} It is the {MOST_IN_A_ROW}th in a row. {CALMER}") from error
    logger.warning("%s The run goes on without it.", said)
    return Update.left_out()
