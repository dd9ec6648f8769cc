/** Records of a bounded job in an array of this process: for tests and local programs. */
import type { Committer, Sink, SinkContext, SinkWriter } from '../api/sink.js';

interface CollectCommittable<T> {
  /** Tells a repeated commit from a new one. */
  readonly id: string;
  readonly values: readonly T[];
}

/** Exactly once: values appear when the checkpoint that contains them is complete. By reference, so local only. */
export class CollectSink<T> implements Sink<T, CollectCommittable<T>> {
  readonly #values: T[] = [];
  readonly #committed = new Set<string>();

  /** In the order of their commits. */
  get values(): readonly T[] {
    return this.#values;
  }

  createWriter(context: SinkContext): SinkWriter<T, CollectCommittable<T>> {
    let open: T[] = [];
    return {
      write: (value) => {
        open.push(value);
      },
      prepareCommit: (checkpointId) => {
        if (open.length === 0) return [];
        const values = open;
        open = [];
        return [{ id: `${context.attemptId}:${checkpointId}`, values }];
      },
      close: () => undefined,
    };
  }

  createCommitter(): Committer<CollectCommittable<T>> {
    return {
      commit: async (committables) =>
        committables.map(({ id, values }) => {
          if (this.#committed.has(id)) return 'alreadyCommitted';
          this.#committed.add(id);
          for (const value of values) this.#values.push(value);
          return 'committed';
        }),
    };
  }
}
