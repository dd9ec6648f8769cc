import type { OperatorChain, OperatorNode } from './operator-chain.js';
import type { Quantum } from './quantum.js';

interface Continuation {
  readonly node: OperatorNode;
  readonly step: () => boolean;
}

/**
 * What a task has to do before it takes new input, mail or a barrier: long work that operators handed on
 * (firing many timers), and watermark effects behind a watermark whose timers still fire.
 */
export class HeldWork {
  /** Innermost last: what a step causes in operators further down the chain is done before the step goes on. */
  readonly #continuations: Continuation[] = [];
  readonly #deferred: (() => void)[] = [];
  /** Continuations there were when the running piece of code began. */
  #depth = 0;

  get isHeld(): boolean {
    return this.#continuations.length > 0 || this.#deferred.length > 0;
  }

  /** The running code caused work further down the chain and should let it go first. */
  get hasInner(): boolean {
    return this.#continuations.length > this.#depth;
  }

  /** `step` runs until it returns true. */
  add(node: OperatorNode, step: () => boolean): void {
    this.#continuations.push({ node, step });
  }

  /** Runs it now, or behind what is held. */
  inOrder(run: () => void): void {
    if (this.isHeld) this.#deferred.push(run);
    else run();
  }

  /** Works until nothing is held or the quantum is over. */
  proceed(quantum: Quantum, chain: OperatorChain): void {
    while (this.isHeld && !quantum.isOver) {
      const top = this.#continuations.at(-1);
      if (top === undefined) {
        this.#deferred.shift()?.();
        continue;
      }
      this.#depth = this.#continuations.length;
      const isDone = chain.guard(top.node, top.step);
      this.#depth = 0;
      if (isDone) this.#continuations.splice(this.#continuations.indexOf(top), 1);
      quantum.step();
    }
  }
}
