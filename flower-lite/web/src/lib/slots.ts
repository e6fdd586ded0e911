// Keys for rows that come and go: a row keeps its slot as long as it is shown, a new one takes the slot of one that
// left. So a list that moves on by a few rows rebuilds those few, and one that is replaced altogether rebuilds none.

export class Slots {
  private byId = new Map<string, number>();
  private next = 0;

  /** One slot per id, in order. Ids are distinct. */
  assign(ids: readonly string[]): number[] {
    const kept = new Map<string, number>();
    for (const id of ids) {
      const slot = this.byId.get(id);
      if (slot !== undefined) kept.set(id, slot);
    }
    // In the order in which they were shown: a list that is replaced altogether then moves nothing.
    const free = [...this.byId].flatMap(([id, slot]) => (kept.has(id) ? [] : [slot]));
    let used = 0;
    const out = ids.map((id) => {
      const slot = kept.get(id) ?? free[used++] ?? this.next++;
      return slot;
    });
    this.byId = new Map(ids.map((id, i) => [id, out[i] as number]));
    return out;
  }
}
