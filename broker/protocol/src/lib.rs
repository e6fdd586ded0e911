//! Celery wire formats, pure: no IO, no clock, no randomness.
