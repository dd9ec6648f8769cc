/**
 * Control messages as bytes: msgpackr with what it loses by itself put right. `-0` survives, keys whose value
 * is undefined are left out, bigints of any size, NaN, ±Infinity, Map, Set and Date survive, and bytes come back as
 * a Uint8Array of their own, never as a view into the message.
 */
import { addExtension, Packr } from 'msgpackr';
import { MillraceError } from '../base/errors.js';
import type { LeaderEpoch } from '../../ha/services.js';

/** What travels. `id` ties a response to its request; `close` says why the session ends. */
export interface RpcFrame {
  readonly epoch: LeaderEpoch;
  readonly kind: 'request' | 'response' | 'oneway' | 'close';
  /** 0 for one-way messages. */
  readonly id: number;
  readonly method: string;
  readonly payload?: unknown;
  /** In a response: the request failed so. */
  readonly failure?: unknown;
}

/** Largest message either side takes. */
export const maxMessageBytes = 64 * 1024 * 1024;

/** Deeper nesting is a mistake (or a cycle). */
const maxDepth = 200;

class NegativeZero {}
const negativeZero = new NegativeZero();
addExtension({
  Class: NegativeZero,
  type: 0x30,
  pack: () => Buffer.alloc(1),
  unpack: () => -0,
});

export class MessageCodec {
  readonly #packr = new Packr({
    useRecords: true,
    moreTypes: true,
    copyBuffers: true,
    useBigIntExtension: true,
  });

  /** RPC_PROTOCOL when the message is larger than {@link maxMessageBytes} or holds what cannot be encoded. */
  encode(frame: RpcFrame): Uint8Array {
    let bytes: Uint8Array;
    try {
      bytes = this.#packr.pack(prepared(frame, 0));
    } catch (error) {
      if (error instanceof MillraceError) throw error;
      throw new MillraceError('RPC_PROTOCOL', `${frame.method} holds what cannot be encoded`, {
        cause: error,
      });
    }
    if (bytes.byteLength > maxMessageBytes) {
      throw new MillraceError(
        'RPC_PROTOCOL',
        `${frame.method} takes ${String(bytes.byteLength)} bytes, more than the ${String(maxMessageBytes)} of a message`,
      );
    }
    return bytes;
  }

  /** RPC_PROTOCOL for bytes that are no frame. */
  decode(bytes: Uint8Array): RpcFrame {
    let value: unknown;
    try {
      // A plain view: from a Buffer msgpackr would make Buffers.
      value = this.#packr.unpack(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    } catch (error) {
      throw new MillraceError('RPC_PROTOCOL', 'the peer sent bytes that are no message', {
        cause: error,
      });
    }
    if (!isFrame(value)) {
      throw new MillraceError('RPC_PROTOCOL', 'the peer sent a message without its envelope');
    }
    return value;
  }
}

const frameKinds = ['request', 'response', 'oneway', 'close'];

function isFrame(value: unknown): value is RpcFrame {
  if (typeof value !== 'object' || value === null) return false;
  const { epoch, kind, id, method } = value as Record<string, unknown>;
  if (typeof epoch !== 'object' || epoch === null) return false;
  const { era, revision } = epoch as Record<string, unknown>;
  return (
    Number.isSafeInteger(era) &&
    Number.isSafeInteger(revision) &&
    frameKinds.includes(kind as string) &&
    Number.isSafeInteger(id) &&
    typeof method === 'string'
  );
}

/** The value to encode: the same one when nothing has to be put right, else a copy along the changed path. */
function prepared(value: unknown, depth: number): unknown {
  if (value === 0) return Object.is(value, -0) ? negativeZero : value;
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value;
  if (depth > maxDepth) {
    throw new MillraceError('RPC_PROTOCOL', 'a message is nested too deeply or refers to itself');
  }
  if (Array.isArray(value)) return preparedArray(value, depth);
  if (value instanceof Map) {
    return new Map(
      [...value].map(([key, item]) => [prepared(key, depth + 1), prepared(item, depth + 1)]),
    );
  }
  if (value instanceof Set) return new Set([...value].map((item) => prepared(item, depth + 1)));
  if (value instanceof Date || value instanceof Error) return value;
  return preparedObject(value as Record<string, unknown>, depth);
}

function preparedArray(value: readonly unknown[], depth: number): unknown {
  let copy: unknown[] | undefined;
  for (let i = 0; i < value.length; i++) {
    const item = prepared(value[i], depth + 1);
    if (Object.is(item, value[i])) continue;
    copy ??= [...value];
    copy[i] = item;
  }
  return copy ?? value;
}

function preparedObject(value: Record<string, unknown>, depth: number): unknown {
  let copy: Record<string, unknown> | undefined;
  for (const key of Object.keys(value)) {
    const item = value[key];
    const kept = prepared(item, depth + 1);
    if (item !== undefined && Object.is(kept, item)) continue;
    copy ??= { ...value };
    if (item === undefined) delete copy[key];
    else copy[key] = kept;
  }
  return copy ?? value;
}
