/**
 * What user code prints becomes lines of the TaskManager's log with the job, vertex and subtask it belongs to:
 * through console, or by writing to the process's streams. For slot threads only, where everything that prints
 * is user code.
 */
import { Console } from 'node:console';
import { Writable } from 'node:stream';
import type { LogFields, Logger } from '../base/logger.js';
import { userOutputEvent } from './log-tail.js';

/** Longest text of one line of the log. */
const maxChars = 16_384;

/** @param fields of the task whose code runs. */
export function captureConsole(log: Logger, fields: () => LogFields): void {
  const write = (level: 'info' | 'warn', text: string): void => {
    const line = text.endsWith('\n') ? text.slice(0, -1) : text;
    const shown = line.length > maxChars ? `${line.slice(0, maxChars)}…` : line;
    log[level]({ event: userOutputEvent, ...fields() }, shown);
  };
  const stdout = lineStream((text) => {
    write('info', text);
  });
  const stderr = lineStream((text) => {
    write('warn', text);
  });
  const captured = new Console({ stdout, stderr, colorMode: false });
  const target = globalThis.console as unknown as Record<string, unknown>;
  for (const [name, method] of Object.entries(captured)) {
    if (typeof method === 'function') target[name] = method;
  }
  process.stdout.write = stdout.write.bind(stdout);
  process.stderr.write = stderr.write.bind(stderr);
}

/** Synchronous, so that a line is attributed to the task that is running now. */
function lineStream(write: (text: string) => void): Writable {
  return new Writable({
    decodeStrings: false,
    write: (chunk: string | Buffer, _encoding, done) => {
      write(typeof chunk === 'string' ? chunk : chunk.toString('utf8'));
      done();
    },
  });
}
