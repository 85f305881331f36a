"""The documents of packed rows as rows of their own, and back.

    document_ids   1 1 1 2 2 0        split: a b c      join: as it was, 0 at padding
    tokens         a b c d e .               d e .

What is drawn, counted or weighed per text is computed on these rows, for packed texts as for texts
alone: a row that is one text is its only document.

Letters: B rows, L columns, D documents of all rows, in the order of rows and columns, W the length
of the longest.
"""

from torch import Tensor


class DocumentRows:
    """Where each document of a batch stands.

    Args:
        document_ids: (B, L) integers, a number > 0 for each document of a row, whose tokens stand
            together; 0 at padding. An attention mask names one document in each row.
    """

    def __init__(self, document_ids: Tensor) -> None:
        real = document_ids > 0
        begins = real.clone()
        begins[:, 1:] &= document_ids[:, 1:] != document_ids[:, :-1]
        self._shape = document_ids.shape
        self._where = real.flatten().nonzero().squeeze(1)
        self._first = begins.flatten().nonzero().squeeze(1)
        self._document = (begins.flatten().cumsum(0) - 1)[self._where]
        self._column = self._where - self._first[self._document]
        # (D,) long, the row of each document
        self.row = self._first // max(1, document_ids.shape[1])

    def __len__(self) -> int:
        """Return D."""
        return len(self.row)

    def split(self, tensor: Tensor) -> Tensor:
        """Give each document a row of its own: (B, L, ...) to (D, W, ...), 0 behind each."""
        width = int(self._column.max()) + 1 if len(self) else 0
        rows = tensor.new_zeros(len(self), width, *tensor.shape[2:])
        rows[self._document, self._column] = tensor.flatten(0, 1)[self._where]
        return rows

    def join(self, rows: Tensor) -> Tensor:
        """Put the rows back to where they stood: (D, W, ...) to (B, L, ...), 0 at padding."""
        flat = rows.new_zeros(self._shape.numel(), *rows.shape[2:])
        flat[self._where] = rows[self._document, self._column]
        return flat.view(*self._shape, *rows.shape[2:])

    def spread(self, values: Tensor) -> Tensor:
        """Give each token what its document has: (D, ...) to (B, L, ...), 0 at padding."""
        flat = values.new_zeros(self._shape.numel(), *values.shape[1:])
        flat[self._where] = values[self._document]
        return flat.view(*self._shape, *values.shape[1:])

    def gather(self, tensor: Tensor) -> Tensor:
        """Read what the first token of each document has: (B, L, ...) to (D, ...)."""
        return tensor.flatten(0, 1)[self._first]
