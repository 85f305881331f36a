import torch

from hf_maskgit.training.document_rows import DocumentRows

IDS = torch.tensor([[1, 1, 1, 2, 2, 0], [7, 3, 3, 3, 3, 3], [0, 0, 0, 0, 0, 0], [0, 0, 4, 4, 4, 0]])
TOKENS = torch.arange(24).view(4, 6)
ROWS = [[0, 1, 2], [3, 4], [6], [7, 8, 9, 10, 11], [20, 21, 22]]


def test_each_document_becomes_a_row_and_comes_back():
    documents = DocumentRows(IDS)
    assert (len(documents), documents.row.tolist()) == (5, [0, 0, 1, 1, 3])
    wide = [[*row, *[0] * (5 - len(row))] for row in ROWS]
    assert documents.split(TOKENS).tolist() == wide
    real = IDS > 0
    assert torch.equal(documents.join(documents.split(TOKENS)), TOKENS * real)
    pairs = torch.stack([TOKENS, -TOKENS], -1)
    assert torch.equal(documents.join(documents.split(pairs)), pairs * real[..., None])


def test_what_a_document_has_is_given_to_its_tokens_and_read_off_the_first():
    documents = DocumentRows(IDS)
    values = torch.tensor([5.0, 6.0, 7.0, 8.0, 9.0])
    spread = documents.spread(values)
    expected = [[5, 5, 5, 6, 6, 0], [7, 8, 8, 8, 8, 8], [0] * 6, [0, 0, 9, 9, 9, 0]]
    assert spread.tolist() == expected
    assert torch.equal(documents.gather(spread), values)
    pairs = torch.stack([values, -values], -1)
    assert torch.equal(documents.gather(documents.spread(pairs)), pairs)


def test_an_attention_mask_names_one_document_in_each_row():
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    documents = DocumentRows(mask)
    assert documents.row.tolist() == [0, 1]
    assert torch.equal(documents.split(TOKENS[:2, :3]), TOKENS[:2, :3] * mask)


def test_a_batch_of_padding_alone_has_no_document():
    documents = DocumentRows(torch.zeros(2, 3, dtype=torch.long))
    assert len(documents) == 0
    assert documents.join(documents.split(TOKENS[:2, :3])).tolist() == [[0] * 3] * 2
