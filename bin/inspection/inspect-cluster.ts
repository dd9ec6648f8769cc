/** What etcd holds of a cluster, decoded for people. Pure but for the reading: nothing of it decides anything. */
import { gunzipSync } from 'node:zlib';
import { decodeText, listPrefix, type KvEntry, type KvStore } from '../../ha/kv-store.js';
import { Keys } from '../../ha/keys.js';

type Json = Readonly<Record<string, unknown>>;

export interface InspectedCandidate {
  readonly jobManagerId: string;
  readonly epoch: string;
  readonly restAddress: string;
  readonly rpcAddress: string;
  /** Wall-clock ms. */
  readonly since: number;
  readonly leaseId: string | null;
}

export interface InspectedPointer {
  readonly checkpointId: number;
  readonly kind: string;
  readonly timestamp: number;
  readonly sizeBytes: number;
  readonly metadataPath: string;
  readonly sha256: string;
}

export interface InspectedAttempt {
  readonly attemptId: string;
  readonly attemptNumber: number;
  readonly taskManagerId: string;
  readonly allocationId: string;
}

export interface InspectedJob {
  readonly jobId: string;
  readonly name: string | null;
  readonly desired: string | null;
  readonly submittedAt: number | null;
  /** Of the latest (re)start; null before the first. */
  readonly generation: number | null;
  /** Where they are kept when they are too many for etcd; `attempts` is empty then. */
  readonly attemptsFile: string | null;
  readonly attempts: readonly InspectedAttempt[];
  /** Ascending; the last one is what a restore takes. */
  readonly checkpoints: readonly InspectedPointer[];
  /** Subsumed ones whose files are to be deleted. */
  readonly garbage: readonly InspectedPointer[];
  /** First checkpoint id that is not handed out yet. */
  readonly nextCheckpointId: number | null;
  /** File null: inline. */
  readonly graph: { readonly sizeBytes: number; readonly file: string | null } | null;
  /** Its views of the past are kept. */
  readonly hasHistory: boolean;
}

export interface InspectedResult {
  readonly jobId: string;
  readonly name: string | null;
  readonly state: string;
  /** Its keys and files are not cleaned up yet. */
  readonly dirty: boolean;
  readonly finishedAt: number | null;
}

export interface Inspection {
  readonly clusterId: string;
  readonly uid: string | null;
  readonly era: number | null;
  readonly storageDir: string | null;
  /** Of etcd, at the first page. */
  readonly revision: number;
  readonly keys: number;
  readonly bytes: number;
  readonly leader: Json | null;
  readonly candidates: readonly InspectedCandidate[];
  readonly taskManagers: readonly Json[];
  readonly jobs: readonly InspectedJob[];
  readonly results: readonly InspectedResult[];
  readonly takeovers: number;
  /** Keys that are not understood: damaged values, or of another version. */
  readonly unreadable: readonly { readonly key: string; readonly why: string }[];
}

export async function inspectCluster(kv: KvStore, clusterId: string): Promise<Inspection> {
  const { revision, entries } = await listPrefix(kv, new Keys(clusterId).root);
  return decodeCluster(clusterId, revision, entries);
}

export function decodeCluster(
  clusterId: string,
  revision: number,
  entries: readonly KvEntry[],
): Inspection {
  const keys = new Keys(clusterId);
  const unreadable: { key: string; why: string }[] = [];
  const values = new Map<string, { readonly value: Json; readonly entry: KvEntry }>();
  for (const entry of entries) {
    const value = parse(entry);
    if (value === undefined) unreadable.push({ key: entry.key, why: 'is not a JSON object' });
    else values.set(entry.key, { value, entry });
  }
  const under = (prefix: string): { name: string; value: Json; entry: KvEntry }[] =>
    [...values].flatMap(([key, one]) =>
      key.startsWith(prefix) ? [{ name: key.slice(prefix.length), ...one }] : [],
    );
  const cluster = values.get(keys.cluster)?.value;
  const takeovers = values.get(keys.takeovers)?.value['takeovers'];
  const jobIds = new Set(under(keys.jobsPrefix).map(({ name }) => name.split('/')[0] ?? name));
  return {
    clusterId,
    uid: text(cluster?.['uid']),
    era: number(cluster?.['era']),
    storageDir: text(cluster?.['storageDir']),
    revision,
    keys: entries.length,
    bytes: entries.reduce((sum, { key, value }) => sum + key.length + value.length, 0),
    leader: values.get(keys.leader)?.value ?? null,
    candidates: under(keys.candidatesPrefix)
      .map(({ value, entry }) => toCandidate(value, entry))
      .sort((a, b) => revisionOf(a.epoch) - revisionOf(b.epoch)),
    taskManagers: under(keys.taskManagersPrefix).map(({ value }) => value),
    jobs: [...jobIds].map((jobId) =>
      toJob(
        jobId,
        (suffix) => values.get(`${keys.jobsPrefix}${jobId}/${suffix}`)?.value,
        (folder) =>
          under(`${keys.jobsPrefix}${jobId}/${folder}/`).map(({ value }) => toPointer(value)),
      ),
    ),
    results: under(keys.resultsPrefix).map(({ name, value }) => ({
      jobId: name,
      name: text(value['name']),
      state: text(value['state']) ?? 'unknown',
      dirty: value['cleanup'] === 'DIRTY',
      finishedAt: number(value['finishedAt']),
    })),
    takeovers: Array.isArray(takeovers) ? takeovers.length : 0,
    unreadable,
  };
}

function parse({ value }: KvEntry): Json | undefined {
  try {
    const parsed: unknown = JSON.parse(decodeText(value));
    const isObject = typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed);
    return isObject ? (parsed as Json) : undefined;
  } catch {
    return undefined;
  }
}

const text = (value: unknown): string | null => (typeof value === 'string' ? value : null);
const number = (value: unknown): number | null => (typeof value === 'number' ? value : null);
const revisionOf = (epoch: string): number => Number(epoch.split('.')[1]);

function toCandidate(value: Json, entry: KvEntry): InspectedCandidate {
  return {
    jobManagerId: text(value['jobManagerId']) ?? 'unreadable',
    epoch: `${String(number(value['era']) ?? '?')}.${String(entry.createRevision)}`,
    restAddress: text(value['restAddress']) ?? '',
    rpcAddress: text(value['rpcAddress']) ?? '',
    since: number(value['since']) ?? 0,
    leaseId: entry.leaseId ?? null,
  };
}

function toPointer(value: Json): InspectedPointer {
  return {
    checkpointId: number(value['checkpointId']) ?? -1,
    kind: text(value['kind']) ?? 'unknown',
    timestamp: number(value['timestamp']) ?? 0,
    sizeBytes: number(value['sizeBytes']) ?? 0,
    metadataPath: text(value['metadataPath']) ?? '',
    sha256: text(value['sha256']) ?? '',
  };
}

function toJob(
  jobId: string,
  valueOf: (suffix: string) => Json | undefined,
  pointersIn: (folder: string) => InspectedPointer[],
): InspectedJob {
  const spec = valueOf('spec');
  const execution = valueOf('exec');
  const packed = execution?.['attempts'] as Json | undefined;
  const attempts = attemptsIn(packed);
  const graph = valueOf('graph')?.['graph'] as Json | undefined;
  const byId = (a: InspectedPointer, b: InspectedPointer): number =>
    a.checkpointId - b.checkpointId;
  return {
    jobId,
    name: text(spec?.['name']),
    desired: text(spec?.['desired']),
    submittedAt: number(spec?.['submittedAt']),
    generation: number(execution?.['generation']),
    attemptsFile: text(packed?.['file']),
    attempts: Object.entries(attempts).map(([attemptId, one]) => ({
      attemptId,
      attemptNumber: one.attemptNumber ?? 0,
      taskManagerId: one.taskManagerId ?? '',
      allocationId: one.allocationId ?? '',
    })),
    checkpoints: pointersIn('ckpt').sort(byId),
    garbage: pointersIn('gc').sort(byId),
    nextCheckpointId: number(valueOf('ckptctr')?.['next']),
    graph:
      graph === undefined
        ? null
        : { sizeBytes: number(graph['size']) ?? 0, file: text(graph['file']) },
    hasHistory: valueOf('history') !== undefined,
  };
}

/** Packed by ha/values.ts: compressed and inline, or in a file. */
function attemptsIn(packed: Json | undefined): Record<string, Partial<InspectedAttempt>> {
  const gz = packed?.['gz'];
  if (typeof gz !== 'string') return {};
  try {
    const json = gunzipSync(Buffer.from(gz, 'base64')).toString('utf8');
    return JSON.parse(json) as Record<string, Partial<InspectedAttempt>>;
  } catch {
    return {};
  }
}
