"""Reports on finished and unfinished runs: tables, figures and one page to read."""
