"""The command line. One file a command; the only package that knows argv.

A module exports a `Command` named as the command. Nothing heavy is imported
until a command runs, so that help and mistakes are answered at once.
"""
