"""Training state as tensors and a JSON skeleton, and back, without losing a bit. No pickle.

`pack` walks a nested state (what `state_dict()` of a model, an optimiser or a scheduler returns,
and plain Python values) and moves every tensor and array out into a flat dictionary, for a
safetensors file; what remains is JSON, with a marker `{"$": kind, ...}` wherever JSON has no such
value. `unpack` is its inverse. Aliased tensors (tied embeddings) are stored once and are aliased
again after `unpack`.

Not kept: the device (tensors come back on the CPU; `load_state_dict` moves them), memory strides,
and that a tensor was an `nn.Parameter`. Anything that is not on the list is refused with its place
in the state, never pickled and never dropped.

Knows nothing of files and folders: see `checkpoint.store`.
"""

from __future__ import annotations

import base64
import logging
import math
import random
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from modern_rlhf.errors import CheckpointError

LOGGER = logging.getLogger(__name__)

MARK = "$"

# What safetensors stores under the dtype's own name; any other dtype travels as its bytes.
_STORED_AS_IS = frozenset(
    {
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    }
)


# --- random generators ----------------------------------------------------------------------------


def random_state() -> dict[str, Any]:
    """The states of the global generators of Python, NumPy and torch (CPU, CUDA devices, MPS).

    Generators that a trainer passes around belong into its own state: `generator.get_state()`.
    """
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
        "mps": mps,
    }


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set the generators to what `random_state` returned.

    On a machine with other devices than the saved ones, the CPU generators are restored, and a
    warning says that the run cannot repeat the old one exactly.
    """
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"].cpu())
    saved = list(state["cuda"])
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index, device_state in enumerate(saved[:devices]):
        torch.cuda.set_rng_state(device_state.cpu(), index)
    has_mps = torch.backends.mps.is_available()
    if state["mps"] is not None and has_mps:
        torch.mps.set_rng_state(state["mps"].cpu())
    if len(saved) != devices or (state["mps"] is not None) != has_mps:
        LOGGER.warning(
            "the checkpoint was written with %d CUDA devices, this machine has %d: training "
            "goes on, but not bit for bit as it would have there",
            len(saved),
            devices,
        )


# --- pack -----------------------------------------------------------------------------------------


def pack(state: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Split `state` into named tensors and a JSON value; `unpack` puts them together again.

    The tensors are named by their place (`transformer.wte.weight`, `state.0.exp_avg`), are
    contiguous, share no storage with each other, but are the state's own where that already holds:
    write them before the next optimiser step.

    Taken: dict and OrderedDict (any mix of str, int, float, bool, None and tuple keys, in order),
    list, tuple, None, bool, int, float (NaN and infinities too), str, bytes, torch tensors of any
    dense dtype, `torch.dtype`, NumPy arrays and scalars of any dtype but object and structured
    ones.

    Raises:
        CheckpointError: a value of another type, named by its place.
    """
    packer = _Packer()
    skeleton = packer.pack(state, "")
    return packer.tensors, skeleton


def describe_tensors(state: Any) -> dict[str, list[Any]]:
    """`{place: [dtype, shape]}` of every torch tensor: what two models are compared by."""
    found: dict[str, list[Any]] = {}
    _describe(state, "", found)
    return found


def _describe(value: Any, where: str, found: dict[str, list[Any]]) -> None:
    if isinstance(value, torch.Tensor):
        found[where] = [_dtype_name(value.dtype), list(value.shape)]
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _describe(item, _join(where, key), found)
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _describe(item, _join(where, index), found)


class _Packer:
    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._entries: dict[tuple[Any, ...], dict[str, Any]] = {}
        self._storages: set[int] = set()

    def pack(self, value: Any, where: str) -> Any:
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {MARK: "float", "value": repr(value)}
        if isinstance(value, torch.Tensor):
            return self._pack_tensor(value, where)
        if isinstance(value, (np.ndarray, np.generic)):
            return self._pack_array(value, where)
        if type(value) in (dict, OrderedDict):
            return self._pack_mapping(value, where)
        if type(value) is list:
            return [self.pack(item, _join(where, index)) for index, item in enumerate(value)]
        if type(value) is tuple:
            items = [self.pack(item, _join(where, index)) for index, item in enumerate(value)]
            return {MARK: "tuple", "items": items}
        if type(value) is bytes:
            return {MARK: "bytes", "base64": base64.b64encode(value).decode("ascii")}
        if type(value) is torch.dtype:
            return {MARK: "dtype", "name": _dtype_name(value)}
        raise CheckpointError(
            f"cannot save `{where or 'the state'}`: a {type(value).__module__}."
            f"{type(value).__qualname__} is not one of dict, list, tuple, None, bool, int, float, "
            "str, bytes, torch tensor, NumPy array: turn it into these in state_dict()"
        )

    def _pack_mapping(self, value: Mapping[Any, Any], where: str) -> Any:
        plain = type(value) is dict and all(type(key) is str for key in value) and MARK not in value
        if plain:
            return {key: self.pack(item, _join(where, key)) for key, item in value.items()}
        kind = "dict" if type(value) is dict else "ordered_dict"
        items = []
        for key, item in value.items():
            place = _join(where, key)
            if not _is_plain_key(key):
                raise CheckpointError(f"cannot save `{place}`: a key of type {type(key).__name__}")
            items.append([self.pack(key, place), self.pack(item, place)])
        return {MARK: kind, "items": items}

    def _pack_tensor(self, value: torch.Tensor, where: str) -> Any:
        value = value.detach()
        if (
            value.layout != torch.strided
            or value.is_quantized
            or value.is_meta
            or _is_sharded(value)
        ):
            raise CheckpointError(
                f"cannot save `{where}`: a sparse, quantised, sharded or meta tensor; gather it "
                "into a dense one first"
            )
        identity = (
            value.data_ptr(),
            value.dtype,
            value.device,
            tuple(value.shape),
            value.stride(),
            value.is_conj(),
            value.is_neg(),
        )
        if value.numel() and identity in self._entries:
            return self._entries[identity]
        entry: dict[str, Any] = {MARK: "tensor"}
        stored = value.resolve_conj().resolve_neg().contiguous()
        if value.dtype not in _STORED_AS_IS:
            entry |= {"dtype": _dtype_name(value.dtype), "shape": list(value.shape)}
            stored = stored.reshape(-1).view(torch.uint8)
        entry["key"] = self._add(stored, where)
        self._entries[identity] = entry
        return entry

    def _pack_array(self, value: Any, where: str) -> Any:
        array = np.asarray(value)
        if array.dtype.hasobject or array.dtype.names is not None:
            raise CheckpointError(
                f"cannot save `{where}`: a NumPy array of dtype {array.dtype}; use a plain dtype "
                "or lists"
            )
        data = torch.from_numpy(np.frombuffer(bytearray(array.tobytes()), dtype=np.uint8))
        return {
            MARK: "array" if isinstance(value, np.ndarray) else "scalar",
            "dtype": array.dtype.str,
            "shape": list(array.shape),
            "key": self._add(data, where),
        }

    def _add(self, tensor: torch.Tensor, where: str) -> str:
        # safetensors refuses two tensors of one storage; the state may well hold two views of one.
        storage = tensor.untyped_storage().data_ptr()
        if tensor.numel() and storage in self._storages:
            tensor = tensor.clone()
            storage = tensor.untyped_storage().data_ptr()
        self._storages.add(storage)
        name = key = where or "value"
        number = 1
        while key in self.tensors or key == "__metadata__":  # "a.b" and a -> b share a place
            number += 1
            key = f"{name}#{number}"
        self.tensors[key] = tensor
        return key


# --- unpack ---------------------------------------------------------------------------------------


def unpack(tensors: Mapping[str, torch.Tensor], skeleton: Any) -> Any:
    """The inverse of `pack`; `tensors` are used as they are, not copied.

    Raises:
        CheckpointError: the two do not belong together, or the skeleton is of an unknown kind.
    """
    try:
        return _unpack(tensors, skeleton, {})
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint's tensors and its skeleton do not belong together: {error!r}"
        ) from error


def _unpack(
    tensors: Mapping[str, torch.Tensor], node: Any, rebuilt: dict[str, torch.Tensor]
) -> Any:
    if isinstance(node, list):
        return [_unpack(tensors, item, rebuilt) for item in node]
    if not isinstance(node, dict):
        return node
    if MARK not in node:
        return {key: _unpack(tensors, item, rebuilt) for key, item in node.items()}
    kind = node[MARK]
    if kind == "float":
        return float(node["value"])
    if kind == "tensor":
        key = node["key"]
        if "dtype" not in node:
            return tensors[key]
        if key not in rebuilt:  # two aliases have to stay one tensor
            dtype = getattr(torch, node["dtype"])
            rebuilt[key] = tensors[key].view(dtype).reshape(node["shape"])
        return rebuilt[key]
    if kind in ("array", "scalar"):
        data = tensors[node["key"]].numpy().tobytes()
        array = np.frombuffer(bytearray(data), dtype=np.dtype(node["dtype"])).reshape(node["shape"])
        return array if kind == "array" else array[()]
    if kind == "tuple":
        return tuple(_unpack(tensors, item, rebuilt) for item in node["items"])
    if kind in ("dict", "ordered_dict"):
        items = [
            (_unpack(tensors, key, rebuilt), _unpack(tensors, item, rebuilt))
            for key, item in node["items"]
        ]
        return OrderedDict(items) if kind == "ordered_dict" else dict(items)
    if kind == "bytes":
        return base64.b64decode(node["base64"])
    if kind == "dtype":
        return getattr(torch, node["name"])
    raise CheckpointError(
        f"the checkpoint holds a value of unknown kind {kind!r}: written by a newer version?"
    )


# --- small helpers --------------------------------------------------------------------------------


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _is_plain_key(key: Any) -> bool:
    if type(key) is tuple:
        return all(_is_plain_key(item) for item in key)
    return key is None or type(key) in (str, int, float, bool)


def _is_sharded(value: torch.Tensor) -> bool:
    # By name: importing torch.distributed.tensor costs a second and is absent from some builds.
    return any(base.__name__ in ("DTensor", "ShardedTensor") for base in type(value).__mro__)
