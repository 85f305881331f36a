"""The model's module under its name from before there were folders, which old adapters ask for.

PEFT writes into an adapter from which module its model's class is, and imports that to load it.
"""

import sys

from .core import modeling_maskgit

sys.modules[__name__] = modeling_maskgit
