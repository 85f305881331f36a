"""Faults of core that no test can notice, each with the reason: what runs is the same without them.

A row names the module, the lines as they are and with the fault, as the report shows them, and says
why both do the same. Where core changes, a row goes with the lines it speaks of.
"""

EXPLAINED: dict[tuple[str, str, str], str] = {
    (
        "decoding_guidance",
        "given, other = (at_least_float32(logits).log_softmax(-1) for logits in (given, other))",
        "given, other = (at_least_float32(logits).log_softmax((1)) for logits in (given, other))",
    ): "Of logits (N, V) the last dimension is number 1.",
    (
        "decoding_layout",
        "spread = most + 1 # room for the new columns between two old ones",
        "spread = most + (2) # room for the new columns between two old ones",
    ): "More room between the keys of two columns leaves their order as it is.",
    (
        "left_edge",
        "short = self.order.shape[1] - self.width",
        "short = (self.order.shape[1] + self.width)",
    ): "Columns that are added behind the last place of `order` are never picked.",
}
