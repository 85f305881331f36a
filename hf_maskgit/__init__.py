"""Turn any Hugging Face encoder into a generator by masked diffusion."""

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from .configuration_maskgit import MaskGitConfig
from .evaluation import nelbo
from .generation_config_maskgit import MaskGitGenerationConfig
from .masking import DataCollatorForMaskGit
from .modeling_maskgit import MaskGitForMaskedLM
from .schedules import get_schedule

__version__ = "0.1.0.dev0"

__all__ = [
    "DataCollatorForMaskGit",
    "MaskGitConfig",
    "MaskGitForMaskedLM",
    "MaskGitGenerationConfig",
    "get_schedule",
    "nelbo",
]

AutoConfig.register(MaskGitConfig.model_type, MaskGitConfig, exist_ok=True)
AutoModelForMaskedLM.register(MaskGitConfig, MaskGitForMaskedLM, exist_ok=True)
AutoModelForCausalLM.register(MaskGitConfig, MaskGitForMaskedLM, exist_ok=True)
