"""Ray Data: a generator as a stage of a pipeline, in as many actors as there are devices.

    import ray
    from hf_maskgit.integrations.ray import BatchWriter, write_rows

    rows = ray.data.read_parquet("s3://bucket/prompts")
    write_rows(rows, "runs/verses", actors=8, num_gpus=1, key_column="id", max_new_tokens=24)

which is short for `rows.map_batches(BatchWriter, ...)` with the arguments of the class.
"""

from typing import Any

from ..core.extras import needs
from .batch_writer import BatchWriter

__all__ = ["BatchWriter", "write_rows"]


def write_rows(
    rows: Any,
    model: str,
    *,
    actors: int = 1,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    rows_per_call: int = 512,
    **arguments: Any,
) -> Any:
    """Add a column of results to a data set of Ray.

    Args:
        rows: a `ray.data.Dataset`; it is read as the result is.
        model: a folder that every machine sees, or a name on the Hub.
        actors: copies of the model.
        num_cpus: for each, in cores.
        num_gpus: for each.
        rows_per_call: rows that an actor gets at a time, sorted by length before they are batched.
        **arguments: of `BatchWriter`; `key_column` makes the draws of a row its own.

    Returns:
        The `ray.data.Dataset` with one column more.

    Raises:
        ImportError: where Ray is not installed.
    """
    with needs("Rows are handed out by Ray Data", "ray"):
        from ray.data import ActorPoolStrategy
    BatchWriter(model, **arguments)  # refuses what is wrong here, and not in an actor
    return rows.map_batches(
        BatchWriter,
        fn_constructor_args=(model,),
        fn_constructor_kwargs=arguments,
        batch_size=rows_per_call,
        batch_format="numpy",
        compute=ActorPoolStrategy(size=actors),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        udf_modifying_row_count=False,
    )
