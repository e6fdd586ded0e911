//! RabbitMQ and Redis for the Celery protocol.
