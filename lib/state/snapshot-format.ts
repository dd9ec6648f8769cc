/**
 * Snapshot data, format version 1. Little endian.
 *
 *   file:    magic "MRST" u32 | version u16 | kind u16 (1 keyed, 2 operator) | sections...
 *   section: CRC-32 of the payload u32 | payload
 *
 * A keyed file has one section per key group that has state, found by KeyedStateHandle.sections; an
 * operator file has one. The payload of either is an encoded list of `[name, kind, bytes]`, one per state:
 * names a job does not know any more can be carried along without being understood.
 */
import { crc32 } from 'node:zlib';
import { MillraceError } from '../base/errors.js';
import { decodeValue, encodeValue } from '../record/codec/value-codec.js';

const magic = 0x5453524d;
const version = 1;
export const headerBytes = 8;
export const crcBytes = 4;

export const snapshotKind = { keyed: 1, operator: 2 } as const;
export type SnapshotKind = (typeof snapshotKind)[keyof typeof snapshotKind];

/** One named state inside a section. */
export interface StateEntry {
  readonly name: string;
  readonly kind: string;
  readonly bytes: Uint8Array;
}

export interface EncodedSections {
  readonly data: Uint8Array;
  /** Offset and length of each section given, in order. */
  readonly places: readonly { readonly offset: number; readonly length: number }[];
}

export function snapshotHeader(kind: SnapshotKind): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.writeUInt32LE(magic, 0);
  header.writeUInt16LE(version, 4);
  header.writeUInt16LE(kind, 6);
  return header;
}

export function encodeSections(
  kind: SnapshotKind,
  sections: readonly (readonly StateEntry[])[],
): EncodedSections {
  const parts: Uint8Array[] = [snapshotHeader(kind)];
  const places: { offset: number; length: number }[] = [];
  let offset = headerBytes;
  for (const entries of sections) {
    const flat = entries.map((entry) => [entry.name, entry.kind, entry.bytes]);
    const payload = encodeValue(flat, 'snapshot');
    const crc = Buffer.alloc(crcBytes);
    crc.writeUInt32LE(crc32(payload), 0);
    parts.push(crc, payload);
    const length = crcBytes + payload.byteLength;
    places.push({ offset, length });
    offset += length;
  }
  return { data: Buffer.concat(parts), places };
}

/** Throws CHECKPOINT_CORRUPT, or CHECKPOINT_INCOMPATIBLE for a later version. */
export function checkSnapshotHeader(data: Uint8Array, kind: SnapshotKind): void {
  const view = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (view.byteLength < headerBytes || view.readUInt32LE(0) !== magic) {
    throw corrupt('it does not begin as snapshot data does');
  }
  const found = view.readUInt16LE(4);
  if (found !== version) {
    throw new MillraceError(
      'CHECKPOINT_INCOMPATIBLE',
      `state has format version ${found}; this Millrace reads version ${version}`,
    );
  }
  if (view.readUInt16LE(6) !== kind) throw corrupt('it is state of another kind');
}

export function decodeSection(data: Uint8Array, offset: number, length: number): StateEntry[] {
  const isInside = offset >= headerBytes && length > crcBytes && offset + length <= data.byteLength;
  if (!isInside) throw corrupt('a section lies outside the data');
  const section = Buffer.from(data.buffer, data.byteOffset + offset, length);
  const payload = section.subarray(crcBytes);
  if (section.readUInt32LE(0) !== crc32(payload)) throw corrupt('a section has a wrong CRC-32');
  const flat = decodeValue(payload) as [string, string, Uint8Array][];
  return flat.map(([name, kind, bytes]) => ({ name, kind, bytes }));
}

/** The only section of an operator file. */
export function decodeOnlySection(data: Uint8Array): StateEntry[] {
  return decodeSection(data, headerBytes, data.byteLength - headerBytes);
}

function corrupt(reason: string): MillraceError {
  return new MillraceError('CHECKPOINT_CORRUPT', `state data is damaged: ${reason}`);
}
