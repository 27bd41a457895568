"""``python -m netbpf``."""

import sys

from netbpf.cli.start import main

sys.exit(main())
