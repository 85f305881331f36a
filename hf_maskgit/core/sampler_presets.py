"""Named samplers, of the literature and one tuned here, as options of `generate`.

`fast` was tuned on three models (docs/samplers.md, "Fewer passes"). The other numbers are those of
the paper or, where it leaves them open, of its code. What a preset leaves to the model is how much
is written and, where its source leaves it open, in how many steps.
"""

from typing import Any, NamedTuple


class Preset(NamedTuple):
    """One sampler.

    Attributes:
        source: the paper, by its arXiv number, or the project; "own" was tuned here.
        options: of `MaskGitGenerationConfig`.
        idea: what it does, in a few words.
        use: when to take it.
    """

    source: str
    options: dict[str, Any]
    idea: str
    use: str


# What every preset says unless it says otherwise, so that nothing a model stores changes it.
PLAIN: dict[str, Any] = {
    "remask": "never",
    "do_sample": True,
    "temperature": 1.0,
    "anneal_temperature": False,
    "choice_temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "guidance_scale": 1.0,
}


def _of(pace: str, order: str, remask: str = "never", **options: Any) -> dict[str, Any]:
    return {**PLAIN, "order": order, "pace": pace, "remask": remask, **options}


PRESETS: dict[str, Preset] = {
    "maskgit": Preset(
        "arXiv 2202.04200",
        _of("schedule", "confidence", schedule="cosine", steps=12, choice_temperature=4.5),
        "draws everywhere and keeps what came out likely, with noise on the choice",
        "token images, in few passes",
    ),
    "mdlm": Preset(
        "arXiv 2406.07524",
        _of("ancestral", "random", schedule="linear", steps=128),
        "a coin for each mask; the reverse process of masked diffusion",
        "samples of the distribution that `nelbo` bounds, with many steps",
    ),
    "llada": Preset(
        "arXiv 2502.09992",
        _of(
            "schedule",
            "confidence",
            schedule="linear",
            steps=128,
            block_length=32,
            do_sample=False,
        ),
        "greedy, block by block, the likeliest first",
        "answers to a question, long texts",
    ),
    "dream": Preset(
        "arXiv 2508.15487",
        _of("schedule", "entropy", schedule="linear", steps=512, temperature=0.2, top_p=0.95),
        "the surest position first, at a low temperature",
        "reasoning and code",
    ),
    "remdm": Preset(
        "arXiv 2503.00307",
        _of(
            "ancestral",
            "random",
            "remdm_loop",
            schedule="linear",
            steps=1024,
            top_p=0.9,
            remdm_eta=0.02,
            remdm_t_on=0.55,
            remdm_t_off=0.05,
            remdm_alpha_on=0.9,
        ),
        "a long stretch of masking again at random and writing anew",
        "quality, where many passes are affordable",
    ),
    "p2": Preset(
        "arXiv 2502.03540",
        _of("schedule", "confidence", "p2", schedule="linear", p2_planner="self", p2_eta=1.0),
        "tokens compete with masks for their place, judged by the denoiser itself",
        "correcting early mistakes; wants training with corruption",
    ),
    "eb": Preset(
        "arXiv 2505.24857",
        _of("entropy_bound", "entropy", entropy_budget=0.1),
        "as many as can be drawn at once for a bounded loss of mutual information",
        "few passes where the text is certain, more where it is not",
    ),
    "fast_dllm": Preset(
        "arXiv 2505.22618",
        _of(
            "threshold",
            "top_probability",
            confidence_threshold=0.9,
            block_length=32,
            do_sample=False,
        ),
        "all that are sure enough, block by block",
        "speed",
    ),
    "x_transformers": Preset(
        "x-transformers 2.31",
        _of(
            "schedule",
            "confidence",
            schedule="linear",
            steps=18,
            temperature=1.0,
            anneal_temperature=True,
        ),
        "the ancestor's: the likeliest drawn first, cooling down to greedy",
        "comparison; its filter is `top_k` of 30 % of the vocabulary",
    ),
    "fast": Preset(
        "own",
        _of("threshold", "top_probability", confidence_threshold=0.5, temperature=0.6),
        "all that are more likely right than wrong, drawn a little sharper",
        "few passes and still several texts, where tokens do not all depend on each other",
    ),
}
