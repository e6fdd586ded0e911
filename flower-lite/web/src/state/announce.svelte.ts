// What screen readers are told: summaries, never rows, and no more often than every ten seconds.

const PAUSE_MS = 10_000;

class Announcer {
  text = $state('');
  private last = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** Something the user just did or must know now. */
  now(text: string): void {
    clearTimeout(this.timer);
    this.last = Date.now();
    this.text = text;
  }

  /** News that can wait; newer news replaces it while it waits. */
  later(text: string): void {
    clearTimeout(this.timer);
    const wait = this.last + PAUSE_MS - Date.now();
    if (wait <= 0) this.now(text);
    else this.timer = setTimeout(() => this.now(text), wait);
  }
}

export const announcer = new Announcer();
