/** What figures of etcd mean: pure, so that every case is told in a test. */
import type { StoreMember } from '../../ha/services.js';
import { ok, problem, warning, type Finding } from './finding.js';

const gib = 1024 ** 3;
/** etcd's own default; its quota cannot be read over its API. */
const defaultQuotaBytes = 2 * gib;
/** Of the quota: time to defragment before it is reached. */
const caution = 0.6;

export function judgeMemberCount(count: number): Finding {
  const check = 'etcd members';
  const tolerated = Math.ceil(count / 2) - 1;
  const named = `${String(count)} ${count === 1 ? 'member' : 'members'} in high-availability.etcd.endpoints`;
  if (count < 3) {
    return warning(
      check,
      `${named}: the loss of one stops the cluster's control`,
      'run 3 members (or 5) on machines of their own',
    );
  }
  if (count % 2 === 0) {
    return warning(
      check,
      `${named}: an even number tolerates no more losses than one less (${String(tolerated)})`,
      `run ${String(count - 1)} or ${String(count + 1)} members`,
    );
  }
  return ok(check, `${named}: ${String(tolerated)} may fail`);
}

/** @param members as they answered, at least one. */
export function judgeMembers(
  members: readonly StoreMember[],
  quotaBytes = defaultQuotaBytes,
): Finding[] {
  const findings = members.map((member) => judgeMember(member, quotaBytes));
  const answering = members.filter(({ version }) => version !== '');
  const leaders = answering.filter(({ isLeader }) => isLeader);
  if (answering.length > 0 && leaders.length > 1) {
    findings.push(
      problem(
        'etcd members',
        `${leaders.map(({ endpoint }) => endpoint).join(' and ')} both call themselves leader`,
        'the endpoints belong to different etcd clusters: correct high-availability.etcd.endpoints',
      ),
    );
  }
  const ids = answering.map(({ memberId }) => memberId);
  if (new Set(ids).size < ids.length) {
    findings.push(
      warning(
        'etcd members',
        'two endpoints are the same member',
        'name every member once in high-availability.etcd.endpoints',
      ),
    );
  }
  const versions = [...new Set(answering.map(({ version }) => version))];
  if (versions.length > 1) {
    findings.push(
      warning(
        'etcd version',
        `members run different versions: ${versions.join(', ')}`,
        'finish the rolling upgrade of etcd',
      ),
    );
  }
  for (const version of versions) findings.push(judgeVersion(version));
  return findings;
}

function judgeMember(member: StoreMember, quotaBytes: number): Finding {
  const check = 'etcd health';
  const { endpoint, latencyMs, alarms } = member;
  const size = `${(member.dbSizeBytes / 1024 ** 2).toFixed(1)} MiB (${(member.dbSizeInUseBytes / 1024 ** 2).toFixed(1)} in use)`;
  const state = `${endpoint} ${member.version}${member.isLeader ? ', leader' : ''}: answers in ${String(latencyMs)} ms, database ${size}`;
  if (alarms.includes('NOSPACE')) {
    return problem(
      check,
      `${endpoint} has no space left (alarm NOSPACE): jobs cannot be submitted, checkpoints cannot complete`,
      'compact, defragment every member, raise --quota-backend-bytes if need be, then `etcdctl alarm disarm`: docs/guides/etcd.md',
    );
  }
  if (alarms.length > 0) {
    return problem(
      check,
      `${endpoint} raises the alarm ${alarms.join(', ')}`,
      'a member with damaged data: replace it (remove it, delete its data directory, add it again)',
    );
  }
  if (!member.isHealthy) {
    return problem(
      check,
      `${endpoint} does not work: ${member.error ?? 'no reason given'}`,
      'start it, or correct high-availability.etcd.endpoints; its own log says more',
    );
  }
  if (member.dbSizeBytes > caution * quotaBytes) {
    return warning(
      check,
      `${state}: over ${String(100 * caution)} % of a quota of ${String(Math.round((10 * quotaBytes) / gib) / 10)} GiB`,
      "run etcd with --auto-compaction-retention=30m and --quota-backend-bytes of 4-8 GiB (and say so in high-availability.etcd.quota-backend-size); defragment the members one by one, etcd's leader last",
    );
  }
  return ok(check, state);
}

type Version = readonly [number, number, number];

function parseVersion(text: string): Version | undefined {
  const match = /^(\d+)\.(\d+)\.(\d+)/.exec(text);
  return match === null ? undefined : [Number(match[1]), Number(match[2]), Number(match[3])];
}

const isBelow = (a: Version, b: Version): boolean =>
  a[0] - b[0] < 0 || (a[0] === b[0] && (a[1] < b[1] || (a[1] === b[1] && a[2] < b[2])));

/** etcd issue 15247: a member that was stopped as leader and wakes up may revoke leases that are alive. */
export function mayRevokeLiveLeases(text: string): boolean {
  const [major, minor, patch] = parseVersion(text) ?? [3, 0, 0];
  const isMended =
    major > 3 || minor > 5 || (minor === 5 && patch >= 13) || (minor === 4 && patch >= 31);
  return !isMended;
}

/** Faults of etcd that touch us: docs of etcd's own releases. */
export function judgeVersion(text: string): Finding {
  const check = 'etcd version';
  const version = parseVersion(text);
  if (version === undefined)
    return warning(check, `the version '${text}' is not understood`, 'run a release of etcd');
  if (isBelow(version, [3, 4, 0])) {
    return problem(check, `etcd ${text} is too old`, 'upgrade to 3.5.13 or later');
  }
  const [, minor, patch] = version;
  if (version[0] === 3 && minor === 5 && patch < 3) {
    return problem(
      check,
      `etcd ${text} can corrupt its data when it is killed under load (3.5.0 to 3.5.2)`,
      'upgrade to 3.5.13 or later now',
    );
  }
  if (mayRevokeLiveLeases(text)) {
    return warning(
      check,
      `etcd ${text}: a member that was cut off as leader and returns can revoke leases that are alive (etcd issue 15247), which costs a needless change of leader, never data`,
      'upgrade to 3.5.13 (3.4.31) or later',
    );
  }
  return ok(check, `etcd ${text}`);
}

/**
 * @param grantedMs what etcd gave when asked for `askedMs`.
 * @param shortestMs what it gave when asked for 1 s: it grants at least 1.5 election timeouts, in whole seconds.
 */
export function judgeLease(figures: {
  readonly askedMs: number;
  readonly grantedMs: number;
  readonly shortestMs: number;
  readonly electionTimeoutMs: number;
  readonly tryTimeoutMs: number;
}): Finding[] {
  const { askedMs, grantedMs, shortestMs, electionTimeoutMs, tryTimeoutMs } = figures;
  const check = 'lease';
  const findings: Finding[] = [];
  const seconds = (value: number): string => `${String(value / 1000)} s`;
  const needed = 3 * tryTimeoutMs + 2 * electionTimeoutMs;
  if (grantedMs < needed) {
    findings.push(
      problem(
        check,
        `a lease of ${seconds(grantedMs)} is shorter than 3 tries of ${String(tryTimeoutMs)} ms and 2 elections of etcd (${seconds(needed)})`,
        `set high-availability.etcd.lease-ttl to at least ${seconds(Math.ceil(needed / 1000) * 1000)}`,
      ),
    );
  } else if (grantedMs !== askedMs) {
    findings.push(
      warning(
        check,
        `asked for a lease of ${seconds(askedMs)}, etcd granted ${seconds(grantedMs)}: a lost machine is noticed that much later`,
        "lower etcd's --election-timeout (500 with --heartbeat-interval 50), or set high-availability.etcd.lease-ttl to what is granted",
      ),
    );
  } else {
    findings.push(
      ok(check, `granted as asked: ${seconds(grantedMs)}; at least ${seconds(needed)} are needed`),
    );
  }
  // shortest = ceil(1.5 * election timeout): the timeout is above (shortest - 1 s) / 1.5.
  const least = Math.floor((shortestMs - 1000) / 1.5);
  if (least >= electionTimeoutMs) {
    findings.push(
      problem(
        'etcd election timeout',
        `it is above ${String(least)} ms, as the shortest lease of ${seconds(shortestMs)} shows, but high-availability.etcd.election-timeout says ${String(electionTimeoutMs)} ms`,
        `set high-availability.etcd.election-timeout to etcd's own --election-timeout (its default is 1000 ms), and high-availability.etcd.lease-ttl to 5 s then`,
      ),
    );
  }
  return findings;
}

/** @param reads, writes ms each. */
export function judgeLatency(
  figures: { readonly p50: number; readonly p99: number },
  what: 'linearizable reads' | 'guarded writes',
  shown: string,
): Finding {
  const check = 'etcd latency';
  const message = `${what}: ${shown}`;
  if (figures.p99 > 400) {
    return problem(
      check,
      `${message}: a renewal of the lease is given up after 400 ms`,
      "give etcd a disk of its own (SSD), look at its metrics etcd_disk_wal_fsync_duration and at the network's round trip",
    );
  }
  if (figures.p99 > 100) {
    return warning(
      check,
      `${message}: slow`,
      'give etcd a disk of its own (SSD); nothing else on its machine should write much',
    );
  }
  return ok(check, message);
}

export function judgeClock(offsetMs: number, toleranceMs: number, whose: string): Finding {
  const check = 'clock';
  const away = Math.max(0, Math.abs(offsetMs) - toleranceMs);
  const said = `this machine's clock against ${whose}: ${offsetMs >= 0 ? '+' : ''}${(offsetMs / 1000).toFixed(1)} s (to ${(toleranceMs / 1000).toFixed(1)} s)`;
  if (away > 2_000) {
    return warning(
      check,
      `${said}: times in logs and of takeovers cannot be compared; safety does not rest on clocks`,
      'run NTP (chrony, systemd-timesyncd) on every machine',
    );
  }
  return ok(check, said);
}
