"""The command line: one file for each command. Only this package knows argv and prints.

A module exports a `Command` named as the command. Nothing heavy is imported
until a command runs, so that help and mistakes are answered at once.
"""
