"""`python -m rollout` is the command `rollout`."""

import sys

from rollout.cli.main import main

sys.exit(main())
