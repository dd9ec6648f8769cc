/** millrace ha inspect | export | import | verify: what etcd keeps of a cluster, without a JobManager. */
import { open, readFile, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { options } from '../../config/options.js';
import type { EtcdKvStore } from '../../ha/etcd/etcd-kv-store.js';
import type { HaArchive } from '../../ha/ha-archive.js';
import type { Env } from '../../lib/base/env.js';
import { MillraceError } from '../../lib/base/errors.js';
import type { InspectedJob, Inspection } from '../inspection/inspect-cluster.js';
import {
  commandEnv,
  findEtcdTarget,
  openEtcd,
  withEtcdTarget,
  type EtcdTarget,
  type EtcdTargetOptions,
} from './etcd-target.js';
import {
  bold,
  colorState,
  confirm,
  countOf,
  dim,
  formatBytes,
  formatTime,
  green,
  print,
  printError,
  printJson,
  red,
  table,
  yellow,
} from './output.js';

interface HaOptions extends EtcdTargetOptions {
  readonly json?: boolean;
}

export function registerHa(program: Command): void {
  const ha = program
    .command('ha')
    .description('what etcd keeps of a cluster, read and written without a JobManager');
  withEtcdTarget(ha.command('inspect').description('show its keys, decoded'))
    .option('--job <id>', 'everything about one job: id, beginning of an id, or name')
    .option('--json', 'print one JSON document')
    .action(inspect);
  withEtcdTarget(
    ha
      .command('export')
      .description('write jobs, results and pointers of checkpoints to a file, as a backup')
      .argument('[file]', 'a new file; - or nothing: standard output'),
  ).action(exportTo);
  withEtcdTarget(
    ha
      .command('import')
      .description(
        'bring an export into an empty cluster, which goes on with the jobs; stop its JobManagers and TaskManagers first',
      )
      .argument('<file>', 'file of an export'),
  )
    .option('-y, --yes', 'do not ask')
    .option('--json', 'print one JSON document')
    .action(importFrom);
  withEtcdTarget(
    ha
      .command('verify')
      .description('read every key, stored value and checkpoint, and say what is damaged'),
  )
    .option('--full', 'also read every byte of state and compare checksums')
    .option('--json', 'print one JSON document')
    .action(verify);
}

interface Connection extends EtcdTarget {
  readonly env: Env;
  readonly kv: EtcdKvStore;
  /** Absolute. */
  readonly storageDir: string | undefined;
}

async function withEtcd(
  from: EtcdTargetOptions,
  work: (connection: Connection) => Promise<void>,
): Promise<void> {
  const target = await findEtcdTarget(from);
  const env = commandEnv();
  const kv = await openEtcd(env, target.config);
  const storageDir = target.config.get(options.highAvailabilityStorageDir);
  try {
    await work({
      ...target,
      env,
      kv,
      storageDir: storageDir === undefined ? undefined : resolve(storageDir),
    });
  } finally {
    await kv.close();
  }
}

const note = (line: string): void => {
  printError(dim(line));
};

// ---- inspect -------------------------------------------------------------------------------------

async function inspect(from: HaOptions & { readonly job?: string }): Promise<void> {
  await withEtcd(from, async ({ kv, clusterId }) => {
    const { inspectCluster } = await import('../inspection/inspect-cluster.js');
    const seen = await inspectCluster(kv, clusterId);
    if (seen.keys === 0) throw noCluster(clusterId, kv);
    if (from.job !== undefined) {
      const job = findInspectedJob(seen, from.job);
      if (from.json === true) printJson(job);
      else printJob(job);
    } else if (from.json === true) printJson(seen);
    else printInspection(seen);
  });
}

function noCluster(clusterId: string, kv: EtcdKvStore): MillraceError {
  return new MillraceError(
    'CLUSTER_NOT_FOUND',
    `${kv.description} has no cluster '${clusterId}': name it with --cluster or -D high-availability.cluster-id=...`,
  );
}

function findInspectedJob({ jobs }: Inspection, wanted: string): InspectedJob {
  const found = jobs.filter(({ jobId, name }) => jobId.startsWith(wanted) || name === wanted);
  const [job] = found;
  if (job === undefined)
    throw new MillraceError(
      'JOB_NOT_FOUND',
      `etcd has no job '${wanted}' that has not ended; 'millrace ha inspect' shows all`,
    );
  if (found.length > 1)
    throw new MillraceError(
      'JOB_NOT_FOUND',
      `'${wanted}' means ${String(found.length)} jobs: ${found.map(({ jobId }) => jobId).join(', ')}`,
    );
  return job;
}

function printInspection(seen: Inspection): void {
  print(
    `cluster ${bold(seen.clusterId)}  uid ${seen.uid ?? 'missing'}  era ${String(seen.era ?? 'missing')}  ${dim(`${countOf(seen.keys, 'key')}, ${formatBytes(seen.bytes)}, revision ${String(seen.revision)} of etcd`)}`,
  );
  print(`storage ${seen.storageDir ?? 'not recorded'}`);
  print();
  if (seen.candidates.length === 0) print('no JobManager stands for election');
  else {
    const leading = seen.leader?.['state'];
    const rows = seen.candidates.map((one, i) => [
      one.jobManagerId,
      one.epoch,
      i === 0 ? colorState(typeof leading === 'string' ? leading : 'RECOVERING') : 'standby',
      one.restAddress,
      formatTime(one.since),
    ]);
    print(table(['JOBMANAGER', 'EPOCH', 'STATE', 'REST', 'SINCE (UTC)'], rows));
  }
  if (seen.taskManagers.length > 0) {
    print();
    const rows = seen.taskManagers.map((one) =>
      [one['taskManagerId'], one['slots'], one['pid'], one['dataAddress']].map(String),
    );
    print(table(['TASKMANAGER', 'SLOTS', 'PID', 'DATA'], rows));
  }
  if (seen.jobs.length > 0) {
    print();
    const rows = seen.jobs.map((job) => [
      job.jobId,
      job.name ?? red('no spec'),
      job.desired ?? '-',
      job.generation ?? '-',
      job.attemptsFile === null ? job.attempts.length : 'in a file',
      job.checkpoints.at(-1)?.checkpointId ?? '-',
      job.checkpoints.length,
      job.garbage.length,
    ]);
    const head = ['JOB', 'NAME', 'WANTED', 'GENERATION', 'ATTEMPTS', 'LATEST', 'KEPT', 'GARBAGE'];
    print(table(head, rows));
  }
  if (seen.results.length > 0) {
    print();
    const rows = seen.results.map((one) => [
      one.jobId,
      one.name ?? '-',
      colorState(one.state),
      formatTime(one.finishedAt ?? 0),
      one.dirty ? yellow('to be cleaned up') : '',
    ]);
    print(table(['ENDED JOB', 'NAME', 'RESULT', 'AT (UTC)', ''], rows));
  }
  for (const { key, why } of seen.unreadable) print(`${red('damaged')} ${key} ${why}`);
}

function printJob(job: InspectedJob): void {
  print(`${bold(job.name ?? 'no spec')}  ${job.jobId}  wanted ${job.desired ?? 'unknown'}`);
  print(`  submitted  ${formatTime(job.submittedAt ?? 0)} UTC`);
  const { graph } = job;
  print(
    `  graph      ${graph === null ? red('missing') : `${formatBytes(graph.sizeBytes)}, ${graph.file === null ? 'inline' : `file ${graph.file}`}`}`,
  );
  print(
    `  generation ${String(job.generation ?? 'never deployed')}, next checkpoint id ${String(job.nextCheckpointId ?? 1)}`,
  );
  if (job.attemptsFile !== null) print(`  attempts   in the file ${job.attemptsFile}`);
  if (job.attempts.length > 0) {
    print();
    const rows = job.attempts.map((one) => [
      one.attemptId,
      one.attemptNumber,
      one.taskManagerId,
      one.allocationId,
    ]);
    print(table(['ATTEMPT', 'NUMBER', 'TASKMANAGER', 'SLOT'], rows));
  }
  const pointers = [
    ...job.garbage.map((one) => ({ ...one, what: 'garbage' })),
    ...job.checkpoints.map((one) => ({ ...one, what: one.kind })),
  ];
  if (pointers.length > 0) {
    print();
    const rows = pointers.map((one) => [
      one.checkpointId,
      one.what,
      formatTime(one.timestamp),
      formatBytes(one.sizeBytes),
      one.metadataPath,
    ]);
    print(table(['CHECKPOINT', 'KIND', 'AT (UTC)', 'STATE', 'METADATA'], rows));
  }
}

// ---- export and import ---------------------------------------------------------------------------

async function exportTo(file: string | undefined, from: HaOptions): Promise<void> {
  const toFile = file !== undefined && file !== '-';
  // Before anything is read: an export is never written over another.
  if (toFile && (await exists(file))) throw fileExists(file);
  await withEtcd(from, async ({ kv, clusterId, storageDir, env }) => {
    const { exportCluster } = await import('../../ha/ha-archive.js');
    note(`reading ${clusterId} from ${kv.description}`);
    const archive = await exportCluster(kv, clusterId, {
      ...(storageDir !== undefined && { storageDir }),
      random: env.random,
      now: Date.now(),
    });
    const text = `${JSON.stringify(archive, null, 2)}\n`;
    if (toFile) await writeNew(file, text);
    else process.stdout.write(text);
    note(
      `${countOf(archive.entries.length, 'key')} and ${countOf(archive.files.length, 'file')} of ${clusterId} at revision ${String(archive.revision)}, ${formatBytes(text.length)}${toFile ? ` in ${file}` : ''}`,
    );
    const left = archive.files.filter(({ base64 }) => base64 === undefined).length;
    if (left > 0) {
      note(
        `${countOf(left, 'file')} only named: give high-availability.storageDir to include them`,
      );
    }
    note('not in it: the checkpoints themselves and bundles of jobs; keep the storage directory');
  });
}

async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  );
}

function fileExists(file: string): MillraceError {
  return new MillraceError('CONFIG', `${file} exists: an export is never written over a file`);
}

/** Complete and on disk when it resolves. */
async function writeNew(file: string, text: string): Promise<void> {
  try {
    const handle = await open(file, 'wx', 0o600);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') throw fileExists(file);
    throw new MillraceError('IO', `cannot write ${file}`, { cause });
  }
}

async function importFrom(
  file: string,
  from: HaOptions & { readonly yes?: boolean },
): Promise<void> {
  const archive = await readArchive(file);
  await withEtcd(from, async ({ kv, clusterId, storageDir, env }) => {
    const jobs = archive.entries.filter(({ key }) => /^jobs\/[^/]+\/spec$/.test(key)).length;
    note(
      `${file}: cluster ${archive.clusterId} (${archive.uid}, era ${String(archive.era)}) of ${formatTime(archive.exportedAt)} UTC, ${countOf(jobs, 'job')} and ${countOf(archive.entries.length, 'key')}`,
    );
    note(`into: ${clusterId} at ${kv.description}, storage ${storageDir ?? 'none'}`);
    if (from.yes !== true) await confirm('Import?');
    const { importCluster } = await import('../../ha/ha-archive.js');
    const report = await importCluster(kv, clusterId, archive, {
      ...(storageDir !== undefined && { storageDir }),
      random: env.random,
      onProgress: (done, total) => {
        note(`${String(done)} of ${countOf(total, 'key')}`);
      },
    });
    if (from.json === true) {
      printJson({ clusterId, ...report });
      return;
    }
    print(
      `${green('imported')} ${countOf(report.entries, 'key')} into ${bold(clusterId)}: cluster ${report.uid}, era ${String(report.era)}${report.resumed ? ', after an interruption' : ''}`,
    );
    print(
      dim(
        'next: millrace ha verify --full, then start its JobManagers and TaskManagers: they go on with the jobs from their checkpoints',
      ),
    );
  });
}

async function readArchive(file: string): Promise<HaArchive> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    const isMissing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    throw new MillraceError(isMissing ? 'FILE_NOT_FOUND' : 'IO', `cannot read ${file}`, { cause });
  }
  let archive: Partial<HaArchive> | null;
  try {
    archive = JSON.parse(text) as Partial<HaArchive> | null;
  } catch (cause) {
    throw new MillraceError('CONFIG', `${file} is no archive of millrace ha export`, { cause });
  }
  if (archive?.kind !== 'millrace-ha-archive' || !Array.isArray(archive.entries)) {
    throw new MillraceError('CONFIG', `${file} is no archive of millrace ha export`);
  }
  return archive as HaArchive;
}

// ---- verify --------------------------------------------------------------------------------------

async function verify(from: HaOptions & { readonly full?: boolean }): Promise<void> {
  await withEtcd(from, async ({ kv, config, clusterId, storageDir, env }) => {
    const { verifyEverything } = await import('../inspection/verify-everything.js');
    note(`reading ${clusterId} from ${kv.description}`);
    const checkpointDir = config.get(options.executionCheckpointingDir) ?? storageDir;
    const report = await verifyEverything(kv, clusterId, {
      ...(storageDir !== undefined && { storageDir }),
      ...(checkpointDir !== undefined && { checkpointDir: resolve(checkpointDir) }),
      readStates: from.full === true,
      random: env.random,
      progress: note,
    });
    const errors = report.findings.filter(({ severity }) => severity === 'error').length;
    const warnings = report.findings.length - errors;
    if (from.json === true) printJson({ clusterId, sound: errors === 0, ...report });
    else {
      for (const { severity, where, problem } of report.findings) {
        print(`${severity === 'error' ? red('✗') : yellow('!')} ${where}: ${problem}`);
      }
      const counts = `${countOf(report.jobs, 'job')}, ${countOf(report.checkpoints, 'checkpoint')}, ${countOf(report.results, 'result')}`;
      const verdict =
        errors > 0
          ? red(`${countOf(errors, 'error')}, ${countOf(warnings, 'warning')}`)
          : green(warnings === 0 ? 'sound' : `sound, ${countOf(warnings, 'warning')}`);
      print(`cluster ${bold(clusterId)} era ${String(report.era)}: ${counts}: ${verdict}`);
    }
    if (errors > 0) process.exitCode = 1;
  });
}
