"""Published tables and figures: what each consists of, how far it has come, tables."""
