"""The documentation: its commands run, its examples are complete, its site builds."""
