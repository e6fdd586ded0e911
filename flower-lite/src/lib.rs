//! A live monitor for Celery.
