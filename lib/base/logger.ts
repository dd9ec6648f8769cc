/**
 * What is bound to a log line. Ids go into fields, never into the message; the message is a constant
 * lower-case sentence. `event` marks state changes that drills and tests wait for.
 */
export interface LogFields {
  readonly component?: string;
  readonly event?: string;
  readonly err?: unknown;
  readonly [field: string]: unknown;
}

/** error: somebody must look; warn: may heal by itself; info: a few lines a minute; debug: per checkpoint or RPC; trace: per buffer. */
export interface Logger {
  child(fields: LogFields): Logger;
  error(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  debug(fields: LogFields, message: string): void;
  trace(fields: LogFields, message: string): void;
}

/** Drops everything; for tests and embedded use. */
export const silentLogger: Logger = {
  child: () => silentLogger,
  error: () => undefined,
  warn: () => undefined,
  info: () => undefined,
  debug: () => undefined,
  trace: () => undefined,
};
