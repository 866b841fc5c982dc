"""What commands show their results with: tables, figures, labels."""
