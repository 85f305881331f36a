"""To the Hub: who may push, whether what is pushed works elsewhere, and the push itself.

Loading needs nothing of this: `from_pretrained` takes a name on the Hub and a revision.
"""

import glob
import json
import logging
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelCardData, get_token
from huggingface_hub import errors as hub_errors
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # in its docs
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase
from yaml import YAMLError

from ..core.modeling_maskgit import MaskGitForMaskedLM
from ..training.adapters import ADAPTER_FOLDER, CONFIG_FILE, WEIGHTS_FILE
from ..training.run_log import CURVES_NAME
from .card import CARD_NAME, address_card, card_from_config, render_model_card
from .loading import load_model, load_tokenizer
from .own_code import disarm, foreign_code
from .reloading import answers_in_a_fresh_process, answers_of, differences

logger = logging.getLogger(__name__)

# Endings of weights.
_WEIGHTS = (".safetensors", ".safetensors.index.json")
_FORBIDDEN = (401, 403)
_PNG = b"\x89PNG\r\n\x1a\n"  # how a picture of this kind begins
# Raised where no answer comes. The first is that of the httpx that huggingface_hub is built on.
_NO_ANSWER = (hub_errors.HTTPError, ConnectionError)  # type: ignore[attr-defined]


class HubError(RuntimeError):
    """A push cannot go on; the message says what to do about it."""


@dataclass(frozen=True, kw_only=True)
class Push:
    """What goes to the Hub, and where it goes.

    Attributes:
        folder: holds a saved generator, its tokenizer and, after training, its card.
        repo_id: name on the Hub, "owner/name".
        private: whether a repository that is made for it is private; one that is there and public
            is refused then. None leaves that to the owner's settings.
        branch: branch to push to, made where it is missing; None is the main one.
        with_code: send the code along, so that the model loads without this package.
        commit_message: of the one commit that holds all files.
    """

    folder: Path
    repo_id: str
    private: bool | None = None
    branch: str | None = None
    with_code: bool = False
    commit_message: str = "Upload a masked-diffusion generator"


def check_name(repo_id: str) -> None:
    """Make sure that the Hub allows a repository of this name; asks nobody.

    Raises:
        HubError: when it does not.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise HubError(
            f"The Hub allows no repository named {repo_id!r}: give 'owner/name' or 'name', made of "
            "letters, digits, '-', '_' and '.'."
        ) from error


def check_access(repo_id: str) -> str:
    """Make sure that a push has a name, a token and a network; nothing is sent.

    Args:
        repo_id: "owner/name", or "name" for a repository of the token's owner.

    Returns:
        The whole name, "owner/name".

    Raises:
        HubError: for a name the Hub does not allow, without a token, for a token that is not valid,
            or when the Hub cannot be reached.
    """
    check_name(repo_id)
    if get_token() is None:
        raise HubError(
            "There is no token to push with. Make one with write access in the settings of your "
            "account on the Hub, then run `hf auth login`, or put it into the environment variable "
            "HF_TOKEN."
        )
    owner = _asking_the_hub(HfApi().whoami)["name"]
    return repo_id if "/" in repo_id else f"{owner}/{repo_id}"


def check_metadata(license: str | None, language: list[str] | None) -> None:
    """Ask the Hub whether it knows a licence and languages, which go into the model card.

    Raises:
        HubError: when it does not, or cannot be reached.
    """
    data = ModelCardData(license=license, language=language)
    _asking_the_hub(ModelCard(f"---\n{data.to_yaml()}\n---\n").validate)


def open_repository(repo_id: str, private: bool | None = None) -> str:
    """Make the repository where it is missing, which shows that the token may write there.

    Args:
        repo_id: as for `check_access`.
        private: whether a new repository is private; None leaves it to the owner's settings.

    Returns:
        The whole name, "owner/name".

    Raises:
        HubError: when the token gives no right to write there, the Hub cannot be reached, or a
            repository that is to be private is there and public.
    """
    api = HfApi()
    made = _asking_the_hub(api.create_repo, repo_id, private=private, exist_ok=True)
    # One that is there already passes, also if it is somebody else's: may this token write to it?
    _asking_the_hub(api.auth_check, made.repo_id, write=True)
    name: str = made.repo_id
    if private and not _asking_the_hub(api.model_info, name).private:
        raise HubError(
            f"The repository {name!r} is there already and public, so that a model asked to be "
            "private would be seen by everybody. Make it private in its settings on the Hub, name "
            "another one, or leave the private option out."
        )
    return name


def stage(push: Push, folder: Path) -> list[Path]:
    """Write all that a push sends into an empty folder, and check it in a fresh process.

    Args:
        push: what is sent.
        folder: exists.

    Returns:
        The files, each with its path.

    Raises:
        HubError: when `push.folder` holds no whole generator of this library, no tokenizer, or
            adapters that cannot be read, when code would be sent that is not ours, or when what was
            written is not the same generator after loading.
    """
    model, tokenizer = _load(push.folder)
    if disarm(tokenizer):
        logger.warning(
            "The tokenizer in %s names code of its own (`auto_map`), which was not run and is not "
            "sent.",
            push.folder,
        )
    # Saved anew and not copied: checkpoints, logs and options of the run stay where they are.
    try:
        model.save_pretrained(folder, with_code=push.with_code)
        tokenizer.save_pretrained(folder)
        _staged_card(push, model, tokenizer).save(folder / CARD_NAME)
        _stage_curves(push, folder)
        _stage_adapter(push, folder)
    except (OSError, SafetensorError) as error:
        raise HubError(
            f"Nothing was pushed: what is sent cannot be written to {str(folder)!r} ({error}). "
            "Make room there, or name another place for such files in the variable TMPDIR."
        ) from error
    # Looked at before a fresh process trusts it.
    foreign = foreign_code(folder, push.with_code)
    if foreign:
        raise HubError(
            f"Nothing was pushed: {str(push.folder)!r} carries code that is not this library's. "
            f"{' '.join(foreign)} Whoever loads it would run that under your name; remove it."
        )
    try:
        reloaded = answers_in_a_fresh_process(folder, with_package=not push.with_code)
    except RuntimeError as error:
        raise HubError(f"Nothing was pushed. {error}") from error
    changed = differences(answers_of(model, tokenizer), reloaded)
    if changed:
        raise HubError(
            "Nothing was pushed: loaded again in a fresh process, the model of "
            f"{str(push.folder)!r} differs in {' and '.join(changed)}. It holds something that "
            "saving does not keep; please report this with the folder's config.json."
        )
    return sorted(path for path in folder.rglob("*") if path.is_file())


def upload(push: Push, staged: Path) -> str:
    """Send a staged folder as one commit.

    Args:
        push: where it goes.
        staged: folder that `stage` has filled.

    Returns:
        The address of the model's page.

    Raises:
        HubError: when the Hub refuses or cannot be reached.
    """
    repo_id = open_repository(push.repo_id, push.private)
    api = HfApi()
    if push.branch is not None:
        _asking_the_hub(api.create_branch, repo_id, branch=push.branch, exist_ok=True)
    there = _asking_the_hub(api.list_repo_files, repo_id, revision=push.branch)
    _asking_the_hub(
        api.upload_folder,
        repo_id=repo_id,
        folder_path=staged,
        revision=push.branch,
        commit_message=push.commit_message,
        delete_patterns=replaced(there),
    )
    page = f"{api.endpoint}/{repo_id}"
    return page if push.branch is None else f"{page}/tree/{push.branch}"


def replaced(files: Sequence[str]) -> list[str]:
    """Choose what of a repository goes: weights of a former push that this one may not replace.

    transformers would load a forgotten `model.safetensors` before the shards that belong to the new
    index; adapters would be another's. What others keep in folders of their own stays.

    Args:
        files: paths in the repository.

    Returns:
        Patterns that stand for some of them and nothing else.
    """
    adapter = (f"{ADAPTER_FOLDER}/{name}" for name in (CONFIG_FILE, WEIGHTS_FILE))
    weights = (file for file in files if "/" not in file and file.endswith(_WEIGHTS))
    return [glob.escape(file) for file in {*weights, *set(files).intersection(adapter)}]


def publish(push: Push) -> str:
    """Stage, check and upload in one go.

    Returns:
        The address of the model's page.

    Raises:
        HubError: as `check_access`, `stage` and `upload`; it says how to push later.
    """
    try:
        check_access(push.repo_id)
        with tempfile.TemporaryDirectory() as staged:
            stage(push, Path(staged))
            return upload(push, Path(staged))
    except HubError as error:
        raise HubError(
            f"{error} The model is safe in {str(push.folder)!r}. To push it later: "
            f"hf-maskgit push {shlex.quote(str(push.folder))} --repo_id {push.repo_id}"
        ) from error


def _load(folder: Path) -> tuple[MaskGitForMaskedLM, PreTrainedTokenizerBase]:
    if not (folder / "config.json").is_file():
        raise HubError(
            f"{str(folder)!r} is no folder with a saved model (it has no config.json); name the "
            "output folder of scripts/train.py, or one that save_pretrained has written."
        )
    try:
        model = load_model(folder)
    except ValueError as error:
        raise HubError(f"There is no generator of this library to push: {error}") from error
    try:
        return model, load_tokenizer(folder)
    except ValueError as error:
        raise HubError(f"Nothing was pushed: {error}") from error


def _staged_card(
    push: Push, model: MaskGitForMaskedLM, tokenizer: PreTrainedTokenizerBase
) -> ModelCard:
    path = push.folder / CARD_NAME
    if path.is_file():
        card = _read_card(path)
    else:
        logger.warning(
            "There is no %s in %s: a card was made from the configuration. It knows nothing of "
            "data, training or results; add them on the Hub.",
            CARD_NAME,
            push.folder,
        )
        card = render_model_card(card_from_config(model, tokenizer, push.repo_id))
    data: Any = card.data
    if data.license is None:
        logger.warning(
            "The card names no licence, without which others may not use the model. Add a line "
            "such as 'license: apache-2.0' to the metadata at the top of %s.",
            CARD_NAME,
        )
    return address_card(card, push.repo_id, revision=push.branch, with_code=push.with_code)


def _stage_curves(push: Push, folder: Path) -> None:
    """Send along the picture that the card shows, if it is one."""
    path = push.folder / CURVES_NAME
    shown = f"]({CURVES_NAME})" in (folder / CARD_NAME).read_text(encoding="utf-8")
    is_own = path.is_file() and not path.is_symlink()
    if shown and is_own and path.read_bytes().startswith(_PNG):
        shutil.copyfile(path, folder / CURVES_NAME)


def _stage_adapter(push: Push, folder: Path) -> None:
    """Send along the adapters that training left beside the model, written anew."""
    own, staged = push.folder / ADAPTER_FOLDER, folder / ADAPTER_FOLDER
    if not own.is_dir():
        return
    try:
        linked = [path for path in (own / CONFIG_FILE, own / WEIGHTS_FILE) if path.is_symlink()]
        if linked:
            raise OSError(f"{linked[0].name} is a link")
        config = json.loads((own / CONFIG_FILE).read_text(encoding="utf-8"))
        weights = load_file(own / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise HubError(
            f"Nothing was pushed: the adapters in {str(own)!r} cannot be read ({error}). Remove "
            "the folder to push the model alone, which has them merged into its weights."
        ) from error
    staged.mkdir()
    (staged / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(weights, staged / WEIGHTS_FILE, metadata={"format": "pt"})


def _read_card(path: Path) -> ModelCard:
    try:
        return ModelCard.load(path)
    except (ValueError, YAMLError) as error:
        raise HubError(
            f"The metadata at the top of {str(path)!r} cannot be read: {error} Repair it, or "
            "remove the file to push a card made from the configuration."
        ) from error


def _asking_the_hub(request: Any, *args: Any, **kwargs: Any) -> Any:
    """Make a request; what goes wrong is said in a sentence."""
    try:
        return request(*args, **kwargs)
    except HfHubHTTPError as error:
        if error.response.status_code in _FORBIDDEN:
            raise HubError(
                "The Hub refuses the token: it is not valid, has no write access, or belongs to "
                f"somebody else than the repository's owner ({error.server_message}). Make another "
                "one and run `hf auth login`, or name a repository of your own."
            ) from error
        raise HubError(f"The Hub refuses: {error}") from error
    except ValueError as error:  # what it says of a card's metadata
        raise HubError(f"The Hub refuses: {error}") from error
    except _NO_ANSWER as error:
        raise HubError(
            f"The Hub at {HfApi().endpoint} cannot be reached ({error}). Check the network, and "
            "that HF_HUB_OFFLINE is not set; the model stays where it is, so push it later."
        ) from error
    except (RuntimeError, OSError) as error:  # of what sends large files, cut off in the midst
        cause = error if error.__cause__ is None else f"{error} {error.__cause__}"
        raise HubError(
            f"What was sent to the Hub at {HfApi().endpoint} broke off ({cause}). The model stays "
            "where it is; push it again, which sends what is missing."
        ) from error
