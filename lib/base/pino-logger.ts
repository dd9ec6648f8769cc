import { pino, type Logger as Pino } from 'pino';
import type { LogFields, Logger } from './logger.js';
import { toFailure } from './errors.js';

export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent';

export interface LoggerOptions {
  readonly level: LogLevel;
  /** File descriptor or path; standard output when absent. Lines are JSON. Created with its folders. */
  readonly destination?: number | string;
  /** Fields on every line, such as the process's role and id. */
  readonly base?: LogFields;
}

/** Taken when this module is loaded: `Date` itself is pinned while a slot re-runs main. */
const SystemDate = Date;

const redacted = [
  'token',
  'password',
  'secret',
  'authorization',
  '*.token',
  '*.password',
  '*.secret',
  'headers.authorization',
];

/** Creates the process's logger. Lines are written synchronously, so that a crash loses none. */
export function createLogger(options: LoggerOptions): Logger {
  const destination = pino.destination({ dest: options.destination ?? 1, sync: true, mkdir: true });
  return new PinoLogger(
    pino(
      {
        level: options.level,
        base: options.base ?? {},
        redact: redacted,
        timestamp: () => `,"time":"${new SystemDate().toISOString()}"`,
        formatters: { level: (label) => ({ level: label }) },
        serializers: { err: (error: unknown) => toFailure(error) },
      },
      destination,
    ),
  );
}

class PinoLogger implements Logger {
  readonly #root: Pino;
  readonly #fields: LogFields;
  readonly #pino: Pino;

  constructor(root: Pino, fields: LogFields = {}) {
    this.#root = root;
    this.#fields = fields;
    this.#pino = root.child(fields);
  }

  /** From the root each time: pino would write a field twice that a child sets again. */
  child(fields: LogFields): Logger {
    return new PinoLogger(this.#root, { ...this.#fields, ...fields });
  }

  error(fields: LogFields, message: string): void {
    this.#pino.error(fields, message);
  }

  warn(fields: LogFields, message: string): void {
    this.#pino.warn(fields, message);
  }

  info(fields: LogFields, message: string): void {
    this.#pino.info(fields, message);
  }

  debug(fields: LogFields, message: string): void {
    this.#pino.debug(fields, message);
  }

  trace(fields: LogFields, message: string): void {
    this.#pino.trace(fields, message);
  }
}
