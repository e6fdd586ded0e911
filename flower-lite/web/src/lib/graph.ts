// A workflow as a layered picture: which boxes, where, and which lines between them. Pure: the page draws it.
//
// Events tell who called whom, and no more. A chord's body is called by that member of the header which ended last; the
// other members' lines into it are concluded from that, and drawn as such. Many calls of the same task by the same
// caller are folded into one box.

import type { Task, WorkflowNode } from '../api/types';

export const BOX = { width: 190, height: 46, gapX: 64, gapY: 14, margin: 12 };
const FOLD_ABOVE = 7;
const SKEW_SECONDS = 1;
const MAX_BOXES = 400;

export interface Box {
  key: string;
  /** The task, or the first of those that are folded here. */
  task: Task;
  /** More than one: how many there are in each state. */
  folded: { total: number; byState: Record<string, number>; ids: string[] } | null;
  x: number;
  y: number;
}

export interface Edge {
  key: string;
  from: string;
  to: string;
  /** Concluded, not told. */
  inferred: boolean;
  path: string;
}

export interface Picture {
  boxes: Box[];
  edges: Edge[];
  width: number;
  height: number;
  /** Tasks that found no room. */
  left: number;
}

/** Nodes with their children, and for chord bodies the members of their header, by id. */
interface Item {
  key: string;
  task: Task;
  folded: Box['folded'];
  children: Item[];
  /** What runs after all of `children` whose keys are in `after`. */
  joins: { item: Item; after: string[] }[];
}

export function layout(tree: readonly WorkflowNode[], unfolded: ReadonlySet<string> = new Set()): Picture {
  const budget = { left: MAX_BOXES, over: 0 };
  const roots = tree.flatMap((node) => build(node, unfolded, budget) ?? []);
  const boxes: Box[] = [];
  const edges: { from: string; to: string; inferred: boolean }[] = [];
  let row = 0;
  for (const root of roots) row += place(root, 0, row, boxes, edges);
  const at = new Map(boxes.map((box) => [box.key, box]));
  const right = Math.max(0, ...boxes.map((box) => box.x)) + BOX.width + BOX.margin;
  const bottom = Math.max(0, ...boxes.map((box) => box.y)) + BOX.height + BOX.margin;
  return {
    boxes,
    edges: edges.flatMap((edge) => {
      const from = at.get(edge.from);
      const to = at.get(edge.to);
      return from && to ? [{ ...edge, key: `${edge.from}\n${edge.to}`, path: curve(from, to) }] : [];
    }),
    width: right,
    height: bottom,
    left: budget.over,
  };
}

/** The bodies of chords among what the children of a node called, with the members that each one waited for. */
export function chordBodies(children: readonly WorkflowNode[]): { body: WorkflowNode; members: WorkflowNode[] }[] {
  const callers = children.filter((child) => child.children.length > 0);
  const caller = callers[0];
  const body = caller?.children[0];
  // Where several members called something, they are chains of their own.
  if (callers.length !== 1 || !caller || !body || caller.children.length !== 1) return [];
  const born = body.sent ?? body.received ?? body.timestamp ?? Infinity;
  const members = children.filter((child) => child.state === 'SUCCESS' && (child.succeeded ?? Infinity) <= born + SKEW_SECONDS);
  if (members.length < 2 || members.length < children.length || !members.includes(caller)) return [];
  const last = Math.max(...members.map((member) => member.succeeded ?? 0));
  return (caller.succeeded ?? 0) >= last - SKEW_SECONDS ? [{ body, members }] : [];
}

function build(node: WorkflowNode, unfolded: ReadonlySet<string>, budget: { left: number; over: number }): Item | null {
  if (budget.left <= 0) {
    budget.over += count(node);
    return null;
  }
  budget.left--;
  const joins = chordBodies(node.children);
  const bodies = new Set(joins.map((join) => join.body.id));
  const item: Item = { key: node.id, task: node, folded: null, children: [], joins: [] };
  const keys = new Map<string, string>();

  for (const group of alike(node.children, bodies)) {
    const first = group[0] as WorkflowNode;
    const key = `${node.id}\n${first.name ?? ''}`;
    if (group.length > FOLD_ABOVE && !unfolded.has(key)) {
      for (const child of group) keys.set(child.id, key);
      budget.left--;
      item.children.push({ key, task: first, folded: { total: group.length, byState: states(group), ids: group.map((child) => child.id) }, children: [], joins: [] });
      continue;
    }
    for (const child of group) {
      const built = build({ ...child, children: child.children.filter((c) => !bodies.has(c.id)) }, unfolded, budget);
      keys.set(child.id, child.id);
      if (built) item.children.push(built);
    }
  }
  for (const { body, members } of joins) {
    const built = build(body, unfolded, budget);
    if (built) item.joins.push({ item: built, after: [...new Set(members.map((member) => keys.get(member.id) ?? ''))] });
  }
  return item;
}

/** Children in groups: those of one name that called nothing else stand together, all others alone, in order. */
function alike(children: readonly WorkflowNode[], bodies: ReadonlySet<string>): WorkflowNode[][] {
  const groups = new Map<string, WorkflowNode[]>();
  children.forEach((child) => {
    const leaf = child.children.every((c) => bodies.has(c.id));
    const key = leaf ? `name ${child.name ?? ''}` : `id ${child.id}`;
    groups.set(key, [...(groups.get(key) ?? []), child]);
  });
  return [...groups.values()];
}

/** Puts an item and all below it into the rows from `row` on; says how many rows that took. */
function place(item: Item, layer: number, row: number, boxes: Box[], edges: { from: string; to: string; inferred: boolean }[]): number {
  const start = boxes.length;
  let used = 0;
  for (const child of item.children) {
    edges.push({ from: item.key, to: child.key, inferred: false });
    used += place(child, layer + 1, row + used, boxes, edges);
  }
  if (item.joins.length) {
    const deepest = Math.max(layer + 1, ...boxes.slice(start).map((box) => layerOf(box)));
    let below = 0;
    const first = boxes.length;
    for (const { item: body, after } of item.joins) {
      for (const member of after) edges.push({ from: member, to: body.key, inferred: member !== body.task.parent_id });
      below += place(body, deepest + 1, row + below, boxes, edges);
    }
    // The narrower side is centred on the wider one.
    const shift = (Math.abs(used - below) / 2) * (BOX.height + BOX.gapY);
    const moved = used >= below ? boxes.slice(first) : boxes.slice(start, first);
    for (const box of moved) box.y += shift;
    used = Math.max(used, below);
  }
  const own = boxes.slice(start).filter((box) => item.children.some((child) => child.key === box.key));
  const height = BOX.height + BOX.gapY;
  const y = own.length ? ((own[0] as Box).y + (own.at(-1) as Box).y) / 2 : BOX.margin + row * height;
  boxes.push({ key: item.key, task: item.task, folded: item.folded, x: BOX.margin + layer * (BOX.width + BOX.gapX), y });
  return Math.max(1, used);
}

function layerOf(box: Box): number {
  return Math.round((box.x - BOX.margin) / (BOX.width + BOX.gapX));
}

function curve(from: Box, to: Box): string {
  const [x1, y1, x2, y2] = [from.x + BOX.width, from.y + BOX.height / 2, to.x, to.y + BOX.height / 2];
  const bend = Math.max(24, (x2 - x1) / 2);
  return `M${x1},${y1}C${x1 + bend},${y1} ${x2 - bend},${y2} ${x2},${y2}`;
}

export function states(tasks: readonly Task[]): Record<string, number> {
  const out: Record<string, number> = {};
  for (const task of tasks) out[task.state] = (out[task.state] ?? 0) + 1;
  return out;
}

function count(node: WorkflowNode): number {
  return 1 + node.children.reduce((n, child) => n + count(child), 0);
}

/** The tree as lines, depth first. */
export function flatten(tree: readonly WorkflowNode[], depth = 0): { node: WorkflowNode; depth: number }[] {
  return tree.flatMap((node) => [{ node, depth }, ...flatten(node.children, depth + 1)]);
}

/** `tree` with newer rows laid over its nodes; the same tree when none is in it. */
export function update(tree: readonly WorkflowNode[], changed: ReadonlyMap<string, Task>): WorkflowNode[] {
  return tree.map((node) => {
    const task = changed.get(node.id);
    return { ...node, ...(task ?? {}), children: update(node.children, changed) };
  });
}
