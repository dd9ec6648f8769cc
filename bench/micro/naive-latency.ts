/** A record at a time from thread to thread with `postMessage`: what a wake-up costs on this machine. */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Worker, parentPort } from 'node:worker_threads';
import { monotonicMs } from '../jobs/meter.js';
import { latencyOf } from '../rate.js';
import { microArguments, tell } from './protocol.js';

interface Stamped {
  readonly key: number;
  readonly madeAt: number;
  readonly text: string;
}

const end = 'end';
const perMs = 1;

async function produce(): Promise<void> {
  const { warmMs, windowMs } = microArguments();
  const worker = new Worker(fileURLToPath(import.meta.url));
  await once(worker, 'message');
  const latencies = once(worker, 'message') as Promise<[number[]]>;
  const start = monotonicMs();
  let sent = 0;
  const tick = (): void => {
    const due = Math.floor((monotonicMs() - start) * perMs);
    for (; sent < due; sent += 1) {
      const record: Stamped = {
        key: sent % 1000,
        madeAt: monotonicMs(),
        text: 'a record of traffic',
      };
      worker.postMessage(record);
    }
    if (due < (warmMs + windowMs) * perMs) setTimeout(tick, 1);
    else worker.postMessage(end);
  };
  tick();
  const [seen] = await latencies;
  await worker.terminate();
  tell(latencyOf(seen.slice(Math.floor(warmMs * perMs))));
}

function consume(port: NonNullable<typeof parentPort>): void {
  const latencies: number[] = [];
  port.on('message', (message: Stamped | typeof end) => {
    if (message === end) port.postMessage(latencies);
    else latencies.push(monotonicMs() - message.madeAt);
  });
  port.postMessage('ready');
}

if (parentPort === null) await produce();
else consume(parentPort);
