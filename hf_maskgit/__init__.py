"""Turn any Hugging Face encoder into a generator by masked diffusion."""

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM
from transformers.pipelines import PIPELINE_REGISTRY

from .configuration_maskgit import MaskGitConfig
from .evaluation import nelbo
from .generation_config_maskgit import MaskGitGenerationConfig
from .masking import DataCollatorForMaskGit
from .modeling_maskgit import MaskGitForMaskedLM
from .pipeline_infilling import InfillingPipeline
from .pipeline_text_generation import MaskGitTextGenerationPipeline, TextGenerationDispatch
from .schedules import get_schedule

__version__ = "0.1.0.dev0"

__all__ = [
    "DataCollatorForMaskGit",
    "InfillingPipeline",
    "MaskGitConfig",
    "MaskGitForMaskedLM",
    "MaskGitGenerationConfig",
    "MaskGitTextGenerationPipeline",
    "get_schedule",
    "nelbo",
]

AutoConfig.register(MaskGitConfig.model_type, MaskGitConfig, exist_ok=True)
AutoModelForMaskedLM.register(MaskGitConfig, MaskGitForMaskedLM, exist_ok=True)
AutoModelForCausalLM.register(MaskGitConfig, MaskGitForMaskedLM, exist_ok=True)
PIPELINE_REGISTRY.register_pipeline(
    "infilling", pipeline_class=InfillingPipeline, pt_model=AutoModelForMaskedLM, type="text"
)
# Registering would warn that the task is taken, and forget the model that it stands for by default.
PIPELINE_REGISTRY.supported_tasks["text-generation"]["impl"] = TextGenerationDispatch
