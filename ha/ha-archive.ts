/**
 * Export and import of what etcd keeps of a cluster, as one JSON-able value: jobs, results, pointers, counters and
 * identity, with large values that lie in files. Not in it: who leads, who is registered (leases), and the checkpoints
 * themselves, which stay in the storage directory under the cluster's uid.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { hasCode, MillraceError } from '../lib/base/errors.js';
import type { Random } from '../lib/base/random.js';
import { claimStorage, clusterFormat } from './cluster-identity.js';
import { FileHaStorage, type HaStorage } from './ha-storage.js';
import { clustersPrefix, Keys } from './keys.js';
import {
  decodeText,
  encodeText,
  listPrefix,
  prefixEnd,
  type Compare,
  type KvEntry,
  type KvStore,
  type TxnOp,
} from './kv-store.js';
import { decodeValue, encodeValue, filesOf } from './values.js';

export const archiveFormat = 1;

export interface HaArchive {
  readonly kind: 'millrace-ha-archive';
  readonly format: typeof archiveFormat;
  /** Of the cluster it was taken from. */
  readonly clusterId: string;
  readonly uid: string;
  readonly era: number;
  /** Wall-clock ms. */
  readonly exportedAt: number;
  /** Store revision of the export. */
  readonly revision: number;
  readonly storageDir?: string;
  /** In the order they were written; keys relative to the cluster's prefix. */
  readonly entries: readonly { readonly key: string; readonly value: string }[];
  /** Values kept in files: named by folder and SHA-256; without `base64` the file must be there at the import. */
  readonly files: readonly { readonly name: string; readonly base64?: string }[];
}

export interface ExportOptions {
  /** Where the large values are; without it they are named in the archive, not included. */
  readonly storageDir?: string;
  readonly random: Random;
  /** Wall-clock ms to be noted. */
  readonly now: number;
}

export interface ImportOptions {
  /** The directory with the cluster's files, under `<uid>/`; as the JobManagers will have it. */
  readonly storageDir?: string;
  readonly random: Random;
  /** Called after each transaction. */
  readonly onProgress?: (done: number, total: number) => void;
}

export interface ImportReport {
  readonly uid: string;
  /** Higher than any before: later leaders count as newer than those of the exported cluster. */
  readonly era: number;
  readonly entries: number;
  /** An interrupted import of the same archive was continued. */
  readonly resumed: boolean;
}

/** etcd takes 128 operations and 1.5 MiB. */
const maxOpsPerTxn = 64;
const maxBytesPerTxn = 512 * 1_024;
const maxTries = 5;

/**
 * Reads everything of a cluster that is not under a lease, as of one moment. May run while it works; what is completed
 * later is not in it, and checkpoints it names may be subsumed and deleted later.
 *
 * @throws CLUSTER_MISMATCH when there is no such cluster, CONFLICT when it changes too fast to be read as of one moment.
 */
export async function exportCluster(
  kv: KvStore,
  clusterId: string,
  options: ExportOptions,
): Promise<HaArchive> {
  const keys = new Keys(clusterId);
  const { revision, entries } = await listUnleased(kv, keys);
  const cluster = entries.find(({ key }) => key === keys.cluster);
  if (cluster === undefined) {
    throw new MillraceError('CLUSTER_MISMATCH', `no cluster is stored under ${keys.root}`);
  }
  const identity = decodeValue(cluster);
  const uid = identity.text('uid');
  const storage = haStorageOf(options, uid);
  const kept = entries
    .filter(({ key }) => key !== keys.cluster && key !== keys.importMarker)
    .sort((a, b) => a.modRevision - b.modRevision);
  const files: { name: string; base64?: string }[] = [];
  for (const name of new Set(kept.flatMap(filesOf))) {
    const bytes = await storage?.read(name);
    files.push({ name, ...(bytes && { base64: Buffer.from(bytes).toString('base64') }) });
  }
  const storageDir = identity.raw['storageDir'];
  return {
    kind: 'millrace-ha-archive',
    format: archiveFormat,
    clusterId,
    uid,
    era: identity.integer('era'),
    exportedAt: options.now,
    revision,
    ...(typeof storageDir === 'string' && { storageDir }),
    entries: kept.map(({ key, value }) => ({
      key: key.slice(keys.root.length),
      value: decodeText(value),
    })),
    files,
  };
}

/**
 * Writes an archive under an empty prefix, in bounded transactions; a marker keeps JobManagers from starting before all
 * is there. Interrupted, it is repeated with the same archive and goes on. The uid stays: pointers name files under it.
 *
 * @throws CLUSTER_MISMATCH when the prefix or the directory belongs to another cluster, when the uid is in use under
 * another id, or a JobManager runs; CONFIG when it is no archive; RECOVERY_FAILED when a file it names is missing.
 */
export async function importCluster(
  kv: KvStore,
  clusterId: string,
  archive: HaArchive,
  options: ImportOptions,
): Promise<ImportReport> {
  checkArchive(archive);
  const keys = new Keys(clusterId);
  const { uid } = archive;
  await refuseIfInUse(kv, keys, uid);
  if (options.storageDir !== undefined) {
    await claimStorage(options.random, options.storageDir, uid);
  }
  await importFiles(archive, haStorageOf(options, uid), options.storageDir);
  const marker = await openMarker(kv, keys, archive);
  const guard: Compare[] = [
    { target: 'create', key: keys.importMarker, op: '=', value: marker.createRevision },
    noCandidate(keys),
  ];
  let done = 0;
  for (const ops of chunked(keys, archive)) {
    await write(kv, keys, guard, ops);
    done += ops.length;
    options.onProgress?.(done, archive.entries.length);
  }
  const era = archive.era + 1;
  const cluster = encodeValue({
    uid,
    era,
    format: clusterFormat,
    createdAt: archive.exportedAt,
    importedFrom: archive.clusterId,
    ...(options.storageDir !== undefined && { storageDir: options.storageDir }),
  });
  await finish(kv, keys, guard, cluster);
  return { uid, era, entries: done, resumed: marker.resumed };
}

/** Everything but leased keys, as of one revision: read again when something changed between pages. */
export async function listUnleased(
  kv: KvStore,
  keys: Keys,
): Promise<{ revision: number; entries: KvEntry[] }> {
  for (let attempt = 0; attempt < maxTries; attempt += 1) {
    const { revision, entries } = await listPrefix(kv, keys.root);
    const unleased = entries.filter(({ leaseId }) => leaseId === undefined);
    // A page read later may be newer than the first; then an earlier page may lack what belongs to it.
    if (unleased.every(({ modRevision }) => modRevision <= revision)) {
      return { revision, entries: unleased };
    }
  }
  throw new MillraceError(
    'CONFLICT',
    `${keys.root} changes too fast to be read as of one moment; stop jobs or try again`,
  );
}

function checkArchive(archive: HaArchive): void {
  const { kind, format, uid, era, entries, files } = archive as Partial<HaArchive>;
  if (kind !== 'millrace-ha-archive') {
    throw new MillraceError('CONFIG', 'this is no archive of millrace ha export');
  }
  if (format !== archiveFormat) {
    throw new MillraceError(
      'CONFIG',
      `the archive has format ${String(format)}; this version reads ${String(archiveFormat)}`,
    );
  }
  const isWhole =
    /^[0-9a-f]{16}$/.test(uid ?? '') &&
    Number.isSafeInteger(era) &&
    Array.isArray(files) &&
    Array.isArray(entries) &&
    entries.every(({ key, value }) => typeof key === 'string' && typeof value === 'string');
  if (!isWhole) throw new MillraceError('CONFIG', 'the archive is damaged: fields are missing');
}

async function refuseIfInUse(kv: KvStore, keys: Keys, uid: string): Promise<void> {
  const { candidatesPrefix } = keys;
  const { count } = await kv.range({
    key: candidatesPrefix,
    rangeEnd: prefixEnd(candidatesPrefix),
    countOnly: true,
  });
  if (count > 0) throw jobManagerRuns(keys);
  // From cluster to cluster, not over all their keys.
  for (let key = clustersPrefix; ;) {
    const range = { key, rangeEnd: prefixEnd(clustersPrefix), limit: 1, keysOnly: true };
    const first = (await kv.range(range)).entries[0];
    if (first === undefined) return;
    const end = first.key.indexOf('/', clustersPrefix.length);
    const root = end < 0 ? first.key : first.key.slice(0, end + 1);
    key = end < 0 ? `${first.key}\0` : prefixEnd(root);
    const entry = root === keys.root ? undefined : await kv.get(`${root}cluster`);
    if (entry !== undefined && decodeValue(entry).raw['uid'] === uid) {
      throw new MillraceError(
        'CLUSTER_MISMATCH',
        `the cluster ${uid} lives under ${root} already: two clusters on the same files would destroy each other's checkpoints. Delete that one first (etcdctl del --prefix ${root}), or import under its id`,
      );
    }
  }
}

async function importFiles(
  archive: HaArchive,
  storage: HaStorage | undefined,
  storageDir: string | undefined,
): Promise<void> {
  if (archive.files.length > 0 && storage === undefined) {
    throw new MillraceError('CONFIG', 'the archive has files: give the storage directory');
  }
  for (const { name, base64 } of archive.files) {
    if (base64 === undefined) {
      await storage?.read(name);
      continue;
    }
    const bytes = Buffer.from(base64, 'base64');
    const written = await storage?.write(name.slice(0, name.lastIndexOf('/')), bytes);
    if (written !== name) {
      throw new MillraceError(
        'RECOVERY_FAILED',
        `the archive is damaged: its file ${name} does not have its digest (${String(storageDir)})`,
      );
    }
  }
}

/** Creates the marker under the empty prefix, or finds that of an interrupted import of the same archive. */
async function openMarker(
  kv: KvStore,
  keys: Keys,
  archive: HaArchive,
): Promise<{ readonly createRevision: number; readonly resumed: boolean }> {
  const digest = createHash('sha256').update(JSON.stringify(archive)).digest('hex');
  const value = encodeValue({ digest, uid: archive.uid, entries: archive.entries.length });
  const found = await kv.get(keys.importMarker);
  if (found === undefined) {
    const { root: key } = keys;
    try {
      const { succeeded, revision } = await kv.txn({
        compare: [{ target: 'create', key, rangeEnd: prefixEnd(key), op: '=', value: 0 }],
        then: [{ op: 'put', key: keys.importMarker, value }],
      });
      if (succeeded) return { createRevision: revision, resumed: false };
    } catch (error) {
      if (!hasCode(error, 'UNKNOWN_OUTCOME')) throw error;
      // Ours if it is there: nobody else has this digest.
      const created = await kv.get(keys.importMarker);
      if (created === undefined) throw error;
      return { createRevision: created.createRevision, resumed: false };
    }
    throw new MillraceError(
      'CLUSTER_MISMATCH',
      `${keys.root} is not empty: an archive is imported into an unused cluster id only`,
    );
  }
  if (decodeValue(found).raw['digest'] !== digest) {
    throw new MillraceError(
      'CLUSTER_MISMATCH',
      `an import of another archive into ${keys.root} was interrupted: repeat that one, or delete what it left (etcdctl del --prefix ${keys.root})`,
    );
  }
  return { createRevision: found.createRevision, resumed: true };
}

function* chunked(keys: Keys, archive: HaArchive): Generator<TxnOp[]> {
  let ops: TxnOp[] = [];
  let bytes = 0;
  for (const { key, value } of archive.entries) {
    const encoded = encodeText(value);
    if (
      ops.length === maxOpsPerTxn ||
      (ops.length > 0 && bytes + encoded.length > maxBytesPerTxn)
    ) {
      yield ops;
      ops = [];
      bytes = 0;
    }
    ops.push({ op: 'put', key: keys.root + key, value: encoded });
    bytes += encoded.length;
  }
  if (ops.length > 0) yield ops;
}

/** Puts the same once more when the answer was lost. */
async function write(
  kv: KvStore,
  keys: Keys,
  compare: readonly Compare[],
  then: readonly TxnOp[],
): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const { succeeded } = await kv.txn({ compare, then });
      if (succeeded) return;
      throw interrupted(keys);
    } catch (error) {
      if (!hasCode(error, 'UNKNOWN_OUTCOME') || attempt === maxTries) throw error;
    }
  }
}

async function finish(
  kv: KvStore,
  keys: Keys,
  guard: readonly Compare[],
  cluster: Uint8Array,
): Promise<void> {
  const then: TxnOp[] = [
    { op: 'put', key: keys.cluster, value: cluster },
    { op: 'delete', key: keys.importMarker },
  ];
  try {
    if (!(await kv.txn({ compare: guard, then })).succeeded) throw interrupted(keys);
  } catch (error) {
    if (!hasCode(error, 'UNKNOWN_OUTCOME')) throw error;
    if ((await kv.get(keys.cluster)) === undefined) await write(kv, keys, guard, then);
  }
}

function noCandidate({ candidatesPrefix: key }: Keys): Compare {
  return { target: 'create', key, rangeEnd: prefixEnd(key), op: '=', value: 0 };
}

function interrupted(keys: Keys): MillraceError {
  return new MillraceError(
    'CLUSTER_MISMATCH',
    `somebody else changed ${keys.root} during the import, or a JobManager was started: stop it and repeat the import`,
  );
}

function jobManagerRuns(keys: Keys): MillraceError {
  return new MillraceError(
    'CLUSTER_MISMATCH',
    `a JobManager stands for election under ${keys.candidatesPrefix}: stop all JobManagers of the cluster before an import`,
  );
}

export function haStorageOf(
  options: { readonly storageDir?: string; readonly random: Random },
  uid: string,
): HaStorage | undefined {
  const { storageDir, random } = options;
  return storageDir === undefined
    ? undefined
    : new FileHaStorage(join(storageDir, uid, 'ha'), random);
}
