/** The way of records through a task's chain: by virtual calls from operator to operator, or by generated code. */
import type { BatchReader } from '../record/codec/batch-codec.js';
import type { TakeRecord } from './direct-channel.js';
import type { OperatorNode } from './operator-chain.js';
import type { Quantum } from './quantum.js';

export interface RecordPath {
  /** Records of the batch from the `from`-th on, each a step of the quantum, until it is over; the index of the next one. */
  rows(rows: BatchReader, from: number): number;
  /** One record that waited in a queue. */
  record(value: unknown, timestamp: number): void;
  /** One record by direct call from another task of the slot; what is thrown fails this task, not the caller. */
  readonly direct: TakeRecord;
  /** Records that came in. */
  readonly recordsIn: number;
}

/** What a path needs of its task. */
export interface RecordPathOwner {
  readonly quantum: Quantum;
  /** Of the slot (see TaskHost): holds `task` while the task's code runs. */
  readonly running: Int32Array;
  readonly task: number;
  blame(error: unknown, node: OperatorNode): void;
  /** Ends the task with an error. */
  fail(error: unknown): void;
}

/** One virtual call per operator and record: for debugging, and what generated code is checked against. */
export class InterpretedPath implements RecordPath {
  readonly #owner: RecordPathOwner;
  readonly #head: OperatorNode;
  recordsIn = 0;

  constructor(owner: RecordPathOwner, head: OperatorNode) {
    this.#owner = owner;
    this.#head = head;
  }

  rows(rows: BatchReader, from: number): number {
    const { quantum } = this.#owner;
    const { count } = rows;
    for (let i = from; i < count; i += 1) {
      this.record(rows.value(i), rows.timestamp(i));
      if (quantum.step()) return i + 1;
    }
    return count;
  }

  record(value: unknown, timestamp: number): void {
    this.recordsIn += 1;
    const head = this.#head;
    try {
      head.operator.processElement(value, timestamp);
    } catch (error) {
      this.#owner.blame(error, head);
      throw error;
    }
  }

  readonly direct: TakeRecord = (value, timestamp) => {
    const owner = this.#owner;
    const { running } = owner;
    const before = running[0]!;
    running[0] = owner.task;
    try {
      this.record(value, timestamp);
    } catch (error) {
      owner.fail(error);
    }
    running[0] = before;
  };
}
