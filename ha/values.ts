/**
 * Values in the store are JSON text, so that an administrator can read them with etcdctl. Every value
 * a leader writes carries the id of the write (`w`), by which a write with a lost answer is recognized.
 * Unknown fields are tolerated: a newer version may have added them.
 */
import { promisify } from 'node:util';
import { gunzip, gunzipSync, gzip, gzipSync } from 'node:zlib';
import { damaged } from './damaged.js';
import type { HaStorage } from './ha-storage.js';
import { decodeText, encodeText, type KvEntry } from './kv-store.js';

const compressAside = promisify(gzip);
const decompressAside = promisify(gunzip);
/**
 * Up to this size (about a millisecond) bytes are compressed at once, which keeps histories of tests
 * deterministic; above it on zlib's own thread, so that the leader's loop goes on.
 */
const maxSyncBytes = 65_536;

/** Values above this size make etcd slow for everybody (measured: p90 > 100 ms at 1 MB). */
export const maxInlineBytes = 65_536;

export type JsonObject = Readonly<Record<string, unknown>>;

export function encodeValue(value: JsonObject): Uint8Array {
  return encodeText(JSON.stringify(value));
}

/** RECOVERY_FAILED when the value is not a JSON object. */
export function decodeValue(entry: KvEntry): ValueReader {
  let value: unknown;
  try {
    value = JSON.parse(decodeText(entry.value));
  } catch (cause) {
    throw damaged(entry.key, 'is not JSON', cause);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw damaged(entry.key, 'is not a JSON object');
  }
  return new ValueReader(entry.key, value as JsonObject);
}

/** The write id in a value, `undefined` when it has none or cannot be read. */
export function writeIdOf(entry: KvEntry | undefined): string | undefined {
  if (entry === undefined) return undefined;
  try {
    const { w } = JSON.parse(decodeText(entry.value)) as { w?: unknown };
    return typeof w === 'string' ? w : undefined;
  } catch {
    return undefined;
  }
}

/** Typed access to the fields of a value; RECOVERY_FAILED names the key and the field that do not fit. */
export class ValueReader {
  readonly key: string;
  readonly raw: JsonObject;

  constructor(key: string, raw: JsonObject) {
    this.key = key;
    this.raw = raw;
  }

  text(field: string): string {
    const value = this.raw[field];
    if (typeof value !== 'string') throw damaged(this.key, `has no text field "${field}"`);
    return value;
  }

  integer(field: string): number {
    const value = this.raw[field];
    if (!Number.isSafeInteger(value)) throw damaged(this.key, `has no integer field "${field}"`);
    return value as number;
  }

  oneOf<T extends string>(field: string, allowed: readonly T[]): T {
    const value = this.text(field);
    if (!allowed.includes(value as T)) throw damaged(this.key, `has ${field} "${value}"`);
    return value as T;
  }

  object(field: string): ValueReader {
    const value = this.raw[field];
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw damaged(this.key, `has no object field "${field}"`);
    }
    return new ValueReader(`${this.key} (${field})`, value as JsonObject);
  }
}

/**
 * Packs bytes as a field of a value: compressed and inline when that takes at most `maxBytes` of
 * the value, else as a file of the storage whose digest is in the value.
 */
export async function packBytes(
  storage: HaStorage,
  folder: string,
  bytes: Uint8Array,
  maxBytes = maxInlineBytes,
): Promise<JsonObject> {
  const compressed = bytes.length <= maxSyncBytes ? gzipSync(bytes) : await compressAside(bytes);
  const gz = compressed.toString('base64');
  // Leaves room for the fields around it.
  if (gz.length <= maxBytes - 1_024) return { gz, size: bytes.length };
  return { file: await storage.write(folder, bytes), size: bytes.length };
}

/** Reverses packBytes; RECOVERY_FAILED when what was packed is missing, unreadable or changed. */
export async function unpackBytes(storage: HaStorage, packed: ValueReader): Promise<Uint8Array> {
  const size = packed.integer('size');
  const bytes =
    'file' in packed.raw ? await storage.read(packed.text('file')) : await decompress(packed, size);
  if (bytes.length !== size) throw damaged(packed.key, `has ${String(bytes.length)} bytes`);
  return bytes;
}

async function decompress(packed: ValueReader, size: number): Promise<Uint8Array> {
  const gz = Buffer.from(packed.text('gz'), 'base64');
  // A value that lies about its size must not fill the memory.
  const options = { maxOutputLength: Math.max(1, size) };
  try {
    return size <= maxSyncBytes ? gunzipSync(gz, options) : await decompressAside(gz, options);
  } catch (cause) {
    throw damaged(packed.key, 'cannot be decompressed', cause);
  }
}

/** Names of the files that packBytes made for a value. */
export function filesOf(entry: KvEntry): string[] {
  let value: unknown;
  try {
    value = JSON.parse(decodeText(entry.value));
  } catch {
    return [];
  }
  return Object.values((value ?? {}) as Record<string, unknown>).flatMap((part) => {
    const file = (part as { file?: unknown } | null)?.file;
    return typeof file === 'string' ? [file] : [];
  });
}
