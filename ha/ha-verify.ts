/** Whether what etcd keeps of a cluster fits together, and fits the files it names. Reads only; may run beside a leader. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { hasCode } from '../lib/base/errors.js';
import { parseJobId, type JobId } from '../lib/base/ids.js';
import type { Random } from '../lib/base/random.js';
import { decodePointer } from './checkpoint-pointer-store.js';
import { storageUid } from './cluster-identity.js';
import { haStorageOf, listUnleased } from './ha-archive.js';
import { MemoryHaStorage, type HaStorage } from './ha-storage.js';
import { parseAttempts } from './job-store.js';
import { Keys } from './keys.js';
import { decodeText, type KvEntry, type KvStore } from './kv-store.js';
import {
  compareEpochs,
  formatEpoch,
  parseEpoch,
  type CheckpointPointer,
  type LeaderEpoch,
} from './services.js';
import { decodeValue, filesOf, unpackBytes, writeIdOf } from './values.js';

export interface HaFinding {
  /** `error`: a job will not be recovered, or not as it was; `warning`: left over, and harmless. */
  readonly severity: 'error' | 'warning';
  /** Key or path. */
  readonly where: string;
  /** One sentence. */
  readonly problem: string;
}

export interface HaVerification {
  readonly uid: string;
  readonly era: number;
  /** Not ended, and ended. */
  readonly jobs: number;
  readonly results: number;
  readonly checkpoints: number;
  readonly findings: readonly HaFinding[];
}

/** What lies beyond etcd; parts that are absent are not checked. Problems are sentences. */
export interface VerifyOptions {
  readonly storageDir?: string;
  readonly random: Random;
  /** Metadata and state files of a completed checkpoint. */
  readonly checkCheckpoint?: (jobId: JobId, pointer: CheckpointPointer) => Promise<string[]>;
  /** Checkpoint directories of a job that no pointer names. */
  readonly findOrphans?: (
    jobId: JobId,
    pointers: readonly CheckpointPointer[],
  ) => Promise<string[]>;
  /** The bundle that an encoded JobGraph names. */
  readonly checkGraph?: (jobId: JobId, graph: Uint8Array) => Promise<string[]>;
}

/** A cluster that does not exist is a finding, too. @throws ETCD_UNAVAILABLE, CONFLICT as exportCluster. */
export async function verifyCluster(
  kv: KvStore,
  clusterId: string,
  options: VerifyOptions,
): Promise<HaVerification> {
  const keys = new Keys(clusterId);
  const { entries } = await listUnleased(kv, keys);
  return new Verification(keys, options, entries).run(kv);
}

class Verification {
  readonly #keys: Keys;
  readonly #options: VerifyOptions;
  readonly #entries: readonly KvEntry[];
  readonly #byKey: ReadonlyMap<string, KvEntry>;
  readonly #findings: HaFinding[] = [];
  #storage: HaStorage | undefined;
  #checkpoints = 0;

  constructor(keys: Keys, options: VerifyOptions, entries: readonly KvEntry[]) {
    this.#keys = keys;
    this.#options = options;
    this.#entries = entries;
    this.#byKey = new Map(entries.map((entry) => [entry.key, entry]));
  }

  async run(kv: KvStore): Promise<HaVerification> {
    const cluster = this.#byKey.get(this.#keys.cluster);
    if (this.#byKey.has(this.#keys.importMarker)) {
      this.#error(this.#keys.importMarker, 'an import was interrupted: repeat it');
    }
    if (cluster === undefined) {
      this.#error(this.#keys.cluster, `there is no cluster under ${this.#keys.root}`);
      return { uid: '', era: 0, jobs: 0, results: 0, checkpoints: 0, findings: this.#findings };
    }
    const identity = decodeValue(cluster);
    const uid = identity.text('uid');
    this.#storage = haStorageOf(this.#options, uid);
    await this.#checkDirectory(uid);
    this.#checkEpochs();
    const jobs = this.#group();
    for (const [jobId, entries] of jobs) await this.#checkJob(jobId, entries);
    const results = this.#under(this.#keys.resultsPrefix);
    for (const entry of results) await this.#checkResult(entry, jobs);
    await this.#checkFiles(kv, uid);
    return {
      uid,
      era: identity.integer('era'),
      jobs: jobs.size,
      results: results.length,
      checkpoints: this.#checkpoints,
      findings: this.#findings,
    };
  }

  async #checkDirectory(uid: string): Promise<void> {
    const { storageDir } = this.#options;
    if (storageDir === undefined) return;
    await this.#guard(join(storageDir, 'cluster.json'), async () => {
      const found = await storageUid(storageDir);
      if (found === uid) return;
      const belongs = found === undefined ? 'has no cluster.json' : `belongs to ${found}`;
      this.#error(storageDir, `etcd has the cluster ${uid}, but the directory ${belongs}`);
    });
  }

  /** In the order of their last writes, the epochs that wrote them never go back: no older leader wrote after a newer. */
  #checkEpochs(): void {
    let highest: LeaderEpoch = { era: 0, revision: 0 };
    for (const entry of [...this.#entries].sort((a, b) => a.modRevision - b.modRevision)) {
      const epoch = parseEpoch(writeIdOf(entry));
      if (epoch === undefined) continue;
      if (compareEpochs(epoch, highest) < 0) {
        const [by, later] = [writeIdOf(entry)!, formatEpoch(highest)];
        this.#error(entry.key, `was written by ${by} after ${later} had written`);
      } else highest = epoch;
    }
  }

  #group(): Map<JobId, KvEntry[]> {
    const jobs = new Map<JobId, KvEntry[]>();
    for (const entry of this.#under(this.#keys.jobsPrefix)) {
      const jobId = parseJobId(entry.key.slice(this.#keys.jobsPrefix.length).split('/')[0] ?? '');
      if (jobId === undefined) {
        this.#warn(entry.key, 'is no key of a job');
        continue;
      }
      const known = jobs.get(jobId);
      if (known === undefined) jobs.set(jobId, [entry]);
      else known.push(entry);
    }
    return jobs;
  }

  async #checkJob(jobId: JobId, entries: readonly KvEntry[]): Promise<void> {
    const keys = this.#keys;
    const spec = this.#byKey.get(keys.spec(jobId));
    if (spec === undefined) {
      for (const { key } of entries)
        this.#error(key, `belongs to a job that has no ${keys.spec(jobId)}`);
      return;
    }
    await this.#guard(spec.key, async () => {
      const fields = decodeValue(spec);
      fields.text('submissionId');
      fields.oneOf('desired', ['RUNNING', 'CANCELED']);
    });
    await this.#checkGraph(jobId);
    const execution = this.#byKey.get(keys.execution(jobId));
    if (execution !== undefined) {
      await this.#guard(execution.key, async () => {
        const fields = decodeValue(execution);
        fields.integer('generation');
        if (this.#storage === undefined && filesOf(execution).length > 0) return;
        const storage = this.#storage ?? new MemoryHaStorage();
        parseAttempts(
          execution.key,
          decodeText(await unpackBytes(storage, fields.object('attempts'))),
        );
      });
    }
    await this.#checkCheckpoints(jobId);
  }

  async #checkGraph(jobId: JobId): Promise<void> {
    const key = this.#keys.graph(jobId);
    const entry = this.#byKey.get(key);
    if (entry === undefined) {
      this.#error(key, 'is missing: the job cannot be recovered');
      return;
    }
    await this.#guard(key, async () => {
      if (this.#storage === undefined && filesOf(entry).length > 0) return;
      const storage = this.#storage ?? new MemoryHaStorage();
      const graph = await unpackBytes(storage, decodeValue(entry).object('graph'));
      const problems = await this.#options.checkGraph?.(jobId, graph);
      for (const problem of problems ?? []) this.#error(key, problem);
    });
  }

  async #checkCheckpoints(jobId: JobId): Promise<void> {
    const keys = this.#keys;
    const pointers: CheckpointPointer[] = [];
    for (const entry of this.#under(keys.checkpointsPrefix(jobId))) {
      await this.#guard(entry.key, async () => {
        const pointer = decodePointer(entry);
        pointers.push(pointer);
        this.#checkpoints += 1;
        if (entry.key !== keys.checkpoint(jobId, pointer.checkpointId)) {
          this.#error(entry.key, `names checkpoint ${String(pointer.checkpointId)}`);
        }
        const problems = await this.#options.checkCheckpoint?.(jobId, pointer);
        for (const problem of problems ?? []) this.#error(entry.key, problem);
      });
    }
    const garbage: CheckpointPointer[] = [];
    for (const entry of this.#under(keys.garbagePrefix(jobId))) {
      await this.#guard(entry.key, async () => {
        const pointer = decodePointer(entry);
        garbage.push(pointer);
        const isLive = pointers.some(({ checkpointId }) => checkpointId === pointer.checkpointId);
        if (isLive) this.#error(entry.key, 'marks a checkpoint for deletion that is in use');
        else this.#warn(entry.key, 'a subsumed checkpoint waits for its deletion');
      });
    }
    await this.#checkCounter(jobId, [...pointers, ...garbage]);
    const orphans = await this.#options.findOrphans?.(jobId, [...pointers, ...garbage]);
    for (const path of orphans ?? []) {
      this.#warn(
        path,
        'belongs to no checkpoint that is known: in progress, or left by a dead leader',
      );
    }
  }

  async #checkCounter(jobId: JobId, pointers: readonly CheckpointPointer[]): Promise<void> {
    const key = this.#keys.checkpointId(jobId);
    const entry = this.#byKey.get(key);
    const highest = Math.max(0, ...pointers.map(({ checkpointId }) => checkpointId));
    if (entry === undefined) {
      if (highest > 0) this.#error(key, 'is missing: checkpoint ids would begin anew');
      return;
    }
    await this.#guard(key, async () => {
      const next = decodeValue(entry).integer('next');
      if (next <= highest)
        this.#error(key, `hands out ${String(next)}, ${String(highest)} is in use`);
    });
  }

  async #checkResult(entry: KvEntry, jobs: ReadonlyMap<JobId, unknown>): Promise<void> {
    await this.#guard(entry.key, async () => {
      const fields = decodeValue(entry);
      fields.oneOf('state', ['FINISHED', 'CANCELED', 'FAILED']);
      const cleanup = fields.oneOf('cleanup', ['DIRTY', 'CLEAN']);
      const jobId = entry.key.slice(this.#keys.resultsPrefix.length) as JobId;
      if (cleanup === 'CLEAN' && jobs.has(jobId)) {
        this.#error(entry.key, 'says that all of the job was deleted, but it has keys');
      }
      if (this.#storage !== undefined || filesOf(entry).length === 0) {
        await unpackBytes(this.#storage ?? new MemoryHaStorage(), fields.object('archive'));
      }
    });
  }

  /** Files of the HA storage that no value names. A value written meanwhile is looked up again. */
  async #checkFiles(kv: KvStore, uid: string): Promise<void> {
    const { storageDir } = this.#options;
    if (storageDir === undefined) return;
    const root = join(storageDir, uid, 'ha');
    let found: string[];
    try {
      const all = await readdir(root, { recursive: true, withFileTypes: true });
      found = all
        .filter((file) => file.isFile())
        .map((file) => join(file.parentPath, file.name).slice(root.length + 1));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
      this.#error(root, `cannot be listed: ${(error as Error).message}`);
      return;
    }
    const { entries } = await listUnleased(kv, this.#keys);
    const known = new Set([...this.#entries, ...entries].flatMap(filesOf));
    for (const name of found) {
      if (!known.has(name)) this.#warn(join(root, name), 'is named by no value');
    }
  }

  #under(prefix: string): KvEntry[] {
    return this.#entries.filter(({ key }) => key.startsWith(prefix));
  }

  /** What cannot be decoded or read is a finding, not the end. */
  async #guard(where: string, check: () => Promise<void>): Promise<void> {
    try {
      await check();
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      this.#error(where, hasCode(error, 'RECOVERY_FAILED') ? text : `cannot be checked: ${text}`);
    }
  }

  #error(where: string, problem: string): void {
    this.#findings.push({ severity: 'error', where, problem });
  }

  #warn(where: string, problem: string): void {
    this.#findings.push({ severity: 'warning', where, problem });
  }
}
