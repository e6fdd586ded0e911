"""Records when Celery's solar schedules are due, as a golden file for the tests of celery-beat.

    python capture_solar.py ../../../celery-worker/tests/golden/solar.json

needs Celery and `ephem`, which Celery computes them with. Each case has a place, an event, a moment, and when the event is due
next, three times in a row; all moments in seconds since 1970. A row begins an hour after the run before it: from the very
moment of an event, ephem may find the same one again.
"""
import json
import sys
from datetime import datetime, timedelta, timezone

from celery import Celery
from celery.schedules import solar

PLACES = {'Quito': (-0.18, -78.47), 'Melbourne': (-37.81753, 144.96715), 'Berlin': (52.52, 13.405),
          'Suva': (-18.14, 178.44), 'Atka': (52.2, -174.2), 'Reykjavik': (64.15, -21.94), 'Tromsoe': (69.65, 18.96),
          'Longyearbyen': (78.22, 15.65), 'McMurdo': (-77.85, 166.67)}
STARTS = ['2026-01-05T00:00:00', '2026-03-19T17:30:00', '2026-06-21T03:00:00', '2026-11-24T12:00:00', '2035-08-31T21:45:00']


def main(path):
    app = Celery('solar', set_as_current=False)
    app.conf.update(timezone='UTC', enable_utc=True)
    cases = []
    for lat, lon in PLACES.values():
        for event in sorted(solar._all_events):
            for start in STARTS:
                last = datetime.fromisoformat(start).replace(tzinfo=timezone.utc)
                runs = []
                for _ in range(3):
                    due = solar(event, lat, lon, nowfun=lambda last=last: last, app=app)
                    moment = last + due.remaining_estimate(last)
                    runs.append([last.timestamp(), round(moment.timestamp(), 3)])
                    last = moment + timedelta(hours=1)
                cases.append({'event': event, 'lat': lat, 'lon': lon, 'runs': runs})
    with open(path, 'w', encoding='utf-8') as file:
        file.write('[\n' + ',\n'.join(json.dumps(case) for case in cases) + '\n]\n')


if __name__ == '__main__':
    main(sys.argv[1])
