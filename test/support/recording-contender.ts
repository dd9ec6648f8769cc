import type { LeaderContender, LeaderInfo, Leadership } from '../../ha/services.js';

/** A contender that notes what it is told, and lets a test wait for it. */
export class RecordingContender implements LeaderContender {
  readonly events: string[] = [];
  readonly leaderships: Leadership[] = [];
  /** The leadership it holds, suspended or not. */
  current: Leadership | undefined;
  leader: LeaderInfo | undefined;
  onGrant: (leadership: Leadership) => void = () => undefined;
  readonly #waiting = new Set<() => void>();

  grantLeadership(leadership: Leadership): void {
    this.current = leadership;
    this.leaderships.push(leadership);
    this.#note('granted');
    this.onGrant(leadership);
  }

  suspendLeadership(): void {
    this.#note('suspended');
  }

  resumeLeadership(): void {
    this.#note('resumed');
  }

  revokeLeadership(_leadership: Leadership, reason: string): void {
    this.current = undefined;
    this.#note(`revoked: ${reason}`);
  }

  leaderChanged(leader: LeaderInfo | undefined): void {
    this.leader = leader;
    this.#wake();
  }

  /** Resolves when `condition` holds; asked after every event. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => {
        this.#waiting.add(resolve);
      });
    }
  }

  /** The leadership granted next, or held now. */
  async leads(): Promise<Leadership> {
    await this.until(() => this.current !== undefined);
    return this.current!;
  }

  #note(event: string): void {
    this.events.push(event);
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }
}
