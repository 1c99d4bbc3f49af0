"""`python -m rollout` is the command `rollout`."""

import sys

from rollout.cli import main

sys.exit(main())
