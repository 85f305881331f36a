"""Labels of tokens that the text shows: who trains on these learns to copy."""

from torch import Tensor
from transformers.utils import logging

from .row_checks import can_be_read

logger = logging.get_logger(__name__)

# As many labels whose tokens are all shown come about by chance once in 1e32: transformers' masking
# collator shows one in ten. Whoever names the masked positions may show more.
_SHOWN_IN_A_ROW = {False: 32, True: 1000}


class ShownLabels:
    """Notices that labels come without masks, from batch to batch.

    One batch of a masking collator may by chance show every token that it labels. A long run of
    them is no chance: a collator for causal models or for instructions labels all and hides
    nothing, and the loss of copying soon is 0.01 and means nothing.

    Attributes:
        in_a_row: labels in a row whose token the text showed.
    """

    def __init__(self) -> None:
        self.in_a_row = 0

    def look(self, true_ids: Tensor, shown_ids: Tensor, are_named: bool, training: bool) -> None:
        """Look at the labels of a batch.

        Args:
            true_ids: (N,) long, what the loss is taken of.
            shown_ids: (N,) long, what the text shows there.
            are_named: whether the caller named the masked positions.
            training: refused; in evaluation a warning.

        Raises:
            ValueError: when too many labels in a row were shown.
        """
        if not len(true_ids) or not can_be_read(true_ids):
            return
        if bool((true_ids != shown_ids).any()):
            self.in_a_row = 0
            return
        self.in_a_row += len(true_ids)
        if self.in_a_row < _SHOWN_IN_A_ROW[are_named]:
            return
        said = (
            f"The last {self.in_a_row} labels name tokens that the text shows: nothing is masked, "
            "so there is nothing to predict, only to copy. Collators for causal models do this; "
            "use DataCollatorForMaskGit, or transformers' DataCollatorForLanguageModeling with "
            "mlm=True."
        )
        if training:
            raise ValueError(said)
        logger.warning_once(said)
