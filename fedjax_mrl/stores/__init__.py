"""Where the states of a group's clients lie between rounds.

All stores keep states by row, one row a client. The round knows no more about them.

* `device`: stacks on the devices.
* `host`: in the memory of the host. Only states of clients that took part are kept;
  the others are made when they are needed.
* `disk`: likewise, each in a file.
"""

from fedjax_mrl.stores.base import KINDS, PADDING_ROW, Store, block_size, on_host
from fedjax_mrl.stores.choice import make, resolve

__all__ = ["KINDS", "PADDING_ROW", "Store", "block_size", "make", "on_host", "resolve"]
