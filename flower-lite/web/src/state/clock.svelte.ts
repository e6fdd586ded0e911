// The server's time, ticking once a second, so that ages on screen are right even where this computer's clock is not.

class Clock {
  private offset = 0;
  now = $state(Date.now() / 1000);

  constructor() {
    setInterval(() => (this.now = this.precise()), 1000);
  }

  /** Learns from a message that the server stamped just now. Small differences are the network's, not the clock's. */
  sync(serverTime: number): void {
    if (!Number.isFinite(serverTime)) return;
    const offset = serverTime - Date.now() / 1000;
    if (Math.abs(offset - this.offset) > 0.5) {
      this.offset = offset;
      this.now = this.precise();
    }
  }

  precise(): number {
    return Date.now() / 1000 + this.offset;
  }
}

export const clock = new Clock();
