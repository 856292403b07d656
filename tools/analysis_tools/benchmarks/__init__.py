"""The subcommands of ``benchmark.py``: a module each, with ``add_arguments(parser)`` and ``main(args)``."""
