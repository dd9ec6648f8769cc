/**
 * Which cluster this is. The store's key and the storage directory's marker must name the same uid:
 * otherwise two clusters share one id, or HA data and files belong to different clusters, and starting
 * would restore the wrong state or silently none.
 *
 * The marker is written before the key (`creating`), and confirmed after it (`ready`): a start that is
 * cut short can be repeated, and a `ready` marker without the key means that HA data was lost.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Env } from '../lib/base/env.js';
import { hasCode, MillraceError } from '../lib/base/errors.js';
import type { Random } from '../lib/base/random.js';
import { createFileDurably, writeFileDurably } from './ha-storage.js';
import type { Keys } from './keys.js';
import { encodeText, type KvStore } from './kv-store.js';
import { decodeValue, encodeValue } from './values.js';

export interface ClusterIdentity {
  /** Random; part of every storage path. */
  readonly uid: string;
  /** Raised by an import, as the store's revisions may have gone backwards; the first part of every epoch. */
  readonly era: number;
}

interface Stored extends ClusterIdentity {
  readonly storageDir: string | undefined;
  readonly modRevision: number;
}

interface Marker {
  readonly uid: string;
  readonly state: 'creating' | 'ready';
}

const uidPattern = /^[0-9a-f]{16}$/;
/** Of the cluster key. */
export const clusterFormat = 1;
/** Starts of several processes at the same moment settle within a few rounds. */
const maxRounds = 5;

/**
 * Finds the cluster, or creates it when neither the store nor the directory knows one.
 *
 * @param storageDir absent only where nothing is kept in files: the marker is not checked then.
 * @throws CLUSTER_MISMATCH when the two do not belong together.
 */
export async function openClusterIdentity(
  env: Env,
  kv: KvStore,
  keys: Keys,
  storageDir: string | undefined,
): Promise<ClusterIdentity> {
  for (let round = 0; round < maxRounds; round += 1) {
    const identity = await openOnce(env, kv, keys, storageDir);
    if (identity !== undefined) return identity;
  }
  throw new MillraceError(
    'CONFLICT',
    `${keys.cluster} is changed by somebody else at the same time`,
  );
}

/** `undefined`: another process was faster somewhere; look again. */
async function openOnce(
  env: Env,
  kv: KvStore,
  keys: Keys,
  storageDir: string | undefined,
): Promise<ClusterIdentity | undefined> {
  // The key first: whoever creates it has written its marker before.
  const stored = await readStored(kv, keys);
  if (stored === undefined && (await kv.get(keys.importMarker)) !== undefined) {
    throw new MillraceError(
      'CLUSTER_MISMATCH',
      `an import into ${keys.root} is under way or was interrupted: repeat it with the same archive (millrace ha import), then start`,
    );
  }
  if (storageDir === undefined) {
    if (stored === undefined)
      await createKey(env, kv, keys, { uid: env.random.hex(16), storageDir });
    return stored;
  }
  const path = join(storageDir, 'cluster.json');
  const marker = await readMarker(path);
  if (stored !== undefined) {
    checkMatch(keys, storageDir, { stored, marker });
    if (marker?.state === 'creating')
      await writeMarker(env, path, { uid: stored.uid, state: 'ready' });
    return stored;
  }
  if (marker === undefined) {
    const fresh: Marker = { uid: env.random.hex(16), state: 'creating' };
    await createFileDurably(path, encodeMarker(fresh), env.random);
    return undefined;
  }
  if (marker.state === 'ready') {
    // Unless the key was created between the two reads.
    if ((await readStored(kv, keys)) !== undefined) return undefined;
    throw new MillraceError(
      'CLUSTER_MISMATCH',
      `expected jobs, found none: ${storageDir} belongs to the cluster ${marker.uid}, but ${kv.description} has no data under ${keys.root}. ` +
        'Connect to the right etcd or restore its backup; to begin anew, use another storage directory or remove cluster.json',
      { details: { storageDir, storageUid: marker.uid } },
    );
  }
  await createKey(env, kv, keys, { uid: marker.uid, storageDir });
  return undefined;
}

function checkMatch(
  keys: Keys,
  storageDir: string,
  found: { readonly stored: Stored; readonly marker: Marker | undefined },
): void {
  const { stored, marker } = found;
  if (marker?.uid === stored.uid) return;
  const recorded = stored.storageDir ?? 'no storage directory';
  const here =
    marker === undefined
      ? `${storageDir} has no cluster.json`
      : `${storageDir} belongs to the cluster ${marker.uid}`;
  throw new MillraceError(
    'CLUSTER_MISMATCH',
    `${keys.root} in etcd belongs to the cluster ${stored.uid}, created with ${recorded}, but ${here}. ` +
      'Give one of them another cluster id (high-availability.cluster-id), or point high-availability.storageDir at the directory of this cluster',
    { details: { etcdUid: stored.uid, storageUid: marker?.uid, storageDir } },
  );
}

async function readStored(kv: KvStore, keys: Keys): Promise<Stored | undefined> {
  const entry = await kv.get(keys.cluster);
  if (entry === undefined) return undefined;
  const fields = decodeValue(entry);
  if (fields.integer('format') !== clusterFormat) {
    throw new MillraceError(
      'CLUSTER_MISMATCH',
      `${keys.cluster} has format ${String(fields.integer('format'))}; this version reads ${String(clusterFormat)}`,
    );
  }
  const dir = fields.raw['storageDir'];
  return {
    uid: fields.text('uid'),
    era: fields.integer('era'),
    storageDir: typeof dir === 'string' ? dir : undefined,
    modRevision: entry.modRevision,
  };
}

/** Creates the key unless somebody else did; the caller reads it again either way. */
async function createKey(
  env: Env,
  kv: KvStore,
  keys: Keys,
  cluster: { readonly uid: string; readonly storageDir: string | undefined },
): Promise<void> {
  const value = encodeValue({
    uid: cluster.uid,
    era: 1,
    format: clusterFormat,
    createdAt: env.clock.wallTime(),
    ...(cluster.storageDir !== undefined && { storageDir: cluster.storageDir }),
  });
  try {
    await kv.txn({
      compare: [
        { target: 'create', key: keys.cluster, op: '=', value: 0 },
        { target: 'create', key: keys.importMarker, op: '=', value: 0 },
      ],
      then: [{ op: 'put', key: keys.cluster, value }],
    });
  } catch (error) {
    if (!hasCode(error, 'UNKNOWN_OUTCOME')) throw error;
  }
}

/**
 * Makes the directory the cluster's, as an import does.
 *
 * @throws CLUSTER_MISMATCH when it is another's.
 */
export async function claimStorage(random: Random, storageDir: string, uid: string): Promise<void> {
  const path = join(storageDir, 'cluster.json');
  const marker = await readMarker(path);
  if (marker !== undefined && marker.uid !== uid) {
    throw new MillraceError(
      'CLUSTER_MISMATCH',
      `${storageDir} belongs to the cluster ${marker.uid}, not to ${uid}: give the directory of that cluster, or a new one with its files copied`,
      { details: { storageDir, storageUid: marker.uid } },
    );
  }
  if (marker?.state !== 'ready') {
    await writeFileDurably(path, encodeMarker({ uid, state: 'ready' }), random);
  }
}

/** The uid in the marker of a storage directory. */
export async function storageUid(storageDir: string): Promise<string | undefined> {
  return (await readMarker(join(storageDir, 'cluster.json')))?.uid;
}

async function readMarker(path: string): Promise<Marker | undefined> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new MillraceError('IO', `cannot read ${path}`, { cause });
  }
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    parsed = undefined;
  }
  const { uid, state } = (parsed ?? {}) as { uid?: unknown; state?: unknown };
  if (
    typeof uid !== 'string' ||
    !uidPattern.test(uid) ||
    (state !== 'creating' && state !== 'ready')
  ) {
    throw new MillraceError('CLUSTER_MISMATCH', `${path} is damaged: it does not name a cluster`);
  }
  return { uid, state };
}

async function writeMarker(env: Env, path: string, marker: Marker): Promise<void> {
  await writeFileDurably(path, encodeMarker(marker), env.random);
}

function encodeMarker(marker: Marker): Uint8Array {
  return encodeText(`${JSON.stringify(marker, null, 2)}\n`);
}
