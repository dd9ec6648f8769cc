/**
 * A whole cluster on this machine, every part a process: etcd members, JobManagers, TaskManagers. It
 * lives in `<folder>/<cluster id>` with a state file, so that later commands find it; drills kill and
 * start its parts by name.
 */
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { MillraceError, hasCode } from '../../lib/base/errors.js';
import { RestClient } from '../../lib/rest/rest-client.js';
import {
  etcdArguments,
  etcdClientUrl,
  findEtcdBinary,
  findFreePorts,
  waitForEtcd,
  type EtcdMemberSpec,
} from './etcd-member.js';
import {
  endProcesses,
  isAlive,
  signal,
  startDetached,
  type ManagedProcess,
  type ProcessCommand,
} from './managed-process.js';

export interface LocalClusterOptions {
  /** Folder of local clusters. */
  readonly folder: string;
  /** Becomes the cluster id in etcd; unique, so that a new cluster never meets old data. */
  readonly clusterId: string;
  readonly jobManagers: number;
  readonly taskManagers: number;
  readonly slotsPerTaskManager: number;
  /** Own members to start, or the client URLs of an etcd that runs already. */
  readonly etcd:
    | {
        readonly members: number;
        /** Ports by member; default: free ones. Given by drills, whose proxies must know them beforehand. */
        readonly ports?: readonly EtcdPorts[];
      }
    | { readonly endpoints: readonly string[] };
  /** `key: value` settings for every process; they win over the cluster's own. */
  readonly settings: Readonly<Record<string, string>>;
  /** More environment for every process of ours (fault points of drills). */
  readonly environment?: Readonly<Record<string, string>>;
}

export interface EtcdPorts {
  readonly client: number;
  readonly peer: number;
  /** Where the other members reach this one. Default: `peer`. */
  readonly advertisedPeer?: number;
}

interface ClusterState {
  readonly clusterId: string;
  readonly createdAt: string;
  readonly options: LocalClusterOptions;
  readonly etcdMembers: readonly EtcdMemberSpec[];
  readonly endpoints: readonly string[];
  /** By JobManager name. */
  readonly restPorts: Readonly<Record<string, number>>;
  processes: ManagedProcess[];
}

export type Progress = (line: string) => void;

const stateFile = 'cluster.json';
const lockFile = 'cluster.lock';
const startTimeoutMs = 30_000;
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
   * Starts everything and resolves when every TaskManager is registered with the leader. A cluster that was
   * stopped (or died) in this folder is started again as it was, with its etcd data, jobs and checkpoints.
   */
  static async start(
    options: LocalClusterOptions,
    progress: Progress = () => undefined,
  ): Promise<LocalCluster> {
    const directory = resolve(options.folder, options.clusterId);
    mkdirSync(directory, { recursive: true });
    takeLock(directory);
    const known = existsSync(join(directory, stateFile))
      ? LocalCluster.open(options.folder, options.clusterId).#state
      : undefined;
    const state =
      known === undefined ? await planCluster(directory, options) : { ...known, processes: [] };
    const cluster = new LocalCluster(directory, state);
    try {
      await cluster.#startEverything(progress);
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
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

  /** Every process with whether it lives. */
  processes(): (ManagedProcess & { readonly alive: boolean })[] {
    return this.#state.processes.map((one) => ({ ...one, alive: isAlive(one) }));
  }

  process(name: string): ManagedProcess {
    const found = this.#state.processes.find((one) => one.name === name);
    if (found === undefined)
      throw new MillraceError(
        'CLUSTER_NOT_FOUND',
        `cluster '${this.clusterId}' has no process '${name}'`,
      );
    return found;
  }

  isRunning(): boolean {
    return this.#state.processes.some(isAlive);
  }

  signal(name: string, kind: NodeJS.Signals): boolean {
    return signal(this.process(name), kind);
  }

  /** Name of the JobManager that leads, or undefined while none does. */
  async leaderName(): Promise<string | undefined> {
    const client = this.restClient();
    try {
      const leader = await client.leader();
      const port = Number(new URL(leader.restAddress).port);
      return Object.entries(this.#state.restPorts).find(([, own]) => own === port)?.[0];
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

  /** Starts a process that has ended again, with the same name, arguments and data. */
  restart(name: string): ManagedProcess {
    const old = this.process(name);
    const fresh = this.#spawn(old.role, name);
    this.#state.processes = this.#state.processes.map((one) => (one.name === name ? fresh : one));
    this.#save();
    return fresh;
  }

  /** Ends every process: TaskManagers and JobManagers first, so that they leave in order, then etcd. */
  async stop(progress: Progress = () => undefined): Promise<void> {
    const of = (role: string): ManagedProcess[] =>
      this.#state.processes.filter((one) => one.role === role && isAlive(one));
    for (const [role, graceMs] of [
      ['taskmanager', 10_000],
      ['jobmanager', 10_000],
      ['etcd', 10_000],
    ] as const) {
      const alive = of(role);
      if (alive.length === 0) continue;
      progress(`stopping ${alive.map((one) => one.name).join(', ')}`);
      await endProcesses(alive, graceMs);
    }
    rmSync(join(this.directory, lockFile), { force: true });
  }

  /** Deletes the cluster's folder: logs, etcd data, checkpoints. Only after `stop`. */
  remove(): void {
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }

  async #startEverything(progress: Progress): Promise<void> {
    const { etcdMembers, options, endpoints } = this.#state;
    if (etcdMembers.length > 0) {
      progress(`starting etcd (${String(etcdMembers.length)} members)`);
      for (const member of etcdMembers) this.#add('etcd', member.name);
    }
    // JobManagers wait for etcd by themselves: starting them now saves its election time.
    progress(
      `starting ${String(options.jobManagers)} JobManagers and ${String(options.taskManagers)} TaskManagers`,
    );
    for (const name of Object.keys(this.#state.restPorts)) this.#add('jobmanager', name);
    for (let i = 1; i <= options.taskManagers; i += 1)
      this.#add('taskmanager', `taskmanager-${String(i)}`);
    this.#save();
    if (etcdMembers.length > 0)
      await this.#whileAlive(waitForEtcd(endpoints, { timeoutMs: startTimeoutMs }));
    progress('waiting for a leader and the slots');
    await this.waitReady(startTimeoutMs);
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
        await new Promise((done) => setTimeout(done, 20));
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
    const dead = this.#state.processes.find((one) => !isAlive(one));
    if (dead === undefined) return undefined;
    const said = existsSync(dead.outputFile)
      ? readFileSync(dead.outputFile, 'utf8').trim().split('\n').slice(-5).join('\n')
      : '';
    return new MillraceError(
      'CLUSTER_START',
      `${dead.name} ended while the cluster was starting:\n${said}\n(${dead.outputFile})`,
    );
  }

  #add(role: ManagedProcess['role'], name: string): void {
    this.#state.processes.push(this.#spawn(role, name));
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
    const settings = { ...this.#settings(role, name), ...this.#state.options.settings };
    const entry = fileURLToPath(new URL(`../${role}.js`, import.meta.url));
    const definitions = Object.entries(settings).flatMap(([key, value]) => [
      '-D',
      `${key}=${value}`,
    ]);
    return {
      command: process.execPath,
      args: ['--enable-source-maps', ...youngGeneration, entry, ...definitions],
      env: { ...nativeTuning, ...process.env, ...this.#state.options.environment },
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

async function planCluster(directory: string, options: LocalClusterOptions): Promise<ClusterState> {
  const members = 'members' in options.etcd ? options.etcd.members : 0;
  const etcdPorts = 'members' in options.etcd ? (options.etcd.ports ?? []) : [];
  const ports = await findFreePorts(2 * members + options.jobManagers);
  const take = (): number => ports.pop() ?? 0;
  const etcdMembers = Array.from({ length: members }, (_, i): EtcdMemberSpec => {
    const name = `etcd-${String(i + 1)}`;
    const given = etcdPorts[i];
    return {
      name,
      host: '127.0.0.1',
      clientPort: given?.client ?? take(),
      peerPort: given?.peer ?? take(),
      ...(given?.advertisedPeer !== undefined && { advertisedPeerPort: given.advertisedPeer }),
      dataDir: join(directory, 'etcd', name),
      logFile: join(directory, 'logs', `${name}.out`),
    };
  });
  const restPorts: Record<string, number> = {};
  for (let i = 1; i <= options.jobManagers; i += 1) restPorts[`jobmanager-${String(i)}`] = take();
  return {
    clusterId: options.clusterId,
    createdAt: new Date().toISOString(),
    options,
    etcdMembers,
    endpoints:
      'endpoints' in options.etcd ? options.etcd.endpoints : etcdMembers.map(etcdClientUrl),
    restPorts,
    processes: [],
  };
}

/** One cluster a folder: the lock names the process that started it and is taken over from a dead cluster. */
function takeLock(directory: string): void {
  const path = join(directory, lockFile);
  try {
    const file = openSync(path, 'wx');
    writeFileSync(file, `${String(process.pid)}\n`);
    closeSync(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    const state = join(directory, stateFile);
    const running =
      existsSync(state) &&
      (JSON.parse(readFileSync(state, 'utf8')) as ClusterState).processes.some(isAlive);
    if (running) {
      throw new MillraceError(
        'CLUSTER_START',
        `a cluster is already running in ${directory}; stop it first: millrace cluster stop --cluster ${basename(directory)}`,
      );
    }
    rmSync(path, { force: true });
    takeLock(directory);
  }
}
