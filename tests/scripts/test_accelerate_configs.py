"""The launch configurations, as Accelerate reads them; two of them start the slow tests' runs."""

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from tests.support.project import ROOT

FOLDER = ROOT / "scripts" / "accelerate_configs"
# Kind, machines and processes of each; a file that is not told of here fails the test.
STATED = {
    "cpu": ("MULTI_GPU", 1, 2),
    "multi_gpu": ("MULTI_GPU", 1, 8),
    "multi_node": ("MULTI_GPU", 2, 16),
    "fsdp2": ("FSDP", 1, 8),
    "zero2": ("DEEPSPEED", 1, 8),
    "zero3": ("DEEPSPEED", 1, 8),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.iterdir()))
def test_accelerate_reads_a_configuration_as_it_is_meant(name):
    # it refuses keys that it does not know
    found = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert (found.distributed_type.value, found.num_machines, found.num_processes) == STATED[name]
    assert found.mixed_precision == "bf16"
    assert found.fsdp_config.get("fsdp_version") == (2 if name == "fsdp2" else None)
    assert found.deepspeed_config.get("zero_stage") == {"zero2": 2, "zero3": 3}.get(name)
