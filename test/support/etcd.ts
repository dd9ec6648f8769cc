/**
 * Real etcd for tests: one or three members on free ports with their data in memory-backed files where the
 * machine has them. Members can be killed, paused and started again one by one; nothing survives the test.
 */
import type { ChildProcess } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  etcdClientUrl,
  type EtcdMemberSpec,
  etcdMemberStatus,
  type EtcdTiming,
  findEtcdBinary,
  findFreePorts,
  localEtcdTiming,
  spawnEtcd,
  waitForEtcd,
} from '../../bin/local/etcd-member.js';

export interface TestEtcdOptions {
  /** 1 or 3; default 1. */
  readonly members?: number;
  readonly timing?: EtcdTiming;
  /** Further flags of etcd, such as `quota-backend-bytes`. */
  readonly flags?: Readonly<Record<string, string>>;
  /** Encrypts the client port; with `caFile` clients need a certificate of that authority. */
  readonly tls?: { readonly certFile: string; readonly keyFile: string; readonly caFile?: string };
}

/** What the harness needs of tap's `t`. */
export interface TeardownHost {
  teardown(fn: () => unknown): void;
}

const startTries = 5;
const folderPrefix = 'millrace-etcd-';
const running = new Set<ChildProcess>();
// A test that crashes runs no teardown; etcd must not outlive it all the same.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class TestEtcdMember {
  readonly spec: EtcdMemberSpec;
  readonly endpoint: string;
  readonly #cluster: () => readonly EtcdMemberSpec[];
  readonly #token: string;
  readonly #timing: EtcdTiming;
  #child: ChildProcess | undefined;
  #exited: Promise<void> = Promise.resolve();

  constructor(
    spec: EtcdMemberSpec,
    cluster: () => readonly EtcdMemberSpec[],
    token: string,
    timing: EtcdTiming,
  ) {
    this.spec = spec;
    this.endpoint = etcdClientUrl(spec);
    this.#cluster = cluster;
    this.#token = token;
    this.#timing = timing;
  }

  get name(): string {
    return this.spec.name;
  }

  /** Where it tells its health without asking who wants to know. */
  get healthUrl(): string {
    return this.spec.flags?.['listen-metrics-urls'] ?? this.endpoint;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  get isRunning(): boolean {
    return this.#child !== undefined;
  }

  /** Starts the process, on its old data when it has any; does not wait for health. */
  spawn(): void {
    if (this.#child !== undefined) throw new Error(`${this.name} runs already`);
    const child = spawnEtcd(this.spec, {
      binary: findEtcdBinary(),
      cluster: this.#cluster(),
      clusterToken: this.#token,
      timing: this.#timing,
    });
    this.#child = child;
    running.add(child);
    this.#exited = new Promise((resolve) => {
      const ended = (): void => {
        running.delete(child);
        if (this.#child === child) this.#child = undefined;
        resolve();
      };
      child.once('exit', ended);
      child.once('error', ended);
    });
  }

  /** Starts the process and waits until it sees a leader. */
  async start(): Promise<void> {
    this.spawn();
    await waitForEtcd([this.healthUrl]);
  }

  /** As a power cut: resolves when the process is gone. */
  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#exited;
  }

  /** As an administrator would stop it. */
  async stop(): Promise<void> {
    this.#child?.kill('SIGTERM');
    await this.#exited;
  }

  /** Freezes the process: connections stay open and nothing answers. */
  pause(): void {
    this.#child?.kill('SIGSTOP');
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  log(): string {
    return existsSync(this.spec.logFile) ? readFileSync(this.spec.logFile, 'utf8') : '';
  }
}

export class TestEtcd {
  readonly members: readonly TestEtcdMember[];
  readonly #folder: string;

  private constructor(members: readonly TestEtcdMember[], folder: string) {
    this.members = members;
    this.#folder = folder;
  }

  /** Starts members and waits until all are healthy; closed with the test. */
  static async start(t: TeardownHost, options: TestEtcdOptions = {}): Promise<TestEtcd> {
    for (let attempt = 1; ; attempt++) {
      const cluster = await TestEtcd.#prepare(options);
      for (const member of cluster.members) member.spawn();
      try {
        await waitForEtcd(cluster.members.map((member) => member.healthUrl));
        t.teardown(() => cluster.close());
        return cluster;
      } catch (error) {
        const logs = cluster.members.map((member) => member.log()).join('\n');
        await cluster.close();
        // Another process took a port between our look and etcd's bind.
        if (attempt < startTries && logs.includes('address already in use')) continue;
        throw new Error(`etcd did not start:\n${logs.slice(-4000)}`, { cause: error });
      }
    }
  }

  static async #prepare(options: TestEtcdOptions): Promise<TestEtcd> {
    const count = options.members ?? 1;
    const base = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
    removeLeftovers(base);
    const folder = mkdtempSync(join(base, `${folderPrefix}${process.pid}-`));
    const ports = await findFreePorts(count * 3);
    const specs = Array.from({ length: count }, (_, index): EtcdMemberSpec => {
      const [clientPort = 0, peerPort = 0, metricsPort = 0] = ports.slice(index * 3);
      return {
        name: `etcd${index + 1}`,
        host: '127.0.0.1',
        clientPort,
        peerPort,
        dataDir: join(folder, `data${index + 1}`),
        logFile: join(folder, `etcd${index + 1}.log`),
        scheme: options.tls === undefined ? 'http' : 'https',
        flags: { ...tlsFlags(options.tls, metricsPort), ...options.flags },
      };
    });
    const token = folder.slice(folder.lastIndexOf('-') + 1);
    const timing = options.timing ?? localEtcdTiming;
    return new TestEtcd(
      specs.map((spec) => new TestEtcdMember(spec, () => specs, token, timing)),
      folder,
    );
  }

  /** Client URLs of all members, running or not. */
  get endpoints(): string[] {
    return this.members.map((member) => member.endpoint);
  }

  /** The member that leads now, by asking the ones that run. */
  async leader(): Promise<TestEtcdMember> {
    for (const asked of this.members.filter((member) => member.isRunning)) {
      const { leaderId } = await etcdMemberStatus(asked.endpoint);
      for (const member of this.members.filter((candidate) => candidate.isRunning)) {
        if ((await etcdMemberStatus(member.endpoint)).memberId === leaderId) return member;
      }
    }
    throw new Error('no etcd member leads');
  }

  /** A running member that does not lead (a paused one counts as running and would make this time out). */
  async follower(): Promise<TestEtcdMember> {
    const leader = await this.leader();
    const follower = this.members.find((member) => member.isRunning && member !== leader);
    if (follower === undefined) throw new Error('no follower: start with three members');
    return follower;
  }

  async close(): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill()));
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function tlsFlags(tls: TestEtcdOptions['tls'], metricsPort: number): Record<string, string> {
  if (tls === undefined) return {};
  return {
    'cert-file': tls.certFile,
    'key-file': tls.keyFile,
    'listen-metrics-urls': `http://127.0.0.1:${String(metricsPort)}`,
    ...(tls.caFile !== undefined && { 'trusted-ca-file': tls.caFile, 'client-cert-auth': 'true' }),
  };
}

/** A test that was killed could not remove its data; the folder's name says whose it was. */
function removeLeftovers(base: string): void {
  for (const name of readdirSync(base)) {
    const owner = Number(/^millrace-etcd-(\d+)-/.exec(name)?.[1]);
    if (!Number.isInteger(owner) || isAlive(owner)) continue;
    rmSync(join(base, name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}
