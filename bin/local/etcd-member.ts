/**
 * Starts and watches etcd processes on this machine: the reusable part of `millrace cluster start` and of the
 * test harness. Everything here is about processes and ports; the protocol with etcd is in ha/.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { accessSync, closeSync, constants, mkdirSync, openSync } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MillraceError } from '../../lib/base/errors.js';

/** Raft timing. etcd's shortest lease is ceil(1.5 × election timeout) in whole seconds. */
export interface EtcdTiming {
  /** Default 50 ms. */
  readonly heartbeatMs: number;
  /** Default 500 ms; must be at least 5 × the heartbeat. */
  readonly electionMs: number;
}

export const localEtcdTiming: EtcdTiming = { heartbeatMs: 50, electionMs: 500 };

export interface EtcdMemberSpec {
  readonly name: string;
  readonly host: string;
  readonly clientPort: number;
  readonly peerPort: number;
  /** Where the other members reach it, when something lies between. Default: `peerPort`. */
  readonly advertisedPeerPort?: number;
  /** Created when missing; a member started again on the same directory keeps its data and identity. */
  readonly dataDir: string;
  /** Appended to; etcd's own log. */
  readonly logFile: string;
  /** Of its client URL; `https` needs the flags cert-file and key-file. Default http. */
  readonly scheme?: 'http' | 'https';
  /** Further flags, or other values for those set here. */
  readonly flags?: Readonly<Record<string, string>>;
}

/** Backend quota: the limit at which etcd raises NOSPACE; its default of 2 GB leaves too little room to react. */
const quotaBytes = 4 * 1024 ** 3;

export function etcdClientUrl(member: EtcdMemberSpec): string {
  return `${member.scheme ?? 'http'}://${member.host}:${member.clientPort}`;
}

/** The same arguments serve a first start and every later one: etcd ignores initial-* once it has data. */
export function etcdArguments(
  member: EtcdMemberSpec,
  cluster: readonly EtcdMemberSpec[],
  clusterToken: string,
  timing: EtcdTiming = localEtcdTiming,
): string[] {
  const peerUrl = (m: EtcdMemberSpec): string =>
    `http://${m.host}:${m.advertisedPeerPort ?? m.peerPort}`;
  const options: Record<string, string> = {
    name: member.name,
    'data-dir': member.dataDir,
    'listen-client-urls': etcdClientUrl(member),
    'advertise-client-urls': etcdClientUrl(member),
    'listen-peer-urls': `http://${member.host}:${member.peerPort}`,
    'initial-advertise-peer-urls': peerUrl(member),
    'initial-cluster': cluster.map((m) => `${m.name}=${peerUrl(m)}`).join(','),
    'initial-cluster-token': clusterToken,
    'initial-cluster-state': 'new',
    'heartbeat-interval': String(timing.heartbeatMs),
    'election-timeout': String(timing.electionMs),
    // Without it a member that comes back disturbs a healthy leader.
    'pre-vote': 'true',
    'quota-backend-bytes': String(quotaBytes),
    'auto-compaction-mode': 'periodic',
    'auto-compaction-retention': '30m',
    logger: 'zap',
    'log-outputs': 'stderr',
    ...member.flags,
  };
  return Object.entries(options).map(([flag, value]) => `--${flag}=${value}`);
}

/** Where the etcd binary is: MILLRACE_ETCD_BINARY, then PATH. */
export function findEtcdBinary(env: NodeJS.ProcessEnv = process.env): string {
  const explicit = env['MILLRACE_ETCD_BINARY'];
  const candidates =
    explicit === undefined
      ? (env['PATH'] ?? '').split(delimiter).map((folder) => join(folder, 'etcd'))
      : [explicit];
  const found = candidates.find(isExecutable);
  if (found !== undefined) return found;
  throw new MillraceError(
    'ETCD_MISSING',
    explicit === undefined
      ? 'no etcd program on PATH: install it (Debian: apt-get install etcd-server; others: https://github.com/etcd-io/etcd/releases) or name it in MILLRACE_ETCD_BINARY'
      : `MILLRACE_ETCD_BINARY names ${explicit}, which is not an executable file`,
  );
}

export interface SpawnEtcdOptions {
  readonly binary: string;
  readonly cluster: readonly EtcdMemberSpec[];
  readonly clusterToken: string;
  readonly timing?: EtcdTiming;
  /** The member outlives this process (a local cluster); otherwise it is its child (tests). Default false. */
  readonly detached?: boolean;
}

/** Starts one member; resolves nothing about health: wait with {@link waitForEtcd}. */
export function spawnEtcd(member: EtcdMemberSpec, options: SpawnEtcdOptions): ChildProcess {
  mkdirSync(member.dataDir, { recursive: true, mode: 0o700 });
  const log = openSync(member.logFile, 'a');
  try {
    const child = spawn(
      options.binary,
      etcdArguments(member, options.cluster, options.clusterToken, options.timing),
      {
        stdio: ['ignore', 'ignore', log],
        detached: options.detached ?? false,
        env: etcdEnvironment(),
      },
    );
    if (options.detached === true) child.unref();
    return child;
  } finally {
    closeSync(log);
  }
}

/** etcd takes every flag from ETCD_* too; only the switch that lets it run on ARM may come from outside. */
function etcdEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(
    ([name]) => !name.startsWith('ETCD_') || name === 'ETCD_UNSUPPORTED_ARCH',
  );
  if (process.arch === 'arm64') kept.push(['ETCD_UNSUPPORTED_ARCH', 'arm64']);
  return Object.fromEntries(kept);
}

export interface WaitForEtcdOptions {
  /** Default 20 000 ms. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** Resolves when every endpoint reports that it sees a leader; rejects with ETCD_UNAVAILABLE after the bound. */
export async function waitForEtcd(
  endpoints: readonly string[],
  options: WaitForEtcdOptions = {},
): Promise<void> {
  const deadline = Date.now() + (options.timeoutMs ?? 20_000);
  let pending = [...endpoints];
  while (pending.length > 0) {
    const healthy = await Promise.all(pending.map(isEtcdHealthy));
    pending = pending.filter((_, index) => healthy[index] !== true);
    if (pending.length === 0) return;
    options.signal?.throwIfAborted();
    if (Date.now() > deadline) {
      throw new MillraceError('ETCD_UNAVAILABLE', `etcd is not healthy at ${pending.join(', ')}`);
    }
    await sleep(25);
  }
}

/** One question to one member: is there a leader and does a linearizable read work? Never rejects. */
export async function isEtcdHealthy(endpoint: string): Promise<boolean> {
  try {
    const response = await fetch(`${endpoint}/health`, { signal: AbortSignal.timeout(1000) });
    const body = (await response.json()) as { health?: unknown };
    return body.health === 'true' || body.health === true;
  } catch {
    // Refused, reset or too slow: all of them mean "not yet".
    return false;
  }
}

export interface EtcdMemberStatus {
  readonly memberId: string;
  /** "0" while there is none. */
  readonly leaderId: string;
  readonly version: string;
}

/** Asks one member for its status over etcd's JSON gateway. */
export async function etcdMemberStatus(endpoint: string): Promise<EtcdMemberStatus> {
  const response = await fetch(`${endpoint}/v3/maintenance/status`, {
    method: 'POST',
    body: '{}',
    signal: AbortSignal.timeout(2000),
  });
  const body = (await response.json()) as {
    header?: { member_id?: string };
    leader?: string;
    version?: string;
  };
  return {
    memberId: body.header?.member_id ?? '0',
    leaderId: body.leader ?? '0',
    version: body.version ?? '',
  };
}

/**
 * Ports nobody listens on, from below the range the kernel hands to outgoing connections, so that they are
 * still free a moment later. Another process may still be faster: the caller tries again on PORT_IN_USE.
 */
export async function findFreePorts(count: number, host = '127.0.0.1'): Promise<number[]> {
  const lowest = 10_000;
  const highest = 32_000;
  const found = new Set<number>();
  for (let tries = 0; found.size < count; tries++) {
    if (tries > 1000) {
      throw new MillraceError('PORT_IN_USE', `no ${count} free ports in ${lowest}..${highest}`);
    }
    const port = lowest + Math.floor(Math.random() * (highest - lowest));
    if (!found.has(port) && (await isPortFree(port, host))) found.add(port);
  }
  return [...found];
}

export function isPortFree(port: number, host = '127.0.0.1'): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => {
      resolve(false);
    });
    server.listen({ port, host, exclusive: true }, () => {
      server.close(() => {
        resolve(true);
      });
    });
  });
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
