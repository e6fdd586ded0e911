import { describe, expect, it } from 'vitest';
import type { WorkflowNode } from '../api/types';
import { BOX, chordBodies, flatten, layout, update, type Picture } from './graph';
import { task } from './fixtures';

function node(id: string, part: Partial<WorkflowNode> = {}, children: WorkflowNode[] = []): WorkflowNode {
  return { ...task({ id, name: part.name ?? id, state: 'SUCCESS', received: 1, succeeded: 2, ready: true, ...part }), children: children.map((child) => ({ ...child, parent_id: id })) };
}

function chord(size: number, part: Partial<WorkflowNode> = {}): WorkflowNode {
  const header = Array.from({ length: size }, (_, i) => node(`h${i}`, { name: 'part', succeeded: 2 + i / 10 }, i === size - 1 ? [node('body', { received: 2 + size / 10 })] : []));
  return node('root', part, header);
}

const box = (picture: Picture, key: string) => picture.boxes.find((b) => b.key === key) ?? expect.fail(`no box ${key}`);
const overlaps = (picture: Picture): string[] =>
  picture.boxes.flatMap((a, i) => picture.boxes.slice(i + 1).flatMap((b) => (a.x < b.x + BOX.width && b.x < a.x + BOX.width && a.y < b.y + BOX.height && b.y < a.y + BOX.height ? [`${a.key} ${b.key}`] : [])));

describe('layout', () => {
  it('puts each call to the right of its caller, and draws the line', () => {
    const picture = layout([node('a', {}, [node('b', {}, [node('c')])])]);
    expect(box(picture, 'a').x).toBeLessThan(box(picture, 'b').x);
    expect(box(picture, 'b').x).toBeLessThan(box(picture, 'c').x);
    expect(picture.edges.map((e) => [e.from, e.to, e.inferred])).toEqual([['a', 'b', false], ['b', 'c', false]]);
  });

  it('draws a chord with its body behind the whole header', () => {
    const picture = layout([chord(4)]);
    const into = picture.edges.filter((e) => e.to === 'body');
    expect(into.map((e) => [e.from, e.inferred])).toEqual([['h0', true], ['h1', true], ['h2', true], ['h3', false]]);
    const middle = (box(picture, 'h0').y + box(picture, 'h3').y) / 2;
    expect(box(picture, 'body').y).toBeCloseTo(middle);
    expect(box(picture, 'root').y).toBeCloseTo(middle);
    expect(overlaps(picture)).toEqual([]);
  });

  it('folds many calls of one task into one box, and unfolds them', () => {
    const folded = layout([chord(12)]);
    expect(folded.boxes.map((b) => b.key).sort()).toEqual(['body', 'root', 'root\npart']);
    expect(box(folded, 'root\npart').folded).toMatchObject({ total: 12, byState: { SUCCESS: 12 } });
    expect(folded.edges.map((e) => [e.from, e.to])).toContainEqual(['root\npart', 'body']);
    expect(layout([chord(12)], new Set(['root\npart'])).boxes).toHaveLength(14);
  });

  it('never lays one box over another', () => {
    const bush = (depth: number, id: string): WorkflowNode => node(id, {}, depth ? [bush(depth - 1, `${id}x`), { ...chord(3), id: `${id}c`, children: chord(3).children.map((c) => ({ ...c, id: `${id}${c.id}`, children: c.children.map((b) => ({ ...b, id: `${id}${b.id}` })) })) }, bush(depth - 1, `${id}y`)] : []);
    const picture = layout([bush(3, 'r'), chord(5)]);
    expect(picture.boxes.length).toBeGreaterThan(40);
    expect(overlaps(picture)).toEqual([]);
    expect(Math.max(...picture.boxes.map((b) => b.y)) + BOX.height).toBeLessThanOrEqual(picture.height);
  });

  it('draws no more than it can, and says how many are missing', () => {
    const picture = layout([node('root', {}, Array.from({ length: 600 }, (_, i) => node(`n${i}`, { name: `n${i}` })))]);
    expect(picture.boxes.length).toBeLessThanOrEqual(401);
    expect(picture.boxes.length + picture.left).toBe(601);
  });
});

describe('chordBodies', () => {
  it('takes what the last of several ended calls called for the body of a chord', () => {
    expect(chordBodies(chord(3).children)).toMatchObject([{ body: { id: 'body' }, members: [{ id: 'h0' }, { id: 'h1' }, { id: 'h2' }] }]);
  });

  it('takes chains beside each other for what they are', () => {
    const chains = ['a', 'b'].map((id) => node(id, {}, [node(`${id}2`)]));
    expect(chordBodies(chains)).toEqual([]);
  });

  it('knows no body while a member runs, or after one failed', () => {
    for (const part of [{ state: 'STARTED', succeeded: null }, { state: 'FAILURE', succeeded: null }] as const) {
      const members = chord(3).children.map((child, i) => (i === 0 ? { ...child, ...part } : child));
      expect(chordBodies(members)).toEqual([]);
    }
  });

  it('knows no body where another than the last one called', () => {
    const members = chord(3).children.map((child, i) => (i === 0 ? { ...child, succeeded: 40 } : child));
    expect(chordBodies(members.map((child) => ({ ...child, children: child.children.map((b) => ({ ...b, received: 50 })) })))).toEqual([]);
  });
});

describe('trees', () => {
  it('are read in order and changed in place', () => {
    const tree = [chord(2)];
    expect(flatten(tree).map(({ node: n, depth }) => `${depth}${n.id}`)).toEqual(['0root', '1h0', '1h1', '2body']);
    const newer = update(tree, new Map([['h0', task({ id: 'h0', state: 'RETRY' })]]));
    expect(flatten(newer).map(({ node: n }) => n.state)).toEqual(['SUCCESS', 'RETRY', 'SUCCESS', 'SUCCESS']);
  });
});
