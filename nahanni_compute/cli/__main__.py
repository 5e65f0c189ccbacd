import sys

from nahanni_compute.cli import main

sys.exit(main())
