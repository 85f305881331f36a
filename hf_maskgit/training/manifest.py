"""Whether a checkpoint is whole: its files with sizes and checksums, in a manifest written last.

    {"format": 1, "step": 500, "files": {"model.safetensors": {"bytes": 4096, "sha256": "..."}}}

A file that is missing, cut, changed or not listed makes the checkpoint a damaged one. It holds
safetensors and JSON alone: nothing in it can be executed, and no pickle is ever opened.
"""

import hashlib
from pathlib import Path

from .run_files import read_json, sync, write_json

MANIFEST_NAME = "manifest.json"
_FORMAT = 1
_KINDS = {".safetensors", ".json"}
_PICKLES = {".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt"}


class DamagedCheckpointError(ValueError):
    """A checkpoint that is not whole; it says why, as the end of a sentence."""


def write_manifest(folder: Path, step: int) -> None:
    """List every file of a folder, after all of them lie on the disk."""
    files = {}
    for path in sorted(folder.iterdir()):
        sync(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": checksum(path)}
    write_json(folder / MANIFEST_NAME, {"format": _FORMAT, "step": step, "files": files})
    sync(folder / MANIFEST_NAME)
    sync(folder)


def check_whole(folder: Path, step: int) -> None:
    """Compare a checkpoint with its manifest, byte by byte.

    Args:
        folder: the checkpoint.
        step: the update that its name says.

    Raises:
        DamagedCheckpointError: naming the first file that is not as it was written.
    """
    if not folder.is_dir():
        raise DamagedCheckpointError("there is no such folder")
    found = {path.name for path in folder.iterdir()}
    if MANIFEST_NAME not in found:
        pickles = sorted(name for name in found if Path(name).suffix in _PICKLES)
        if pickles:
            raise DamagedCheckpointError(
                f"it holds pickles ({', '.join(pickles)}), as earlier releases wrote them, and "
                "nothing of a run's folder is unpickled; finish that run with the release that "
                "began it, or start a new run with its model, in the folder `best`, as `encoder`"
            )
        raise DamagedCheckpointError(f"it has no {MANIFEST_NAME!r}, which is written last")
    try:
        manifest = read_json(folder / MANIFEST_NAME)
    except ValueError as error:
        raise DamagedCheckpointError(str(error)) from error
    files = manifest.get("files")
    if manifest.get("format") != _FORMAT or not isinstance(files, dict):
        raise DamagedCheckpointError(
            f"its {MANIFEST_NAME!r} is of format {manifest.get('format')!r}, and this release "
            f"reads format {_FORMAT}"
        )
    if manifest.get("step") != step:
        raise DamagedCheckpointError(
            f"it was written after update {manifest.get('step')!r}, not {step} as its name says"
        )
    for name in sorted(found - {MANIFEST_NAME} - set(files)):
        raise DamagedCheckpointError(f"it holds {name!r}, which no run wrote; remove that file")
    for name in sorted(files):
        if Path(name).suffix not in _KINDS:
            raise DamagedCheckpointError(f"it holds {name!r}, which no run writes")
        _check_file(folder / name, found, files[name])


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _check_file(path: Path, found: set[str], listed: object) -> None:
    # only names that were read off the folder itself, so that no "../" leads out of it
    if path.name not in found or path.is_symlink() or not path.is_file():
        raise DamagedCheckpointError(f"its file {path.name!r} is missing")
    size = path.stat().st_size
    if not isinstance(listed, dict) or listed.get("bytes") != size:
        written = listed.get("bytes") if isinstance(listed, dict) else listed
        raise DamagedCheckpointError(
            f"its file {path.name!r} has {size} bytes, and {written!r} were written"
        )
    if listed.get("sha256") != checksum(path):
        raise DamagedCheckpointError(
            f"the bytes of its file {path.name!r} are not those that were written"
        )
