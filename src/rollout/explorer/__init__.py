"""The parts of the explorer; `rollout.widgets.explore` puts them together."""
