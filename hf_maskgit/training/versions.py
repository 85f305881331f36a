"""What a model was made with: releases of packages, and the commit of a checkout."""

import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGE = __package__.partition(".")[0]
_OF_A_MODEL = ("torch", "transformers")
_SECONDS_FOR_GIT = 10


def installed_versions(others: Iterable[str] = _OF_A_MODEL) -> dict[str, str]:
    """Return the versions of this package, of others and of Python, by name.

    Args:
        others: names of packages that are installed.
    """
    # The number of our own stands in the package alone, installed or not; it is loaded before us.
    own = {_PACKAGE: sys.modules[_PACKAGE].__version__}
    of_others = {name: metadata.version(name) for name in others}
    return {**own, **of_others, "Python": platform.python_version()}


def commit_of(folder: Path, *, within: bool = False) -> str | None:
    """Return the commit that a folder is at, marked where files differ from it; None without git.

    Args:
        folder: inside a checkout, or not.
        within: whether files of that folder alone are meant; else those of the whole checkout.
    """
    git = ["git", "-C", str(folder)]
    which = ["--", "."] if within else []
    how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": _SECONDS_FOR_GIT}
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], **how)
        status = [*git, "status", "--porcelain", "--untracked-files=no", *which]
        changes = subprocess.run(status, **how)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode:
        return None
    return commit.stdout.strip() + (" with changes" if changes.stdout.strip() else "")
