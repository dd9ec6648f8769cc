/** The events a cluster's processes log, read as they are appended: a long run's logs are not read again and again. */
import { closeSync, existsSync, openSync, readSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parseEvent, type LoggedEvent } from '../../bin/drills/timeline.js';

interface Tail {
  offset: number;
  /** Begin of a line whose end is not written yet. */
  rest: string;
}

export class EventTail {
  readonly #logDir: string;
  readonly #tails = new Map<string, Tail>();
  #events: LoggedEvent[] = [];

  /** `logDir` holds a directory of logs for each process. */
  constructor(logDir: string) {
    this.#logDir = logDir;
  }

  /** In order of time. */
  since(at: number): LoggedEvent[] {
    this.#read();
    return this.#events.filter((one) => one.at >= at).sort((a, b) => a.at - b.at);
  }

  /** What was before is not asked for any more. */
  forgetBefore(at: number): void {
    this.#read();
    this.#events = this.#events.filter((one) => one.at >= at);
  }

  #read(): void {
    if (!existsSync(this.#logDir)) return;
    for (const folder of readdirSync(this.#logDir, { withFileTypes: true })) {
      if (!folder.isDirectory()) continue;
      const path = join(this.#logDir, folder.name);
      for (const name of readdirSync(path)) this.#readFile(folder.name, join(path, name));
    }
  }

  #readFile(process: string, path: string): void {
    const { size } = statSync(path);
    const tail = this.#tails.get(path) ?? { offset: 0, rest: '' };
    this.#tails.set(path, tail);
    if (size <= tail.offset) return;
    const bytes = Buffer.alloc(size - tail.offset);
    const file = openSync(path, 'r');
    try {
      tail.offset += readSync(file, bytes, 0, bytes.length, tail.offset);
    } finally {
      closeSync(file);
    }
    const lines = (tail.rest + bytes.toString('utf8')).split('\n');
    tail.rest = lines.pop() ?? '';
    for (const line of lines) {
      const event = line.includes('"event"') ? parseEvent(process, line) : undefined;
      if (event !== undefined) this.#events.push(event);
    }
  }
}
