"""What training and testing need of MMEngine: hooks, loops, optimizers, and checks of configs and datasets."""
