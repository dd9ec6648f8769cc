/**
 * A whole cluster on this machine, every part a process: etcd members, JobManagers, TaskManagers, the latter two each
 * the child of a supervisor. It lives in `<folder>/<cluster id>` with a state file, so that later commands find it;
 * drills kill and start its parts by name.
 */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { MillraceError, hasCode } from '../../lib/base/errors.js';
import { RestClient } from '../../lib/rest/rest-client.js';
import { readPidFile } from '../supervisor/pid-file.js';
import {
  planCluster,
  stateFile,
  takeLock,
  type ClusterProcess,
  type ClusterState,
  type LocalClusterOptions,
} from './cluster-state.js';
import { etcdArguments, findEtcdBinary, waitForEtcd } from './etcd-member.js';
import {
  endProcesses,
  isAlive,
  signal,
  startDetached,
  type ManagedProcess,
  type ProcessCommand,
  type ProcessRole,
} from './managed-process.js';

export type { ClusterProcess, LocalClusterOptions } from './cluster-state.js';

export type Progress = (line: string) => void;

/** Seconds on a quiet machine; programs load slowly on one that is not. */
const startTimeoutMs = 60_000;
/** For a supervisor to have started its process again after it was told to. */
const restartTimeoutMs = 15_000;
const stopTimeoutMs = 10_000;
/** Large arrays (typed tables of keyed state, buffers) in large pages: 12-19 % faster updates. No effect without glibc. */
const nativeTuning = { GLIBC_TUNABLES: 'glibc.malloc.hugetlb=1' };
/** Loading programs fills V8's young generation, which never shrinks: 28 MB of an idle process at V8's own limit. */
const youngGeneration = ['--max-semi-space-size=2'];

export class LocalCluster {
  readonly directory: string;
  readonly #state: ClusterState;

  private constructor(directory: string, state: ClusterState) {
    this.directory = directory;
    this.#state = state;
  }

  /**
   * Starts everything and resolves when every TaskManager is registered with the leader. A cluster that was stopped
   * (or died) in this folder is started again as it was, with its etcd data, jobs and checkpoints; of one that runs,
   * the parts that are dead.
   */
  static async start(
    options: LocalClusterOptions,
    progress: Progress = () => undefined,
  ): Promise<LocalCluster> {
    const directory = resolve(options.folder, options.clusterId);
    mkdirSync(directory, { recursive: true });
    const unlock = takeLock(directory);
    try {
      const state = existsSync(join(directory, stateFile))
        ? LocalCluster.open(options.folder, options.clusterId).#state
        : await planCluster(directory, options);
      const cluster = new LocalCluster(directory, state);
      const ranBefore = cluster.isRunning();
      try {
        await cluster.#startEverything(progress);
      } catch (error) {
        if (!ranBefore) await cluster.stop();
        throw error;
      }
      return cluster;
    } finally {
      unlock();
    }
  }

  /** A cluster started earlier, by this process or another. */
  static open(folder: string, clusterId: string): LocalCluster {
    const directory = resolve(folder, clusterId);
    const path = join(directory, stateFile);
    if (!existsSync(path)) {
      throw new MillraceError(
        'CLUSTER_NOT_FOUND',
        `no local cluster '${clusterId}' in ${resolve(folder)}; start one with: millrace cluster start`,
      );
    }
    return new LocalCluster(directory, JSON.parse(readFileSync(path, 'utf8')) as ClusterState);
  }

  /** Ids of local clusters in a folder, the newest first. */
  static list(folder: string): string[] {
    if (!existsSync(folder)) return [];
    return readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && existsSync(join(folder, entry.name, stateFile)))
      .map((entry) => LocalCluster.open(folder, entry.name))
      .sort((a, b) => b.#state.createdAt.localeCompare(a.#state.createdAt))
      .map((cluster) => cluster.clusterId);
  }

  get clusterId(): string {
    return this.#state.clusterId;
  }

  get endpoints(): readonly string[] {
    return this.#state.endpoints;
  }

  get storageDir(): string {
    return join(this.directory, 'storage');
  }

  get logDir(): string {
    return join(this.directory, 'logs');
  }

  get createdAt(): string {
    return this.#state.createdAt;
  }

  /** REST of every JobManager; any of them answers for the leader. */
  get restAddresses(): string[] {
    return Object.values(this.#state.restPorts).map((port) => `http://localhost:${String(port)}`);
  }

  get token(): string | undefined {
    return this.#state.options.settings['rest.token'];
  }

  restClient(): RestClient {
    return new RestClient(
      this.restAddresses,
      this.token === undefined ? {} : { token: this.token },
    );
  }

  get isSupervised(): boolean {
    return this.#state.options.supervised !== false;
  }

  /** Every part with whether it lives; of a supervised one the process that does the work. */
  processes(): ClusterProcess[] {
    return this.#state.processes.map((one) => {
      const process_ = this.process(one.name);
      const supervisor = this.supervisorOf(one.name);
      return {
        ...process_,
        alive: isAlive(process_),
        ...(supervisor !== undefined && {
          supervisor: { ...supervisor, alive: isAlive(supervisor) },
        }),
      };
    });
  }

  /** The process that does the work, as of now: after a restart it is another one. Pid -1 before it was started. */
  process(name: string): ManagedProcess {
    const started = this.#started(name);
    if (this.supervisorOf(name) === undefined) return started;
    return { ...started, ...(readPidFile(this.#pidFile(name)) ?? { pid: -1, startedAt: '' }) };
  }

  /** The parent of a JobManager or TaskManager; undefined for etcd, and in a cluster without supervisors. */
  supervisorOf(name: string): ManagedProcess | undefined {
    const started = this.#started(name);
    return started.role !== 'etcd' && this.isSupervised ? started : undefined;
  }

  isRunning(): boolean {
    return this.processes().some((one) => one.alive || one.supervisor?.alive === true);
  }

  /** To the process itself, not to its supervisor. */
  signal(name: string, kind: NodeJS.Signals): boolean {
    return signal(this.process(name), kind);
  }

  /** To the supervisor, then the process: killed so, nobody deposes it or starts it again. */
  signalBoth(name: string, kind: NodeJS.Signals): boolean {
    const supervisor = this.supervisorOf(name);
    const child = this.process(name);
    if (supervisor !== undefined) signal(supervisor, kind);
    return signal(child, kind);
  }

  #started(name: string): ManagedProcess {
    const found = this.#state.processes.find((one) => one.name === name);
    if (found === undefined)
      throw new MillraceError(
        'CLUSTER_NOT_FOUND',
        `cluster '${this.clusterId}' has no process '${name}'`,
      );
    return found;
  }

  #pidFile(name: string): string {
    return join(this.directory, 'pids', `${name}.json`);
  }

  /** Name of the JobManager whose REST this is. */
  jobManagerAt(restAddress: string): string | undefined {
    const port = Number(new URL(restAddress).port);
    return Object.entries(this.#state.restPorts).find(([, own]) => own === port)?.[0];
  }

  /** Name of the JobManager that leads, or undefined while none does. */
  async leaderName(): Promise<string | undefined> {
    const client = this.restClient();
    try {
      return this.jobManagerAt((await client.leader()).restAddress);
    } catch (error) {
      if (
        hasCode(error, 'NO_LEADER') ||
        hasCode(error, 'RPC_DISCONNECTED') ||
        hasCode(error, 'TIMEOUT')
      )
        return undefined;
      throw error;
    } finally {
      await client.close();
    }
  }

  /**
   * Resolves when the process runs: started again by its supervisor, which is told not to wait longer, or with a new
   * one; at once when it has not ended.
   */
  async restart(name: string): Promise<ManagedProcess> {
    const supervisor = this.supervisorOf(name);
    const deadline = Date.now() + restartTimeoutMs;
    for (let isStarted = false; ;) {
      const current = this.process(name);
      if (isAlive(current)) return current;
      if (Date.now() > deadline) {
        throw new MillraceError(
          'TIMEOUT',
          `${name} does not run ${String(restartTimeoutMs / 1000)} s after it was started again; its logs are in ${this.logDir}`,
        );
      }
      // Told again and again: it may not have seen the end of its process yet, or be ending itself.
      if (!isStarted && (supervisor === undefined || !signal(supervisor, 'SIGUSR2'))) {
        this.#startAgain(name);
        isStarted = true;
      }
      await sleep(20);
    }
  }

  #startAgain(name: string): void {
    const fresh = this.#spawn(this.#started(name).role, name);
    this.#state.processes = this.#state.processes.map((one) => (one.name === name ? fresh : one));
    this.#save();
  }

  /** Ends every process: TaskManagers and JobManagers first, so that they leave in order, then etcd. */
  async stop(progress: Progress = () => undefined): Promise<void> {
    for (const role of ['taskmanager', 'jobmanager', 'etcd'] as const) {
      const parts = this.processes().filter(
        (one) => one.role === role && (one.alive || one.supervisor?.alive === true),
      );
      if (parts.length === 0) continue;
      progress(`stopping ${parts.map((one) => one.name).join(', ')}`);
      // A supervisor passes on what it is told; a process without one is told itself.
      const supervised = parts.flatMap(({ supervisor }) =>
        supervisor?.alive === true ? [supervisor] : [],
      );
      const alone = parts.filter((one) => one.alive && one.supervisor?.alive !== true);
      await endProcesses([...supervised, ...alone], stopTimeoutMs);
      await endProcesses(parts, 0);
    }
  }

  /** Deletes the cluster's folder: logs, etcd data, checkpoints. Only after `stop`. */
  remove(): void {
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }

  async #startEverything(progress: Progress): Promise<void> {
    const { etcdMembers, options, endpoints, restPorts } = this.#state;
    const started = (role: ProcessRole, names: readonly string[]): void => {
      const fresh = names.filter((name) => this.#ensure(role, name));
      if (fresh.length > 0) progress(`starting ${fresh.join(', ')}`);
    };
    const etcdNames = etcdMembers.map((member) => member.name);
    started('etcd', etcdNames);
    // JobManagers wait for etcd by themselves: starting them now saves its election time.
    started('jobmanager', Object.keys(restPorts));
    const taskManagers = Array.from({ length: options.taskManagers }, (_, i) => i + 1);
    started(
      'taskmanager',
      taskManagers.map((i) => `taskmanager-${String(i)}`),
    );
    this.#save();
    if (etcdMembers.length > 0)
      await this.#whileAlive(waitForEtcd(endpoints, { timeoutMs: startTimeoutMs }));
    progress('waiting for a leader and the slots');
    await this.waitReady(startTimeoutMs);
  }

  /** Starts a part that does not run. A process that lost its supervisor goes on without. */
  #ensure(role: ProcessRole, name: string): boolean {
    const known = this.#state.processes.find((one) => one.name === name);
    if (known !== undefined && (isAlive(known) || isAlive(this.process(name)))) return false;
    const fresh = this.#spawn(role, name);
    if (known === undefined) this.#state.processes.push(fresh);
    else this.#state.processes[this.#state.processes.indexOf(known)] = fresh;
    return true;
  }

  /** Resolves when a leader answers and the expected slots are registered. */
  async waitReady(timeoutMs: number): Promise<void> {
    const client = this.restClient();
    const { taskManagers } = this.#state.options;
    const deadline = Date.now() + timeoutMs;
    try {
      for (;;) {
        const failed = this.#diedAtStart();
        if (failed !== undefined) throw failed;
        const seen = await client.overview({ waitForLeaderMs: 0 }).catch(() => undefined);
        if (seen !== undefined && seen.taskmanagers >= taskManagers) return;
        if (Date.now() > deadline) {
          const state =
            seen === undefined
              ? 'no leader answers'
              : `${String(seen.taskmanagers)} of ${String(taskManagers)} TaskManagers are registered`;
          throw new MillraceError(
            'TIMEOUT',
            `the cluster is not ready after ${String(timeoutMs / 1000)} s: ${state}; its logs are in ${this.logDir}`,
          );
        }
        await sleep(20);
      }
    } finally {
      await client.close();
    }
  }

  async #whileAlive(work: Promise<void>): Promise<void> {
    const watch = setInterval(() => undefined, 1000);
    try {
      await work;
    } catch (error) {
      throw this.#diedAtStart() ?? error;
    } finally {
      clearInterval(watch);
    }
  }

  /** What a process that ended right after its start said last. */
  #diedAtStart(): MillraceError | undefined {
    const dead = this.#state.processes.find(
      (one) => !isAlive(one) && !isAlive(this.process(one.name)),
    );
    if (dead === undefined) return undefined;
    const said = existsSync(dead.outputFile)
      ? readFileSync(dead.outputFile, 'utf8').trim().split('\n').slice(-5).join('\n')
      : '';
    return new MillraceError(
      'CLUSTER_START',
      `${dead.name} ended while the cluster was starting:\n${said}\n(${dead.outputFile})`,
    );
  }

  #spawn(role: ManagedProcess['role'], name: string): ManagedProcess {
    return startDetached(role, name, join(this.logDir, `${name}.out`), this.#command(role, name));
  }

  #command(role: ManagedProcess['role'], name: string): ProcessCommand {
    if (role === 'etcd') {
      const { etcdMembers, clusterId } = this.#state;
      const member = etcdMembers.find((one) => one.name === name);
      if (member === undefined)
        throw new MillraceError('CLUSTER_NOT_FOUND', `no etcd member '${name}'`);
      mkdirSync(member.dataDir, { recursive: true, mode: 0o700 });
      return { command: findEtcdBinary(), args: etcdArguments(member, etcdMembers, clusterId) };
    }
    const { settings: shared, processSettings, environment } = this.#state.options;
    const settings = { ...this.#settings(role, name), ...shared, ...processSettings?.[name] };
    const definitions = Object.entries(settings).flatMap(([key, value]) => [
      '-D',
      `${key}=${value}`,
    ]);
    const program = this.isSupervised ? 'supervisor' : role;
    const entry = fileURLToPath(new URL(`../${program}.js`, import.meta.url));
    const supervision = this.isSupervised ? [role, '--pid-file', this.#pidFile(name)] : [];
    mkdirSync(join(this.directory, 'pids'), { recursive: true });
    return {
      command: process.execPath,
      args: ['--enable-source-maps', ...youngGeneration, entry, ...supervision, ...definitions],
      env: { ...nativeTuning, ...process.env, ...environment },
    };
  }

  #settings(role: ManagedProcess['role'], name: string): Record<string, string> {
    const { clusterId, endpoints, options, restPorts } = this.#state;
    const common = {
      'high-availability.type': 'etcd',
      'high-availability.cluster-id': clusterId,
      'high-availability.storageDir': this.storageDir,
      'high-availability.etcd.endpoints': endpoints.join(','),
      'env.log.dir': join(this.logDir, name),
    };
    if (role === 'jobmanager') return { ...common, 'rest.port': String(restPorts[name] ?? 0) };
    return {
      ...common,
      'taskmanager.resource-id': name,
      'taskmanager.numberOfTaskSlots': String(options.slotsPerTaskManager),
      'io.tmp.dirs': join(this.directory, 'tmp', name),
    };
  }

  #save(): void {
    const path = join(this.directory, stateFile);
    writeFileSync(`${path}.new`, `${JSON.stringify(this.#state, null, 2)}\n`, { mode: 0o600 });
    renameSync(`${path}.new`, path);
  }
}
