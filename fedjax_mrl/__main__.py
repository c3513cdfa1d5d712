"""`python -m fedjax_mrl` is the console command `fedjax-mrl`."""

import sys

from fedjax_mrl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
