/**
 * Credits of one channel between two TaskManagers: the consumer announces free buffers, the producer sends
 * one data frame per credit. So data that arrives always finds a buffer, a socket is never stopped for one
 * channel, and a blocked channel does not hold up its neighbours. Control frames need no credit.
 */

/** The producer's count. */
export class SendCredit {
  #available = 0;

  get hasCredit(): boolean {
    return this.#available > 0;
  }

  granted(credits: number): void {
    this.#available += credits;
  }

  sent(): void {
    this.#available -= 1;
  }
}

/** The consumer's count. Invariant: announced and unused + occupied <= buffers. */
export class ReceiveCredit {
  readonly #buffers: number;
  /** Announced and not used yet. */
  #outstanding = 0;

  constructor(buffers: number) {
    this.#buffers = buffers;
  }

  /** A data frame came; false when the producer had no credit for it. */
  received(): boolean {
    if (this.#outstanding === 0) return false;
    this.#outstanding -= 1;
    return true;
  }

  /**
   * Credits to announce when `free` buffers of the ring are empty. Few at a time would cost a frame each, so it
   * waits until half of the buffers can be announced, unless the producer may be without any.
   */
  announce(free: number): number {
    const credits = free - this.#outstanding;
    const isWorthWhile = credits * 2 >= this.#buffers || (this.#outstanding === 0 && credits > 0);
    if (!isWorthWhile) return 0;
    this.#outstanding += credits;
    return credits;
  }

  /** Free buffers at which the next announcement is due. */
  get dueAt(): number {
    return this.#outstanding === 0 ? 1 : this.#outstanding + Math.ceil(this.#buffers / 2);
  }
}
