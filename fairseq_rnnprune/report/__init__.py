"""What the `rnnprune` command shows: tables, JSON and plots about checkpoints and trainings."""
