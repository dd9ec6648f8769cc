/** The records of the benchmarks, the same for the jobs and for the naive variants beside them. */

/** Keys in no order a cache or a hash table would like, every one of them soon: `keys` up to 2^24. */
export function scrambledKey(i: number, keys: number): number {
  return (Math.imul(i, 0x9e3779b1) >>> 8) % keys;
}

export interface Trade {
  readonly id: number;
  readonly key: number;
  readonly price: number;
  readonly time: number;
}

/** Four numbers. */
export function trade(i: number, keys: number): Trade {
  return { id: i, key: scrambledKey(i, keys), price: i % 1000, time: i };
}

/** Five fields, for the chain in one slot. */
export interface Order extends Trade {
  readonly quantity: number;
}

export function order(i: number, keys: number): Order {
  return { id: i, key: scrambledKey(i, keys), price: i % 1000, time: i, quantity: i & 7 };
}

/** A new record: fields by name, as V8 makes no copy that nobody looks at of these, but always one of `{ ...o }` (some 15 ns). */
export function doubled({ id, key, price, time, quantity }: Order): Order {
  return { id, key, price: price * 2, time, quantity };
}

/** Depends on every field, so that each one has to be there. */
export function checkOfTrade(t: Trade): number {
  return (t.id ^ t.price ^ t.time) & 0xff;
}

export interface Bid {
  readonly auction: number;
  readonly bidder: number;
  readonly price: number;
  readonly channel: string;
  readonly url: string;
  readonly dateTime: number;
  readonly extra: string;
}

const channels = ['Google', 'Facebook', 'Baidu', 'Apple'];
const letters = 'abcdefghijklmnopqrstuvwxyz';

/** Flat, so that no variant pays for flattening what another has flattened already. */
function text(seed: number, length: number): string {
  let code = seed + 1;
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i += 1) {
    code = (Math.imul(code, 1_103_515_245) + 12_345) & 0x7fffffff;
    bytes[i] = letters.charCodeAt((code >>> 8) % letters.length);
  }
  return bytes.toString('latin1');
}

const urlCount = 997;
const extraCount = 1009;
const urls = Array.from({ length: urlCount }, (_, i) => `https://www.nexmark.com/${text(i, 21)}`);
const extras = Array.from({ length: extraCount }, (_, i) => text(i + 5000, 90 + (i % 21)));
const firstBidAt = 1_750_000_000_000;

/** Seven fields, three of them strings: about 200 bytes of JSON. */
export function bid(i: number, keys: number): Bid {
  return {
    auction: scrambledKey(i, keys),
    bidder: i % 100_003,
    price: i % 1000,
    channel: channels[i & 3] ?? '',
    url: urls[i % urlCount] ?? '',
    dateTime: firstBidAt + i,
    extra: extras[i % extraCount] ?? '',
  };
}

export function checkOfBid(b: Bid): number {
  return (
    (b.channel.length +
      b.url.length +
      b.url.charCodeAt(30) +
      b.extra.length +
      b.extra.charCodeAt(3) +
      (b.bidder ^ b.price ^ (b.dateTime % 1024))) &
    0xff
  );
}

export interface Sized {
  readonly key: number;
  readonly body: string;
}

const bodyCount = 61;

/** Records of `bytes` bytes: a number and a string of the rest. */
export function sizedRecords(bytes: number): (i: number, keys: number) => Sized {
  const bodies = Array.from({ length: bodyCount }, (_, i) => text(i, Math.max(1, bytes - 8)));
  return (i, keys) => ({ key: scrambledKey(i, keys), body: bodies[i % bodyCount] ?? '' });
}

export function checkOfSized(s: Sized): number {
  return (s.key + s.body.length + s.body.charCodeAt(s.body.length - 1)) & 0xff;
}

const wordLength = 12;

/**
 * Word number i of a text of `keys` words. Always a new string without a hash, as a decoder or parser gives it: V8
 * copies substrings that short.
 */
export function wordsOf(keys: number): (n: number) => string {
  let all = '';
  for (let i = 0; i < keys; i += 1) all += `u${String(i).padStart(wordLength - 1, '0')}`;
  const flat = Buffer.from(all, 'latin1').toString('latin1');
  return (n) => flat.substring(n * wordLength, n * wordLength + wordLength);
}

/** Minutes of event time pass every so many records: ten for each of 20,000 keys. */
export const recordsPerMinute = 200_000;
const startOfTime = 1_750_000_020_000;

export function eventTime(i: number): number {
  return startOfTime + Math.floor((i * 60_000) / recordsPerMinute);
}
