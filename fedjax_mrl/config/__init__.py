"""The configuration of a run: one frozen dataclass, from defaults, YAML and flags.

Precedence: default < preset < file < flag. The parser is the standard library's
and the file format YAML (`safe_load`); see docs/design.md for the reason.
"""

from fedjax_mrl.config.error import ConfigError as ConfigError
from fedjax_mrl.config.private import Privacy as Privacy
from fedjax_mrl.config.run_config import MOST_EPOCHS as MOST_EPOCHS
from fedjax_mrl.config.run_config import NATURAL as NATURAL
from fedjax_mrl.config.run_config import RunConfig as RunConfig
from fedjax_mrl.config.run_config import build as build
from fedjax_mrl.config.run_config import fields as fields
from fedjax_mrl.config.sources import parse_setting as parse_setting
from fedjax_mrl.config.sources import presets as presets
from fedjax_mrl.config.sources import read_preset as read_preset
from fedjax_mrl.config.sources import read_yaml as read_yaml
