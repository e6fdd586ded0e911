import { describe, expect, it } from 'vitest';
import { parsePath, segment } from './route';

describe('parsePath', () => {
  it.each([
    ['/', '/', { page: 'overview' }], ['/dashboard/', '/dashboard/', { page: 'overview' }], ['/dashboard', '/dashboard/', { page: 'overview' }],
    ['/dashboard/tasks', '/dashboard/', { page: 'tasks' }], ['/tasks/', '/', { page: 'tasks' }], ['/a/b/workers', '/a/b/', { page: 'workers' }],
    ['/task/abc-1', '/', { page: 'task', id: 'abc-1' }], ['/worker/celery%40host', '/', { page: 'worker', name: 'celery@host' }],
    ['/worker/a/b', '/', { page: 'worker', name: 'a/b' }], ['/task/', '/', { page: 'missing', path: 'task' }], ['/task/%E0%A4%A', '/', { page: 'task', id: '%E0%A4%A' }],
    ['/nothing', '/', { page: 'missing', path: 'nothing' }],
  ])('%s under %s', (path, base, route) => expect(parsePath(path, base)).toEqual(route));

  it('gives back what segment made', () => {
    const hostile = `"'><img src=x onerror=alert(1)>/?#%&\u202e`;
    expect(parsePath(`/task/${segment(hostile)}`, '/')).toEqual({ page: 'task', id: hostile });
    expect(segment('\ud800')).toBe('%EF%BF%BD');
  });
});
