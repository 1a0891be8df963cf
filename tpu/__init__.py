"""Submission of runs to Cloud TPUs. ``python -m tpu.submit --help``, in the repository."""
