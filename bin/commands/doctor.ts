/** millrace doctor: is everything as a cluster needs it? */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { options } from '../../config/options.js';
import type { Finding, FindingLevel } from '../doctor/finding.js';
import { commandEnv, findEtcdTarget, openEtcd, withEtcdTarget } from './etcd-target.js';
import type { EtcdTarget, EtcdTargetOptions } from './etcd-target.js';
import {
  bold,
  countOf,
  cyan,
  dim,
  green,
  print,
  printError,
  printJson,
  red,
  yellow,
} from './output.js';

interface DoctorOptions extends EtcdTargetOptions {
  readonly json?: boolean;
}

export function registerDoctor(program: Command): void {
  withEtcdTarget(
    program
      .command('doctor')
      .description('check etcd, storage, clocks, ports and this machine, and say what to do'),
  )
    .option('--json', 'print one JSON document')
    .action(doctor);
}

async function doctor(from: DoctorOptions): Promise<void> {
  const target = await findEtcdTarget(from);
  const findings = await examine(target, (line) => {
    if (from.json !== true) printError(dim(line));
  });
  const problems = findings.filter(({ level }) => level === 'problem').length;
  const warnings = findings.filter(({ level }) => level === 'warning').length;
  if (from.json === true) {
    printJson({
      clusterId: target.clusterId,
      healthy: problems === 0,
      problems,
      warnings,
      findings,
    });
  } else {
    print(`cluster ${bold(target.clusterId)}`);
    for (const finding of findings) printFinding(finding);
    print();
    if (problems > 0)
      print(red(`${countOf(problems, 'problem')}, ${countOf(warnings, 'warning')}`));
    else if (warnings > 0) print(yellow(`no problem, ${countOf(warnings, 'warning')}`));
    else print(green('all is well'));
  }
  // Not left to end by itself: a file operation that never returns would keep the process.
  process.exit(problems > 0 ? 1 : 0);
}

const marks: Readonly<Record<FindingLevel, string>> = {
  ok: green('✓'),
  warning: yellow('!'),
  problem: red('✗'),
  unknown: dim('?'),
};

function printFinding({ level, check, message, advice }: Finding): void {
  print(`${marks[level]} ${check}: ${level === 'unknown' ? dim(message) : message}`);
  if (advice !== undefined) print(`    ${cyan('do:')} ${advice}`);
}

async function examine(
  { config, clusterId, local }: EtcdTarget,
  progress: (line: string) => void,
): Promise<Finding[]> {
  const [machine, etcd] = await Promise.all([
    import('../doctor/machine-checks.js'),
    import('../doctor/etcd-checks.js'),
  ]);
  const began = { wall: Date.now(), monotonic: performance.now() };
  const findings: Finding[] = [machine.judgeNode(process.versions.node), ...machine.checkLimits()];
  if (config.get(options.highAvailabilityType) === 'etcd') {
    const kv = await openEtcd(commandEnv(), config);
    try {
      const quotaBytes = config.get(options.highAvailabilityEtcdQuotaBackendSize);
      const context = {
        kv,
        ...(quotaBytes !== undefined && { quotaBytes }),
        endpoints: config.get(options.highAvailabilityEtcdEndpoints),
        clusterId,
        leaseTtlMs: config.get(options.highAvailabilityEtcdLeaseTtl),
        electionTimeoutMs: config.get(options.highAvailabilityEtcdElectionTimeout),
        progress,
      };
      findings.push(...(await etcd.checkEtcd(context)));
    } finally {
      await kv.close();
    }
  } else {
    findings.push({
      check: 'high availability',
      level: 'warning',
      message: 'high-availability.type is none: jobs end with the only JobManager',
      advice:
        'set it to etcd, with high-availability.etcd.endpoints and high-availability.storageDir',
    });
  }
  progress('writing, syncing and reading files');
  const storageDir = config.get(options.highAvailabilityStorageDir);
  const checkpointDir = config.get(options.executionCheckpointingDir);
  if (storageDir !== undefined) {
    findings.push(...(await machine.checkStorage('storage', resolve(storageDir))));
  }
  if (checkpointDir !== undefined && checkpointDir !== storageDir) {
    findings.push(...(await machine.checkStorage('checkpoints', resolve(checkpointDir))));
  }
  findings.push(...(await checkPorts({ config, clusterId, ...(local && { local }) })));
  findings.push(etcd.judgeSteps(Date.now() - began.wall, performance.now() - began.monotonic));
  return findings;
}

async function checkPorts({ config, local }: EtcdTarget): Promise<Finding[]> {
  const { checkPort } = await import('../doctor/machine-checks.js');
  const host = config.get(options.restBindAddress);
  const answers = async (url: string): Promise<boolean> => {
    try {
      const response = await fetch(`${url}/healthz`, { signal: AbortSignal.timeout(2_000) });
      return response.ok;
    } catch {
      return false;
    }
  };
  const rest =
    local === undefined
      ? [`http://${host}:${String(config.get(options.restPort))}`]
      : local.restAddresses;
  const findings = await Promise.all(
    rest.map((url) => checkPort('rest.port', host, Number(new URL(url).port), () => answers(url))),
  );
  if (local === undefined) {
    findings.push(
      await checkPort(
        options.jobmanagerRpcPort.key,
        config.get(options.jobmanagerRpcAddress),
        config.get(options.jobmanagerRpcPort),
        () => Promise.resolve(false),
      ),
    );
  }
  return findings.flatMap((finding) => finding ?? []);
}
