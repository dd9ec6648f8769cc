/**
 * Which cluster a command speaks to, and which job it means. The HTTP client is loaded on first use:
 * every command registers its options here, and one of them runs.
 */
import type { Command } from 'commander';
import { MillraceError } from '../../lib/base/errors.js';
import type { JobSummary } from '../../lib/gateway/client-gateway.js';
import type { RestClient } from '../../lib/rest/rest-client.js';
import { parseDuration } from '../../config/option-types.js';
import type { LocalCluster } from '../local/local-cluster.js';
import { printError } from './output.js';

export interface TargetOptions {
  readonly jobmanager?: readonly string[];
  readonly cluster?: string;
  readonly dir: string;
  readonly token?: string;
  readonly timeout: string;
}

const collect = (value: string, previous: readonly string[] = []): string[] => [
  ...previous,
  ...value.split(','),
];

/** The options every command that speaks to a cluster has. */
export function withTarget(command: Command): Command {
  return command
    .option(
      '-m, --jobmanager <url>',
      'REST address of a JobManager; may be repeated (default: the local cluster)',
      collect,
    )
    .option('--cluster <id>', 'local cluster (default: the one started last that runs)')
    .option('--dir <folder>', 'folder of local clusters', '.millrace')
    .option('--token <token>', 'bearer token of REST (or MILLRACE_REST_TOKEN)')
    .option(
      '--timeout <duration>',
      'how long to wait for an answer, the election of a leader included',
      '60s',
    );
}

/** `otherwise`: what else the command offers when none runs. */
export async function findLocalCluster(
  options: Pick<TargetOptions, 'dir' | 'cluster'>,
  otherwise = '',
): Promise<LocalCluster> {
  const { LocalCluster } = await import('../local/local-cluster.js');
  if (options.cluster !== undefined) return LocalCluster.open(options.dir, options.cluster);
  const known = LocalCluster.list(options.dir).map((id) => LocalCluster.open(options.dir, id));
  const running = known.find((cluster) => cluster.isRunning());
  if (running !== undefined) return running;
  throw new MillraceError(
    'CLUSTER_NOT_FOUND',
    `no local cluster is running in ${options.dir}; start one with 'millrace cluster start'${otherwise}`,
  );
}

export async function restAddresses(options: TargetOptions): Promise<{
  addresses: readonly string[];
  token?: string;
  /** Unless addresses were given. */
  local?: LocalCluster;
}> {
  const token = options.token ?? process.env['MILLRACE_REST_TOKEN'];
  if (options.jobmanager !== undefined) {
    const addresses = options.jobmanager.map((url) =>
      url.includes('://') ? url : `http://${url}`,
    );
    return { addresses, ...(token !== undefined && { token }) };
  }
  const cluster = await findLocalCluster(
    options,
    ', or name a JobManager with --jobmanager http://HOST:PORT',
  );
  const own = token ?? cluster.token;
  return {
    addresses: cluster.restAddresses,
    local: cluster,
    ...(own !== undefined && { token: own }),
  };
}

/** How people know a JobManager: of a local cluster by the name of its process, else by its id. */
export function jobManagerName(
  local: LocalCluster | undefined,
  one: { readonly jobManagerId: string; readonly restAddress: string },
): string {
  return local?.jobManagerAt(one.restAddress) ?? one.jobManagerId;
}

/** Runs `work` with a client that waits, bounded, for a leader and says so once. */
export async function withClient<T>(
  options: TargetOptions,
  work: (client: RestClient, local: LocalCluster | undefined) => Promise<T>,
): Promise<T> {
  const { addresses, token, local } = await restAddresses(options);
  const { RestClient } = await import('../../lib/rest/rest-client.js');
  let told = false;
  const client = new RestClient(addresses, {
    ...(token !== undefined && { token }),
    waitForLeaderMs: parseDuration(options.timeout),
    onWaiting: (reason: string) => {
      if (!told) printError(`waiting for a leader: ${reason}`);
      told = true;
    },
  });
  try {
    return await work(client, local);
  } finally {
    await client.close();
  }
}

/** A job by id, by the beginning of its id, or by name when only one running job has it. */
export async function findJob(client: RestClient, text: string): Promise<JobSummary> {
  const jobs = await client.jobs();
  const byId = jobs.filter((job) => job.jid.startsWith(text));
  const named = jobs.filter((job) => job.name === text);
  const running = named.filter((job) => job['end-time'] < 0);
  const found = byId.length > 0 ? byId : running.length > 0 ? running : named.slice(-1);
  const [job] = found;
  if (job === undefined)
    throw new MillraceError('JOB_NOT_FOUND', `no job '${text}'; 'millrace list' shows all`);
  if (found.length > 1) {
    throw new MillraceError(
      'JOB_NOT_FOUND',
      `'${text}' means ${String(found.length)} jobs (${found.map((one) => one.jid).join(', ')}); give more of the id`,
    );
  }
  return job;
}
