"""Which hyperparameters to start from, and how to look for better ones."""
