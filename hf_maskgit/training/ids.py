"""Token ids that need no tokenizer: pixels, notes, parts of molecules.

The rest of the library asks a tokenizer for its mask, its padding and its table. So ids get one of
the plainest kind, whose words are the numbers themselves: "12 7 0" is [12, 7, 0]. It is saved with
the model, and what the model writes reads as numbers. Nothing is put around a row of ids.
"""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

MASK, PADDING, UNKNOWN = "[MASK]", "[PAD]", "[UNK]"


def ids_tokenizer(vocab_size: int) -> PreTrainedTokenizerBase:
    """Make the tokenizer of ids 0..vocab_size-1, mask and padding behind them.

    Args:
        vocab_size: how many ids there are, at least 2.

    Returns:
        A tokenizer with `mask_token_id` vocab_size and `pad_token_id` vocab_size + 1; what it is
        asked to read beside numbers becomes vocab_size + 2, which no model writes.
    """
    words = [*map(str, range(vocab_size)), MASK, PADDING, UNKNOWN]
    table = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(table, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        mask_token=MASK,
        pad_token=PADDING,
        unk_token=UNKNOWN,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
