/**
 * What JobManager and TaskManager processes have in common: configuration, Env, high availability, signals and the
 * way out. The only place that says `new` for clock, random and logger.
 */
import { hostname } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { loadConfiguration } from '../config/load.js';
import type { Configuration } from '../config/configuration.js';
import { options } from '../config/options.js';
import { createEtcdHighAvailability } from '../ha/etcd/create-etcd-high-availability.js';
import { connectPeer } from '../ha/peer-connection.js';
import type { HighAvailability } from '../ha/services.js';
import { sleep } from '../lib/base/clock.js';
import type { Env } from '../lib/base/env.js';
import { retryAdvice } from '../lib/base/error-codes.js';
import { hasCode, MillraceError } from '../lib/base/errors.js';
import type { Closeable } from '../lib/base/lifecycle.js';
import { MetricRegistry } from '../lib/base/metrics.js';
import { createLogger, type LogLevel } from '../lib/base/pino-logger.js';
import { SystemClock } from '../lib/base/system-clock.js';
import { SystemRandom } from '../lib/base/system-random.js';
import { exitCodeOf, exitCodes } from './exit-codes.js';
import { etcdConnection } from './etcd-connection.js';
import { blockOnSignal, faultFromEnvironment } from './fault-point.js';
import { connectSupervisor, type SupervisorLink } from './supervisor/supervisor-link.js';

export interface ProcessContext {
  readonly config: Configuration;
  readonly env: Env;
  readonly log: {
    readonly level: LogLevel;
    /** The log's file, or 2 for standard error. */
    readonly destination: string | number;
    readonly path?: string;
    readonly base: Readonly<Record<string, unknown>>;
  };
  /** Ends the process with the error's exit code, after `close`. */
  readonly onFatal: (error: unknown) => void;
  /** Aborts when the process is to end. */
  readonly signal: AbortSignal;
  readonly supervisor: SupervisorLink;
}

/** After this a process that was asked to end and did not is ended all the same. */
const closeTimeoutMs = 30_000;

/** NB: process.exit waits for worker threads, and so for ever for one in a synchronous native call. */
function killSelf(): void {
  process.kill(process.pid, 'SIGKILL');
}

/**
 * Runs a process: `-D key=value` and `--config FILE` -> configuration -> `start` -> SIGTERM or SIGINT -> close ->
 * exit code. Errors at start go to standard error as well: whoever started it reads there.
 */
export async function runProcess(
  role: 'jobmanager' | 'taskmanager',
  start: (context: ProcessContext) => Promise<Closeable>,
): Promise<void> {
  const ending = new AbortController();
  let running: Closeable | undefined;
  let exitCode: number = exitCodes.done.code;
  const end = async (code: number, env: Env | undefined): Promise<void> => {
    if (ending.signal.aborted) return;
    exitCode = code;
    ending.abort();
    setTimeout(killSelf, closeTimeoutMs).unref();
    await running?.close();
    env?.log.info({ event: `${role}.ended`, exitCode }, 'process ends');
    process.exit(exitCode);
  };
  let env: Env | undefined;
  const fail = (error: unknown): void => {
    env?.log.error({ event: `${role}.failed`, err: error }, 'the process cannot go on');
    console.error(
      error instanceof MillraceError
        ? `${role}: ${error.code}: ${error.message}; ${retryAdvice[error.retry]}`
        : error,
    );
    if (hasCode(error, 'TASK_CANCEL_TIMEOUT')) killSelf();
    else void end(exitCodeOf(error), env);
  };
  try {
    const context = openProcess(role, fail, ending.signal);
    ({ env } = context);
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        context.env.log.info({ event: `${role}.stopping`, signal }, 'stopping');
        void end(exitCodes.done.code, context.env);
      });
    }
    process.on('uncaughtException', fail);
    running = await start(context);
    context.supervisor.startHeartbeats();
    // A signal came while it started: what it began with is closed now.
    if (ending.signal.aborted) await running.close();
  } catch (error) {
    if (ending.signal.aborted && hasCode(error, 'ABORTED')) return;
    fail(error);
  }
}

function openProcess(
  role: string,
  onFatal: (error: unknown) => void,
  signal: AbortSignal,
): ProcessContext {
  const config = loadConfiguration(parseProcessArguments(process.argv.slice(2)));
  const directory = config.get(options.envLogDir);
  const path = directory === undefined ? undefined : join(directory, `${role}.log`);
  const base = { role, pid: process.pid };
  const level = config.get(options.envLogLevel);
  const log = { level, destination: path ?? 2, base, ...(path !== undefined && { path }) };
  const env: Env = {
    clock: new SystemClock(),
    random: new SystemRandom(),
    metrics: new MetricRegistry(),
    log: createLogger(log),
    ...faultFromEnvironment(process.env),
  };
  blockOnSignal(process.env);
  env.log.info(
    {
      event: `${role}.starting`,
      host: hostname(),
      node: process.version,
      config: Object.fromEntries(
        config
          .entries()
          .filter(({ source }) => source !== 'default')
          .map(({ key, text, source }) => [key, `${text} (${source})`]),
      ),
    },
    'starting',
  );
  const supervisor = connectSupervisor(env, config.get(options.supervisorHeartbeatInterval));
  return { config, env, log, onFatal, signal, supervisor };
}

function parseProcessArguments(args: string[]): { definitions: string[]; file?: string } {
  try {
    const { values } = parseArgs({
      args,
      options: {
        define: { type: 'string', short: 'D', multiple: true },
        config: { type: 'string', short: 'c' },
      },
    });
    return {
      definitions: values.define ?? [],
      ...(values.config !== undefined && { file: values.config }),
    };
  } catch (cause) {
    throw new MillraceError('CONFIG', (cause as Error).message, { cause });
  }
}

const retryMs = 500;

/**
 * High availability over etcd. While etcd does not answer it goes on trying, saying so, until `timeoutMs` are over;
 * rejects with ETCD_UNAVAILABLE then, and with ABORTED when the process is asked to end.
 */
export async function openHighAvailability(
  { config, env, signal }: ProcessContext,
  timeoutMs: number,
): Promise<HighAvailability> {
  const endpoints = config.get(options.highAvailabilityEtcdEndpoints);
  const storageDir = config.get(options.highAvailabilityStorageDir);
  const began = env.clock.now();
  for (let attempt = 0; ; attempt += 1) {
    if (signal.aborted) throw new MillraceError('ABORTED', 'stopped while waiting for etcd');
    try {
      return await createEtcdHighAvailability(env, {
        ...etcdConnection(config),
        clusterId: config.get(options.highAvailabilityClusterId),
        ...(storageDir !== undefined && { storageDir }),
        leaseTtlMs: config.get(options.highAvailabilityEtcdLeaseTtl),
        electionTimeoutMs: config.get(options.highAvailabilityEtcdElectionTimeout),
        outageGraceMs: config.get(options.highAvailabilityControlOutageGrace),
        ...(config.get(options.highAvailabilityPeerDetectionEnabled) && {
          peerConnector: connectPeer,
        }),
      });
    } catch (error) {
      if (!hasCode(error, 'ETCD_UNAVAILABLE')) throw error;
      const waited = Math.round(env.clock.now() - began);
      if (attempt % 6 === 0) {
        env.log.warn(
          { event: 'etcd.unavailable', err: error, endpoints, waitedMs: waited },
          'etcd does not answer; trying again',
        );
        console.error(`waiting for etcd since ${String(waited)} ms: ${(error as Error).message}`);
      }
      if (waited > timeoutMs) {
        throw new MillraceError(
          'ETCD_UNAVAILABLE',
          `etcd at ${endpoints.join(', ')} did not answer for ${String(waited)} ms: start it or correct high-availability.etcd.endpoints`,
          { cause: error },
        );
      }
      await sleep(env.clock, retryMs, signal);
    }
  }
}
