"""Turn any Hugging Face encoder into a generator by masked diffusion."""

import sys

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM
from transformers.pipelines import PIPELINE_REGISTRY

from .core import modeling_maskgit
from .core.causal_lm import as_causal_lm
from .core.configuration_maskgit import MaskGitConfig
from .core.generation_config_maskgit import MaskGitGenerationConfig
from .core.modeling_maskgit import MaskGitForMaskedLM
from .core.pipeline_fill_mask import FillMaskDispatch
from .core.pipeline_infilling import InfillingPipeline
from .core.pipeline_text_generation import MaskGitTextGenerationPipeline, TextGenerationDispatch
from .core.schedules import get_schedule
from .evaluation.bound import nelbo
from .patterns.pattern import Pattern
from .training.collator import DataCollatorForMaskGit

__version__ = "0.1.0.dev0"

__all__ = [
    "DataCollatorForMaskGit",
    "InfillingPipeline",
    "MaskGitConfig",
    "MaskGitForMaskedLM",
    "MaskGitGenerationConfig",
    "MaskGitTextGenerationPipeline",
    "Pattern",
    "get_schedule",
    "nelbo",
]

# PEFT writes into an adapter from which module its model's class is, and imports that to load it.
# Adapters from before there were folders name this one.
sys.modules[f"{__name__}.modeling_maskgit"] = modeling_maskgit

AutoConfig.register(MaskGitConfig.model_type, MaskGitConfig, exist_ok=True)
AutoModelForMaskedLM.register(MaskGitConfig, MaskGitForMaskedLM, exist_ok=True)
AutoModelForCausalLM.register(MaskGitConfig, as_causal_lm(MaskGitForMaskedLM), exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    "infilling", pipeline_class=InfillingPipeline, pt_model=AutoModelForMaskedLM, type="text"
)
# Registering would warn that the task is taken, and forget the model that it stands for by default.
PIPELINE_REGISTRY.supported_tasks["text-generation"]["impl"] = TextGenerationDispatch
PIPELINE_REGISTRY.supported_tasks["fill-mask"]["impl"] = FillMaskDispatch
