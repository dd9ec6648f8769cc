/** Verification of a whole cluster: etcd's keys (ha), checkpoints (checkpoint) and bundles (lib), brought together. */
import { createHash } from 'node:crypto';
import { inspectCheckpoint, findOrphans } from '../../checkpoint/storage/inspect-checkpoint.js';
import { jobCheckpointDirectory } from '../../checkpoint/storage/paths.js';
import { verifyCluster, type HaVerification } from '../../ha/ha-verify.js';
import { Keys } from '../../ha/keys.js';
import { decodeText, type KvStore } from '../../ha/kv-store.js';
import { decodeValue } from '../../ha/values.js';
import type { Digest, JobId } from '../../lib/base/ids.js';
import type { Random } from '../../lib/base/random.js';
import { decodeJobGraph } from '../../lib/graph/job-graph-codec.js';
import { BundleStore } from '../../lib/jobmanager/dispatcher/bundle-store.js';

export interface VerifyEverythingOptions {
  /** Of bundles and large values. Absent: they are not looked at. */
  readonly storageDir?: string;
  /** Of checkpoints. Absent: only those that pointers name are looked at. */
  readonly checkpointDir?: string;
  /** Reads state files whole, and compares their checksums. */
  readonly readStates: boolean;
  readonly random: Random;
  readonly progress: (line: string) => void;
}

export async function verifyEverything(
  kv: KvStore,
  clusterId: string,
  options: VerifyEverythingOptions,
): Promise<HaVerification> {
  const { storageDir, checkpointDir, readStates, random, progress } = options;
  const uid = await readUid(kv, clusterId);
  const bundles =
    storageDir === undefined || uid === undefined
      ? undefined
      : new BundleStore(storageDir, uid, random);
  return verifyCluster(kv, clusterId, {
    ...(storageDir !== undefined && { storageDir }),
    random,
    checkCheckpoint: (jobId, pointer) => {
      progress(`checkpoint ${String(pointer.checkpointId)} of ${jobId}`);
      return inspectCheckpoint(jobId, pointer, { readStates });
    },
    findOrphans: async (jobId, pointers) =>
      checkpointDir === undefined || uid === undefined
        ? []
        : findOrphans(jobCheckpointDirectory(checkpointDir, uid, jobId), pointers),
    checkGraph: (jobId, graph) => checkGraph(jobId, graph, bundles),
  });
}

async function readUid(kv: KvStore, clusterId: string): Promise<string | undefined> {
  const entry = await kv.get(new Keys(clusterId).cluster);
  try {
    return entry && decodeValue(entry).text('uid');
  } catch {
    return undefined; // verifyCluster says what is wrong with it.
  }
}

async function checkGraph(
  jobId: JobId,
  encoded: Uint8Array,
  bundles: BundleStore | undefined,
): Promise<string[]> {
  try {
    const { bundle } = decodeJobGraph(decodeText(encoded));
    if (bundle === undefined || bundles === undefined) return [];
    const digest = await digestOf(bundles, jobId, bundle.digest);
    return digest === bundle.digest
      ? []
      : [`its bundle ${bundle.digest} has the digest ${digest}: it was changed`];
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)];
  }
}

async function digestOf(bundles: BundleStore, jobId: JobId, name: Digest): Promise<string> {
  const hash = createHash('sha256');
  for (let offset = 0; ;) {
    const { bytes, end } = await bundles.read(jobId, name, offset);
    hash.update(bytes);
    offset += bytes.byteLength;
    if (end) return hash.digest('hex');
  }
}
