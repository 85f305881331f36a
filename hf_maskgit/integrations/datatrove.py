"""DataTrove: documents are continued by this library's server, which its custom server starts.

    from datatrove.pipeline.inference.run_inference import InferenceRunner
    from hf_maskgit.integrations.datatrove import continue_document, inference_config

    runner = InferenceRunner(
        continue_document,
        inference_config("runs/verses", default_generation_params={"max_tokens": 24}),
        output_writer,
    )

DataTrove runs a script with `--port` and one option per entry of `model_kwargs`, waits until
`/v1/models` answers, and posts its requests to `/v1/completions`.
"""

import json
from pathlib import Path
from typing import Any

from ..core.extras import needs
from ..core.noise import mix
from ..hub.loading import short_name
from .batch_writer import key_of

_MOST_WAITING = 10_000  # texts: DataTrove itself says how many requests are on their way


def server_script() -> Path:
    """Return the script that serves a generator, of a checkout or of an installed package."""
    package = Path(__file__).resolve().parents[1]
    places = (package / "scripts", package.parent / "scripts")
    return next(folder / "serve.py" for folder in places if (folder / "serve.py").is_file())


def inference_config(model: str, *, server: dict[str, Any] | None = None, **settings: Any) -> Any:
    """Describe a server of a generator to DataTrove.

    Args:
        model: a folder that every machine sees, or a name on the Hub.
        server: further options of `scripts/serve.py`, by name.
        **settings: of `InferenceConfig`, such as `default_generation_params`,
            `max_concurrent_generations` and `server_log_folder`.

    Returns:
        An `InferenceConfig`.

    Raises:
        ImportError: where DataTrove is not installed.
        ValueError: for a setting that is decided here.
    """
    with needs("The pipeline is that of DataTrove", "datatrove"):
        from datatrove.pipeline.inference.run_inference import InferenceConfig
    decided = {"server_type", "model_name_or_path", "use_chat", "model_kwargs"} & settings.keys()
    if decided:
        raise ValueError(
            f"`{min(decided)}` is decided by `inference_config`; options of the server go into "
            "`server`."
        )
    served = {"model": model, "served_name": short_name(model), "max_queue": _MOST_WAITING}
    return InferenceConfig(
        server_type="custom",
        model_name_or_path=served["served_name"],
        use_chat=False,
        model_kwargs={"server_script": str(server_script()), **served, **(server or {})},
        **{"server_ready_delay_sec": 1.0, "server_ready_max_attempts": 1500, **settings},
    )


async def continue_document(document: Any, generate: Any, *, seed: int = 0, **options: Any) -> Any:
    """Continue the text of a document, a rollout function of DataTrove.

    What is written follows from the text, the options and the document's id, not from its
    neighbours; equal ids get equal draws.

    Args:
        document: whose `text` is the prompt.
        generate: posts a request.
        seed: of all documents.
        **options: fields of the request, over the configuration's `default_generation_params`:
            those of `/v1/completions`, options of `generate` among them.

    Returns:
        What DataTrove stores with the document: text, reason for its end, usage.
    """
    asked = {"prompt": document.text, "seed": mix(seed, key_of(str(document.id)), 0)}
    json.dumps(options)  # refuses here what no request can hold
    return await generate({**asked, **options})
