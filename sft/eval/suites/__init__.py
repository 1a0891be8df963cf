"""Behaviour suites: what a model must do, must not do, and does at the boundary, case by case."""
