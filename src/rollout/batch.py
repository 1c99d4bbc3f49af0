"""`python -m rollout.batch` is the command `rollout notebooks`, by its older name."""

import sys

from rollout.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["notebooks", *sys.argv[1:]]))
