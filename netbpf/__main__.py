"""``python -m netbpf``."""

import sys

from netbpf.cli.main import main

sys.exit(main())
