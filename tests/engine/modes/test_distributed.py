"""Models inside the wrappers of torch's data parallelism, and in several processes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import IMAGE, prompt, tiny_llava
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

import tokenprune
from tokenprune import FastV, FoPru, Grid, Strategy, UnsupportedError

STRATEGY = Grid(keep_ratio=0.25)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**prompt([1])).logits


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("first", ["patch", "wrap"])
def test_distributed_data_parallel(first: str) -> None:
    model = tiny_llava()
    with tokenprune.patch(model, STRATEGY):
        expected = logits(model)
    patched = tokenprune.patch(model, STRATEGY) if first == "patch" else None
    wrapper = DistributedDataParallel(model)
    handle = patched or tokenprune.patch(wrapper, STRATEGY)
    assert handle.model is model
    assert torch.equal(logits(wrapper), expected)
    tokenprune.unpatch(wrapper)
    assert logits(wrapper).shape[1] > expected.shape[1]


@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings("ignore:FSDP is switching to use")
def test_fully_sharded_data_parallel() -> None:
    model = tiny_llava()
    with tokenprune.patch(model, STRATEGY):
        expected = logits(model)
        wrapper = FullyShardedDataParallel(model, device_id=torch.device("cpu"))
        assert torch.equal(logits(wrapper), expected)
    with pytest.raises(UnsupportedError, match=r"FullyShardedDataParallel.*patch\(\) the model before you wrap it"):
        tokenprune.patch(wrapper, STRATEGY)


@pytest.mark.usefixtures("group")
@pytest.mark.filterwarnings(
    "ignore:FSDP2-wrapped module:UserWarning"
)  # about logits, which are a view even without a patch
@pytest.mark.parametrize("strategy", [FoPru(keep_ratio=0.25), FastV(keep_ratio=0.25, layer=1)])
@pytest.mark.parametrize("first", ["patch", "shard"])
def test_parts_that_are_sharded_by_themselves(first: str, strategy: Strategy) -> None:
    """FSDP2 gives modules another class and hooks, and leaves them where they are."""
    model: Any = tiny_llava()
    with tokenprune.patch(model, strategy):
        expected = logits(model)
    handle = tokenprune.patch(model, strategy) if first == "patch" else None
    mesh = init_device_mesh("cpu", (1,))
    for part in (*model.model.language_model.layers, model):
        fully_shard(part, mesh=mesh)
    handle = handle or tokenprune.patch(model, strategy)
    assert torch.equal(logits(model), expected)
    inputs = prompt([1])
    ids = inputs["input_ids"]
    model(**inputs, labels=ids.masked_fill(ids == IMAGE, -100)).loss.backward()
    assert handle.report.images[0].n_left == 9
    handle.remove()
    assert logits(model).shape[1] == ids.shape[1]


def test_data_parallel(llava: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"DataParallel copies the model.*DistributedDataParallel"):
        tokenprune.patch(nn.DataParallel(llava), STRATEGY)


def test_replicas_of_data_parallel(llava: Any) -> None:
    """Each replica of a patched model would silently compute with the original's weights."""
    with tokenprune.patch(llava, STRATEGY):
        expected = logits(llava)
        with pytest.raises(UnsupportedError, match=r"DataParallel copies the model.*DistributedDataParallel"):
            logits(replica_of(llava))
        assert torch.equal(logits(nn.DataParallel(llava)), expected)  # without a GPU, it copies nothing
    assert logits(replica_of(llava)).shape[1] > expected.shape[1]


def replica_of(module: nn.Module) -> Any:
    """Return a copy like those that torch.nn.parallel.replicate makes on other GPUs."""
    replica: Any = module._replicate_for_data_parallel()
    for name, child in module.named_children():
        setattr(replica, name, replica_of(child))
    for name, parameter in module._parameters.items():
        setattr(replica, name, None if parameter is None else parameter.detach().clone())
    return replica


def test_tensor_parallelism() -> None:
    """Two processes would read the attention of different heads, and keep different tokens."""
    model: Any = tiny_llava()
    model._tp_size = 2
    with pytest.raises(
        UnsupportedError, match=r"FastV.* needs text_attention, but with tensor parallelism \(tp_size=2\)"
    ):
        tokenprune.patch(model, FastV(layer=1))
    with pytest.raises(UnsupportedError, match="probe needs text_attention, but with tensor parallelism"):
        tokenprune.probe(model, decoder_layers=[1])
    tokenprune.patch(model, FoPru()).remove()  # allowed, because every process computes the whole tower
    tokenprune.patch(model, STRATEGY).remove()


def test_tensor_parallelism_by_a_plan_of_ones_own() -> None:
    """DistributedConfig(tp_plan=...) replaces the plan of the model's class."""
    model: Any = tiny_llava()
    model._tp_size = 2
    model.tp_plan = {**model.tp_plan, "model.vision_tower.encoder.layers.*.self_attn.q_proj": "colwise"}
    with pytest.raises(UnsupportedError, match=r"FoPru.* needs vision_attention, but with tensor parallelism"):
        tokenprune.patch(model, FoPru())
    with pytest.raises(UnsupportedError, match=r"FastV.* needs text_attention, but with tensor parallelism"):
        tokenprune.patch(model, FastV(layer=1))
    tokenprune.patch(model, STRATEGY).remove()
    model.tp_plan = {}  # only experts are split
    tokenprune.patch(model, FastV(layer=1)).remove()
