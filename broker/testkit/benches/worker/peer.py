"""What the benchmarks ask of Python Celery: the tasks of our own worker, as Python would write them."""

import hashlib
import os

from celery import Celery

app = Celery("peer", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app.conf.task_acks_late = False  # Celery's default, and its faster way


@app.task(name="demo.add")
def add(x, y):
    return x + y


@app.task(name="demo.xsum")
def xsum(numbers):
    return sum(numbers)


@app.task(name="demo.hash")
def hash_(text, rounds=1):
    digest = hashlib.sha256(text.encode()).digest()
    for _ in range(1, rounds):
        digest = hashlib.sha256(digest).digest()
    return digest.hex()
