"""`rnnprune bench`: what the layers of a checkpoint cost per time step, dense and packed."""
