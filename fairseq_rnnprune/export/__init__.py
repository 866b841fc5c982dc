"""One small file of a trained model: `rnnprune export`, and how such a file is read."""
