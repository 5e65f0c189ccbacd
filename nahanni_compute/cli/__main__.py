"""`python -m nahanni_compute.cli`: the `nahanni` command where it is not on the path."""

import sys

from nahanni_compute.cli import main

sys.exit(main())
