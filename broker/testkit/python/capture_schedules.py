"""Records when Celery's schedules are due, as a golden file for the tests of celery-beat.

    python capture_schedules.py ../../../celery-worker/tests/golden/schedules.json

`fields`: what a crontab field expands to, or null where Celery refuses it. `runs`: the moments, in seconds since 1970, at
which an entry is due one after the other, if each run is at the very moment that it is due.
"""
import json
import sys
from datetime import datetime, timedelta, timezone

from celery import Celery
from celery.schedules import crontab, schedule

FIELDS = {
    'minute': ['*', '0', '59', '60', '-1', '*/15', '*/7', '*/60', '*/100', '1-5', '5-1', '50-10/5', '1-59/2', '0-59/59',
               '1,2,3', '1,1', '1,13,30-45,50-59/2', '', '1,', ',', '1-', '-', '*/', '1/', '5/2', '/5', 'x', '1-x', '*5',
               '0x5', '1.5', '007', '1-5-9', '10-20/0', '*/0', '*/-1', '20-20', '20-19'],
    'hour': ['*', '23', '24', '0,8-17/2', '22-3', '22-3/2', '*/5', '8-17'],
    'day_of_week': ['*', '0', '6', '7', 'sun', 'Mon', 'FRIDAY', 'mon-fri', 'fri-mon', 'sat-sun', 'thu-tue/2', 'mon,wed,fri',
                    '*/2', '1-5', 'jan', 'xyz', 'su', 'sundown', '5-6,0', 'mon-3'],
    'day_of_month': ['*', '0', '1', '31', '32', '*/3', '1-7,15-21', '2-30/2', '28-3', '*/31', '31-1', 'mon'],
    'month_of_year': ['*', '0', '1', '12', '13', '*/2', '2-12/2', 'jan', 'December', 'jan-mar', 'nov-feb', 'may,jun', 'sat',
                      '*/3', 'oct-3'],
}

DATES = ['2026-01-01T00:00:00', '2026-02-27T23:59:59', '2026-12-31T23:30:00']
CRONTABS = ['* * * * *', '*/15 * * * *', '7 * * * *', '30 4 * * *', '0 0 * * *', '0 0 * * sun', '0 12 * * mon-fri',
            '0 0 * * fri-mon', '15 22-3 * * *', '0 0 1 * *', '0 0 31 * *', '59 23 29 2 *', '0 0 13 * fri',
            '0 9 1-7 * mon', '0 9 */2 */3 *', '5,10 8 1 3,6 *', '0 0 1 1 *', '30 6 1-7,15-21 * 1', '0 0 28-31 feb *']

# Where a clock is put forward or back: the zone, and a moment some hours before.
CHANGES = [('Europe/Berlin', '2026-03-28T20:00:00'), ('Europe/Berlin', '2026-10-24T20:00:00'),
           ('America/New_York', '2026-03-07T20:00:00'), ('America/New_York', '2026-10-31T20:00:00'),
           ('Australia/Lord_Howe', '2026-10-03T05:00:00'), ('Australia/Lord_Howe', '2026-04-04T05:00:00'),
           ('America/Santiago', '2026-09-05T20:00:00'), ('Asia/Kolkata', '2026-05-01T00:00:00'),
           ('Pacific/Apia', '2026-05-01T00:00:00')]
AT_CHANGES = ['30 2 * * *', '*/30 * * * *', '0 * * * *', '0 2 * * *', '45 1-3 * * *', '0 0 * * *', '15 0,1,2,3 * * sun',
              '30 0 * * *']

RELATIVE = [1, 30, 59, 60, 90, 600, 3600, 5400, 7200, 86399, 86400, 129600, 604800]


def expand(field, text):
    sizes = {'minute': (60, 0), 'hour': (24, 0), 'day_of_week': (7, 0), 'day_of_month': (31, 1), 'month_of_year': (12, 1)}
    try:
        return sorted(crontab._expand_cronspec(text, *sizes[field]))
    except Exception:
        return None


def app_in(zone):
    app = Celery('schedules', set_as_current=False)
    app.conf.update(timezone=zone, enable_utc=True)
    return app


def runs(make, zone, start, count):
    app = app_in(zone)
    last = datetime.fromisoformat(start).replace(tzinfo=timezone.utc)
    moments = []
    for _ in range(count):
        due = make(app, lambda: last)
        last = last + due.remaining_estimate(last.astimezone(app.timezone))
        moments.append(last.timestamp())
    return moments


def of_columns(columns):
    return lambda app, now: _with(crontab.from_string(columns), app, now)


def of_seconds(seconds):
    return lambda app, now: schedule(timedelta(seconds=seconds), relative=True, nowfun=now, app=app)


def _with(entry, app, now):
    entry.app, entry.nowfun = app, now
    return entry


def main(path):
    cases = []
    for columns in CRONTABS:
        for start in DATES:
            cases.append({'crontab': columns, 'zone': 'UTC', 'start': start,
                          'runs': runs(of_columns(columns), 'UTC', start, 6)})
    for zone, start in CHANGES:
        for columns in AT_CHANGES:
            cases.append({'crontab': columns, 'zone': zone, 'start': start,
                          'runs': runs(of_columns(columns), zone, start, 24)})
        for seconds in RELATIVE:
            cases.append({'relative': seconds, 'zone': zone, 'start': start,
                          'runs': runs(of_seconds(seconds), zone, start, 16)})
    fields = {field: {text: expand(field, text) for text in texts} for field, texts in FIELDS.items()}
    for case in cases:
        case['start'] = datetime.fromisoformat(case['start']).replace(tzinfo=timezone.utc).timestamp()
    with open(path, 'w', encoding='utf-8') as file:
        file.write('{\n"fields": ' + json.dumps(fields) + ',\n"runs": [\n')
        file.write(',\n'.join(json.dumps(case) for case in cases) + '\n]}\n')


if __name__ == '__main__':
    main(sys.argv[1])
