//! HTTP in, Celery messages out.
