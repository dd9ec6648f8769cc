/**
 * Frames between two TaskManagers, little-endian: u32 length of what follows, u8 type, then
 *   hello    JSON                         consumer -> producer, first
 *   welcome  (empty)                      producer -> consumer, when the hello fits
 *   open     u32 stream, u32 credits, channel id     consumer -> producer; streams are numbered by the consumer
 *   data     u32 stream, u8 continues, bytes         producer -> consumer; costs one credit
 *   control  u32 stream, u8 kind, f64 a, f64 b       producer -> consumer
 *   credit   u32 stream, u32 credits                 consumer -> producer
 *   close    u32 stream                              consumer -> producer: takes nothing more
 *   fail     u32 stream, u8 reason, text             producer -> consumer
 *   refuse   text                         producer -> consumer: the hello does not fit; the connection ends
 */
import { MillraceError } from '../base/errors.js';
import type { ControlEvent } from '../record/stream-element.js';

/** Raised when frames change incompatibly. */
export const wireVersion = 1;

export interface Hello {
  readonly version: number;
  readonly clusterUid: string;
  readonly taskManagerId: string;
  /** Both ends must agree: a data frame fills at most one buffer. */
  readonly bufferBytes: number;
}

/** `closed`: the producer's task ended and says why itself; `lost`: the channel never came or broke. */
export type FailReason = 'closed' | 'lost';

export type Frame =
  | { readonly type: 'hello'; readonly hello: Hello }
  | { readonly type: 'welcome' }
  | { readonly type: 'refuse'; readonly reason: string }
  | {
      readonly type: 'open';
      readonly stream: number;
      readonly credits: number;
      readonly channelId: string;
    }
  | {
      readonly type: 'data';
      readonly stream: number;
      readonly continues: boolean;
      readonly bytes: Uint8Array;
    }
  | { readonly type: 'control'; readonly stream: number; readonly event: ControlEvent }
  | { readonly type: 'credit'; readonly stream: number; readonly credits: number }
  | { readonly type: 'close'; readonly stream: number }
  | {
      readonly type: 'fail';
      readonly stream: number;
      readonly reason: FailReason;
      readonly text: string;
    };

const types = [
  'hello',
  'welcome',
  'refuse',
  'open',
  'data',
  'control',
  'credit',
  'close',
  'fail',
] as const;
const controlKinds = [
  'watermark',
  'watermarkStatus',
  'barrier',
  'cancelBarrier',
  'endOfData',
  'endOfPartition',
] as const;

/** Length and type. */
const prefixBytes = 5;
/** Stream and flag of a data frame. */
const dataHeaderBytes = 5;
/** Longest frame that is not data. */
const otherFrameBytesMax = 64 * 1024;

export function frameBytesMax(bufferBytes: number): number {
  return Math.max(otherFrameBytesMax, bufferBytes + dataHeaderBytes + 1);
}

function allocate(type: Frame['type'], bodyBytes: number): Buffer {
  const frame = Buffer.allocUnsafe(prefixBytes + bodyBytes);
  frame.writeUInt32LE(bodyBytes + 1, 0);
  frame.writeUInt8(types.indexOf(type), 4);
  return frame;
}

export function encodeFrame(frame: Exclude<Frame, { type: 'data' }>): Buffer {
  switch (frame.type) {
    case 'hello':
      return withText(frame.type, [], JSON.stringify(frame.hello));
    case 'welcome':
      return allocate(frame.type, 0);
    case 'refuse':
      return withText(frame.type, [], frame.reason);
    case 'open':
      return withText(frame.type, [frame.stream, frame.credits], frame.channelId);
    case 'control':
      return encodeControl(frame.stream, frame.event);
    case 'credit':
      return withText(frame.type, [frame.stream, frame.credits], '');
    case 'close':
      return withText(frame.type, [frame.stream], '');
    case 'fail':
      return withText(frame.type, [frame.stream, frame.reason === 'closed' ? 0 : 1], frame.text);
  }
}

/** Bytes of a data frame, its length included. */
export function dataFrameBytes(bytes: Uint8Array): number {
  return prefixBytes + dataHeaderBytes + bytes.byteLength;
}

/** Writes a data frame at `offset`. */
export function encodeDataInto(
  out: Buffer,
  offset: number,
  frame: { readonly stream: number; readonly bytes: Uint8Array; readonly continues: boolean },
): void {
  const { stream, bytes, continues } = frame;
  out.writeUInt32LE(1 + dataHeaderBytes + bytes.byteLength, offset);
  out[offset + 4] = types.indexOf('data');
  out.writeUInt32LE(stream, offset + prefixBytes);
  out[offset + prefixBytes + 4] = continues ? 1 : 0;
  out.set(bytes, offset + prefixBytes + dataHeaderBytes);
}

function withText(type: Frame['type'], words: readonly number[], text: string): Buffer {
  const length = Buffer.byteLength(text);
  const out = allocate(type, words.length * 4 + length);
  words.forEach((word, i) => out.writeUInt32LE(word, prefixBytes + i * 4));
  out.write(text, prefixBytes + words.length * 4, length, 'utf8');
  return out;
}

function encodeControl(stream: number, event: ControlEvent): Buffer {
  const out = allocate('control', 21);
  let a = 0;
  let b = 0;
  if (event.kind === 'watermark') a = event.timestamp;
  if (event.kind === 'watermarkStatus') a = event.active ? 1 : 0;
  if (event.kind === 'barrier' || event.kind === 'cancelBarrier') a = event.checkpointId;
  if (event.kind === 'barrier') b = event.timestamp;
  out.writeUInt32LE(stream, prefixBytes);
  out.writeUInt8(controlKinds.indexOf(event.kind), prefixBytes + 4);
  out.writeDoubleLE(a, prefixBytes + 5);
  out.writeDoubleLE(b, prefixBytes + 13);
  return out;
}

function decodeFrame(body: Buffer): Frame {
  const type = types[body.readUInt8(0)];
  switch (type) {
    case 'hello':
      return { type, hello: JSON.parse(body.toString('utf8', 1)) as Hello };
    case 'welcome':
      return { type };
    case 'refuse':
      return { type, reason: body.toString('utf8', 1) };
    case 'open': {
      const channelId = body.toString('utf8', 9);
      return { type, stream: body.readUInt32LE(1), credits: body.readUInt32LE(5), channelId };
    }
    case 'data': {
      const bytes = body.subarray(1 + dataHeaderBytes);
      return { type, stream: body.readUInt32LE(1), continues: body.readUInt8(5) === 1, bytes };
    }
    case 'control':
      return { type, stream: body.readUInt32LE(1), event: decodeControl(body) };
    case 'credit':
      return { type, stream: body.readUInt32LE(1), credits: body.readUInt32LE(5) };
    case 'close':
      return { type, stream: body.readUInt32LE(1) };
    case 'fail': {
      const reason = body.readUInt32LE(5) === 0 ? 'closed' : 'lost';
      return { type, stream: body.readUInt32LE(1), reason, text: body.toString('utf8', 9) };
    }
    default:
      throw new MillraceError('RPC_PROTOCOL', 'a data connection carries a frame of unknown type');
  }
}

function decodeControl(body: Buffer): ControlEvent {
  const kind = controlKinds[body.readUInt8(5)];
  const a = body.readDoubleLE(6);
  switch (kind) {
    case 'watermark':
      return { kind, timestamp: a };
    case 'watermarkStatus':
      return { kind, active: a === 1 };
    case 'barrier':
      return { kind, checkpointId: a, timestamp: body.readDoubleLE(14) };
    case 'cancelBarrier':
      return { kind, checkpointId: a };
    case 'endOfData':
    case 'endOfPartition':
      return { kind };
    default:
      throw new MillraceError('RPC_PROTOCOL', 'a data connection carries an unknown control event');
  }
}

/** Cuts a byte stream into frames. A frame's bytes are valid only during `onFrame`. */
export class FrameReader {
  readonly #bytesMax: number;
  readonly #onFrame: (frame: Frame) => void;
  /** A frame that came in pieces: so many bytes of it are there. */
  #partial = Buffer.alloc(0);
  #filled = 0;

  constructor(bytesMax: number, onFrame: (frame: Frame) => void) {
    this.#bytesMax = bytesMax;
    this.#onFrame = onFrame;
  }

  /** Throws RPC_PROTOCOL when the bytes are no frames. */
  push(chunk: Buffer): void {
    let offset = this.#filled > 0 ? this.#complete(chunk) : 0;
    while (chunk.byteLength - offset >= 4) {
      const end = offset + 4 + this.#lengthAt(chunk, offset);
      if (end > chunk.byteLength) break;
      this.#onFrame(decodeFrame(chunk.subarray(offset + 4, end)));
      offset = end;
    }
    this.#keep(chunk, offset);
  }

  /** Adds to the partial frame; returns how much of the chunk it took. */
  #complete(chunk: Buffer): number {
    let taken = 0;
    while (taken < chunk.byteLength) {
      const wanted = this.#filled < 4 ? 4 : 4 + this.#lengthAt(this.#partial, 0);
      const count = Math.min(wanted - this.#filled, chunk.byteLength - taken);
      this.#reserve(wanted);
      chunk.copy(this.#partial, this.#filled, taken, taken + count);
      this.#filled += count;
      taken += count;
      if (this.#filled < 4 || this.#filled < 4 + this.#lengthAt(this.#partial, 0)) continue;
      const frame = this.#partial.subarray(4, this.#filled);
      this.#filled = 0;
      this.#onFrame(decodeFrame(frame));
      break;
    }
    return taken;
  }

  #keep(chunk: Buffer, from: number): void {
    const rest = chunk.byteLength - from;
    if (rest <= 0) return;
    this.#reserve(rest);
    chunk.copy(this.#partial, 0, from);
    this.#filled = rest;
  }

  #reserve(bytes: number): void {
    if (bytes <= this.#partial.byteLength) return;
    const larger = Buffer.allocUnsafe(Math.max(bytes, 4096));
    this.#partial.copy(larger, 0, 0, this.#filled);
    this.#partial = larger;
  }

  #lengthAt(bytes: Buffer, offset: number): number {
    const length = bytes.readUInt32LE(offset);
    if (length === 0 || length > this.#bytesMax) {
      throw new MillraceError(
        'RPC_PROTOCOL',
        `a data connection announces a frame of ${String(length)} bytes`,
      );
    }
    return length;
  }
}
