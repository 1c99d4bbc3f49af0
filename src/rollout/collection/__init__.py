"""Many runs: images by the million, and notebooks by papermill."""
