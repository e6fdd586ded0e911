//! Write Celery tasks in Rust, and run them.
