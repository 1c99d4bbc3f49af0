"""Many runs: notebooks by papermill."""
