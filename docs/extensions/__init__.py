"""The tools that make the documentation site; see docs/conf.py."""
