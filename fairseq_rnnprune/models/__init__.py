"""fairseq models made of prunable layers."""
