// The rows of a list that are chosen for an action, by id, and the row from which a range goes on.

class Selection {
  ids = $state.raw<ReadonlySet<string>>(new Set());
  private anchor: string | null = null;

  get size(): number {
    return this.ids.size;
  }

  toggle(id: string): void {
    const next = new Set(this.ids);
    if (!next.delete(id)) next.add(id);
    this.ids = next;
    this.anchor = id;
  }

  /** From the last one that was touched to this one, in the order of the list. */
  range(id: string, order: readonly string[]): void {
    const from = this.anchor === null ? -1 : order.indexOf(this.anchor);
    const to = order.indexOf(id);
    if (from < 0 || to < 0) {
      this.toggle(id);
      return;
    }
    this.ids = new Set([...this.ids, ...order.slice(Math.min(from, to), Math.max(from, to) + 1)]);
    this.anchor = id;
  }

  all(order: readonly string[]): void {
    this.ids = new Set(order);
  }

  clear(): void {
    this.ids = new Set();
    this.anchor = null;
  }
}

export const selection = new Selection();
export type { Selection };
