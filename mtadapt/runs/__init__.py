"""Trainings as processes of their own, and the logs that they leave; light to import, without the libraries."""
