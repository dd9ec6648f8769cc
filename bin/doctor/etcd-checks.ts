/** Asks etcd what the doctor wants to know. Writes only one scratch key under a lease of its own, which goes with it. */
import { encodeText, type KvStore } from '../../ha/kv-store.js';
import { Keys } from '../../ha/keys.js';
import type { StoreMember } from '../../ha/services.js';
import { MillraceError } from '../../lib/base/errors.js';
import {
  judgeClock,
  judgeLatency,
  judgeLease,
  judgeMemberCount,
  judgeMembers,
} from './etcd-verdicts.js';
import { percentile } from '../percentile.js';
import { ms, ok, problem, unknown, warning, type Finding } from './finding.js';

export interface EtcdCheckContext {
  readonly kv: KvStore & { members(): Promise<StoreMember[]> };
  readonly endpoints: readonly string[];
  readonly clusterId: string;
  readonly leaseTtlMs: number;
  readonly electionTimeoutMs: number;
  readonly quotaBytes?: number;
  readonly progress: (line: string) => void;
}

const rounds = 20;
/** Bound on a renewal at one member: ha/lease-keeper.ts. */
const tryTimeoutMs = 400;
const watchTimeoutMs = 3_000;

export async function checkEtcd(context: EtcdCheckContext): Promise<Finding[]> {
  const { kv, endpoints, progress } = context;
  progress(`asking ${String(endpoints.length)} etcd members`);
  // The first time connections are opened, which takes longer than any answer.
  await kv.members();
  const members = await kv.members();
  const findings = [
    judgeMemberCount(endpoints.length),
    ...judgeMembers(members, context.quotaBytes),
  ];
  const healthy = members.filter(({ isHealthy }) => isHealthy).length;
  if (2 * healthy <= members.length) {
    findings.push(
      problem(
        'etcd',
        'no majority of its members is healthy: nothing more can be asked of it',
        'start the members that are down; a cluster whose majority is lost for good is restored from a snapshot (docs/guides/operating.md)',
      ),
    );
    return findings;
  }
  progress(`reading and writing ${String(rounds)} times`);
  findings.push(...(await checkWork(context)));
  findings.push(await checkIdentity(context));
  progress('comparing clocks');
  findings.push(...(await checkClocks(endpoints)));
  return findings;
}

/** Lease, latency and watch, on one scratch key. */
async function checkWork(context: EtcdCheckContext): Promise<Finding[]> {
  const { kv, clusterId, leaseTtlMs, electionTimeoutMs } = context;
  const key = `${new Keys(clusterId).root}doctor/${String(process.pid)}-${Date.now().toString(36)}`;
  const leases: string[] = [];
  const grant = async (ttlMs: number): Promise<number> => {
    const lease = await kv.grantLease(ttlMs);
    leases.push(lease.leaseId);
    return lease.ttlMs;
  };
  try {
    const grantedMs = await grant(leaseTtlMs);
    const shortestMs = await grant(1_000);
    // Long enough for all that follows.
    await grant(60_000);
    const findings = judgeLease({
      askedMs: leaseTtlMs,
      grantedMs,
      shortestMs,
      electionTimeoutMs,
      tryTimeoutMs,
    });
    findings.push(judge('linearizable reads', await timed(() => kv.get(key))));
    let revision = 0;
    const leaseId = leases[2] ?? '';
    const write = async (): Promise<void> => {
      const result = await kv.txn({
        compare: [{ target: 'mod', key, op: '=', value: revision }],
        then: [{ op: 'put', key, value: encodeText('{}'), leaseId }],
      });
      if (!result.succeeded) throw new MillraceError('CONFLICT', `${key} was changed`);
      ({ revision } = result);
    };
    findings.push(judge('guarded writes', await timed(write)));
    findings.push(await checkWatch(kv, key, revision, write));
    return findings;
  } catch (error) {
    return [explainFailure(error)];
  } finally {
    await Promise.allSettled(leases.map((leaseId) => kv.revokeLease(leaseId)));
  }
}

function explainFailure(error: unknown): Finding {
  const message = error instanceof Error ? error.message : String(error);
  const advice = /permission/i.test(message)
    ? 'give the role read and write access to the prefix /millrace/v1/<cluster id>/ (docs/guides/etcd.md)'
    : 'the message says what etcd refused; docs/guides/etcd.md has the settings it needs';
  return problem('etcd', `a lease, a read or a write failed: ${message}`, advice);
}

async function timed(work: () => Promise<unknown>): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < rounds; i += 1) {
    const began = performance.now();
    await work();
    times.push(performance.now() - began);
  }
  return times;
}

function judge(what: 'linearizable reads' | 'guarded writes', times: readonly number[]): Finding {
  const p50 = percentile(times, 0.5);
  const p99 = percentile(times, 0.99);
  return judgeLatency({ p50, p99 }, what, `p50 ${ms(p50)}, p99 ${ms(p99)} of ${String(rounds)}`);
}

/** That events arrive: a proxy that buffers or cuts streams leaves everything else working. */
async function checkWatch(
  kv: KvStore,
  key: string,
  revision: number,
  write: () => Promise<void>,
): Promise<Finding> {
  const advice =
    'let processes reach the members directly: a proxy between them must pass gRPC streams';
  const began = performance.now();
  let timer: NodeJS.Timeout | undefined;
  const seen = await new Promise<string | number>((resolve) => {
    timer = setTimeout(() => {
      resolve(`no event within ${String(watchTimeoutMs / 1000)} s`);
    }, watchTimeoutMs);
    const watch = kv.watch(
      { key, startRevision: revision + 1 },
      {
        onEvents: () => {
          resolve(performance.now() - began);
          watch.close();
        },
        onEnd: (error) => {
          resolve(error.message);
        },
      },
    );
    write().catch((error: unknown) => {
      resolve(error instanceof Error ? error.message : String(error));
    });
  });
  clearTimeout(timer);
  return typeof seen === 'number'
    ? ok('etcd watch', `an event arrives ${ms(seen)} after its write began`)
    : problem('etcd watch', `watching does not work: ${seen}`, advice);
}

async function checkIdentity({ kv, clusterId }: EtcdCheckContext): Promise<Finding> {
  const check = 'cluster';
  const keys = new Keys(clusterId);
  try {
    const entry = await kv.get(keys.cluster);
    if (entry === undefined) {
      return ok(check, `'${clusterId}' has no data in etcd yet: its first start creates it`);
    }
    const { uid, era } = JSON.parse(Buffer.from(entry.value).toString('utf8')) as {
      uid?: unknown;
      era?: unknown;
    };
    return ok(check, `'${clusterId}' is the cluster ${String(uid)}, era ${String(era)}`);
  } catch (error) {
    return problem(
      check,
      `${keys.cluster} cannot be read: ${error instanceof Error ? error.message : String(error)}`,
      'look at it with `etcdctl get`; restore etcd from a snapshot or the cluster from an export',
    );
  }
}

/** etcd's own protocol tells no time, but its HTTP server says the date, in whole seconds. */
async function checkClocks(endpoints: readonly string[]): Promise<Finding[]> {
  const findings: Finding[] = [];
  const silent: string[] = [];
  for (const endpoint of endpoints) {
    const offset = await clockOffset(endpoint);
    if (offset === undefined) silent.push(endpoint);
    else findings.push(judgeClock(offset.offsetMs, offset.toleranceMs, endpoint));
  }
  if (silent.length > 0) {
    findings.push(
      unknown(
        'clock',
        `the clocks of ${silent.join(', ')} cannot be read from here (no plain HTTP)`,
      ),
    );
  }
  return findings;
}

async function clockOffset(
  endpoint: string,
): Promise<{ offsetMs: number; toleranceMs: number } | undefined> {
  try {
    const began = performance.now();
    const response = await fetch(`${endpoint}/version`, { signal: AbortSignal.timeout(2_000) });
    const now = Date.now();
    const tripMs = performance.now() - began;
    const date = Date.parse(response.headers.get('date') ?? '');
    await response.body?.cancel();
    if (Number.isNaN(date)) return undefined;
    // The header is cut to whole seconds.
    return { offsetMs: now - tripMs / 2 - (date + 500), toleranceMs: 500 + tripMs / 2 };
  } catch {
    return undefined;
  }
}

/** @param wallMs, monotonicMs how far each went while the checks ran. */
export function judgeSteps(wallMs: number, monotonicMs: number): Finding {
  const stepMs = Math.round(wallMs - monotonicMs);
  if (Math.abs(stepMs) > 100) {
    return warning(
      'clock',
      `this machine's wall clock jumped by ${String(stepMs)} ms during the checks: deadlines are unaffected, times in logs are`,
      'let NTP slew the clock instead of stepping it',
    );
  }
  return ok('clock', `no jump of the wall clock in ${(monotonicMs / 1000).toFixed(1)} s`);
}
