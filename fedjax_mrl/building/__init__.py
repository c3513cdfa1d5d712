"""From settings and values to the frozen pieces of a federation."""
