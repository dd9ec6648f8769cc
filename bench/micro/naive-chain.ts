/** Source, map, filter, map, count by key written by hand, in the ways one would without an engine. */
import { Readable, Transform, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Priced } from '../jobs/functions.js';
import { doubled, order, type Order } from '../jobs/records.js';
import { expectEqual, microArguments, repeat, tell } from './protocol.js';

const args = microArguments();
const { keys } = args;
const counts = new Map<number, number>();
/** What the sink got. */
let emitted = 0;
let sum = 0;

const isKept = (o: Order): boolean => o.id % 10 !== 0;
const strip = (o: Order): Priced => ({ key: o.key, price: o.price });

function count(p: Priced): void {
  const n = (counts.get(p.key) ?? 0) + 1;
  counts.set(p.key, n);
  emitted += 1;
  sum += n;
}

let next = 0;

/** Everything in one loop, with the same functions. */
function loop(records: number): number {
  const end = next + records;
  for (let i = next; i < end; i += 1) {
    const kept = doubled(order(i, keys));
    if (isKept(kept)) count(strip(kept));
  }
  next = end;
  return records;
}

const batchRecords = 1024;

/** Arrays of records from operator to operator. */
function batches(records: number): number {
  const end = next + records;
  while (next < end) {
    const batch: Order[] = [];
    for (let i = next; i < next + batchRecords; i += 1) batch.push(order(i, keys));
    next += batchRecords;
    for (const priced of batch.map(doubled).filter(isKept).map(strip)) count(priced);
  }
  return records;
}

async function* generated(records: number): AsyncGenerator<Order> {
  const end = next + records;
  for (; next < end; next += 1) yield order(next, keys);
}

async function* mapped<T, R>(input: AsyncIterable<T>, fn: (value: T) => R): AsyncGenerator<R> {
  for await (const value of input) yield fn(value);
}

async function* filtered<T>(input: AsyncIterable<T>, fn: (value: T) => boolean): AsyncGenerator<T> {
  for await (const value of input) if (fn(value)) yield value;
}

async function asyncGenerators(records: number): Promise<number> {
  const all = mapped(generated(records), doubled);
  for await (const priced of mapped(filtered(all, isKept), strip)) count(priced);
  return records;
}

function transform<T, R>(fn: (value: T, push: (result: R) => void) => void): Transform {
  return new Transform({
    objectMode: true,
    transform(value: T, _encoding, done) {
      fn(value, (result) => this.push(result));
      done();
    },
  });
}

async function streams(records: number): Promise<number> {
  const end = next + records;
  await pipeline(
    new Readable({
      objectMode: true,
      read() {
        let room = true;
        while (room && next < end) {
          room = this.push(order(next, keys));
          next += 1;
        }
        if (next >= end) this.push(null);
      },
    }),
    transform<Order, Order>((o, push) => {
      push(doubled(o));
    }),
    transform<Order, Order>((o, push) => {
      if (isKept(o)) push(o);
    }),
    transform<Order, Priced>((o, push) => {
      push(strip(o));
    }),
    new Writable({
      objectMode: true,
      write(p: Priced, _encoding, done) {
        count(p);
        done();
      },
    }),
  );
  return records;
}

const variants: Readonly<Record<string, () => number | Promise<number>>> = {
  loop: () => loop(256 * 1024),
  batches: () => batches(256 * 1024),
  'async-generators': () => asyncGenerators(32 * 1024),
  streams: () => streams(32 * 1024),
};

const piece = variants[args.variant];
if (piece === undefined) throw new RangeError(`no variant ${args.variant}`);
const result = await repeat(args, piece);
let [expectedEmitted, expectedSum] = [0, 0];
for (let i = 0; i < next; i += 1) if (i % 10 !== 0) expectedEmitted += 1;
for (const n of counts.values()) expectedSum += (n * (n + 1)) / 2;
expectEqual('the number of results', emitted, expectedEmitted);
expectEqual('the sum of counts', sum, expectedSum);
tell(result);
