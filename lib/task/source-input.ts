/** The source at the head of a task's chain, in the place of input channels: pulled until it has nothing or is stopped. */
import { InvariantError } from '../base/assert.js';
import { isSourceOperator } from '../operators/stream-operator.js';
import type { InputSink } from './input-channel.js';
import type { OperatorChain } from './operator-chain.js';

export class SourceInput {
  /** A bounded source gave its last record. */
  hasEnded = false;
  #waits = false;
  #wakeUps = 0;

  /** There may be something to pull. */
  wakeUp(): void {
    this.#wakeUps += 1;
    this.#waits = false;
  }

  /** False when there was nothing. */
  pull(chain: OperatorChain, sink: Pick<InputSink, 'stopsAfterElement'>): boolean {
    if (this.#waits || this.hasEnded) return false;
    const { operator } = chain.head;
    if (!isSourceOperator(operator)) {
      throw new InvariantError('a task without inputs has no source');
    }
    let hasEmitted = false;
    for (;;) {
      const wakeUps = this.#wakeUps;
      const outcome = chain.guard(chain.head, () =>
        operator.emitBatch === undefined ? operator.emitNext() : operator.emitBatch(),
      );
      if (outcome === 'end') {
        this.hasEnded = true;
        return true;
      }
      if (outcome === 'nothing') {
        // Woken while it looked: look again.
        this.#waits = wakeUps === this.#wakeUps;
        return hasEmitted || !this.#waits;
      }
      hasEmitted = true;
      if (sink.stopsAfterElement()) return true;
    }
  }
}
