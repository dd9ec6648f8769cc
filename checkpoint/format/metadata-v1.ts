/**
 * The metadata file of a checkpoint, version 1. Integers are little-endian:
 *
 *   0   8  magic "MILLCKPT"
 *   8   4  version (1)
 *   12  4  reserved (0)
 *   16  8  length of the body in bytes
 *   24  n  body: msgpack of plain maps, as CheckpointMetadata
 *   +0  4  CRC-32 of everything before it
 *   +4  32 SHA-256 of everything before it
 *
 * The file ends there. Paths in the body are relative to the file's directory, so a checkpoint may be
 * moved. Fields a reader does not know are ignored; another meaning needs another version.
 */
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { Packr } from 'msgpackr';
import { MillraceError } from '../../lib/base/errors.js';
import type { CheckpointMetadata } from '../types.js';
import { readMetadataFields } from './metadata-fields.js';

const magic = Buffer.from('MILLCKPT', 'latin1');
const version = 1;
const headerBytes = 24;
const crcBytes = 4;
const shaBytes = 32;

// Plain maps, readable by any msgpack library; copied buffers, so that an inline state does not keep (or send to a
// slot thread) the whole file.
const packr = new Packr({ useRecords: false, mapsAsObjects: true, copyBuffers: true });

export function encodeMetadata(metadata: CheckpointMetadata): Uint8Array {
  const body = packr.pack(metadata);
  const file = Buffer.alloc(headerBytes + body.byteLength + crcBytes + shaBytes);
  magic.copy(file, 0);
  file.writeUInt32LE(version, 8);
  file.writeBigUInt64LE(BigInt(body.byteLength), 16);
  body.copy(file, headerBytes);
  const crcAt = headerBytes + body.byteLength;
  file.writeUInt32LE(crc32(file.subarray(0, crcAt)), crcAt);
  const shaAt = crcAt + crcBytes;
  createHash('sha256').update(file.subarray(0, shaAt)).digest().copy(file, shaAt);
  return file;
}

/** @throws CHECKPOINT_CORRUPT naming `path`, the byte offset and what is wrong there. */
export function decodeMetadata(bytes: Uint8Array, path: string): CheckpointMetadata {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (file.length < headerBytes + crcBytes + shaBytes) {
    throw corrupt(
      path,
      file.length,
      `the file ends after ${String(file.length)} bytes, inside its header`,
    );
  }
  if (!file.subarray(0, 8).equals(magic))
    throw corrupt(path, 0, 'it is no checkpoint metadata file');
  const foundVersion = file.readUInt32LE(8);
  if (foundVersion !== version) {
    throw corrupt(
      path,
      8,
      `its version is ${String(foundVersion)}; this Millrace reads version ${String(version)}`,
    );
  }
  const bodyBytes = Number(file.readBigUInt64LE(16));
  const expected = headerBytes + bodyBytes + crcBytes + shaBytes;
  if (file.length !== expected) {
    const problem =
      file.length < expected ? 'the file is cut off' : 'the file goes on after its end';
    throw corrupt(
      path,
      Math.min(file.length, expected),
      `${problem}: ${String(expected)} bytes expected, ${String(file.length)} found`,
    );
  }
  checkSums(file, path);
  return readMetadataFields(unpack(file, path), (where, problem) =>
    corrupt(path, headerBytes, `${where}: ${problem}`),
  );
}

function checkSums(file: Buffer, path: string): void {
  const shaAt = file.length - shaBytes;
  const crcAt = shaAt - crcBytes;
  if (file.readUInt32LE(crcAt) !== crc32(file.subarray(0, crcAt))) {
    throw corrupt(path, crcAt, 'its CRC-32 does not fit its content');
  }
  const sha = createHash('sha256').update(file.subarray(0, shaAt)).digest();
  if (!sha.equals(file.subarray(shaAt)))
    throw corrupt(path, shaAt, 'its SHA-256 does not fit its content');
}

function unpack(file: Buffer, path: string): unknown {
  try {
    return packr.unpack(file.subarray(headerBytes, file.length - crcBytes - shaBytes));
  } catch (cause) {
    throw corrupt(path, headerBytes, 'its body cannot be decoded', cause);
  }
}

function corrupt(path: string, offset: number, problem: string, cause?: unknown): MillraceError {
  return new MillraceError(
    'CHECKPOINT_CORRUPT',
    `checkpoint metadata ${path} is damaged at byte ${String(offset)}: ${problem}`,
    {
      details: { path, offset },
      ...(cause !== undefined && { cause }),
    },
  );
}
