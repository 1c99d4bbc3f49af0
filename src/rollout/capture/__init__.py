"""One forward pass, recorded: the attention of every block, and its gradients."""
