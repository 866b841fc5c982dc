"""`rnnprune sweep` and `rnnprune plot`: grids of trainings, and figures of what came out."""
