#!/usr/bin/env node
/**
 * Parent of one JobManager or TaskManager: starts it again when it ends, kills it when it hangs, and deposes it in
 * etcd in the moment it dies, so that a standby leads within milliseconds instead of after the lease. It never holds
 * or renews anything for it: a leader that cannot renew its lease itself is none.
 */
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Configuration } from '../config/configuration.js';
import { loadConfiguration } from '../config/load.js';
import { options } from '../config/options.js';
import type { Env } from '../lib/base/env.js';
import { MillraceError } from '../lib/base/errors.js';
import { MetricRegistry } from '../lib/base/metrics.js';
import { createLogger } from '../lib/base/pino-logger.js';
import { SystemClock } from '../lib/base/system-clock.js';
import { SystemRandom } from '../lib/base/system-random.js';
import { exitCodeOf, exitCodes } from './exit-codes.js';
import { Supervisor, type Deposer } from './supervisor/supervisor.js';

const usage = `supervisor jobmanager|taskmanager [-D key=value ...] [--config FILE] [--pid-file FILE]

Runs a JobManager or TaskManager as its child, with these settings:
  - it ends (for whatever reason): its candidacy or registration is deleted from etcd at once, and it is started
    again, a JobManager after a second, with growing pauses up to 30 s; not after exit code 0 or ${String(exitCodes.usage.code)} (configuration)
  - its event loop is silent for 2 s (supervisor.heartbeat.timeout): it is killed first
  - SIGTERM or SIGINT: passed on; the supervisor ends with the child's exit code; the second time: SIGKILL
  - SIGUSR2: a child that waits to be started again is started now

  --pid-file FILE  where to write {"pid", "startedAt"} of the child

Its log is supervisor.log in env.log.dir, or standard error.`;

type Role = 'jobmanager' | 'taskmanager';

/** The child ends itself after 30 s. */
const stopTimeoutMs = 35_000;

interface Invocation {
  readonly role: Role;
  readonly definitions: string[];
  readonly file: string | undefined;
  readonly pidFile: string | undefined;
}

function parseInvocation([role, ...args]: string[]): Invocation {
  if (role !== 'jobmanager' && role !== 'taskmanager') {
    throw new MillraceError(
      'CONFIG',
      `expected jobmanager or taskmanager, got '${role ?? ''}' (--help shows the usage)`,
    );
  }
  try {
    const { values } = parseArgs({
      args,
      options: {
        define: { type: 'string', short: 'D', multiple: true },
        config: { type: 'string', short: 'c' },
        'pid-file': { type: 'string' },
      },
    });
    return {
      role,
      definitions: values.define ?? [],
      file: values.config,
      pidFile: values['pid-file'],
    };
  } catch (cause) {
    throw new MillraceError('CONFIG', (cause as Error).message, { cause });
  }
}

function createEnv(config: Configuration, role: Role): Env {
  const directory = config.get(options.envLogDir);
  return {
    clock: new SystemClock(),
    random: new SystemRandom(),
    metrics: new MetricRegistry(),
    log: createLogger({
      level: config.get(options.envLogLevel),
      destination: directory === undefined ? 2 : join(directory, 'supervisor.log'),
      base: { role: 'supervisor', of: role, pid: process.pid },
    }),
  };
}

/** Loaded while the child loads its own programs: it takes 15 MB and its time. */
async function openDeposer(env: Env, config: Configuration, role: Role): Promise<Deposer> {
  const { EtcdDeposer } = await import('./supervisor/etcd-deposer.js');
  const deposer = new EtcdDeposer(env, config);
  // A TaskManager's death is noticed by its leader anyway: many of them must not ask etcd all the time.
  if (role === 'jobmanager') deposer.keepWarm();
  return deposer;
}

async function main(): Promise<void> {
  const { role, definitions, file, pidFile } = parseInvocation(process.argv.slice(2));
  const config = loadConfiguration({ definitions, ...(file !== undefined && { file }) });
  const env = createEnv(config, role);
  const isHighlyAvailable = config.get(options.highAvailabilityType) === 'etcd';
  const supervisor = new Supervisor(
    env,
    isHighlyAvailable ? () => openDeposer(env, config, role) : undefined,
    {
      entry: fileURLToPath(new URL(`./${role}.js`, import.meta.url)),
      args: [
        ...definitions.flatMap((definition) => ['-D', definition]),
        ...(file === undefined ? [] : ['--config', file]),
      ],
      ...(pidFile !== undefined && { pidFile: resolve(pidFile) }),
      heartbeatIntervalMs: config.get(options.supervisorHeartbeatInterval),
      heartbeatTimeoutMs: config.get(options.supervisorHeartbeatTimeout),
      pausesFirst: role === 'jobmanager',
      initialDelayMs: config.get(options.supervisorRestartInitialDelay),
      maxDelayMs: config.get(options.supervisorRestartMaxDelay),
      stopTimeoutMs,
      finalExitCodes: [exitCodes.done.code, exitCodes.usage.code],
    },
    (code) => process.exit(code),
  );
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      env.log.info({ event: 'supervisor.stopping', signal }, 'stopping');
      supervisor.stop();
    });
  }
  process.on('SIGUSR2', () => {
    supervisor.wake();
  });
  env.log.info({ event: 'supervisor.starting', node: process.version }, 'starting');
  supervisor.start();
}

if (process.argv.includes('--help') || process.argv.includes('-h')) {
  console.log(usage);
} else {
  try {
    await main();
  } catch (error) {
    console.error(
      error instanceof MillraceError ? `supervisor: ${error.code}: ${error.message}` : error,
    );
    process.exitCode = exitCodeOf(error);
  }
}
