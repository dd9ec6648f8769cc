/**
 * What is left of a job after its result is written. A FINISHED job leaves nothing. Of a CANCELED or FAILED one the
 * completed checkpoints stay, marked as retained, so that `run -s` can go on from them (Flink's
 * RETAIN_ON_CANCELLATION; its default would delete them). Every step can be repeated by a later leader.
 */
import { listCheckpoints } from '../../../checkpoint/storage/file-checkpoint-storage.js';
import type { CheckpointStorage } from '../../../checkpoint/storage/checkpoint-storage.js';
import type { JobResult, Leadership } from '../../../ha/services.js';
import type { JobGraph } from '../../graph/job-graph.js';
import type { BundleStore } from './bundle-store.js';

export interface JobCleanupDeps {
  readonly leadership: Leadership;
  readonly bundles: BundleStore;
  readonly storage: CheckpointStorage;
  readonly checkpointDirectory: string;
}

/** Resolves when the result is marked clean. */
export async function cleanUpJob(
  { leadership, bundles, storage, checkpointDirectory }: JobCleanupDeps,
  result: JobResult,
  graph: JobGraph | undefined,
): Promise<void> {
  const { jobId } = result;
  if (result.state !== 'FINISHED') {
    for (const pointer of await leadership.checkpointPointers(jobId).list()) {
      await storage.markRetained(pointer.metadataPath);
    }
  }
  // Leaves alone what is marked.
  for (const path of await listCheckpoints(checkpointDirectory))
    await storage.deleteCheckpoint(path);
  if (graph?.bundle !== undefined) await bundles.delete(jobId, graph.bundle.digest);
  await leadership.results.markClean(jobId);
}
