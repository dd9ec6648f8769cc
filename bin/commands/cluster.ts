/** millrace cluster start | status | stop: a whole cluster on this machine. */
import type { Command } from 'commander';
import { MillraceError } from '../../lib/base/errors.js';
import { SystemRandom } from '../../lib/base/system-random.js';
import { configurationOfDefinitions } from '../../config/definitions.js';
import { describe, describeLocal, hasLeader, printClusterStatus } from './cluster-status.js';
import { bold, cyan, dim, formatElapsed, print, printError, printJson } from './output.js';
import { findLocalCluster, withTarget, type TargetOptions } from './target.js';

interface StartOptions {
  readonly dir: string;
  readonly cluster?: string;
  readonly etcd?: readonly string[];
  readonly etcdMembers: number;
  readonly jobmanagers: number;
  readonly taskmanagers: number;
  readonly slots: number;
  readonly define?: readonly string[];
  readonly supervisor: boolean;
  readonly json?: boolean;
}

interface SelectOptions {
  readonly dir: string;
  readonly cluster?: string;
  readonly json?: boolean;
}

type StatusOptions = TargetOptions & { readonly json?: boolean };

const collect = (value: string, previous: readonly string[] = []): string[] => [...previous, value];

function count(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < min || value > max) {
      throw new MillraceError(
        'CONFIG',
        `'${text}' is not a whole number from ${String(min)} to ${String(max)}`,
      );
    }
    return value;
  };
}

export function registerCluster(program: Command): void {
  const cluster = program.command('cluster').description('a whole cluster on this machine');
  const select = (command: Command): Command =>
    command
      .option('--cluster <id>', 'which cluster (default: the one started last that runs)')
      .option('--dir <folder>', 'folder of local clusters', '.millrace')
      .option('--json', 'print one JSON document');
  cluster
    .command('start')
    .description(
      'start etcd, JobManagers and TaskManagers as processes that go on when this command ends',
    )
    .option(
      '--cluster <id>',
      'name of the cluster (default: a new one); a stopped one is started again with its jobs, of a running one what is dead',
    )
    .option('--dir <folder>', 'folder of local clusters', '.millrace')
    .option(
      '--etcd <urls>',
      'use an etcd that runs already: client URLs, separated by commas',
      (urls: string) => urls.split(','),
    )
    .option('--etcd-members <n>', 'etcd members to start', count(1, 7), 3)
    .option('--jobmanagers <n>', 'JobManagers: one leads, the others stand by', count(1, 16), 3)
    .option('--taskmanagers <n>', 'TaskManagers', count(0, 64), 2)
    .option('--slots <n>', 'slots of each TaskManager', count(1, 64), 2)
    .option('-D, --define <key=value>', 'a setting for every process; may be repeated', collect)
    .option(
      '--no-supervisor',
      'JobManagers and TaskManagers without a parent that deposes them when they die and starts them again',
    )
    .option('--json', 'print one JSON document')
    .action(start);
  withTarget(
    cluster
      .command('status')
      .description('who leads, who stands by, etcd, processes, slots, the last takeovers'),
  )
    .option('--json', 'print one JSON document')
    .action(status);
  select(
    cluster
      .command('stop')
      .description('end every process of the cluster; its data stays for the next start'),
  )
    .option('--remove', "also delete the cluster's folder: logs, etcd data, checkpoints")
    .action(stop);
}

/** Settings of -D, checked before anything is started. */
export function checkedSettings(definitions: readonly string[] = []): Record<string, string> {
  configurationOfDefinitions(definitions);
  return Object.fromEntries(
    definitions.map((definition) => {
      const at = definition.indexOf('=');
      return [definition.slice(0, at).trim(), definition.slice(at + 1).trim()];
    }),
  );
}

async function start(options: StartOptions): Promise<void> {
  const began = Date.now();
  const settings = checkedSettings(options.define);
  const { LocalCluster } = await import('../local/local-cluster.js');
  const cluster = await LocalCluster.start(
    {
      folder: options.dir,
      clusterId: options.cluster ?? `local-${new SystemRandom().hex(6)}`,
      jobManagers: options.jobmanagers,
      taskManagers: options.taskmanagers,
      slotsPerTaskManager: options.slots,
      etcd:
        options.etcd === undefined ? { members: options.etcdMembers } : { endpoints: options.etcd },
      settings,
      supervised: options.supervisor,
    },
    (line) => {
      if (options.json !== true) printError(dim(line));
    },
  );
  const leader = await cluster.leaderName();
  if (options.json === true) {
    printJson(await describeLocal(cluster));
    return;
  }
  print(`cluster ${bold(cluster.clusterId)} is ready after ${formatElapsed(Date.now() - began)}`);
  print(`  leader  ${leader ?? '-'}`);
  print(`  REST    ${cluster.restAddresses.map((url) => cyan(url)).join('  ')}`);
  print(`  folder  ${cluster.directory}`);
  print(dim('next: millrace run JOB.ts, millrace cluster status, millrace cluster stop'));
}

/** Of a cluster that answers over REST, with the processes where this machine runs them. */
async function status(options: StatusOptions): Promise<void> {
  const seen = await describe(options);
  if (options.json === true) printJson(seen);
  else printClusterStatus(seen);
  if (!hasLeader(seen)) process.exitCode = 1;
}

async function stop(options: SelectOptions & { readonly remove?: boolean }): Promise<void> {
  const cluster = await findLocalCluster(options);
  await cluster.stop((line) => {
    if (options.json !== true) printError(dim(line));
  });
  const left = cluster.processes().filter((one) => one.alive);
  if (options.remove === true) cluster.remove();
  if (options.json === true)
    printJson({
      clusterId: cluster.clusterId,
      stopped: left.length === 0,
      left: left.map((one) => one.pid),
    });
  else
    print(
      `cluster ${bold(cluster.clusterId)} is stopped${options.remove === true ? ' and removed' : ''}`,
    );
  if (left.length > 0)
    throw new MillraceError(
      'TIMEOUT',
      `still running: ${left.map((one) => `${one.name} (${String(one.pid)})`).join(', ')}`,
    );
}
