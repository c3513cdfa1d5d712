"""Federated learning where every client has its own model, in JAX.

>>> import fedjax_mrl as fm
>>> federation = fm.Federation(
...     models=("mlp",), shared_model="mlp", num_clients=5, rounds=2
... )
>>> for result in federation.rounds():
...     print(result.state.round, result.scores.accuracy.shape)  # point, head, client
1 (2, 4, 5)
2 (2, 4, 5)
"""

from typing import TYPE_CHECKING, Any

from fedjax_mrl._version import __version__ as __version__

if TYPE_CHECKING:
    from fedjax_mrl.comparing import compare as compare
    from fedjax_mrl.config import RunConfig as RunConfig
    from fedjax_mrl.data.own import arrays as arrays
    from fedjax_mrl.exporting.loaded import load_model as load_model
    from fedjax_mrl.exporting.torch_names import from_torch as from_torch
    from fedjax_mrl.exporting.torch_names import to_torch as to_torch
    from fedjax_mrl.federation import Federation as Federation
    from fedjax_mrl.loading import load as load
    from fedjax_mrl.models.own import model as model
    from fedjax_mrl.packing import pack as pack
    from fedjax_mrl.packing import unpack as unpack
    from fedjax_mrl.protocol import Algorithm as Algorithm
    from fedjax_mrl.protocol import Model as Model
    from fedjax_mrl.protocol import Setup as Setup
    from fedjax_mrl.reporting.writing import report as report
    from fedjax_mrl.runs.events import TensorBoard as TensorBoard
    from fedjax_mrl.runs.writers import Writer as Writer
    from fedjax_mrl.simulation.divergence import Diverged as Diverged

_PUBLIC = {
    "Diverged": "fedjax_mrl.simulation.divergence",
    "Federation": "fedjax_mrl.federation",
    "RunConfig": "fedjax_mrl.config",
    "Algorithm": "fedjax_mrl.protocol",
    "Model": "fedjax_mrl.protocol",
    "Setup": "fedjax_mrl.protocol",
    "TensorBoard": "fedjax_mrl.runs.events",
    "Writer": "fedjax_mrl.runs.writers",
    "arrays": "fedjax_mrl.data.own",
    "compare": "fedjax_mrl.comparing",
    "from_torch": "fedjax_mrl.exporting.torch_names",
    "load": "fedjax_mrl.loading",
    "load_model": "fedjax_mrl.exporting.loaded",
    "model": "fedjax_mrl.models.own",
    "pack": "fedjax_mrl.packing",
    "report": "fedjax_mrl.reporting.writing",
    "to_torch": "fedjax_mrl.exporting.torch_names",
    "unpack": "fedjax_mrl.packing",
}
__all__ = ["__version__", *_PUBLIC]  # pyrefly: ignore[unresolvable-dunder-all]


def __getattr__(name: str) -> Any:
    # Imported when first used: `fedjax-mrl --help` must not wait for JAX.
    if name in _PUBLIC:
        import importlib

        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
