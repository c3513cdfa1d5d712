"""The five CNNs as a `state_dict` of PyTorch, and back. Needs no PyTorch.

Names and layouts are those of the reference's modules: `conv1`, `conv2`, `fc1`, `fc2`
and the header `fc3`, each with `weight` and `bias`; a convolution is [out, in, k, k], a
linear layer [out, in], and `fc1` takes channels before rows and columns. Before them
stands the part of the client that a network is, as in `private.conv1.weight`; a linear
layer by itself, as FedMRL's projector, is called `fc3`, also there. Other arrays keep
their names and layouts.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedjax_mrl import packing
from fedjax_mrl.exporting.error import ExportError

LAYERS = {"conv1", "conv2", "fc1", "fc2"}  # of an extractor


def to_torch(networks: Any) -> dict[str, np.ndarray]:
    """Names and turns the parameters of CNNs as PyTorch has them.

    Args:
        networks: a pytree, as `Federation.networks(client)`, or one `protocol.Network`.

    Returns:
        Name to array; `torch.from_numpy` of each makes a `state_dict`.

    Raises:
        ExportError: if an extractor is none of the five CNNs.

    Example:
        >>> import jax
        >>> import fedjax_mrl as fm
        >>> from fedjax_mrl import models
        >>> cnn = models.build("cnn5", (32, 32, 3), 10)
        >>> network = cnn.init(jax.random.key(0))
        >>> named = fm.to_torch(network)
        >>> sorted(named)[:4]
        ['conv1.bias', 'conv1.weight', 'conv2.bias', 'conv2.weight']
        >>> named["conv2.weight"].shape, named["fc1.weight"].shape
        ((32, 16, 5, 5), (500, 800))
        >>> again = fm.from_torch(named, like=network)
        >>> bool((again.extractor["fc1"]["kernel"] == network.extractor["fc1"]["kernel"]
        ... ).all())
        True
    """
    packed = packing.pack(networks)
    _require_cnns(packed)
    return {
        _name(path): np.array(_turned(path, array, _channels(path, packed)), order="C")
        for path, array in packed.items()
    }


def from_torch(named: Mapping[str, Any], *, like: Any) -> Any:
    """Puts a `state_dict` into networks; the inverse of `to_torch`.

    Args:
        named: name to a tensor of PyTorch or an array, such as
            `module.state_dict()` or `safetensors.numpy.load_file(...)`.
        like: networks of the same structure, as `Federation.networks(client)` or
            `model.init(key)`, whose numbers do not matter.

    Returns:
        The networks with these numbers, on the host.

    Raises:
        ExportError: for names that are missing or too many, and for other shapes.
    """
    packed = packing.pack(like)
    _require_cnns(packed)
    given = {name: _array(name, value) for name, value in named.items()}
    names = {path: _name(path) for path in packed}
    missing = sorted(set(names.values()) - set(given))
    extra = sorted(set(given) - set(names.values()))
    if missing or extra:
        raise ExportError(
            "The names must be those of fm.to_torch(like), but "
            f"{', '.join(missing[:3]) or 'none'} are missing and "
            f"{', '.join(extra[:3]) or 'none'} are too many; is it another network?"
        )
    found = {}
    for path, array in packed.items():
        channels = _channels(path, packed)
        value, wanted = given[names[path]], _turned(path, array, channels)
        if value.shape != wanted.shape:
            raise ExportError(
                f"{names[path]} must be of shape {list(wanted.shape)}, but is "
                f"{list(value.shape)}; is it another network?"
            )
        turned = _turned_back(path, value, channels)
        found[path] = np.array(turned, array.dtype, order="C")
    return packing.unpack(found, like)


def _require_cnns(packed: Mapping[str, np.ndarray]) -> None:
    """Refuses extractors with other layers, and networks without any."""
    layers: dict[str, set[str]] = {}
    for path in packed:
        before, extractor, after = f"/{path}".rpartition("/extractor/")
        if extractor:
            layers.setdefault(before, set()).add(after.rpartition("/")[0])
    for found in layers.values():
        if found != LAYERS:
            raise ExportError(
                "A state_dict for PyTorch is made of the five CNNs, whose layers are "
                f"{', '.join(sorted(LAYERS))}; this network has "
                f"{', '.join(sorted(found)[:6])}. Export it as safetensors instead."
            )
    if not layers:
        raise ExportError("A state_dict for PyTorch needs networks with an extractor.")


def _channels(path: str, packed: Mapping[str, np.ndarray]) -> int:
    """Channels that are flattened before the layer; 0 if it is not the first dense."""
    if not f"/{path}".endswith("/extractor/fc1/kernel"):
        return 0
    return packed[path.removesuffix("fc1/kernel") + "conv2/kernel"].shape[-1]


def _name(path: str) -> str:
    """PyTorch's name for the path of an array."""
    words = path.split("/")
    if words[-1] not in ("kernel", "bias"):
        return ".".join(words)
    *layer, kind = words
    if layer and layer[-1] == "header":
        layer = [*layer[:-1], "fc3"]
    elif "extractor" in layer:
        layer.remove("extractor")
    elif len(layer) < 2:  # a linear layer that is a whole part
        layer = [*layer, "fc3"]
    return ".".join([*layer, "weight" if kind == "kernel" else "bias"])


def _turned(path: str, array: np.ndarray, channels: int) -> np.ndarray:
    """An array of ours in PyTorch's layout."""
    if not path.endswith("kernel"):
        return array
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)  # [k, k, in, out] -> [out, in, k, k]
    if channels:  # rows of places and channels -> of channels and places
        width = array.shape[1]
        places = array.reshape(-1, channels, width)
        return places.transpose(2, 1, 0).reshape(width, -1)
    return array.T


def _turned_back(path: str, array: np.ndarray, channels: int) -> np.ndarray:
    """An array of PyTorch's in our layout."""
    if not path.endswith("kernel"):
        return array
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if channels:
        places = array.reshape(array.shape[0], channels, -1)
        return places.transpose(2, 1, 0).reshape(-1, array.shape[0])
    return array.T


def _array(name: str, value: Any) -> np.ndarray:
    """A tensor or an array on the host."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ExportError(f"{name} must be an array of numbers; got {value!r}.")
    return array
