"""The server of an app, as Flower starts it."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedjax_mrl import program_cache
from fedjax_mrl.federation import Federation
from fedjax_mrl.flower import identity, settings
from fedjax_mrl.flower.error import Ended
from fedjax_mrl.flower.progress import Folder
from fedjax_mrl.flower.server import Loop
from fedjax_mrl.flower.transport import GridTransport

if TYPE_CHECKING:
    from flwr.serverapp import Grid


def serve(grid: "Grid", known: Mapping[str, Any]) -> None:
    """Plays the federation of an app's configuration to its end.

    Args:
        grid: to the nodes.
        known: the configuration, flat as Flower hands it over.

    Raises:
        FlowerError, ConfigError: for a configuration that cannot be played.
        Ended: if it cannot go on; starting it again does.
    """
    tell = logging.getLogger("flwr").info  # which `flwr log` shows
    found = settings.of(known)
    program_cache.use()
    federation = Federation(found.federation)
    folder = Folder(found.server_folder, identity.options(federation.config))
    try:
        Loop(federation, folder, GridTransport(grid), found.patience, tell).run()
    except Ended as error:
        logging.getLogger("flwr").error("%s", error)
        raise
    finally:
        folder.close()
