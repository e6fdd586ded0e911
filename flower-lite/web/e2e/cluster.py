"""A small real cluster for the browser tests: `celery -A cluster worker`, and `python cluster.py` to give it work.

The addresses come from CELERY_BROKER_URL and CELERY_RESULT_BACKEND; COUNT says how many tasks, RATE how many a second after
that, for ever.
"""
import os
import random
import time

from celery import Celery, chain, chord, group

PAYLOAD = '"\'><img src=x onerror=window.__xss=1><script>window.__xss=1</script>'

app = Celery('cluster', broker=os.environ['CELERY_BROKER_URL'], backend=os.environ['CELERY_RESULT_BACKEND'])
app.conf.update(
    task_send_sent_event=True,
    worker_send_task_events=True,
    task_track_started=True,
    result_extended=True,
    worker_pool_restarts=True,
    broker_connection_retry_on_startup=True,
    task_routes={'shop.mail.*': {'queue': 'mail'}, 'media.*': {'queue': 'media'}},
)


class PaymentDeclined(Exception):
    pass


@app.task(name='shop.orders.charge_card')
def charge(order, amount='0', currency='EUR'):
    time.sleep(random.expovariate(25))
    if order % 17 == 0:
        raise PaymentDeclined(random.choice(['insufficient_funds', 'expired_card']))
    return {'charge': f'ch_{order:06x}', 'captured': True}


@app.task(name='shop.mail.send_receipt', bind=True, max_retries=3)
def receipt(self, address, template='receipt', order_id=0):
    if order_id % 13 == 0 and self.request.retries < 1:
        raise self.retry(countdown=1, exc=ConnectionRefusedError(111, 'Connection refused'))
    time.sleep(random.expovariate(60))


@app.task(name='media.thumbnails.resize')
def resize(path, size, quality=82):
    time.sleep(random.expovariate(8))
    return [f'cdn/{path}-{size}.webp']


@app.task(name='reports.part')
def part(numbers):
    time.sleep(random.expovariate(10))
    if 13 in numbers:
        raise OverflowError('sum exceeds 64 bit')
    return sum(numbers)


@app.task(name='reports.total')
def total(sums):
    return sum(sums)


@app.task(name='reports.nightly')
def nightly(parts, bad=False):
    numbers = [list(range(20, 24)) for _ in range(parts)]
    if bad:
        numbers[-1].append(13)
    return chord(group(part.s(n) for n in numbers), total.s()).apply_async().id


@app.task(name='demo.wait')
def wait(seconds):
    time.sleep(seconds)
    return seconds


@app.task(name=f'demo.{PAYLOAD}')
def hostile(*args, **kwargs):
    raise ValueError(PAYLOAD)


def submit(count):
    for i in range(count):
        charge.delay(1000 + i, amount=f'{i * 1.7:.2f}')
        if i % 3 == 0:
            receipt.delay(f'user{i}@example.org', order_id=i)
        if i % 5 == 0:
            resize.delay(f'uploads/{i:04x}.jpg', random.choice([320, 640, 1280]))
    for size, bad in [(4, False), (6, True), (12, False), (3, True)]:
        nightly.delay(size, bad=bad)
    chain(charge.si(5001), receipt.si('chain@example.org', order_id=1), resize.si('chain.jpg', 320)).delay()
    hostile.delay(PAYLOAD, **{'note': PAYLOAD})
    wait.delay(4000)
    receipt.apply_async(('later@example.org',), {'order_id': 2}, countdown=3600)


def trickle(rate):
    for i in range(10**9):
        charge.delay(3000 + i, amount=f'{i % 400 * 1.7:.2f}')
        if i % 3 == 0:
            receipt.delay(f'user{i}@example.org', order_id=i)
        if i % 4 == 0:
            resize.delay(f'uploads/{i:04x}.jpg', random.choice([320, 640, 1280]))
        if i % 60 == 30:
            nightly.delay(random.choice([4, 5, 6, 12]), bad=i % 120 == 30)
        time.sleep(random.expovariate(rate / (1 + 0.6 * ((i // 40) % 3))))


if __name__ == '__main__':
    submit(int(os.environ.get('COUNT', '120')))
    if os.environ.get('RATE'):
        trickle(float(os.environ['RATE']))
