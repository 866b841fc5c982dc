"""The pruning-aware optimizer: any dense fairseq optimizer around which masks are kept."""
