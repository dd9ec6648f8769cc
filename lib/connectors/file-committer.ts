/** The second phase of the file sink: renames, repeatable after any crash. */
import { dirname } from 'node:path';
import { MillraceError } from '../base/errors.js';
import type { CommitOutcome, Committer } from '../api/sink.js';
import { fileError, isDiskFull, systemCode } from './file-errors.js';
import type { FileOperations } from './file-operations.js';

/** A finished, synced, still hidden file. Plain data: lives in checkpoints. */
export interface FileCommittable {
  /** Absolute path of the hidden file. */
  readonly pending: string;
  /** Absolute path it gets. */
  readonly target: string;
  readonly sizeBytes: number;
}

export class FileCommitter implements Committer<FileCommittable> {
  readonly #files: FileOperations;

  constructor(files: FileOperations) {
    this.#files = files;
  }

  /** COMMITTABLE_LOST when neither the hidden file nor the final one is there. */
  async commit(committables: readonly FileCommittable[]): Promise<readonly CommitOutcome[]> {
    const outcomes: CommitOutcome[] = [];
    for (const committable of committables) outcomes.push(await this.#commitOne(committable));
    // Also for those found committed: the crash may have come before their directory was synced.
    const directories = new Set(
      committables
        .filter((_, index) => outcomes[index] !== 'retry')
        .map(({ target }) => dirname(target)),
    );
    for (const directory of directories) {
      try {
        await this.#files.sync(directory);
      } catch (error) {
        if (!isDiskFull(error)) throw fileError(error, directory, 'sync');
        // Not durable, so not committed: what was renamed is found so next time.
        return committables.map((committable, index) =>
          dirname(committable.target) === directory ? 'retry' : (outcomes[index] ?? 'retry'),
        );
      }
    }
    return outcomes;
  }

  async #commitOne(committable: FileCommittable): Promise<CommitOutcome> {
    const { pending, target, sizeBytes } = committable;
    try {
      await this.#files.rename(pending, target);
      return 'committed';
    } catch (error) {
      if (isDiskFull(error)) return 'retry';
      if (systemCode(error) !== 'ENOENT') throw fileError(error, pending, 'rename');
    }
    const size = await this.#sizeOf(target);
    if (size === sizeBytes) return 'alreadyCommitted';
    const found =
      size === undefined ? 'is not there either' : `has ${size} bytes, not ${sizeBytes}`;
    throw new MillraceError(
      'COMMITTABLE_LOST',
      `pending output ${pending} is gone and ${target} ${found}: somebody moved or removed it; its lines are lost`,
      { details: { pending, target } },
    );
  }

  async #sizeOf(path: string): Promise<number | undefined> {
    try {
      return await this.#files.size(path);
    } catch (error) {
      throw fileError(error, path, 'look at');
    }
  }
}
