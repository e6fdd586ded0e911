import { describe, expect, it } from 'vitest';
import { ids, leaves, pool, queues, registered, scheduled, tasks } from './answers';

describe('answers of workers', () => {
  it('tell the tasks they hold', () => {
    const request = { id: 'a', name: 'demo.add', args: [2, 3], kwargs: "{'x': 1}", time_start: 5.5, worker_pid: 71, delivery_info: { routing_key: 'slow', redelivered: true } };
    expect(tasks([request])).toEqual([{ id: 'a', name: 'demo.add', args: '[2,3]', kwargs: "{'x': 1}", started: 5.5, eta: null, queue: 'slow', pid: '71', redelivered: true }]);
    expect(scheduled([{ eta: '2026-11-24T02:24:12.500000+00:00', request }])).toMatchObject([{ id: 'a', eta: 1795487052.5 }]);
    expect(scheduled([{ eta: 'never', request: null }])).toMatchObject([{ id: '', eta: null }]);
    expect(ids(['a', null, 7])).toEqual(['a', '7']);
  });

  it('tell queues and registered tasks', () => {
    expect(queues([{ name: 'q', exchange: { name: '', type: 'direct' }, routing_key: 'q', durable: true, max_priority: 9 }])).toEqual([{ name: 'q', exchange: '(default), direct', routingKey: 'q', durable: true, maxPriority: '9' }]);
    expect(registered(['demo.mul [rate_limit=10/m routing_key=x]', 'demo.add'])).toEqual([{ name: 'demo.add', extras: {} }, { name: 'demo.mul', extras: { rate_limit: '10/m', routing_key: 'x' } }]);
  });

  it('tell the pool', () => {
    const stats = { pool: { implementation: 'celery.concurrency.prefork:TaskPool', 'max-concurrency': 1, processes: [4, 5], timeouts: [0, 30], 'max-tasks-per-child': 'N/A' }, prefetch_count: 8, total: { 'demo.add': 3, odd: 'x' }, uptime: 60 };
    expect(pool(stats)).toEqual({ kind: 'prefork', size: 2, processes: ['4', '5'], maxTasks: 'N/A', timeouts: [null, 30], prefetch: 8, autoscaler: null, total: { 'demo.add': 3 }, uptime: 60 });
    expect(pool({ pool: { implementation: 'celeriac' }, autoscaler: { min: 1, max: 4 } })).toMatchObject({ kind: 'celeriac', autoscaler: { min: 1, max: 4 } });
  });

  it('may be anything', () => {
    for (const odd of [null, undefined, 3, 'x', {}, [[]], [null], [{ request: [] }], { pool: 4 }]) {
      expect(() => [tasks(odd), scheduled(odd), ids(odd), queues(odd), registered(odd), pool(odd), leaves(odd)]).not.toThrow();
    }
  });

  it('are lines of key and value', () => {
    expect(leaves({ a: { b: 1, c: [1, 2] }, d: null, e: {} })).toEqual([['a.b', '1'], ['a.c', '[1,2]'], ['d', ''], ['e', '{}']]);
    const deep = { k: { k: { k: { k: { k: { k: { k: { k: 1 } } } } } } } };
    expect(leaves(deep)).toHaveLength(1);
  });
});
