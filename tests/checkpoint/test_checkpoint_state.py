"""`pack` and `unpack` lose nothing and pickle nothing."""

from __future__ import annotations

import json
import math
import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modern_rlhf.checkpoint.files import read_part, write_part
from modern_rlhf.checkpoint.state import (
    describe_tensors,
    pack,
    random_state,
    restore_random_state,
    unpack,
)
from modern_rlhf.errors import CheckpointError


def through_files(value: Any, folder: Path) -> Any:
    tensors, skeleton = pack(value)
    write_part(folder, "part", tensors, skeleton)
    return read_part(folder, "part")


def through_json(value: Any) -> Any:
    tensors, skeleton = pack(value)
    return unpack(tensors, json.loads(json.dumps(skeleton, allow_nan=False)))


def equal(one: Any, other: Any) -> bool:
    """Equal in value and type, with nan == nan and 0.0 != -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    return bool(one == other)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
scalars |= st.binary(max_size=5)
keys = st.text(max_size=3) | st.integers(-5, 5) | st.just("$") | st.none()
states = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None)  # no clock in a test: the machine may be busy
@given(states)
def test_any_nested_state_comes_back_as_it_was(value: Any) -> None:
    assert equal(through_json(value), value)


def test_dict_order_and_kind_are_kept() -> None:
    value = {
        "ordered": OrderedDict([("b", 1), ("a", 2)]),
        "plain": {"z": 1, "a": {True: 1, "1": 2}},
    }
    again = through_json(value)
    assert equal(again, value) and type(again["ordered"]) is OrderedDict


DTYPES = [
    value
    for value in vars(torch).values()
    if isinstance(value, torch.dtype) and not str(value).split(".")[1].startswith(("q", "bits"))
]


@pytest.mark.parametrize("dtype", sorted(set(DTYPES), key=str), ids=str)
def test_a_tensor_of_every_dtype_is_bit_exact(dtype: torch.dtype, tmp_path: Path) -> None:
    try:
        source = torch.arange(48, dtype=torch.uint8)
        source = source % 2 if dtype == torch.bool else source
        tensor = source.view(dtype).reshape(3, -1)
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"torch cannot make such a tensor: {error}")
    again = through_files({"x": tensor, "scalar": tensor[0, 0]}, tmp_path)
    assert again["x"].dtype == dtype and again["x"].shape == tensor.shape
    assert again["scalar"].shape == ()
    assert again["x"].contiguous().view(torch.uint8).equal(tensor.contiguous().view(torch.uint8))


def test_nan_payloads_infinities_and_signed_zeros_of_tensors_survive(tmp_path: Path) -> None:
    bits = torch.tensor([0x7FC00001, 0x7F800000, -0x80000000, 1], dtype=torch.int32)
    again = through_files(bits.view(torch.float32), tmp_path)
    assert again.view(torch.int32).equal(bits)


def test_numpy_arrays_and_scalars(tmp_path: Path) -> None:
    value = {
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "big endian": np.arange(3, dtype=">i4"),
        "text": np.array(["a", "été"]),
        "zero dimensions": np.array(5.0),
        "empty": np.empty((0, 2), dtype=np.uint64),
        "scalar": np.float64(0.1),
        "dates": np.array(["2020-01-01"], dtype="datetime64[D]"),
    }
    again = through_files(value, tmp_path)
    for name, array in value.items():
        assert type(again[name]) is type(array), name
        assert again[name].dtype == array.dtype and again[name].shape == array.shape, name
        assert again[name].tobytes() == array.tobytes(), name
    again["transposed"][0, 0] = 7  # a loaded array can be written to


def test_aliases_stay_aliases_and_views_are_stored_apart(tmp_path: Path) -> None:
    weight = torch.randn(4, 3)
    value = {"head": weight, "embedding": weight, "row": weight[1], "transposed": weight.t()}
    tensors, _ = pack(value)
    assert sorted(tensors) == ["head", "row", "transposed"]
    again = through_files(value, tmp_path)
    assert again["head"] is again["embedding"]
    assert again["row"].equal(weight[1]) and again["transposed"].equal(weight.t())
    again["row"].zero_()
    assert again["head"].equal(weight)


def test_aliases_of_a_dtype_stored_as_bytes_stay_aliases() -> None:
    weight = torch.randn(3, dtype=torch.complex64)
    again = through_json({"a": weight, "b": weight, "conjugate": weight.conj()})
    assert again["a"] is again["b"]
    assert again["conjugate"].equal(weight.conj())


def test_a_dotted_key_and_a_nested_one_do_not_collide() -> None:
    value = {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}, "__metadata__": torch.ones(2)}
    again = through_json(value)
    assert again["a.b"].item() == 1 and again["a"]["b"].item() == 0
    assert again["__metadata__"].numel() == 2


def test_training_goes_on_bit_for_bit_after_adamw_went_through_files(
    tmp_path: Path, new_model: Callable[..., Any], train: Callable[..., Any]
) -> None:
    torch.manual_seed(3)
    model, optimizer = new_model()
    train(model, optimizer, 3)
    saved = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": random_state(),
    }
    loaded = through_files(saved, tmp_path)
    train(model, optimizer, 4)  # the run that was never interrupted

    torch.manual_seed(99)
    resumed, resumed_optimizer = new_model()
    resumed.load_state_dict(loaded["model"])
    resumed_optimizer.load_state_dict(loaded["optimizer"])
    restore_random_state(loaded["random"])
    train(resumed, resumed_optimizer, 4)

    for expected, found in zip(model.parameters(), resumed.parameters(), strict=True):
        assert found.equal(expected)
    one, other = optimizer.state_dict(), resumed_optimizer.state_dict()
    assert one["param_groups"] == other["param_groups"]
    for index, entry in one["state"].items():
        assert isinstance(index, int)
        for name, tensor in entry.items():
            assert tensor.equal(other["state"][index][name]), (index, name)


def test_all_global_generators_are_restored(tmp_path: Path) -> None:
    def draw() -> tuple[Any, ...]:
        return (
            random.gauss(0, 1),
            random.getrandbits(70),
            np.random.standard_normal(3).tolist(),
            torch.rand(3).tolist(),
            [torch.rand(2, device="cuda").tolist()] if torch.cuda.is_available() else [],
        )

    random.gauss(0, 1), np.random.standard_normal()  # leave half of a pair in both generators
    loaded = through_files(random_state(), tmp_path)
    first, then = draw(), draw()
    restore_random_state(loaded)
    assert draw() == first and draw() == then and first != then


def test_other_devices_than_saved_are_said_loudly(caplog: pytest.LogCaptureFixture) -> None:
    saved = random_state()
    saved["cuda"] = [*saved["cuda"], torch.get_rng_state()]
    restore_random_state(saved)
    assert "CUDA devices" in caplog.text


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"a": {"b": {1, 2}}}, "a.b"),
        ({"f": [0, len]}, "f.1"),
        ({"o": np.array([object()])}, "o"),
        ({"s": torch.eye(2).to_sparse()}, "s"),
        ({"m": torch.empty(2, device="meta")}, "m"),
        ({"k": {torch.float32: 1}}, "k.torch.float32"),
        ({"n": np.zeros(2, dtype=[("x", "f4")])}, "n"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place(value: Any, named: str) -> None:
    with pytest.raises(CheckpointError, match=f"`{named}`"):
        pack(value)


def test_a_skeleton_without_its_tensors_is_an_error() -> None:
    _, skeleton = pack({"x": torch.ones(1)})
    with pytest.raises(CheckpointError, match="do not belong together"):
        unpack({}, skeleton)
    with pytest.raises(CheckpointError, match="unknown kind"):
        unpack({}, {"$": "lambda"})


def test_descriptions_name_every_tensor_by_place() -> None:
    value = {"a": torch.ones(2, 3), "b": [torch.ones(1, dtype=torch.bfloat16)], "c": 1}
    assert describe_tensors(value) == {"a": ["float32", [2, 3]], "b.0": ["bfloat16", [1]]}


def test_no_pickle_is_written_or_read(tmp_path: Path, state: dict[str, Any]) -> None:
    through_files(state, tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]
    source = Path(pack.__code__.co_filename).parent
    for path in source.glob("*.py"):
        code = path.read_text(encoding="utf-8")
        assert "import pickle" not in code and "torch.load" not in code, path
