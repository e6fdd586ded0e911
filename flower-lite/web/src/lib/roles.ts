// Which role an action needs. The server decides; this only words what it will say.

const ADMIN = new Set([
  'worker.shutdown', 'worker.pool_restart', 'worker.pool_grow', 'worker.pool_shrink', 'worker.autoscale', 'queue.purge', 'dead_letter.drop', 'schedule.edit', 'schedule.revert',
]);

export function neededRole(action: string): 'operator' | 'admin' {
  return ADMIN.has(action) ? 'admin' : 'operator';
}
