/** `millrace cluster status`: high availability and processes of a cluster, as data and as tables. */
import type { ClusterOverview } from '../../lib/gateway/client-gateway.js';
import type { HaTakeoverView, HaView } from '../../lib/rest/ha-view.js';
import type { RestClient } from '../../lib/rest/rest-client.js';
import type { LocalCluster } from '../local/local-cluster.js';
import {
  bold,
  colorState,
  countOf,
  cyan,
  dim,
  formatBytes,
  formatElapsed,
  formatTime,
  green,
  print,
  red,
  table,
  yellow,
} from './output.js';
import { jobManagerName, withClient, type TargetOptions } from './target.js';

export interface ClusterProcessStatus {
  readonly role: string;
  readonly name: string;
  /** Of the process that does the work; -1 when it was never started. */
  readonly pid: number;
  readonly alive: boolean;
  readonly leader: boolean;
  /** Its parent, which starts it again and deposes it. */
  readonly supervisor: { readonly pid: number; readonly alive: boolean } | null;
}

export interface ClusterStatus {
  readonly clusterId: string;
  /** Name of the process, of a local cluster; else the JobManager's id. Null: nobody leads. */
  readonly leader: string | null;
  /** Null: no JobManager answers. */
  readonly ha: HaView | null;
  /** Null: no leader answers. */
  readonly overview: ClusterOverview | null;
  readonly restAddresses: readonly string[];
  /** Of a local cluster. */
  readonly createdAt?: string;
  readonly directory?: string;
  readonly endpoints?: readonly string[];
  readonly processes?: readonly ClusterProcessStatus[];
  /** Of JobManagers, by id, where they have one. */
  readonly names: Readonly<Record<string, string>>;
}

const processWaitMs = 5_000;

export function hasLeader({ ha }: ClusterStatus): boolean {
  return ha !== null && ha.leader !== null;
}

/** Never rejects for want of a leader: that is what it tells. */
export function describe(options: TargetOptions): Promise<ClusterStatus> {
  return withClient(options, (client, local) => describeWith(client, local, options.jobmanager));
}

export async function describeLocal(local: LocalCluster): Promise<ClusterStatus> {
  const client = local.restClient();
  try {
    return await describeWith(client, local);
  } finally {
    await client.close();
  }
}

async function describeWith(
  client: RestClient,
  local: LocalCluster | undefined,
  addresses: readonly string[] = [],
): Promise<ClusterStatus> {
  // Every JobManager answers this: waited for is one that is being started again.
  const ha = await client.ha({ waitForLeaderMs: processWaitMs }).catch(() => null);
  const overview = await client.overview({ waitForLeaderMs: 0 }).catch(() => null);
  const managers = ha === null ? [] : [...(ha.leader === null ? [] : [ha.leader]), ...ha.standbys];
  const names = Object.fromEntries(
    managers.map((one) => [one.jobManagerId, jobManagerName(local, one)]),
  );
  const leader = ha?.leader ? (names[ha.leader.jobManagerId] ?? null) : null;
  const common = { leader, ha, overview, names };
  if (local === undefined) {
    return { clusterId: ha?.cluster.id ?? 'unknown', ...common, restAddresses: addresses };
  }
  return {
    clusterId: local.clusterId,
    createdAt: local.createdAt,
    directory: local.directory,
    endpoints: local.endpoints,
    restAddresses: local.restAddresses,
    ...common,
    processes: local.processes().map(({ role, name, pid, alive, supervisor }) => ({
      role,
      name,
      pid,
      alive,
      leader: name === leader,
      supervisor:
        supervisor === undefined ? null : { pid: supervisor.pid, alive: supervisor.alive },
    })),
  };
}

export function printClusterStatus(seen: ClusterStatus): void {
  const { ha } = seen;
  print(
    `cluster ${bold(seen.clusterId)}  ${dim(seen.directory ?? ha?.cluster.uid ?? '')}`.trimEnd(),
  );
  printLeader(seen);
  if (ha?.stale) {
    const since = ha.stale.since === null ? '' : ` as of ${formatTime(ha.stale.since)} UTC`;
    print(yellow(`what is shown may be old${since}: ${ha.stale.reason}`));
  }
  print();
  if (seen.processes !== undefined) printProcesses(seen);
  else if (ha !== null) printManagers(seen, ha);
  if (ha !== null && ha.store.type === 'etcd') printStore(ha);
  if (ha !== null && ha.takeovers.length > 0) printTakeovers(seen, ha);
  print();
  const { overview } = seen;
  if (overview !== null) {
    const free = String(overview['slots-available']);
    print(
      `${free} of ${countOf(overview['slots-total'], 'slot')} free, ${countOf(overview['jobs-running'], 'job')} running`,
    );
  }
  print(`REST ${seen.restAddresses.map((url) => cyan(url)).join('  ')}`);
}

function printLeader({ ha, names, overview }: ClusterStatus): void {
  if (ha === null) {
    print(red('no JobManager answers'));
    return;
  }
  const { leader } = ha;
  if (leader === null) {
    print(red('nobody leads: a JobManager is elected as soon as one runs and etcd has a majority'));
    return;
  }
  const slack =
    leader.leaseSlackMs === undefined
      ? dim('it does not answer right now')
      : leader.leaseSlackMs > 0
        ? `lease ${formatElapsed(leader.leaseSlackMs)} ahead`
        : yellow(`lease over for ${formatElapsed(-leader.leaseSlackMs)}`);
  print(
    `leader  ${bold(names[leader.jobManagerId] ?? leader.jobManagerId)}  ${colorState(leader.state)}  epoch ${leader.epoch}  for ${formatElapsed(Math.max(0, ha.now - leader.since))}  ${slack}`,
  );
  const reason = overview?.['leader-reason'];
  if (reason !== undefined) print(yellow(`  ${reason}`));
}

function printProcesses({ processes = [], ha }: ClusterStatus): void {
  const rows = processes.map((one) => [
    one.name,
    one.pid > 0 ? one.pid : '-',
    one.supervisor === null ? '' : one.supervisor.alive ? one.supervisor.pid : red('ended'),
    one.alive ? green('RUNNING') : red('ENDED'),
    one.leader
      ? (ha?.state ?? 'ACTIVE') === 'ACTIVE'
        ? 'leader'
        : `leader, ${ha?.state ?? ''}`
      : one.role === 'jobmanager' && one.alive
        ? 'standby'
        : '',
  ]);
  print(table(['PROCESS', 'PID', 'SUPERVISOR', 'STATE', ''], rows));
}

function printManagers({ names }: ClusterStatus, ha: HaView): void {
  const rows = [
    ...(ha.leader === null ? [] : [{ ...ha.leader, state: ha.leader.state as string }]),
    ...ha.standbys.map((one) => ({ ...one, state: 'standby' })),
  ].map((one) => [
    names[one.jobManagerId] ?? one.jobManagerId,
    one.epoch,
    one.state === 'standby' ? one.state : colorState(one.state),
    one.restAddress,
    formatTime(one.since),
  ]);
  if (rows.length > 0) print(table(['JOBMANAGER', 'EPOCH', 'STATE', 'REST', 'SINCE (UTC)'], rows));
}

function printStore({ store }: HaView): void {
  print();
  const rows = store.members.map((one) => [
    one.endpoint,
    one.isHealthy ? green('healthy') : red(one.alarms.join(' ') || 'failing'),
    one.isLeader ? 'leader' : '',
    one.version === '' ? '-' : one.version,
    one.version === '' ? '-' : formatBytes(one.dbSizeBytes),
    `${String(Math.round(one.latencyMs))} ms`,
    one.error === undefined ? '' : dim(shortened(one.error)),
  ]);
  print(table(['ETCD', 'STATE', '', 'VERSION', 'DATABASE', 'LATENCY', ''], rows));
}

function shortened(text: string): string {
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}

const shownTakeovers = 5;

function printTakeovers({ names }: ClusterStatus, { takeovers }: HaView): void {
  print();
  const name = (id: string): string => names[id] ?? id;
  const rows = takeovers
    .slice(0, shownTakeovers)
    .map((one) => [
      formatTime(one.noticedAt),
      one.epoch,
      one.previous === null
        ? name(one.jobManagerId)
        : `${name(one.previous.jobManagerId)} → ${name(one.jobManagerId)}`,
      one.phases.elected,
      one.phases.recovered,
      one.phases.active,
      one.phases.settled ?? '-',
      describeJobs(one),
    ]);
  const head = ['TAKEOVER (UTC)', 'EPOCH', 'LEADER', 'ELECTED', 'RECOVERED', 'ACTIVE', 'SETTLED'];
  print(table([...head, 'JOBS'], rows));
  print(dim('phases in ms since the leader before was seen to be gone'));
}

export function describeJobs({ jobs }: Pick<HaTakeoverView, 'jobs'>): string {
  const parts = [
    ...(jobs.adopted > 0 ? [`${String(jobs.adopted)} adopted`] : []),
    ...(jobs.restored > 0 ? [`${String(jobs.restored)} restored`] : []),
    ...(jobs.failed > 0 ? [red(`${String(jobs.failed)} failed`)] : []),
  ];
  return parts.length === 0 ? 'none' : parts.join(', ');
}
