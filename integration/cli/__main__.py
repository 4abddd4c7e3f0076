"""`python -m wtacrs.integration.cli`."""

import sys

from wtacrs.integration.cli import main

sys.exit(main())
